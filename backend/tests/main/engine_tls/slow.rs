//! Clients that stop reading: what they cost, and that others notice nothing.

use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{closed, wss};
use crate::fake::PATIENCE;
use crate::fake::client::{BINARY, Client, FIN, frame};
use crate::fake::program::{Program, is_strict, wait_until};
use crate::fake::tls::{PROTECTIONS, Tls, Way, state, suites};

/// Writes a message over and over until the program has taken none for a while: it has stopped reading. Returns how many
/// are written whole, and the bytes of the last one's records that are not.
fn stuff(client: &mut Tls, message: &[u8]) -> (usize, Vec<u8>) {
    client.socket.set_write_timeout(Some(Duration::from_millis(500))).expect("timeout");
    for count in 1.. {
        let mut wire = client.sealed(message);
        while !wire.is_empty() {
            match client.socket.write(&wire) {
                Ok(len) => drop(wire.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (count, wire),
                Err(error) => panic!("after {count} messages: {error}"),
            }
        }
    }
    unreachable!("it never stops reading");
}

#[test]
fn an_echo_stops_reading_from_who_does_not_read() {
    if !is_strict() {
        return;
    }
    const MESSAGE: usize = 16 << 10;
    let program = Program::start(&["--workers", "1"]);
    let mut other = wss(&program, "/");
    other.text("here");
    assert_eq!(other.receive_text(), "here");
    let before = program.memory();
    let mut deaf: Vec<Client<Tls>> = (0..36)
        .map(|n| {
            let way = Way { unix: true, ..Way::default() };
            match n % 2 {
                0 => way.bring(&program.socket(), "/", suites()[n % 6]),
                _ => way.bring_raw(&program.socket(), "/", &state(PROTECTIONS[n % 6])),
            }
        })
        .collect();
    let message = frame(FIN | BINARY, &[7; MESSAGE]);
    let left: Vec<(usize, Vec<u8>)> = thread::scope(|scope| {
        let stuffing: Vec<_> = deaf
            .iter_mut()
            .map(|client| scope.spawn(|| stuff(&mut client.stream, &message)))
            .collect();
        stuffing.into_iter().map(|thread| thread.join().expect("stuff")).collect()
    });
    // What waits before reading stops, a turn's answers more, a message in the middle; of it 64 KiB sealed as well, and a record
    // that is not all there.
    let most = deaf.len() * ((64 << 10) + (64 << 10) + 2 * MESSAGE + (64 << 10) + (17 << 10));
    let grown = program.memory().saturating_sub(before);
    assert!(grown < most + (8 << 20), "{grown} bytes for {} clients", deaf.len());
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let begin = Instant::now();
        other.text(&n.to_string());
        assert_eq!(other.receive_text(), n.to_string());
        longest = longest.max(begin.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "others wait {longest:?}");

    // Nothing of it is lost: whoever reads at last gets all.
    for (client, (count, wire)) in deaf.iter_mut().zip(left) {
        client.stream.socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let mut writer = client.stream.try_clone();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.socket.write_all(&wire).expect("write");
                writer.write_all(&frame(FIN | BINARY, b"and on")).expect("write");
            });
            for _ in 0..count {
                assert!(client.receive() == (FIN | BINARY, vec![7; MESSAGE]));
            }
            assert_eq!(client.receive(), (FIN | BINARY, b"and on".to_vec()));
        });
    }
    assert_eq!(program.metric("websocket_limited_total{limit=\"queue\"}"), 0.0);
}

/// In a room: past the cap a member is closed, in order and with a goodbye, and the others hear everything at once.
#[test]
fn a_member_that_does_not_read_is_closed_and_costs_no_more_than_the_cap() {
    if !is_strict() {
        return;
    }
    const DEAF: usize = 6;
    const CAP: usize = 256 << 10;
    const SIZE: usize = 8 << 10;
    let program = Program::start(&["--app", "broadcast", "--workers", "2", "--max-queue", "256k"]);
    let mut deaf: Vec<Client<Tls>> = (0..DEAF)
        .map(|n| {
            let way = Way { unix: true, ..Way::default() };
            way.bring(&program.socket(), "/", suites()[n])
        })
        .collect();
    let mut quick = [wss(&program, "/"), wss(&program, "/")];
    let all = (DEAF + quick.len()) as f64;
    wait_until("all are in", || program.metric("websocket_connections_active") == all);
    let before = program.memory();
    let mut said = 0_usize;
    while closed(&program, "1008") < DEAF as f64 {
        for _ in 0..20 {
            let mut message = vec![0; SIZE];
            message[..8].copy_from_slice(&said.to_be_bytes());
            let begin = Instant::now();
            quick[said % 2].raw(&frame(FIN | BINARY, &message));
            for member in &mut quick {
                assert_eq!(member.receive().1[..8], said.to_be_bytes());
            }
            assert!(begin.elapsed() < Duration::from_secs(2), "held up for {:?}", begin.elapsed());
            said += 1;
        }
        let grown = program.memory().saturating_sub(before);
        let most = DEAF * (CAP + SIZE + (130 << 10)) + (8 << 20);
        assert!(grown < most, "{grown} bytes");
        assert!(said * SIZE < 64 << 20, "more than any socket holds");
    }
    for client in &mut deaf {
        // What they were sent is whole and in order, and then come the close and the goodbye.
        let mut expected = 0_usize;
        let code = loop {
            let (first, payload) = client.receive();
            if first == FIN | crate::fake::client::CLOSE {
                break u16::from_be_bytes([payload[0], payload[1]]);
            }
            assert_eq!(payload[..8], expected.to_be_bytes());
            expected += 1;
        };
        assert_eq!(code, 1008);
        client.raw(&frame(FIN | crate::fake::client::CLOSE, &code.to_be_bytes()));
        assert!(crate::fake::is_at_end(&mut client.stream));
    }
}
