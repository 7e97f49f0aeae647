//! To one connection from anywhere, and to groups: what arrives where, and in which order.

use std::num::NonZeroUsize;
use std::thread;

use ws_handoff_backend::engine::{Cause, Ended, EngineOptions, Message, Prepared, SlowReceiver};

use super::{Bed, Event, said};
use crate::fake::client::{BINARY, CLOSE, Client, FIN, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::wait_until;

#[test]
fn a_sender_sends_from_any_thread_and_task() {
    let bed = Bed::new(2);
    let mut client = bed.client(0);
    let sender = bed.sender_of(&mut client);
    assert!(sender == bed.sender_of(&mut client), "to the same connection");
    let other = bed.sender_of(&mut Client::handed_over(&bed.path, "/", b""));
    assert!(sender != other);
    let from_thread = sender.clone();
    let thread = thread::spawn(move || {
        (0..1000).for_each(|n| from_thread.send_text(&format!("thread {n}")).expect("sent"));
    });
    let from_task = sender.clone();
    let task = bed.runtime.spawn(async move {
        for n in 0..1000 {
            from_task
                .send_prepared(&Prepared::new(Message::Text(&format!("task {n}"))))
                .expect("sent");
            tokio::task::yield_now().await;
        }
    });
    let (mut threads, mut tasks) = (0, 0);
    for _ in 0..2000 {
        let text = client.receive_text();
        let (who, next) = match text.split_once(' ') {
            Some(("thread", _)) => ("thread", &mut threads),
            _ => ("task", &mut tasks),
        };
        assert_eq!(text, format!("{who} {next}"));
        *next += 1;
    }
    thread.join().expect("thread");
    bed.runtime.block_on(task).expect("task");

    sender.send(Message::Binary(b"last")).expect("sent");
    sender.close(4001, "enough");
    sender.send_text("too late").expect("dropped, which is no error");
    assert_eq!(client.receive(), (FIN | BINARY, b"last".to_vec()));
    assert_eq!(client.receive(), (FIN | CLOSE, b"\x0f\xa1enough".to_vec()));
    client.raw(&frame(FIN | CLOSE, &4001u16.to_be_bytes()));
    assert!(is_at_end(&mut client.stream));
    wait_until("it is gone", || bed.engine.connections() <= 1);

    // Another may have its place by now, and hears nothing of it.
    let mut next = Client::handed_over(&bed.path, "/", b"");
    next.text("here");
    assert_eq!(next.receive_text(), "here");
    sender.send_text("for the one before").expect("dropped");
    sender.close(4002, "for the one before");
    next.text("still here");
    assert_eq!(next.receive_text(), "still here");
}

#[test]
fn a_member_hears_its_own_publications_in_the_order_of_what_is_sent_to_it() {
    for threads in [1, 3] {
        let bed = Bed::new(threads);
        let mut members: Vec<Client> = (0..4).map(|n| bed.client(n)).collect();
        for member in &mut members {
            member.raw(&[frame(FIN | TEXT, b"join"), frame(FIN | TEXT, b"joined")].concat());
            assert_eq!(member.receive_text(), "joined");
        }
        members[0].raw(&[frame(FIN | TEXT, b"order"), frame(FIN | TEXT, b"order")].concat());
        for text in ["1", "2", "3", "4", "1", "2", "3", "4"] {
            assert_eq!(members[0].receive_text(), text);
        }
        for member in &mut members[1..] {
            for text in ["2", "4", "2", "4"] {
                assert_eq!(member.receive_text(), text);
            }
        }
    }
}

#[test]
fn a_group_has_who_joined_and_has_not_left() {
    let bed = Bed::new(2);
    let mut members: Vec<Client> = (0..3).map(|n| bed.client(n)).collect();
    let group = bed.engine.handler().lobby.lock().expect("not poisoned").clone().expect("a group");
    assert!(group.is_empty() && bed.engine.new_group().is_empty());
    for member in &mut members {
        // Twice is once.
        for text in ["join", "join", "joined"] {
            member.text(text);
        }
        assert_eq!(member.receive_text(), "joined");
    }
    assert_eq!(group.len(), 3);
    // From outside, to all of them, encoded once.
    group.publish(Message::Text("to all")).expect("room");
    group.publish_prepared(&Prepared::new(Message::Binary(b"bytes"))).expect("room");
    for member in &mut members {
        assert_eq!(member.receive_text(), "to all");
        assert_eq!(member.receive(), (FIN | BINARY, b"bytes".to_vec()));
    }
    let left = [frame(FIN | TEXT, b"leave"), frame(FIN | TEXT, b"publish I have left")].concat();
    members[0].raw(&left);
    members[0].text("echo");
    assert_eq!(members[0].receive_text(), "echo", "and is told nothing");
    assert_eq!(group.len(), 2);
    for member in &mut members[1..] {
        assert_eq!(member.receive_text(), "I have left", "anyone may publish");
    }
    while bed.event() != (0, said("echo")) {}
    // Whoever closes has left before the application is told.
    members.pop().expect("a member").close();
    assert_eq!(bed.event(), (2, Event::Closed(Ended::ByClient, 1)));
    assert_eq!(group.len(), 1);
    group.publish(Message::Text("to the last")).expect("room");
    assert_eq!(members[1].receive_text(), "to the last");
    drop(members.pop());
    wait_until("the last has left", || group.is_empty());
    group.publish(Message::Text("to nobody")).expect("room");
}

#[test]
fn what_is_prepared_is_the_same_for_everyone() {
    let bed = Bed::new(1);
    let mut client = bed.client(0);
    client.text("prepared größer");
    assert_eq!(client.receive_text(), "größer");
    assert_eq!(client.receive_text(), "größer");
    let large = Prepared::new(Message::Binary(&[3; 70_000]));
    assert_eq!(large.payload_len(), 70_000);
    bed.sender_of(&mut client).send_prepared(&large).expect("sent");
    assert!(client.receive() == (FIN | BINARY, vec![3; 70_000]));
}

#[test]
fn a_handler_sees_what_waits_for_its_client() {
    let bed = Bed::new(1);
    let mut client = Client::over_unix(&bed.path, "/");
    assert_eq!(bed.event(), (0, Event::Opened("/".to_owned())));
    let sender = bed.sender_of(&mut client);
    assert_eq!(bed.event(), (0, said("sender")));
    let mut sent = 0;
    let waiting = loop {
        client.text("queued");
        assert_eq!(bed.event(), (0, said("queued")));
        match bed.event() {
            (0, Event::Said(text)) if text == "0 wait" => (),
            (0, Event::Said(text)) => break text,
            other => panic!("{other:?}"),
        }
        assert!(sent < 1000, "a socket of such a size");
        sender.send(Message::Binary(&[9; 10_000])).expect("room");
        sent += 1;
        // The thread has it once it serves the next.
        let other = Client::handed_over(&bed.path, "/", b"");
        assert!(matches!(bed.event(), (_, Event::Opened(_))));
        other.close();
        while !matches!(bed.event(), (_, Event::Dropped)) {}
    };
    let bytes: usize = waiting.strip_suffix(" wait").expect("wait").parse().expect("a number");
    assert!(bytes > 0 && bytes < 10_000 + 200, "{bytes}");
    for _ in 0..sent {
        assert!(client.receive() == (FIN | BINARY, vec![9; 10_000]));
    }
    client.text("queued");
    assert_eq!(bed.event(), (0, said("queued")));
    assert_eq!(bed.event(), (0, said("0 wait")));
}

/// What a group's slow members miss is one among many; what is for one alone is not dropped without a word.
#[test]
fn what_is_for_a_slow_receiver_alone_closes_it_though_groups_may_drop() {
    let bed = Bed::with(EngineOptions {
        threads: NonZeroUsize::new(1),
        slow_receiver: SlowReceiver::Drop,
        max_queue: 64 << 10,
        ..EngineOptions::default()
    });
    let mut client = Client::over_unix(&bed.path, "/");
    assert_eq!(bed.event(), (0, Event::Opened("/".to_owned())));
    client.text("join");
    let sender = bed.sender_of(&mut client);
    assert_eq!((bed.event(), bed.event()), ((0, said("join")), (0, said("sender"))));
    let large = Prepared::new(Message::Binary(&[7; 10_000]));
    let group = bed.engine.handler().lobby.lock().expect("not poisoned").clone().expect("a group");
    // More than the socket and the queue hold.
    (0..100).for_each(|n| group.publish(Message::Binary(&[n; 10_000])).expect("room"));
    // The thread takes what was posted before it sees what came after: the second answer comes behind all of it.
    let mut other = Client::handed_over(&bed.path, "/", b"");
    for text in ["once", "twice"] {
        other.text(text);
        assert_eq!(other.receive_text(), text);
    }
    let told: Vec<_> = bed.events.try_iter().collect();
    assert_eq!(told.iter().filter(|(number, _)| *number == 0).count(), 0, "served: {told:?}");
    sender.send_prepared(&large).expect("taken");
    let ended = Ended::ByServer(1008, Cause::Queue);
    assert_eq!(bed.event(), (0, Event::Closed(ended, 0)));
    let mut heard = 0;
    let last = loop {
        match client.receive() {
            (first, payload) if first == FIN | BINARY => {
                assert!(payload == [heard; 10_000], "whole, and one after the other");
                heard += 1;
            }
            last => break last,
        }
    };
    assert_eq!((last.0, &last.1[..2]), (FIN | CLOSE, &1008u16.to_be_bytes()[..]));
    assert!(heard < 100, "{heard}");
}
