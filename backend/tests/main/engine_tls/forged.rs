//! Records that nobody sealed, or not as the next; alerts; at any moment. The client is told by the alert that RFC 8446 and RFC
//! 5246 name, what it sent before is answered, and nobody else notices.

use std::io::{Read, Write};

use handoff_tls::{Alert, Secret, State, Version};

use super::{IN_USER_SPACE, all_are_gone, closed, kernel_carries, wss};
use crate::fake::client::{BINARY, CLOSE, Client, FIN, TEXT, frame};
use crate::fake::program::{Program, is_strict};
use crate::fake::tls::{PROTECTIONS, Tls, Way, alert_in, state, suites};

/// What a client sends, and the alert that it gets.
type Forgery = (&'static str, fn(&mut Tls) -> Vec<u8>, Option<u8>);

const UNEXPECTED_MESSAGE: Option<u8> = Some(10);
const BAD_RECORD_MAC: Option<u8> = Some(20);
const RECORD_OVERFLOW: Option<u8> = Some(22);
const PROTOCOL_VERSION: Option<u8> = Some(70);

const FORGERIES: [Forgery; 8] = [
    (
        "a bit of the text",
        |tls| {
            let mut wire = tls.sealed(b"x");
            let place = wire.len() - 17;
            wire[place] ^= 0x10;
            wire
        },
        BAD_RECORD_MAC,
    ),
    (
        "a bit of the tag",
        |tls| {
            let mut wire = tls.sealed(b"x");
            *wire.last_mut().expect("a tag") ^= 1;
            wire
        },
        BAD_RECORD_MAC,
    ),
    (
        "a record again",
        |tls| {
            let once = tls.sealed(&frame(FIN | BINARY, b"")[..1]);
            [once.clone(), once].concat()
        },
        BAD_RECORD_MAC,
    ),
    (
        "records out of order",
        |tls| {
            let (first, second) = (tls.sealed(b"1"), tls.sealed(b"2"));
            [second, first].concat()
        },
        BAD_RECORD_MAC,
    ),
    (
        "a record left out",
        |tls| {
            let _ = tls.sealed(b"1");
            tls.sealed(b"2")
        },
        BAD_RECORD_MAC,
    ),
    // The header is enough.
    ("a record too long", |_| vec![23, 3, 3, 0xff, 0xff], RECORD_OVERFLOW),
    ("a type that there is not", |_| of_type(99), UNEXPECTED_MESSAGE),
    ("a record too short", |_| vec![23, 3, 3, 0, 1, 0], BAD_RECORD_MAC),
];

/// A whole record, which nobody has sealed.
fn of_type(kind: u8) -> Vec<u8> {
    [&[kind, 3, 3, 0, 40][..], &[0; 40]].concat()
}

/// The alert that is told: the kernel looks at a record's type once it has opened it, and this one cannot be opened.
fn told(alert: Option<u8>) -> Option<u8> {
    if kernel_carries() && alert == UNEXPECTED_MESSAGE { BAD_RECORD_MAC } else { alert }
}

/// What may be under way.
const MOMENTS: [&[u8]; 3] = [b"", b"\x01\x85mask", b"\x81\xfe\x10\x00mask some of"];

/// What ends the session: nothing more is read before.
#[track_caller]
fn ends(client: &mut Client<Tls>) -> Option<u8> {
    match client.stream.read(&mut [0]) {
        Ok(0) => None,
        Ok(_) => panic!("an answer"),
        Err(error) => alert_in(&error),
    }
}

#[test]
fn forged_records_end_with_the_alert_for_it() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&["--workers", "1"]);
    let mut neighbour = wss(&program, "/");
    let mut count = 0.0;
    for protection in PROTECTIONS {
        for (what, forge, alert) in FORGERIES {
            for moment in MOMENTS {
                let mut client =
                    Way::default().bring_raw(&program.socket(), "/", &state(protection));
                let mut wire = client.stream.sealed(&frame(FIN | TEXT, b"before"));
                if !moment.is_empty() {
                    wire.extend(client.stream.sealed(moment));
                }
                wire.extend(forge(&mut client.stream));
                wire.extend(client.stream.sealed(&frame(FIN | TEXT, b"after")));
                client.stream.socket.write_all(&wire).expect("write");
                assert_eq!(client.receive_text(), "before", "{what}");
                assert_eq!(ends(&mut client), told(alert), "{what}, {protection:?}, {moment:?}");
                count += 1.0;
            }
            neighbour.text(what);
            assert_eq!(neighbour.receive_text(), what);
        }
    }
    neighbour.close();
    all_are_gone(&program);
    assert_eq!((closed(&program, "lost"), closed(&program, "client")), (count, 1.0));
}

