//! A session in the pieces in which a kernel takes it over, and the records that it leaves to user space: all that hold no
//! data (Linux: Documentation/networking/tls.rst).

use core::fmt;

use handoff_protocol::tls::{Secret, Suite, Version};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::alert::{self, Alert, Closed};
use crate::half::{Half, MAX_KEY};
use crate::open::{KEY_UPDATE, content};
use crate::session::Session;

/// What one direction's records are protected with, from the next one on; zeroed when dropped, and never shown.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RecordKey {
    #[zeroize(skip)]
    version: Version,
    #[zeroize(skip)]
    suite: Suite,
    key: [u8; MAX_KEY],
    iv: [u8; 12],
    seq: u64,
}

impl RecordKey {
    fn new(version: Version, suite: Suite, half: &Half) -> RecordKey {
        RecordKey { version, suite, key: half.key, iv: half.iv, seq: half.seq }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cipher.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key: 16 bytes or 32.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get(..self.suite.key_len()).unwrap_or_default()
    }

    /// The IV that nonces are made of (RFC 8446 section 5.3, RFC 7905 section 2). TLS 1.2 with GCM: its first four bytes are
    /// the salt, and what each record says of its nonce comes behind (RFC 5288 section 3): here the record's number.
    #[must_use]
    pub fn iv(&self) -> [u8; 12] {
        let mut iv = self.iv;
        if self.version == Version::Tls12 && self.suite.fixed_iv_len() == 4 {
            for (byte, seq) in iv.iter_mut().skip(4).zip(self.seq.to_be_bytes()) {
                *byte = seq;
            }
        }
        iv
    }

    /// The number of the next record.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKey")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// For the client's records, from the next one on.
    #[must_use]
    pub fn receiving(&self) -> RecordKey {
        RecordKey::new(self.version, self.suite, &self.rx)
    }

    /// For the server's records, from the next one on. Not while it [wants to send](Session::wants_to_send): that comes first.
    #[must_use]
    pub fn sending(&self) -> RecordKey {
        RecordKey::new(self.version, self.suite, &self.tx)
    }

    /// What later keys are made of, which a kernel does not know. `None` with TLS 1.2, which has none.
    #[must_use]
    pub fn secrets(&self) -> Option<Secrets> {
        (self.version == Version::Tls13).then(|| Secrets {
            suite: self.suite,
            rx: self.rx.secret.clone(),
            tx: self.tx.secret.clone(),
        })
    }
}

/// The traffic secrets of a TLS 1.3 session whose records a kernel opens and seals.
#[derive(Debug)]
pub struct Secrets {
    suite: Suite,
    rx: Secret,
    tx: Secret,
}

impl Secrets {
    /// The client's next keys: it has sent a KeyUpdate (RFC 8446 section 7.2).
    pub fn next_receiving(&mut self) -> Option<RecordKey> {
        next(self.suite, &mut self.rx)
    }

    /// The server's: it has.
    pub fn next_sending(&mut self) -> Option<RecordKey> {
        next(self.suite, &mut self.tx)
    }
}

/// `None`: the secret is not as long as the suite's, which no session's is.
fn next(suite: Suite, secret: &mut Secret) -> Option<RecordKey> {
    let mut half = Half::new(Version::Tls13, suite, secret, 0)?;
    half.update(suite);
    *secret = half.secret.clone();
    Some(RecordKey::new(Version::Tls13, suite, &half))
}

/// A KeyUpdate that asks for none, as the content of a handshake record.
pub const KEY_UPDATE_ANSWER: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// What a record means that a kernel has opened, and that holds no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing that has to be acted on.
    Nothing,
    /// The client has ended its direction.
    Closed(Closed),
    /// The client uses its next keys from here on, and may ask for the server's.
    KeyUpdate {
        /// Whether it does.
        is_requested: bool,
    },
    /// TLS 1.2: the client wants to negotiate anew. It can be refused once, by [`Alert::NoRenegotiation`].
    Renegotiation,
}

impl Control {
    /// The kernel's type of a record with an alert, and with a handshake message; as on the wire.
    pub const ALERT: u8 = content::ALERT;
    /// See [`ALERT`](Control::ALERT).
    pub const HANDSHAKE: u8 = content::HANDSHAKE;
    /// Of records with data.
    pub const DATA: u8 = content::APPLICATION_DATA;

    /// Reads a record of this type.
    ///
    /// # Errors
    ///
    /// The alert that ends the session. A KeyUpdate that is spread over several records is among them, though RFC 8446 section 5.1
    /// allows it: Linux takes the first byte of it for the whole.
    pub fn read(version: Version, kind: u8, plain: &[u8]) -> Result<Control, Alert> {
        match (kind, version) {
            (content::ALERT, _) => {
                Ok(alert::received(version, plain)?.map_or(Control::Nothing, Control::Closed))
            }
            (content::HANDSHAKE, Version::Tls12) => Ok(Control::Renegotiation),
            (content::HANDSHAKE, Version::Tls13) => match *plain {
                [KEY_UPDATE, 0, 0, 1, request @ 0..=1] => {
                    Ok(Control::KeyUpdate { is_requested: request == 1 })
                }
                [KEY_UPDATE, 0, 0, 1, _] => Err(Alert::IllegalParameter),
                [KEY_UPDATE, l2, l1, l0, ..] if [l2, l1, l0] != [0, 0, 1] => {
                    Err(Alert::DecodeError)
                }
                _ => Err(Alert::UnexpectedMessage),
            },
            _ => Err(Alert::UnexpectedMessage),
        }
    }
}
