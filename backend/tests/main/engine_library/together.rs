//! What has come for groups by the end of a round leaves together: nobody can tell, but by how little it costs.

use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ws_handoff_backend::engine::{Cause, Ended, EngineOptions, Message, SlowReceiver};

use super::{App, Bed, Event, said};
use crate::fake::client::{CLOSE, Client, FIN, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::wait_until;

fn words(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| frame(FIN | TEXT, text.as_bytes())).collect()
}

impl Bed {
    /// Has the thread wait, all others being served already.
    fn hold_up<S: Read + std::io::Write>(&self, number: u64, client: &mut Client<S>) {
        client.text("hold up");
        while self.event() != (number, said("hold up")) {}
    }
}

/// While the thread is held up, much comes: all of it is served in the rounds that follow, and what goes to the group leaves
/// together. Nobody can tell from the order.
#[test]
fn what_leaves_together_keeps_its_order() {
    const EACH: usize = 200;
    let bed = Bed::new(1);
    let mut members: Vec<Client> = (0..5).map(|n| bed.client(n)).collect();
    let mut outsider = bed.client(5);
    for member in &mut members {
        member.raw(&words(&["join", "joined"]));
        assert_eq!(member.receive_text(), "joined");
    }
    let sender = bed.sender_of(&mut members[4]);
    let group = App::group(&bed.engine.handler().lobby);

    bed.hold_up(5, &mut outsider);
    for number in 0..EACH {
        // From outside in turns: to the group, and to one of its members alone.
        group.publish(Message::Text(&format!("task {}", 2 * number))).expect("room");
        sender.send_text(&format!("task {}", 2 * number + 1)).expect("sent");
    }
    for (who, member) in members.iter_mut().enumerate() {
        let messages = (0..EACH).flat_map(|number| {
            let published = format!("publish {who} {number}");
            let echoed = format!("echo {number}");
            [frame(FIN | TEXT, published.as_bytes()), frame(FIN | TEXT, echoed.as_bytes())]
        });
        member.raw(&messages.collect::<Vec<_>>().concat());
    }
    bed.engine.handler().go_on();

    // What all get, in the same order; and each, in between, what is for it alone.
    let mut common: Option<Vec<String>> = None;
    for (who, member) in members.iter_mut().enumerate() {
        let mut published = Vec::new();
        let (mut own, mut echoed, mut task) = (0, 0, 0);
        let alone = if who == 4 { EACH } else { 0 };
        for _ in 0..EACH * (5 + 1 + 1) + alone {
            let text = member.receive_text();
            let (kind, rest) = text.split_once(' ').expect("two words");
            match kind {
                "echo" => {
                    assert_eq!(rest, echoed.to_string());
                    assert_eq!(
                        own,
                        echoed + 1,
                        "its own publication came first, and the next did not"
                    );
                    echoed += 1;
                    continue;
                }
                "task" => {
                    assert_eq!(rest, task.to_string(), "client {who}");
                    task += if who == 4 { 1 } else { 2 };
                    if rest.parse::<usize>().expect("a number") % 2 == 1 {
                        continue;
                    }
                }
                publisher => own += usize::from(publisher == who.to_string()),
            }
            published.push(text);
        }
        assert_eq!(published.len(), EACH * 6);
        for publisher in 0..5 {
            let prefix = format!("{publisher} ");
            let of_one = published.iter().filter_map(|text| text.strip_prefix(&prefix));
            assert!(of_one.eq((0..EACH).map(|number| number.to_string())), "client {who}");
        }
        let common = common.get_or_insert_with(|| published.clone());
        assert!(*common == published, "client {who} sees another order than client 0");
    }
}

