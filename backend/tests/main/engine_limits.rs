//! Pings, idleness, rates, sizes, numbers, and the drain: when each happens, what the client sees, and what is counted.

use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, PONG, TEXT, frame};
use crate::fake::nginx::{Nginx, request};
use crate::fake::program::{Program, fails, is_strict, wait_until};
use crate::fake::{is_at_end, status};

fn limited(program: &Program, limit: &str) -> f64 {
    program.metric(&format!("websocket_limited_total{{limit=\"{limit}\"}}"))
}

#[test]
fn the_other_engine_refuses_what_it_does_not_have() {
    for (option, value) in [("--max-message-rate", "5"), ("--slow-receiver", "drop")] {
        let said = fails(&["--engine", "tasks", option, value, "--listen", "127.0.0.1:0"]);
        assert!(said.contains(&format!("{option} needs --engine parked")), "{said}");
    }
}

#[test]
fn a_silent_client_is_pinged_once_an_interval() {
    let program = Program::start(&["--ping-interval", "1", "--idle-timeout", "0"]);
    let mut client = Client::handed_over(&program.socket(), "/", b"");
    let mut since = Instant::now();
    for _ in 0..4 {
        assert_eq!(client.receive().0, FIN | PING);
        let waited = since.elapsed();
        // A quarter late by design, tenths of a second are what is counted, and the machine may be busy.
        assert!(waited > Duration::from_millis(800), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        since = Instant::now();
    }
}

#[test]
fn who_talks_is_not_pinged() {
    let program = Program::start(&["--ping-interval", "2", "--idle-timeout", "0"]);
    let mut client = Client::connect(program.listen, "/");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        // Anything is a sign of life; and a frame's answer is next, no ping.
        thread::sleep(Duration::from_millis(100));
        client.text("x");
        assert_eq!(client.receive_text(), "x");
    }
    assert_eq!(client.receive().0, FIN | PING, "and then it is");
}

#[test]
fn who_does_not_answer_is_closed_with_1001_and_who_does_is_kept() {
    let program = Program::start(&["--ping-interval", "1", "--idle-timeout", "3"]);
    let mut silent = Client::handed_over(&program.socket(), "/", b"");
    let mut alive = Client::connect(program.listen, "/");
    let begin = Instant::now();
    let answering = thread::spawn(move || {
        while begin.elapsed() < Duration::from_secs(7) {
            let (first, payload) = alive.receive();
            assert_eq!(first, FIN | PING, "kept");
            alive.raw(&frame(FIN | PONG, &payload));
        }
        alive.text("still here");
        let mut answers = std::iter::repeat_with(|| alive.receive());
        assert!(answers.any(|answer| answer == (FIN | TEXT, b"still here".to_vec())));
    });
    let last = std::iter::repeat_with(|| silent.receive()).find(|(first, _)| *first != FIN | PING);
    let waited = begin.elapsed();
    assert_eq!(last, Some((FIN | CLOSE, b"\x03\xe9idle".to_vec())));
    assert!(waited > Duration::from_millis(2800) && waited < Duration::from_secs(7), "{waited:?}");
    answering.join().expect("answering");
    if is_strict() {
        // The other engine counts what it closes with 1001 as such only.
        assert_eq!(limited(&program, "idle"), 1.0);
    }
    // It does not answer the close either.
    assert!(is_at_end(&mut silent.stream));
    wait_until("one is left at most", || program.metric("websocket_connections_active") <= 1.0);
}

#[test]
fn messages_past_the_rate_close_with_1008() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--max-message-rate", "20"]);
    let mut client = Client::connect(program.listen, "/");
    // As a burst, of which only whole messages count.
    let burst: Vec<u8> = (0..20)
        .flat_map(|n| [frame(BINARY, &[n]), frame(FIN | PING, b""), frame(FIN, b"")].concat())
        .collect();
    client.raw(&burst);
    for n in 0..20 {
        assert_eq!(client.receive().0, FIN | PONG);
        assert_eq!(client.receive(), (FIN | BINARY, vec![n]));
    }
    let mut hasty = Client::connect(program.listen, "/");
    hasty.raw(&frame(FIN | TEXT, b"x").repeat(500));
    let mut answered = 0;
    let last = loop {
        match hasty.receive() {
            (first, _) if first == FIN | TEXT => answered += 1,
            last => break last,
        }
    };
    assert_eq!((last.0, &last.1[..2]), (FIN | CLOSE, &1008u16.to_be_bytes()[..]));
    // A tenth of a second may pass while they come.
    assert!((20..=60).contains(&answered), "{answered}");
    assert_eq!(limited(&program, "message_rate"), 1.0);
    assert_eq!(program.metric("websocket_closed_total{by=\"1008\"}"), 1.0);

    // Who keeps to the rate is served for as long as it likes.
    let mut client = Client::connect(program.listen, "/");
    for n in 0..60 {
        thread::sleep(Duration::from_millis(60));
        client.raw(&frame(FIN | BINARY, &[n]));
        assert_eq!(client.receive(), (FIN | BINARY, vec![n]));
    }
}

