//! What a handler is told of a connection, from its begin to its end, whoever ends it.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ws_handoff_backend::engine::{Cause, Ended, EngineOptions};

use super::{Bed, Event, said};
use crate::fake::client::{CLOSE, Client, FIN, TEXT, frame, reset};
use crate::fake::program::wait_until;
use crate::fake::{PATIENCE, is_at_end};

#[test]
fn a_handler_is_told_of_each_step_once_and_in_order() {
    let bed = Bed::new(2);
    let by_violation = Ended::ByServer(1002, Cause::Violation);
    let endings: [(Ended, &[u8]); 3] = [
        (Ended::ByClient, &frame(FIN | CLOSE, &4999u16.to_be_bytes())),
        (by_violation, &frame(FIN | 3, b"")),
        (Ended::Lost, b""),
    ];
    for (number, (ended, bytes)) in (0..).zip(endings) {
        let early = [frame(FIN | TEXT, b"one"), frame(TEXT, b"t")].concat();
        let mut client = Client::handed_over(&bed.path, "/chat?room=1", &early);
        client.raw(&frame(FIN, b"wo"));
        assert_eq!(client.receive_text(), "one");
        assert_eq!(client.receive_text(), "two");
        client.raw(bytes);
        if bytes.is_empty() {
            reset(client.stream);
        } else {
            assert_eq!(client.receive().0, FIN | CLOSE);
            assert!(is_at_end(&mut client.stream));
        }
        assert_eq!(bed.event(), (number, Event::Opened("/chat?room=1".to_owned())));
        assert_eq!(bed.event(), (number, said("one")));
        assert_eq!(bed.event(), (number, said("two")));
        assert_eq!(bed.event(), (number, Event::Closed(ended, 0)));
        // What is kept of it goes when its socket does.
        assert_eq!(bed.event(), (number, Event::Dropped));
    }
    wait_until("nobody is left", || bed.engine.connections() == 0);
    assert_eq!(bed.engine.handler().received.load(Ordering::Relaxed), 6);
    assert_eq!(bed.remaining(), [], "and nothing twice");
}

#[test]
fn a_handler_may_close_and_says_nothing_afterwards() {
    let bed = Bed::new(1);
    let mut client = bed.client(0);
    // The third comes with the second, and is not the application's business any more.
    client.raw(&[frame(FIN | TEXT, b"close"), frame(FIN | TEXT, b"deaf")].concat());
    assert_eq!(client.receive_text(), "before");
    assert_eq!(client.receive(), (FIN | CLOSE, b"\x0f\xa0as told".to_vec()));
    client.text("still deaf");
    client.raw(&frame(FIN | CLOSE, &4000u16.to_be_bytes()));
    assert!(is_at_end(&mut client.stream));
    assert_eq!(bed.event(), (0, said("close")));
    assert_eq!(bed.event(), (0, Event::Closed(Ended::ByServer(4000, Cause::Application), 0)));
    assert_eq!(bed.event(), (0, Event::Dropped));

    // At once, whatever the client has sent by then.
    let mut refused = Client::handed_over(&bed.path, "/refused", &frame(FIN | TEXT, b"hello"));
    assert_eq!(refused.receive_text(), "not today");
    assert_eq!(refused.receive_close(), 4003);
    assert_eq!(bed.event(), (1, Event::Opened("/refused".to_owned())));
    assert_eq!(bed.event(), (1, Event::Closed(Ended::ByServer(4003, Cause::Application), 0)));
}

#[test]
fn sweeps_come_where_they_are_asked_for() {
    let options = EngineOptions { sweeps: true, ..EngineOptions::default() };
    let bed = Bed::with(options);
    let mut client = bed.client(0);
    for _ in 0..3 {
        assert_eq!(client.receive_text(), "swept");
        assert_eq!(bed.event(), (0, Event::Swept));
    }
}

