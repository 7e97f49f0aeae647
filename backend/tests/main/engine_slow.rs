//! Clients that do not read, that flood, or that close one direction: what they cost, and what others notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fake::PATIENCE;
use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::program::{Program, is_strict, wait_until};

/// Writes messages until the program has taken none for a while: it has stopped reading.
fn stuff(stream: &mut UnixStream, message: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let mut written = 0;
    loop {
        match stream.write(&message[written % message.len()..]) {
            Ok(len) => written += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("after {written} bytes: {error}"),
        }
    }
}

#[test]
fn an_echo_stops_reading_from_who_does_not_read() {
    const CLIENTS: usize = 40;
    const MESSAGE: usize = 16 << 10;
    let program = Program::start(&["--workers", "1"]);
    let mut other = Client::connect(program.listen, "/");
    other.text("here");
    assert_eq!(other.receive_text(), "here");
    let before = program.memory();
    let mut deaf: Vec<Client<UnixStream>> =
        (0..CLIENTS).map(|_| Client::over_unix(&program.socket(), "/")).collect();
    let message = frame(FIN | BINARY, &[7; MESSAGE]);
    let stuffed: Vec<usize> = thread::scope(|scope| {
        let stuffing: Vec<_> = deaf
            .iter_mut()
            .map(|client| scope.spawn(|| stuff(&mut client.stream, &message)))
            .collect();
        stuffing.into_iter().map(|thread| thread.join().expect("stuff")).collect()
    });
    // What waits before reading stops, a turn's answers more, and a message in the middle.
    let most = CLIENTS * ((64 << 10) + (64 << 10) + 2 * MESSAGE) + (8 << 20);
    let grown = program.memory().saturating_sub(before);
    assert!(grown < most, "{grown} bytes for {CLIENTS} clients");
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let begin = Instant::now();
        other.text(&n.to_string());
        assert_eq!(other.receive_text(), n.to_string());
        longest = longest.max(begin.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "others wait {longest:?}");

    // Nothing of it is lost: whoever reads at last gets all.
    for (client, written) in deaf.iter_mut().zip(stuffed) {
        for _ in 0..written / message.len() {
            assert!(client.receive() == (FIN | BINARY, vec![7; MESSAGE]));
        }
        client.stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let sent = written % message.len();
        client.raw(&message[sent..]);
        assert!(client.receive().1 == [7; MESSAGE]);
        client.text("and on");
        assert_eq!(client.receive_text(), "and on");
    }
    assert_eq!(program.metric("websocket_limited_total{limit=\"queue\"}"), 0.0);
}

/// A room with a member who talks and reads, and some who do not read.
struct Room {
    program: Program,
    quick: Client,
    deaf: Vec<Client<UnixStream>>,
}

const CAP: usize = 256 << 10;
const SIZE: usize = 8 << 10;

impl Room {
    fn new(deaf: usize, arguments: &[&str]) -> Room {
        let room = ["--app", "broadcast", "--workers", "2", "--max-queue", "256k"];
        let program = Program::start(&[&room, arguments].concat());
        let deaf: Vec<Client<UnixStream>> =
            (0..deaf).map(|_| Client::over_unix(&program.socket(), "/")).collect();
        let quick = Client::connect(program.listen, "/");
        let all = (deaf.len() + 1) as f64;
        wait_until("all are in", || program.metric("websocket_connections_active") == all);
        Room { program, quick, deaf }
    }

    /// Says something that begins with a number, and hears it.
    fn say(&mut self, number: usize) {
        let mut message = vec![0; SIZE];
        message[..8].copy_from_slice(&number.to_be_bytes());
        self.quick.raw(&frame(FIN | BINARY, &message));
        let begin = Instant::now();
        assert_eq!(number_in(&self.quick.receive().1), number);
        assert!(begin.elapsed() < Duration::from_secs(2), "held up for {:?}", begin.elapsed());
    }

    fn limited(&self) -> f64 {
        self.program.metric("websocket_limited_total{limit=\"queue\"}")
    }
}