/// Whoever leaves has got what was sent before, and whoever joins does not.
#[test]
fn who_joins_and_who_leaves_in_between_gets_what_is_due() {
    let bed = Bed::new(1);
    let mut members: Vec<Client> = (0..3).map(|n| bed.client(n)).collect();
    let mut outsider = bed.client(3);
    for member in &mut members[..2] {
        member.raw(&words(&["join", "joined"]));
        assert_eq!(member.receive_text(), "joined");
    }
    bed.hold_up(3, &mut outsider);
    // In this order, since all are ready when the thread goes on, which takes them as they came.
    members[0].raw(&words(&["publish one"]));
    members[1].raw(&words(&["leave", "left"]));
    members[2].raw(&words(&["join", "joined"]));
    outsider.text("publish two");
    bed.engine.handler().go_on();
    for text in ["one", "two"] {
        assert_eq!(members[0].receive_text(), text);
    }
    for text in ["one", "left"] {
        assert_eq!(members[1].receive_text(), text);
    }
    for text in ["joined", "two"] {
        assert_eq!(members[2].receive_text(), text);
    }
    for member in &mut members {
        member.text("the end");
        assert_eq!(member.receive_text(), "the end");
    }
}

#[test]
fn messages_to_several_groups_come_in_the_order_in_which_they_were_sent() {
    let bed = Bed::new(1);
    let mut members: Vec<Client> = (0..3).map(|n| bed.client(n)).collect();
    for member in &mut members[..2] {
        // In either order, which the connection's list is not to show.
        member.raw(&words(&["join annex", "join", "leave annex", "join annex", "joined"]));
        assert_eq!(member.receive_text(), "joined");
    }
    let handler = bed.engine.handler();
    let (lobby, annex) = (App::group(&handler.lobby), App::group(&handler.annex));
    members[0].text("both");
    for member in &mut members[..2] {
        for text in ["1", "2", "3"] {
            assert_eq!(member.receive_text(), text);
        }
    }
    // From a task; and one of the members has a turn before the round is over.
    let (member, others) = members.split_first_mut().expect("members");
    bed.hold_up(2, &mut others[1]);
    for (group, text) in [(&annex, "1"), (&lobby, "2"), (&annex, "3"), (&lobby, "4")] {
        group.publish(Message::Text(text)).expect("room");
    }
    member.raw(&words(&["both", "echo"]));
    handler.go_on();
    let heard = |client: &mut Client, count| -> Vec<String> {
        (0..count).map(|_| client.receive_text()).collect()
    };
    // Turns come before what tasks have posted.
    assert_eq!(heard(&mut others[0], 7), ["1", "2", "3", "1", "2", "3", "4"]);
    assert_eq!(heard(member, 8), ["1", "2", "3", "echo", "1", "2", "3", "4"]);
}

#[test]
fn what_was_sent_before_a_stop_arrives() {
    let bed = Bed::new(1);
    let mut member = bed.client(0);
    let mut other = bed.client(1);
    member.raw(&words(&["join", "joined"]));
    assert_eq!(member.receive_text(), "joined");
    let sender = bed.sender_of(&mut other);
    bed.hold_up(1, &mut other);
    App::group(&bed.engine.handler().lobby).publish(Message::Text("farewell")).expect("room");
    sender.send_text("farewell").expect("room");
    let engine = bed.engine.clone();
    let stopping = thread::spawn(move || engine.stop());
    // What came before the stop arrives in any case; this lets all three be there when the thread goes on.
    thread::sleep(Duration::from_millis(100));
    bed.engine.handler().go_on();
    stopping.join().expect("no panic");
    for client in [&mut member, &mut other] {
        assert_eq!(client.receive_text(), "farewell");
    }
    assert!(is_at_end(&mut member.stream));
}

/// Members who do not read, at what a client may keep waiting.
fn limited(max_queue: usize, slow_receiver: SlowReceiver, sweeps: bool) -> Bed {
    let threads = NonZeroUsize::new(1);
    let options = EngineOptions::default();
    Bed::with(EngineOptions { threads, max_queue, slow_receiver, sweeps, ..options })
}

/// A member whose socket is full, and for which a little waits.
fn brimful(bed: &Bed, number: u64, other: &mut Client) -> Client<UnixStream> {
    let mut slow = Client::over_unix(&bed.path, "/");
    slow.text("join");
    while bed.event() != (number, said("join")) {}
    let group = App::group(&bed.engine.handler().lobby);
    loop {
        slow.text("queued");
        while bed.event() != (number, said("queued")) {}
        match bed.event() {
            (_, Event::Said(text)) if text == "0 wait" => (),
            (_, Event::Said(_)) => return slow,
            event => panic!("{event:?}"),
        }
        group.publish(Message::Binary(&[7; 9000])).expect("room");
        // The thread has sent it once it serves the next.
        other.text("next");
        assert_eq!(other.receive_text(), "next");
        while bed.event().1 != said("next") {}
    }
}

