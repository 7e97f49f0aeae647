//! Commits whose TLS session makes no sense, or is not what was asked for: the client is hung up on, and that is counted.

use std::io::Read;
use std::os::fd::AsRawFd;

use handoff_tls::{State, Version};

use crate::fake::client::Client;
use crate::fake::nginx::{self, Nginx, tcp_pair};
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::tls::{PROTECTIONS, Way, commit, offered, state};

/// The client is hung up on without a byte, and it is called a bad commit. `count` have been one by then.
fn is_refused(program: &Program, mut nginx: Nginx, commit: &[u8], count: f64) {
    let (mut theirs, held) = tcp_pair();
    nginx.pass(b"F", &[held.as_raw_fd()]);
    nginx.send(commit);
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
    wait_until("it is counted", || {
        let failed = "websocket_offers_total{outcome=\"failed\",detail=\"bad_commit\"}";
        program.metric(failed) == count
    });
}

#[test]
fn a_session_that_makes_no_sense_is_refused() {
    if !is_strict() {
        return;
    }
    let program = Program::start(&[]);
    let good = state(PROTECTIONS[0]);
    let wrong = [
        State { rx_seq: State::MAX_SEQ, ..good.clone() },
        State { tx_seq: u64::MAX, ..good.clone() },
        State { suite: 0x1304, ..good.clone() },
        // Of another length than this suite's.
        State { tx_secret: state(PROTECTIONS[1]).tx_secret, ..good.clone() },
    ];
    for (n, state) in wrong.iter().enumerate() {
        let nginx = offered(&program.socket(), "/", "");
        is_refused(&program, nginx, &commit(state, b""), (n + 1) as f64);
    }
    let nginx = offered(&program.socket(), "/", "");
    is_refused(&program, nginx, &nginx::commit(b""), (wrong.len() + 1) as f64);
    assert!(program.log().contains("2^48"), "it says what is wrong");
}

/// nginx has read a KeyUpdate that asks for one (RFC 8446 section 4.6.3), and written nothing since.
#[test]
fn a_key_update_that_is_owed_comes_first_and_at_once() {
    if !is_strict() {
        return;
    }
    const HANDSHAKE_MESSAGE: usize = 5;
    let program = Program::start(&[]);
    for protection in PROTECTIONS.into_iter().filter(|(version, _)| *version == Version::Tls13) {
        let owing = State { owes_key_update: true, ..state(protection) };
        let mut client = Way::default().bring_raw(&program.socket(), "/", &owing);
        let mut header = [0; 5];
        wait_until("a record comes", || {
            client.stream.socket.peek(&mut header).is_ok_and(|len| len == header.len())
        });
        assert_eq!(header, [23, 3, 3, 0, HANDSHAKE_MESSAGE as u8 + 1 + 16], "{protection:?}");
        client.text("with the next keys");
        assert_eq!(client.receive_text(), "with the next keys");
        client.close();
    }
}

/// What was agreed on is a socket of plain bytes: these would be records.
#[test]
fn a_session_that_was_not_asked_for_is_refused() {
    let program = Program::start(&[]);
    let nginx = Nginx::accepted(&program.socket());
    is_refused(&program, nginx, &commit(&state(PROTECTIONS[0]), b""), 1.0);
    assert!(program.log().contains("did not say fd-tls"));
    Client::handed_over(&program.socket(), "/", b"").close();
}