fn number_in(payload: &[u8]) -> usize {
    usize::from_be_bytes(payload[..8].try_into().expect("a number"))
}

/// The policy and the queue's size in bytes are the parked engine's: the other refuses the option.
#[test]
fn slow_receivers_are_closed_with_the_code_that_was_asked_for() {
    if !is_strict() {
        return;
    }
    for code in ["1008", "1013"] {
        const DEAF: usize = 8;
        let mut room = Room::new(DEAF, &["--slow-receiver", code]);
        let before = room.program.memory();
        let mut said = 0;
        while room.limited() < DEAF as f64 {
            for _ in 0..20 {
                room.say(said);
                said += 1;
            }
            let grown = room.program.memory().saturating_sub(before);
            assert!(grown < DEAF * (CAP + SIZE) + (8 << 20), "{grown} bytes");
            assert!(said * SIZE < 64 << 20, "more than any socket holds");
        }
        assert_eq!(room.limited(), DEAF as f64);
        let closed = room.program.metric(&format!("websocket_closed_total{{by=\"{code}\"}}"));
        assert_eq!(closed, DEAF as f64);
        assert_eq!(room.program.metric("websocket_slow_receivers_total"), DEAF as f64);
        assert_eq!(room.program.metric("websocket_messages_dropped_total"), 0.0);
        // What they got is whole and in order; then comes the close.
        for slow in &mut room.deaf {
            let mut next = 0;
            let last = loop {
                match slow.receive() {
                    (first, payload) if first == FIN | BINARY => {
                        assert_eq!((number_in(&payload), payload.len()), (next, SIZE));
                        next += 1;
                    }
                    last => break last,
                }
            };
            assert_eq!(last.0, FIN | CLOSE);
            assert_eq!(last.1[..2], code.parse::<u16>().expect("a code").to_be_bytes());
            assert!(next < said, "what waited was dropped");
        }
        room.say(said);
    }
}

#[test]
fn slow_receivers_miss_messages_where_that_was_asked_for() {
    if !is_strict() {
        return;
    }
    let mut room = Room::new(3, &["--slow-receiver", "drop"]);
    let before = room.program.memory();
    let dropped = |room: &Room| room.program.metric("websocket_messages_dropped_total");
    let mut said = 0;
    while dropped(&room) < 300.0 {
        for _ in 0..20 {
            room.say(said);
            said += 1;
        }
        assert!(said * SIZE < 64 << 20, "more than any socket holds");
    }
    let grown = room.program.memory().saturating_sub(before);
    assert!(grown < 3 * (CAP + SIZE) + (8 << 20), "{grown} bytes");
    // Not all are on the thread of who speaks.
    wait_until("each member was sent each message, or was not", || {
        let sent = room.program.metric("websocket_messages_sent_total");
        sent + dropped(&room) == (said * 4) as f64
    });
    // Its own are meant for it, too, as a member of the room.
    let mut missed = 0;
    let all = said;
    for slow in &mut room.deaf {
        slow.raw(&frame(FIN | PING, b"now"));
        let mut last = None;
        let mut heard = 0;
        loop {
            let (first, payload) = slow.receive();
            if first == FIN | PONG {
                break;
            }
            let number = number_in(&payload);
            assert!(last.is_none_or(|last| last < number), "in order");
            assert_eq!(payload.len(), SIZE, "whole");
            last = Some(number);
            heard += 1;
        }
        missed += all - heard;
    }
    assert_eq!(dropped(&room), missed as f64, "each is counted");
    assert_eq!(room.limited(), 0.0);
    assert_eq!(room.program.metric("websocket_closed_total{by=\"1008\"}"), 0.0);
    // Now that they read, they miss nothing any more.
    room.say(said);
    for slow in &mut room.deaf {
        assert_eq!(number_in(&slow.receive().1), said);
    }
}

/// Ends the flood, also where the test fails: its threads would go on.
struct Dam<'s>(&'s TcpStream);

