//! Messages of random sizes and fragmentations, in records that end anywhere, in pieces that end anywhere, checked by content.

use std::io::{self, Write};
use std::thread;

use super::{all_are_gone, wss};
use crate::engine_flow::{Script, buffered, hear_echo, hear_room, messages, say, say_in_room};
use crate::fake::PATIENCE;
use crate::fake::client::{CLOSE, Client, FIN, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::random::Random;
use crate::fake::tls::{PROTECTIONS, Tls, Way, state, suites};

/// Goes on to other keys now and then.
struct Updating(Tls, Random);

impl Write for Updating {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        if self.1.once_in(50) {
            self.0.update_keys();
        }
        self.0.write(plain)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Conversations with every protection: by rustls, which updates its keys, and in records of every length.
#[test]
fn an_echo_loses_doubles_and_reorders_nothing() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--workers", "2"]);
    let each = messages() / 12;
    thread::scope(|scope| {
        for n in 0..12 {
            let program = &program;
            scope.spawn(move || {
                let seed = 1000 + n as u64;
                let mut wire = Vec::new();
                Script::new(seed).next().wire(&mut wire);
                let skip = Random::new(seed).below(wire.len());
                let way = Way { early: &wire[..skip], unix: n % 5 == 4, ..Way::default() };
                let suite = suites()[n / 2];
                let client = match n % 2 {
                    0 => way.bring(&program.socket(), "/", suite),
                    _ => way.bring_raw(&program.socket(), "/", &state(PROTECTIONS[n / 2])),
                };
                let writer = client.stream.try_clone();
                scope.spawn(move || {
                    // A kernel before Linux 6.14 would end those.
                    let may_update = !program.log().contains("changes_keys=false");
                    if n % 2 == 0 && suite.tls13().is_some() && may_update {
                        say(Updating(writer, Random::new(seed)), seed, each, skip);
                    } else {
                        say(writer, seed, each, skip);
                    }
                });
                hear_echo(client.stream, seed, each);
            });
        }
    });
    all_are_gone(&program);
    // They are counted behind the round of events in which they came.
    for counter in ["websocket_messages_received_total", "websocket_messages_sent_total"] {
        wait_until(counter, || program.metric(counter) == (12 * each) as f64);
    }
}

/// Members with TLS and without, on both threads: every one gets every message once, each sender's in order.
#[test]
fn a_mixed_room_loses_doubles_and_reorders_nothing() {
    if !is_strict() {
        return;
    }
    const MEMBERS: usize = 4;
    let program = Program::start(&["--app", "broadcast", "--workers", "2", "--max-queue", "512m"]);
    let each = messages() / 20 / MEMBERS;
    let socket = program.socket();
    let plain = [
        Client::connect(program.listen, "/room").stream,
        Client::handed_over(&socket, "/room", b"").stream,
    ];
    let sealed = [
        wss(&program, "/room").stream,
        Way::default().bring_raw(&socket, "/room", &state(PROTECTIONS[4])).stream,
    ];
    wait_until("all are in", || program.metric("websocket_connections_active") == MEMBERS as f64);
    thread::scope(|scope| {
        for (n, stream) in plain.iter().enumerate() {
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            scope.spawn(move || say_in_room(stream, n, each));
            scope.spawn(move || hear_room(buffered(stream), MEMBERS, each));
        }
        for (n, stream) in sealed.into_iter().enumerate() {
            let writer = stream.try_clone();
            scope.spawn(move || say_in_room(writer, 2 + n, each));
            scope.spawn(move || hear_room(stream, MEMBERS, each));
        }
    });
    let sent = (MEMBERS * MEMBERS * each) as f64;
    wait_until("all are counted", || program.metric("websocket_messages_sent_total") == sent);
    assert_eq!(program.metric("websocket_messages_dropped_total"), 0.0);
}

/// Pipelined requests, and then the end of one direction, by a close_notify alone: all that was asked for is answered, and so
/// is the goodbye.
#[test]
fn the_last_messages_before_a_goodbye_are_answered() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--max-message-size", "8m", "--max-queue", "64m"]);
    for (n, suite) in suites().into_iter().enumerate() {
        for ending in [true, false] {
            let way = Way { unix: n % 2 == 0, ..Way::default() };
            let mut client = way.bring(&program.socket(), "/", suite);
            let message = vec![b'x'; 3 << 20];
            client.raw(&frame(FIN | TEXT, &message));
            client.text("last words");
            if ending {
                client.raw(&frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
            }
            client.stream.goodbye();
            assert!(client.receive().1 == message, "{suite:?}");
            assert_eq!(client.receive_text(), "last words");
            if ending {
                assert_eq!(client.receive_close(), 1000);
            }
            assert!(is_at_end(&mut client.stream), "{suite:?}");
        }
    }
    all_are_gone(&program);
}
