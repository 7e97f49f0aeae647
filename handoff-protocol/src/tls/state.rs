//! What is passed on of a session: section type 2 of a commit.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::suite::{Suite, Version};

/// The longest secret, in bytes: SHA-384's.
pub const MAX_SECRET: usize = 48;

/// What one direction's keys are made of; zeroed when dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    bytes: [u8; MAX_SECRET],
    len: u8,
}

impl Secret {
    /// `None` if it is longer than any secret is.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Secret> {
        let mut bytes = [0; MAX_SECRET];
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(Secret { bytes, len: secret.len() as u8 })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// Overwrites the part of the stack that the calls before this one have used, 16 KiB of it: a value that is moved leaves copies
/// there, which no destructor knows of. What the caller itself has on its stack is its own caller's to cleanse.
#[inline(never)]
pub fn cleanse_stack() {
    // Eight bytes at a time: 2,048 writes that the compiler may not leave out.
    [0u64; 16 * 1024 / 8].zeroize();
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len)
    }
}

/// An established session, as seen by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The version.
    pub version: Version,
    /// The IANA number of the cipher suite.
    pub suite: u16,
    /// The sequence number of the next record of the client: records since its current keys.
    pub rx_seq: u64,
    /// The same of the server's next record.
    pub tx_seq: u64,
    /// TLS 1.3: the client's application traffic secret, the current one. TLS 1.2: the client's write key and IV.
    pub rx_secret: Secret,
    /// The same of the server.
    pub tx_secret: Secret,
    /// Whether the client has asked for a KeyUpdate that it has not got (RFC 8446 section 4.6.3).
    pub owes_key_update: bool,
}

/// Why bytes are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The first byte is not 1.
    #[error("unknown format of a TLS state")]
    Format,
    /// Neither TLS 1.2 nor TLS 1.3.
    #[error("unknown version of TLS")]
    Version,
    /// A suite that the version does not have, or that is not among [`Suite`]'s.
    #[error("unknown cipher suite")]
    Suite,
    /// Bits that have no meaning.
    #[error("unknown flags of a TLS state")]
    Flags,
    /// A sequence number that no session gets to.
    #[error("TLS state with a sequence number of 2^48 or more")]
    Sequence,
    /// Too short, too long, or a secret of another length than the suite's.
    #[error("TLS state of a wrong length")]
    Length,
}

const FORMAT: u8 = 1;
const OWES_KEY_UPDATE: u8 = 1;

impl State {
    /// Sequence numbers are less than this. A connection with ten million records a second would take ten months to get there, so
    /// that a larger one is a mistake; and whoever counts on from here never gets to 2^64, where a number, and with it a
    /// nonce, would come again (RFC 8446 section 5.3).
    pub const MAX_SEQ: u64 = 1 << 48;

    /// The longest encoding, in bytes.
    pub const MAX_LEN: usize = HEAD + 2 * (1 + MAX_SECRET);

    /// As in `docs/protocol.md`, big-endian: format (1), flags, version (2), suite (2), both sequence numbers (8 each), and
    /// for each secret, the client's first, its length (1) and its bytes.
    ///
    /// # Errors
    ///
    /// [`StateError`]. The caller zeroes `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<State, StateError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(StateError::Length)?;
        let [format, flags, v1, v0, s1, s0, rx @ .., t7, t6, t5, t4, t3, t2, t1, t0] = *head;
        if format != FORMAT {
            return Err(StateError::Format);
        }
        if flags & !OWES_KEY_UPDATE != 0 {
            return Err(StateError::Flags);
        }
        let version = Version::from_number(u16::from_be_bytes([v1, v0]));
        let version = version.ok_or(StateError::Version)?;
        let number = u16::from_be_bytes([s1, s0]);
        let suite = Suite::from_number(version, number).ok_or(StateError::Suite)?;
        let (rx_seq, tx_seq) =
            (u64::from_be_bytes(rx), u64::from_be_bytes([t7, t6, t5, t4, t3, t2, t1, t0]));
        if rx_seq.max(tx_seq) >= State::MAX_SEQ {
            return Err(StateError::Sequence);
        }
        let (rx_secret, rest) = secret(rest, suite.secret_len(version))?;
        let (tx_secret, rest) = secret(rest, suite.secret_len(version))?;
        if !rest.is_empty() {
            return Err(StateError::Length);
        }
        Ok(State {
            version,
            suite: number,
            rx_seq,
            tx_seq,
            rx_secret,
            tx_secret,
            owes_key_update: flags & OWES_KEY_UPDATE != 0,
        })
    }

    /// The same the other way. Returns the length; the caller zeroes `out` when it has been sent.
    #[must_use]
    pub fn encode(&self, out: &mut [u8; State::MAX_LEN]) -> usize {
        let mut writer = Writer { out, len: 0 };
        writer.put(&[FORMAT, if self.owes_key_update { OWES_KEY_UPDATE } else { 0 }]);
        writer.put(&self.version.number().to_be_bytes());
        writer.put(&self.suite.to_be_bytes());
        writer.put(&self.rx_seq.to_be_bytes());
        writer.put(&self.tx_seq.to_be_bytes());
        for secret in [&self.rx_secret, &self.tx_secret] {
            writer.put(&[secret.len]);
            writer.put(secret.as_bytes());
        }
        writer.len
    }
}

