//! Who says goodbye and when, who is cut off, and what is counted.

use std::net::Shutdown;

use handoff_tls::{State, Version};
use nix::sys::signal::Signal;

use super::{IN_USER_SPACE, all_are_gone, closed, wss};
use crate::fake::client::{BINARY, CLOSE, Client, FIN, PING, TEXT, frame};
use crate::fake::is_at_end;
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::tls::{PROTECTIONS, Tls, Way, alert_in, state, suites};

fn limited(program: &Program, limit: &str) -> f64 {
    program.metric(&format!("websocket_limited_total{{limit=\"{limit}\"}}"))
}

/// Takes a close with this code, answers it, and takes the goodbye.
fn is_closed(mut client: Client<Tls>, code: u16) {
    assert_eq!(client.receive_close(), code);
    client.raw(&frame(FIN | CLOSE, &code.to_be_bytes()));
    assert!(is_at_end(&mut client.stream), "with a close_notify");
}

#[test]
fn a_close_by_the_client_is_answered_and_then_comes_the_goodbye() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    for suite in suites() {
        Way::default().bring(&program.socket(), "/", suite).close();
    }
    all_are_gone(&program);
    assert_eq!(closed(&program, "client"), 6.0);
}

#[test]
fn a_drain_closes_with_1001_and_a_goodbye() {
    if !is_strict() {
        return;
    }
    let mut program = Program::start(&["--drain-timeout", "10"]);
    let clients: Vec<_> = suites()
        .into_iter()
        .map(|suite| Way::default().bring(&program.socket(), "/", suite))
        .collect();
    wait_until("all are in", || program.metric("websocket_connections_active") == 6.0);
    program.signal(Signal::SIGTERM);
    for client in clients {
        is_closed(client, 1001);
    }
    assert!(program.status().success());
}

#[test]
fn silence_is_pinged_and_then_closed_with_1001() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--ping-interval", "1", "--idle-timeout", "3"]);
    let mut client = wss(&program, "/");
    assert_eq!(client.receive().0, FIN | PING);
    let last = std::iter::repeat_with(|| client.receive()).find(|(first, _)| *first != FIN | PING);
    assert_eq!(last, Some((FIN | CLOSE, b"\x03\xe9idle".to_vec())));
    client.raw(&frame(FIN | CLOSE, b"\x03\xe9"));
    assert!(is_at_end(&mut client.stream));
    assert_eq!(limited(&program, "idle"), 1.0);
}

#[test]
fn limits_hold_and_close_in_order() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--max-message-size", "10k", "--max-message-rate", "50"]);
    let mut large = wss(&program, "/");
    large.raw(&frame(BINARY, &[0; 10 << 10]));
    large.raw(&frame(FIN, b"x"));
    is_closed(large, 1009);
    let mut wrong = wss(&program, "/");
    wrong.raw(&frame(FIN | 3, b""));
    is_closed(wrong, 1002);
    let mut hasty = wss(&program, "/");
    hasty.raw(&frame(FIN | TEXT, b"x").repeat(500));
    while hasty.receive().0 == FIN | TEXT {}
    // It does not answer the close: the goodbye comes all the same.
    assert!(is_at_end(&mut hasty.stream));
    all_are_gone(&program);
    assert_eq!(limited(&program, "message_size"), 1.0);
    assert_eq!(limited(&program, "message_rate"), 1.0);
    assert_eq!(closed(&program, "1002"), 1.0);
}

/// An end of file is a truncation, wherever it is. This side says its own goodbye all the same (RFC 8446 section 6.1).
#[test]
fn an_end_without_a_goodbye_loses_the_client() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    let mut neighbour = wss(&program, "/");
    let mut count = 0.0;
    for cut in [0, 3, 5, 20] {
        let mut client = wss(&program, "/");
        client.text("before");
        assert_eq!(client.receive_text(), "before");
        let wire = client.stream.sealed(&frame(FIN | TEXT, b"never whole"));
        std::io::Write::write_all(&mut client.stream.socket, &wire[..cut]).expect("write");
        client.stream.socket.shutdown(Shutdown::Write).expect("shutdown");
        assert!(is_at_end(&mut client.stream));
        count += 1.0;
        wait_until("it is counted", || closed(&program, "lost") == count);
        neighbour.text("still");
        assert_eq!(neighbour.receive_text(), "still");
    }
}

/// Records of full length after which a session of TLS 1.2 with AES-GCM is closed.
const MOST: u64 = (1 << 24) / 4 * 3;