#[test]
fn the_size_limit_is_for_the_whole_message_and_is_counted() {
    let program = Program::start(&["--max-message-size", "100k"]);
    let most = 100 << 10;
    let mut client = Client::connect(program.listen, "/");
    // In fragments, and twice: nothing adds up from one message to the next.
    for _ in 0..2 {
        client.raw(&frame(BINARY, &vec![1; most / 2]));
        client.raw(&frame(0, b""));
        client.raw(&frame(FIN, &vec![2; most / 2]));
        assert_eq!(client.receive().1.len(), most);
    }
    client.raw(&frame(BINARY, &vec![1; most - 1]));
    client.raw(&frame(0, b"x"));
    client.raw(&frame(FIN | PING, b"up to here"));
    assert_eq!(client.receive(), (FIN | PONG, b"up to here".to_vec()));
    client.raw(&frame(0, b"y"));
    assert_eq!(client.receive_close(), 1009);
    assert!(is_at_end(&mut client.stream));
    assert_eq!(program.metric("websocket_closed_total{by=\"1009\"}"), 1.0);
    if is_strict() {
        assert_eq!(limited(&program, "message_size"), 1.0);
    }
}

#[test]
fn a_place_is_free_again_however_its_client_ended() {
    let program = Program::start(&["--max-connections", "3", "--max-connections-per-ip", "2"]);
    let from = |n: u8| format!("X-Real-IP: 192.0.2.{n}\r\n");
    let refused = |n: u8| status(&Client::handshake(program.listen, "/", &from(n)).1);
    for ending in 0..4 {
        let connect = |n: u8| {
            // The last round's may still be on their way out.
            let mut client = None;
            wait_until("there is room", || {
                let (connected, head) = Client::handshake(program.listen, "/", &from(n));
                client = (status(&head) == 101).then_some(connected);
                client.is_some()
            });
            client.expect("a client")
        };
        let clients = [connect(1), connect(1), connect(2)];
        assert_eq!(refused(3), 503, "over all");
        for mut client in clients {
            match ending {
                0 => client.close(),
                1 => crate::fake::client::reset(client.stream),
                2 => client.stream.shutdown(Shutdown::Both).expect("shutdown"),
                _ => {
                    client.raw(&frame(FIN | 3, b""));
                    assert_eq!(client.receive_close(), 1002);
                }
            }
        }
    }
    wait_until("all are gone", || program.metric("websocket_connections_active") == 0.0);
    let _held = [0, 1].map(|_| Client::handshake(program.listen, "/", &from(1)).0);
    assert_eq!(refused(1), 429, "over one address's");
}

/// The clients come back at once, to the next backend: not all in the same moment.
#[test]
fn a_drain_spreads_its_closes() {
    const CLIENTS: usize = 200;
    let mut program = Program::start(&["--workers", "2", "--drain-timeout", "20"]);
    let clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::handed_over(&program.socket(), "/", b"")).collect();
    wait_until("all are in", || program.metric("websocket_connections_active") == CLIENTS as f64);
    // Offers that began before are refused, so that nginx asks the next backend.
    let mut offering = Nginx::connect(&program.socket());
    let head = request("/", "Handoff: fd; v=1\r\n");
    offering.send(&head.as_bytes()[..20]);
    wait_until("it is accepted", || program.descriptors() > CLIENTS);
    let begin = Instant::now();
    program.signal(Signal::SIGTERM);
    let mut closed: Vec<Duration> = thread::scope(|scope| {
        let waiting: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    assert_eq!(client.receive_close(), 1001);
                    let closed = begin.elapsed();
                    client.raw(&frame(FIN | CLOSE, &1001u16.to_be_bytes()));
                    assert!(is_at_end(&mut client.stream));
                    closed
                })
            })
            .collect();
        wait_until("it drains", || status(&program.admin("/readyz").0) == 503);
        offering.send(&head.as_bytes()[20..]);
        assert_eq!(status(&offering.head()), 503);
        waiting.into_iter().map(|thread| thread.join().expect("a close")).collect()
    });
    closed.sort_unstable();
    // A hundred a second: two seconds.
    let (quarter, half, last) = (closed[CLIENTS / 4], closed[CLIENTS / 2], closed[CLIENTS - 1]);
    assert!(quarter > Duration::from_millis(350), "{closed:?}");
    assert!(half > Duration::from_millis(800), "{closed:?}");
    assert!(last > Duration::from_millis(1600) && last < Duration::from_secs(6), "{closed:?}");
    assert!(program.status().success());
}

#[test]
fn a_second_signal_ends_in_the_middle_of_a_drain() {
    let mut program = Program::start(&["--drain-timeout", "60"]);
    let mut clients: Vec<Client> =
        (0..50).map(|_| Client::handed_over(&program.socket(), "/", b"")).collect();
    wait_until("all are in", || program.metric("websocket_connections_active") == 50.0);
    program.signal(Signal::SIGTERM);
    program.wait_for_log("draining");
    let begin = Instant::now();
    program.signal(Signal::SIGTERM);
    let ended = program.status();
    assert_eq!((ended.code(), ended.signal()), (Some(128 + 15), None));
    assert!(begin.elapsed() < Duration::from_secs(5), "nobody is waited for");
    for client in &mut clients {
        // Some have been sent a close; all are hung up on.
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
        assert!(rest.is_empty() || rest.starts_with(&[FIN | CLOSE]), "{rest:?}");
    }
}