/// Format, flags, version, suite, two sequence numbers.
const HEAD: usize = 1 + 1 + 2 + 2 + 8 + 8;

fn secret(bytes: &[u8], expected: usize) -> Result<(Secret, &[u8]), StateError> {
    let (len, rest) = bytes.split_first().ok_or(StateError::Length)?;
    let len = usize::from(*len);
    let (secret, rest) = rest.split_at_checked(len).ok_or(StateError::Length)?;
    let secret = Secret::new(secret).filter(|_| len == expected).ok_or(StateError::Length)?;
    Ok((secret, rest))
}

struct Writer<'o> {
    out: &'o mut [u8; State::MAX_LEN],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        // `MAX_LEN` is the sum of all that is put.
        if let Some(room) = self.out.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            version: Version::Tls13,
            suite: 0x1302,
            rx_seq: 3,
            tx_seq: 1 << 40,
            rx_secret: Secret::new(&[5; 48]).expect("short enough"),
            tx_secret: Secret::new(&[6; 48]).expect("short enough"),
            owes_key_update: true,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut out = [0; State::MAX_LEN];
        let len = state().encode(&mut out);
        assert_eq!(len, State::MAX_LEN);
        let decoded = State::decode(&out[..len]).expect("a state");
        assert_eq!((decoded.version, decoded.suite), (Version::Tls13, 0x1302));
        assert_eq!((decoded.rx_seq, decoded.tx_seq), (3, 1 << 40));
        assert_eq!(decoded.rx_secret.as_bytes(), [5; 48]);
        assert_eq!(decoded.tx_secret.as_bytes(), [6; 48]);
        assert!(decoded.owes_key_update);
        assert_eq!(format!("{:?}", decoded.rx_secret), "Secret(48 bytes)");
    }

    #[test]
    fn anything_else_is_refused() {
        let mut out = [0; State::MAX_LEN];
        let len = state().encode(&mut out);
        for short in 0..len {
            assert_eq!(State::decode(&out[..short]).unwrap_err(), StateError::Length, "{short}");
        }
        let long = [&out[..len], &[0]].concat();
        assert_eq!(State::decode(&long).unwrap_err(), StateError::Length);
        for (place, byte, error) in [
            (0, 2, StateError::Format),
            (1, 2, StateError::Flags),
            (3, 2, StateError::Version),
            // With this version the suite is none.
            (3, 3, StateError::Suite),
            (5, 4, StateError::Suite),
            // SHA-256's suite has shorter secrets.
            (5, 1, StateError::Length),
            // 2^48 and more, of either direction.
            (7, 1, StateError::Sequence),
            (6, 0x80, StateError::Sequence),
            (15, 1, StateError::Sequence),
            (HEAD, 47, StateError::Length),
        ] {
            let mut wrong = out;
            wrong[place] = byte;
            assert_eq!(State::decode(&wrong[..len]).unwrap_err(), error, "byte {place}");
        }
    }

    #[test]
    fn a_secret_is_no_longer_than_the_longest() {
        assert!(Secret::new(&[0; 48]).is_some() && Secret::new(&[0; 49]).is_none());
    }
}