impl Drop for Dam<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Frames that need no answer, so that nothing holds the flood back; small ones, which keep a thread busiest: ten thousand of
/// them in 64 KiB. Now and then a message, to be counted.
#[test]
fn a_flood_does_not_starve_the_neighbours() {
    let program = Program::start(&["--workers", "1"]);
    let mut neighbours: Vec<Client> =
        (0..3).map(|_| Client::connect(program.listen, "/")).collect();
    let flooding = Client::connect(program.listen, "/").stream;
    let longest = thread::scope(|scope| {
        scope.spawn(|| {
            let pongs = frame(FIN | PONG, b"").repeat(1000);
            let wire = [pongs, frame(FIN | TEXT, b"")].concat().repeat(20);
            while (&flooding).write_all(&wire).is_ok() {}
        });
        scope.spawn(|| {
            let mut sink = vec![0; 1 << 20];
            while (&flooding).read(&mut sink).is_ok_and(|len| len > 0) {}
        });
        let _dam = Dam(&flooding);
        wait_until("the flood is on", || {
            program.metric("websocket_messages_received_total") > 200.0
        });
        let before = program.metric("websocket_messages_received_total");
        let mut longest = Duration::ZERO;
        for n in 0..20 {
            for neighbour in &mut neighbours {
                let begin = Instant::now();
                neighbour.text(&n.to_string());
                let answer = neighbour.receive_text();
                longest = longest.max(begin.elapsed());
                assert_eq!(answer, n.to_string());
            }
        }
        let meanwhile = program.metric("websocket_messages_received_total") - before;
        assert!(meanwhile > 20.0, "the flood went on: {meanwhile} messages");
        longest
    });
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

/// Only this direction is at its end: what the client has asked for is still to be sent, however much of it waits.
#[test]
fn a_client_that_sends_no_more_gets_all_that_is_for_it() {
    if !is_strict() {
        // The other engine ends with the client's end of file.
        return;
    }
    let program = Program::start(&["--max-queue", "64m", "--max-message-size", "8m"]);
    let message = frame(FIN | BINARY, &vec![5; 8 << 20]);
    let close = frame(FIN | CLOSE, &1000u16.to_be_bytes());
    for ending in [Some(&close), None] {
        let mut client = Client::over_unix(&program.socket(), "/");
        client.raw(&message);
        if let Some(close) = ending {
            client.raw(close);
        }
        client.stream.shutdown(Shutdown::Write).expect("shutdown");
        let (first, payload) = client.receive();
        assert_eq!((first, payload.len()), (FIN | BINARY, 8 << 20));
        if ending.is_some() {
            assert_eq!(client.receive_close(), 1000);
        }
        assert!(crate::fake::is_at_end(&mut client.stream));
    }
    wait_until("both are gone", || program.metric("websocket_connections_active") == 0.0);
    assert_eq!(program.metric("websocket_closed_total{by=\"client\"}"), 1.0);
    assert_eq!(program.metric("websocket_closed_total{by=\"lost\"}"), 1.0);
}

/// The time to answer a close begins when the close is out: a message that takes longer to arrive is not cut off.
#[test]
fn a_close_waits_for_what_is_before_it() {
    if !is_strict() {
        // The other engine gives a client five seconds in all.
        return;
    }
    let program = Program::start(&["--max-message-size", "8m", "--drain-timeout", "60"]);
    let mut client = Client::over_unix(&program.socket(), "/");
    let len = 4 << 20;
    client.raw(&frame(FIN | BINARY, &vec![5; len]));
    wait_until("it is there", || program.metric("websocket_messages_received_total") == 1.0);
    program.signal(Signal::SIGTERM);
    let (mut left, begin) = (len + 10, Instant::now());
    let mut piece = vec![0; len / 14];
    while left > 0 {
        // A slow reader is what this is about: one that takes longer in all than it has for answering a close.
        thread::sleep(Duration::from_millis(500));
        let wanted = piece.len().min(left);
        client.stream.read_exact(&mut piece[..wanted]).expect("the next piece");
        left -= wanted;
    }
    assert!(begin.elapsed() > Duration::from_secs(7));
    assert_eq!(client.receive_close(), 1001);
}