#[test]
fn keys_that_wear_out_close_with_1001_in_order() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[&IN_USER_SPACE[..], &["--max-message-size", "1m"]].concat());
    let mut count = 0.0;
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls12) {
        let has_limit = protection.1 != 0xcca9;
        let worn = State { tx_seq: MOST - 40, ..state(protection) };
        let mut client = Way::default().bring_raw(&program.socket(), "/", &worn);
        client.text("there is some left");
        assert_eq!(client.receive_text(), "there is some left");
        let message = vec![0; 1 << 20];
        client.raw(&frame(FIN | BINARY, &message));
        assert!(client.receive() == (FIN | BINARY, message), "the answer comes whole");
        if has_limit {
            is_closed(client, 1001);
            count += 1.0;
        } else {
            client.close();
        }

        // The client's keys: it may be in the middle of something.
        let worn = State { rx_seq: MOST - 1, ..state(protection) };
        let mut client = Way::default().bring_raw(&program.socket(), "/", &worn);
        let mut left = 1000;
        let closed = loop {
            client.text("x");
            match client.receive() {
                (first, payload) if first == FIN | TEXT => assert_eq!(payload, b"x"),
                (first, payload) => break Some((first, payload)),
            }
            left -= 1;
            if left == 0 {
                break None;
            }
        };
        assert_eq!(closed.is_some(), has_limit);
        if let Some((first, payload)) = closed {
            assert_eq!((first, &payload[..2]), (FIN | CLOSE, &b"\x03\xe9"[..]));
            client.raw(&frame(FIN | CLOSE, b"\x03\xe9"));
            assert!(is_at_end(&mut client.stream));
            count += 1.0;
        }
    }
    assert_eq!((limited(&program, "tls_keys"), closed(&program, "1001")), (count, count));
    assert_eq!(count, 4.0);
    all_are_gone(&program);
}

/// One that only listens is visited now and then.
#[test]
fn a_listeners_keys_wear_out_too() {
    if !is_strict() {
        return;
    }
    let arguments = ["--app", "broadcast", "--ping-interval", "1", "--max-queue", "8m"];
    let program = Program::start(&[&IN_USER_SPACE[..], &arguments].concat());
    let state = State { tx_seq: MOST - 40, ..state(PROTECTIONS[3]) };
    let mut listener = Way::default().bring_raw(&program.socket(), "/", &state);
    let mut speaker = wss(&program, "/");
    wait_until("both are in", || program.metric("websocket_connections_active") == 2.0);
    let message = vec![0; 1 << 20];
    speaker.raw(&frame(FIN | BINARY, &message));
    let mut heard =
        std::iter::repeat_with(|| listener.receive()).filter(|(first, _)| *first != FIN | PING);
    assert!(heard.next() == Some((FIN | BINARY, message)));
    assert_eq!(heard.next().map(|(first, _)| first), Some(FIN | CLOSE));
    assert_eq!(limited(&program, "tls_keys"), 1.0);
}

/// TLS 1.3 goes on to the next keys, in both directions, and nobody notices.
#[test]
fn tls_13_keys_do_not_wear_out() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[&IN_USER_SPACE[..], &["--max-message-size", "1m"]].concat());
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let worn = State { rx_seq: MOST, tx_seq: (1 << 24) - 20, ..state(protection) };
        let mut client = Way::default().bring_raw(&program.socket(), "/", &worn);
        for n in 0..4_u8 {
            let message = vec![n; 400 << 10];
            client.raw(&frame(FIN | BINARY, &message));
            assert!(client.receive() == (FIN | BINARY, message), "{protection:?}, {n}");
        }
        client.close();
    }
}

/// Of an echo to somebody who does not read, with room for some records: wherever that ends, the goodbye comes.
#[test]
fn a_goodbye_waits_where_the_socket_is_full() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--workers", "1"]);
    let mut received = 0.0;
    for answers in 1..24 {
        let way = Way { unix: true, room: Some(4608), ..Way::default() };
        let mut client = way.bring(&program.socket(), "/", suites()[answers % 6]);
        for n in 0..answers {
            client.text(&n.to_string());
            received += 1.0;
            wait_until("it is answered", || {
                program.metric("websocket_messages_received_total") == received
            });
        }
        client.raw(&frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
        wait_until("it is over", || closed(&program, "client") == answers as f64);
        for n in 0..answers {
            assert_eq!(client.receive_text(), n.to_string());
        }
        assert_eq!(client.receive_close(), 1000);
        assert!(is_at_end(&mut client.stream), "a goodbye behind {answers} answers");
    }
    all_are_gone(&program);
}

/// The rest of a record comes before the alert, which nobody would understand otherwise.
#[test]
fn an_alert_waits_for_the_record_that_has_begun() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--workers", "1"]);
    for (n, suite) in suites().into_iter().enumerate() {
        let way = Way { unix: true, room: Some(4608), ..Way::default() };
        let mut client = way.bring(&program.socket(), "/", suite);
        let message = vec![9; 40_000];
        client.raw(&frame(FIN | BINARY, &message));
        wait_until("it is answered", || {
            program.metric("websocket_messages_received_total") == (n + 1) as f64
        });
        let mut wire = client.stream.sealed(b"x");
        *wire.last_mut().expect("a tag") ^= 1;
        std::io::Write::write_all(&mut client.stream.socket, &wire).expect("write");
        wait_until("it is over", || closed(&program, "lost") == (n + 1) as f64);
        assert!(client.receive() == (FIN | BINARY, message), "{suite:?}");
        let end = std::io::Read::read(&mut client.stream, &mut [0]);
        assert_eq!(end.map_err(|error| alert_in(&error)), Err(Some(20)), "{suite:?}");
    }
    all_are_gone(&program);
}
