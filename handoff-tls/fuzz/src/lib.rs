//! What the targets share.

pub mod model;

use handoff_tls::{Alert, Closed, Secret, Session, State, Suite, Version};

/// Each protection: the version, and the suite's number.
pub const PROTECTIONS: [(Version, u16); 6] = [
    (Version::Tls13, 0x1301),
    (Version::Tls13, 0x1302),
    (Version::Tls13, 0x1303),
    (Version::Tls12, 0xc02f),
    (Version::Tls12, 0xc030),
    (Version::Tls12, 0xcca8),
];

/// A state with the same keys and numbers for both directions, so that it is the client's as well as the server's.
pub fn state(choice: u8, seq: u64) -> State {
    let (version, suite) = PROTECTIONS[usize::from(choice) % PROTECTIONS.len()];
    let len = Suite::from_number(version, suite).expect("a suite").secret_len(version);
    let secret: Vec<u8> = (0..len as u8).map(|n| n.wrapping_mul(37)).collect();
    let secret = Secret::new(&secret).expect("short enough");
    State {
        version,
        suite,
        rx_seq: seq,
        tx_seq: seq,
        rx_secret: secret.clone(),
        tx_secret: secret,
        owes_key_update: false,
    }
}

/// What came out of a client's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub data: Vec<u8>,
    pub closed: Option<Closed>,
    /// The one that ends the session.
    pub alert: Option<Alert>,
    /// How often the client was told that nothing is negotiated anew.
    pub refused: usize,
}

impl Outcome {
    pub fn is_over(&self) -> bool {
        self.closed.is_some() || self.alert.is_some()
    }
}

/// What comes of bytes in these pieces.
pub fn open<'b>(session: &mut Session, pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut waiting = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let opened = session.open(&mut waiting);
        assert!(opened.data <= opened.used && opened.used <= waiting.len());
        outcome.data.extend_from_slice(&waiting[..opened.data]);
        waiting.drain(..opened.used);
        outcome.closed = opened.closed;
        match opened.alert {
            Some(Alert::NoRenegotiation) => outcome.refused += 1,
            other => outcome.alert = other,
        }
        if outcome.is_over() {
            // And nothing else ever comes of it.
            let mut more = waiting.clone();
            let after = session.open(&mut more);
            assert_eq!((after.data, after.closed, after.alert), (0, None, None));
            assert_eq!(after.used, more.len());
            break;
        }
        assert!(waiting.len() < LONGEST, "a whole record is opened");
    }
    outcome
}

/// Bytes of the longest record.
const LONGEST: usize = 5 + (1 << 14) + 2048;

/// `bytes` in pieces of these lengths, over and over; the rest in one if there are none.
pub fn pieces<'b>(mut bytes: &'b [u8], lengths: &[u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(usize::from(length).clamp(1, bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