/// All frames up to the end: how many small ones, and whether the last is a close.
fn drained(mut slow: Client<UnixStream>) -> (usize, usize, Option<u16>) {
    let (mut small, mut bytes) = (0, 0);
    loop {
        let (first, payload) = slow.receive();
        if first == FIN | CLOSE {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            assert!(is_at_end(&mut slow.stream));
            return (small, bytes, code);
        }
        if payload == b"the end" {
            return (small, bytes, None);
        }
        if payload.len() < 9000 {
            small += 1;
            bytes += payload.len();
        }
    }
}

#[test]
fn a_member_at_its_limit_misses_messages_and_no_more() {
    let closing = frame(FIN | CLOSE, &1000_u16.to_be_bytes());
    for (last, code) in [(words(&["the end"]), None), (closing, Some(1000))] {
        let bed = limited(20_000, SlowReceiver::Drop, false);
        let (mut speaker, mut outsider) = (bed.client(0), bed.client(1));
        let mut slow = brimful(&bed, 2, &mut speaker);
        let before = bed.engine.handler().dropped.load(Ordering::Relaxed);
        bed.hold_up(1, &mut outsider);
        speaker.raw(&words(&["publish x"; 240]));
        // Its turn comes behind the publisher's, in the same round.
        slow.raw(&last);
        bed.engine.handler().go_on();
        speaker.text("all said");
        assert_eq!(speaker.receive_text(), "all said");
        let (small, _, ended) = drained(slow);
        assert_eq!(ended, code);
        wait_until("each came or was dropped", || {
            let dropped = bed.engine.handler().dropped.load(Ordering::Relaxed) - before;
            small as u64 + dropped == 240
        });
        assert!(small > 0, "there was room for some");
    }
}

#[test]
fn no_more_waits_for_a_member_that_has_a_turn_than_for_others() {
    const CAP: usize = 10_000;
    for has_turn in [false, true] {
        let bed = limited(CAP, SlowReceiver::Drop, false);
        let (mut speaker, mut outsider) = (bed.client(0), bed.client(1));
        let mut slow = brimful(&bed, 2, &mut speaker);
        bed.hold_up(1, &mut outsider);
        let word = format!("publish {}", "y".repeat(240));
        speaker.raw(&words(&vec![word.as_str(); 120]));
        if has_turn {
            slow.text("queued");
        }
        bed.engine.handler().go_on();
        speaker.text("all said");
        assert_eq!(speaker.receive_text(), "all said");
        wait_until("the rest was dropped", || {
            bed.engine.handler().dropped.load(Ordering::Relaxed) > 60
        });
        slow.text("the end");
        let (_, bytes, _) = drained(slow);
        assert!(bytes <= CAP, "{bytes} bytes");
    }
}

/// It is closed for what waits for its group when it is swept, whose handler would have it join once more.
#[test]
fn who_is_closed_while_it_catches_up_is_not_swept_any_more() {
    let bed = limited(100_000, SlowReceiver::Close(1008), true);
    let mut speaker = bed.client(0);
    speaker.text("sweep 60000");
    let mut slow = Client::over_unix(&bed.path, "/");
    slow.raw(&words(&["join", "sweep join"]));
    let ended = Ended::ByServer(1008, Cause::Queue);
    while bed.event() != (1, Event::Closed(ended, 0)) {}
    // It has some seconds to answer, in which it could be swept.
    let mut swept = 0;
    while swept < 8 {
        match bed.event() {
            (0, Event::Swept) => swept += 1,
            (1, Event::Swept) => panic!("swept after it was closed"),
            _ => (),
        }
    }
    drop((slow, speaker));
    wait_until("all are gone", || bed.engine.connections() == 0);
    assert!(App::group(&bed.engine.handler().lobby).is_empty());
}
