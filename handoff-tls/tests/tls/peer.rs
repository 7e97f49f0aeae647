//! A client by others: rustls in both roles until the handshake is over, then a session instead of its server.

use std::io::{Read, Write};

use handoff_tls::{Alert, Closed, Session, State};
use rustls::{ClientConnection, SupportedCipherSuite};

use crate::handshake::{shake_hands, suites};

/// A client after its handshake, and the session that the server has handed over.
pub struct Pair {
    pub client: ClientConnection,
    pub session: Session,
    state: State,
    /// What the client has sent and the session has not used.
    input: Vec<u8>,
}

impl Pair {
    pub fn new(suite: SupportedCipherSuite) -> Pair {
        let (client, state) = shake_hands(suite);
        let session = Session::new(&state).expect("a session");
        Pair { client, session, state, input: Vec::new() }
    }

    /// Another session, from where the handshake ended.
    pub fn again(&self) -> Session {
        Session::new(&self.state).expect("a session")
    }

    /// What the client has sent, whole records or not.
    pub fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("written");
        }
        wire
    }

    /// What the session makes of all that the client has sent.
    pub fn received(&mut self) -> (Vec<u8>, Option<Closed>) {
        let wire = self.wire();
        self.input.extend(wire);
        let opened = self.session.open(&mut self.input);
        assert_eq!(opened.alert, None);
        let data = self.input[..opened.data].to_vec();
        self.input.drain(..opened.used);
        (data, opened.closed)
    }

    /// What the client makes of these records.
    pub fn delivered(&mut self, mut wire: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).expect("read");
            let state = self.client.process_new_packets().expect("good packets");
            let mut part = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut part).expect("data");
            data.extend(part);
        }
        data
    }

    pub fn send(&mut self, data: &[u8]) {
        for part in data.chunks(10_000) {
            self.client.writer().write_all(part).expect("room");
        }
    }
}

fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn data_of_any_length_passes_both_ways_with_every_suite() {
    assert_eq!(suites().len(), 6, "three each of both versions");
    for suite in suites() {
        let mut pair = Pair::new(suite);
        for len in [1, 2, 100, 16_383, 16_384, 16_385, 100_000, 1 << 20] {
            let data = contents(len);
            // rustls takes some 64 KiB at a time.
            let mut received = Vec::new();
            for part in data.chunks(50_000) {
                pair.send(part);
                received.extend(pair.received().0);
            }
            assert!(received == data, "{len} bytes from the client, {suite:?}");
            let mut out = Vec::new();
            pair.session.seal(&data, &mut out).expect("sealed");
            assert!(pair.delivered(&out) == data, "{len} bytes to the client, {suite:?}");
        }
        pair.client.send_close_notify();
        assert_eq!(pair.received(), (Vec::new(), Some(Closed::Notify)));
        let mut out = Vec::new();
        pair.session.seal_alert(Alert::CloseNotify, &mut out);
        assert_eq!(pair.delivered(&out), []);
        // An end without close_notify would be an error.
        assert_eq!(pair.client.reader().read(&mut [0]).expect("closed cleanly"), 0);
    }
}

#[test]
fn keys_are_updated_both_ways() {
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_some()) {
        let mut pair = Pair::new(suite);
        for round in 0..5_u8 {
            pair.send(&[round; 10]);
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            pair.send(&[round; 20]);
            let (data, closed) = pair.received();
            assert_eq!((data, closed), (vec![round; 30], None));
            assert!(pair.session.wants_to_send(), "the client asks for new keys of the server");
            let mut out = Vec::new();
            if round % 2 == 0 {
                pair.session.seal(&[], &mut out).expect("sealed");
                assert!(!out.is_empty() && !pair.session.wants_to_send());
            }
            pair.session.seal(&[round; 40], &mut out).expect("sealed");
            assert!(!pair.session.wants_to_send());
            assert_eq!(pair.delivered(&out), [round; 40]);
        }
    }
}

#[test]
fn only_so_many_key_updates_in_a_row_are_followed() {
    let suite = suites().into_iter().find(|suite| suite.tls13().is_some()).expect("a suite");
    let mut pair = Pair::new(suite);
    for _ in 0..2 {
        for _ in 0..32 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
        }
        pair.send(b"x");
        assert_eq!(pair.received().0, b"x");
        let mut out = Vec::new();
        pair.session.seal(b"y", &mut out).expect("sealed");
        assert_eq!(pair.delivered(&out), b"y", "one answer to all of them");
    }
    for _ in 0..33 {
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
    }
    let mut wire = pair.wire();
    assert_eq!(pair.session.open(&mut wire).alert, Some(Alert::UnexpectedMessage));
}