#[test]
fn records_of_another_version_end_a_tls_12_session() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls12) {
        let mut client = Way::default().bring_raw(&program.socket(), "/", &state(protection));
        let record = [&[23, 3, 1, 0, 40][..], &[0; 40]].concat();
        client.stream.socket.write_all(&record).expect("write");
        assert_eq!(ends(&mut client), PROTOCOL_VERSION);
    }
}

/// Also while this side is closing, and waits for the answer to its close.
#[test]
fn forged_records_end_a_connection_that_is_closing() {
    if !is_strict() {
        return;
    }
    let program =
        Program::start(&["--app", "hello", "--idle-timeout", "1", "--ping-interval", "0"]);
    for protection in PROTECTIONS {
        let mut client = Way::default().bring_raw(&program.socket(), "/", &state(protection));
        while client.receive().0 != FIN | CLOSE {}
        client.stream.socket.write_all(&of_type(99)).expect("write");
        assert_eq!(ends(&mut client), told(UNEXPECTED_MESSAGE), "{protection:?}");
    }
    all_are_gone(&program);
    assert_eq!(closed(&program, "1001"), 6.0, "it was closed before");
}

/// Keys that do not belong together: nothing is understood, in either direction.
#[test]
fn wrong_keys_end_the_session_at_its_first_record() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    for protection in PROTECTIONS {
        let right = state(protection);
        let other = Secret::new(&vec![1; right.rx_secret.as_bytes().len()]).expect("a secret");
        for early in [b"".to_vec(), frame(FIN | TEXT, b"early")] {
            let way = Way { early: &early, ..Way::default() };
            let client_has = State { rx_secret: other.clone(), ..right.clone() };
            let mut client = way.bring_raw_as(&program.socket(), "/", &right, &client_has);
            if !early.is_empty() {
                assert_eq!(client.receive_text(), "early");
            }
            client.text("sealed with another key");
            assert_eq!(ends(&mut client), BAD_RECORD_MAC, "{protection:?}");
        }
        // And counters that are not the client's.
        let client_has = State { rx_seq: right.rx_seq + 1, ..right.clone() };
        let way = Way::default();
        let mut client = way.bring_raw_as(&program.socket(), "/", &right, &client_has);
        client.text("sealed as another record");
        assert_eq!(ends(&mut client), BAD_RECORD_MAC, "{protection:?}");
    }
    all_are_gone(&program);
    assert_eq!(closed(&program, "lost"), 18.0);
}

/// To an alert nothing is answered (RFC 8446 section 6.2); what came before it is, unless the client has broken off.
#[test]
fn a_clients_alert_ends_the_session_at_once() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    let mut neighbour = wss(&program, "/");
    for protection in PROTECTIONS {
        for moment in MOMENTS {
            let mut client = Way::default().bring_raw(&program.socket(), "/", &state(protection));
            client.text("before");
            assert_eq!(client.receive_text(), "before");
            client.raw(moment);
            client.stream.alert(Alert::DecodeError);
            let mut rest = Vec::new();
            let _ = client.stream.socket.read_to_end(&mut rest);
            assert_eq!(rest, b"", "{protection:?}");
        }
    }
    neighbour.text("on");
    assert_eq!(neighbour.receive_text(), "on");
    neighbour.close();
    all_are_gone(&program);
    assert_eq!(closed(&program, "lost"), 18.0);
}

/// A client that only costs.
#[test]
fn key_updates_without_end_are_an_end() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&IN_USER_SPACE);
    let suite = suites().into_iter().find(|suite| suite.tls13().is_some()).expect("a suite");
    let mut client = Way::default().bring(&program.socket(), "/", suite);
    for _ in 0..32 {
        client.stream.update_keys();
    }
    client.text("so many are borne");
    assert_eq!(client.receive_text(), "so many are borne");
    for _ in 0..33 {
        client.stream.update_keys();
    }
    client.text("and no more");
    assert_eq!(ends(&mut client), UNEXPECTED_MESSAGE);
}