#[test]
fn a_drain_closes_everyone_within_its_span_and_who_comes_later() {
    let bed = Bed::new(2);
    let mut clients: Vec<Client> = (0..20).map(|n| bed.client(n)).collect();
    bed.engine.drain(Duration::from_millis(500));
    for client in &mut clients {
        assert_eq!(client.receive_close(), 1001);
    }
    let mut late = Client::handed_over(&bed.path, "/", b"");
    assert_eq!(late.receive_close(), 1001);
    for client in clients.iter_mut().chain([&mut late]) {
        client.raw(&frame(FIN | CLOSE, &1001u16.to_be_bytes()));
        assert!(is_at_end(&mut client.stream));
    }
    drop(clients);
    drop(late);
    wait_until("all are gone", || bed.engine.connections() == 0);
    let closed = Event::Closed(Ended::ByServer(1001, Cause::Drain), 0);
    let events = bed.remaining();
    assert_eq!(events.iter().filter(|(_, event)| *event == closed).count(), 21);
}

#[test]
fn stopping_hangs_up_on_everyone_and_waits_for_it() {
    let bed = Bed::new(2);
    let mut clients: Vec<Client> = (0..10).map(|n| bed.client(n)).collect();
    bed.engine.stop();
    // Nothing was sent after that: all that there is to tell was told before.
    let mut told: Vec<(u64, Event)> = bed.events.try_iter().collect();
    told.sort_by_key(|(number, _)| *number);
    let expected = (0..10).flat_map(|n| [(n, Event::Closed(Ended::Lost, 0)), (n, Event::Dropped)]);
    assert_eq!(told, expected.collect::<Vec<_>>());
    for client in &mut clients {
        assert!(is_at_end(&mut client.stream));
    }
    assert_eq!(bed.engine.connections(), 0);
    let mut late = Client::handed_over(&bed.path, "/", b"");
    assert!(is_at_end(&mut late.stream), "nobody would serve it");
    bed.engine.stop();
}

#[test]
fn the_last_engine_that_is_dropped_hangs_up() {
    let bed = Bed::new(2);
    let mut client = bed.client(0);
    let Bed { engine, events, runtime, .. } = bed;
    drop(engine);
    client.text("another clone is there");
    assert_eq!(client.receive_text(), "another clone is there");
    // It belongs to the task that accepts.
    runtime.shutdown_timeout(PATIENCE);
    assert!(is_at_end(&mut client.stream));
    let told: Vec<(u64, Event)> = events.iter().skip(1).collect();
    assert_eq!(told, [(0, Event::Closed(Ended::Lost, 0)), (0, Event::Dropped)]);
}

/// A handler that panics takes its thread's connections along, and nobody else's: no client is left to wait.
#[test]
fn a_panic_ends_one_thread() {
    let bed = Bed::new(2);
    let mut clients: Vec<Client> = (0..4).map(|n| bed.client(n)).collect();
    clients[0].text("panic");
    assert!(is_at_end(&mut clients[0].stream));
    let ended = 1 + clients[1..]
        .iter_mut()
        .filter_map(|client| {
            // A thread that has ended may have reset it by now.
            let _ = client.stream.write_all(&frame(FIN | TEXT, b"?"));
            client.stream.read(&mut [0; 3]).map_or(Some(()), |len| (len == 0).then_some(()))
        })
        .count();
    assert_eq!(ended, 2, "those of its thread");
    // Whoever came to it before it was over is hung up on, too.
    wait_until("it is over", || bed.engine.connections() == 2);
    for _ in 0..4 {
        let mut client = Client::handed_over(&bed.path, "/", b"");
        client.text("served by the other");
        assert_eq!(client.receive_text(), "served by the other");
    }
}

#[test]
fn an_engine_responds_unless_a_handler_blocks_one_of_its_threads() {
    let bed = Bed::new(2);
    let responds = |within: Duration| {
        bed.runtime.block_on(async { tokio::time::timeout(within, bed.engine.responds()).await })
    };
    assert_eq!(responds(PATIENCE), Ok(true));
    let mut client = bed.client(0);
    let lobby = bed.engine.handler().lobby.lock().expect("not poisoned");
    // To be opened takes the lock.
    let mut waiting = Client::handed_over(&bed.path, "/", b"");
    wait_until("it has come", || bed.engine.connections() == 2);
    assert!(responds(Duration::from_millis(300)).is_err(), "one of two threads is blocked");
    client.text("the other is not");
    assert_eq!(client.receive_text(), "the other is not");
    drop(lobby);
    assert_eq!(responds(PATIENCE), Ok(true));
    waiting.text("nor is it now");
    assert_eq!(waiting.receive_text(), "nor is it now");
    bed.engine.stop();
    assert_eq!(responds(PATIENCE), Ok(false), "nobody is left");
}
