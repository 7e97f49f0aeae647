//! The client's records: opened in place, their contents moved together.

use handoff_protocol::tls::Version;
use ring::aead::{Aad, LessSafeKey};

use crate::MAX_PLAINTEXT;
use crate::alert::{self, Alert, Closed};
use crate::half::MANY_BLOCKS;
use crate::session::{KeyUpdate, Partial, Session};
use crate::suite::explicit_nonce_len;

/// Type, version, length.
pub(crate) const HEADER: usize = 5;
pub(crate) const TAG: usize = 16;

pub(crate) mod content {
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
    pub(crate) const APPLICATION_DATA: u8 = 23;
}

/// RFC 8446 section 4.6.3.
pub(crate) const KEY_UPDATE: u8 = 24;

/// Records in a row that may bring no data: empty ones, KeyUpdates and their pieces, warnings. Each is work for this side and
/// nothing for the application. OpenSSL bears as many empty ones (`MAX_EMPTY_RECORDS`). For those that a kernel has opened it is
/// their reader who counts.
pub const MOST_IDLE_RECORDS: u8 = 32;

/// What a call of [`Session::open`] led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the input that are used: whole records.
    pub used: usize,
    /// How many bytes of application data are at the input's front now.
    pub data: usize,
    /// How the client's direction has ended, if it has. What follows it is not used.
    pub closed: Option<Closed>,
    /// An alert that is to be sent. But for [`Alert::NoRenegotiation`] it ends the session: what came before is good, nothing that
    /// follows can be understood.
    pub alert: Option<Alert>,
}

/// What one record holds.
enum Content {
    /// Application data, of this length, at the front of what was given.
    Data(usize),
    Nothing,
    /// The client uses its next keys from here on.
    NewKeys,
    Closed(Closed),
    NoRenegotiation,
}

impl Session {
    /// Opens all whole records at the beginning of `input`, and moves their data to its front.
    ///
    /// Less than a whole record is left where it is, behind [`used`](Opened::used): to be given again, with what follows. A
    /// record has at most 16,645 bytes.
    pub fn open(&mut self, input: &mut [u8]) -> Opened {
        let mut opened = Opened { used: 0, data: 0, closed: None, alert: None };
        if self.is_closed {
            opened.used = input.len();
            return opened;
        }
        let Some(mut key) = self.rx.key(self.suite) else {
            // A key of the suite's length is a key.
            opened.alert = Some(Alert::BadRecordMac);
            return opened;
        };
        while let Some(header) = input.get(opened.used..).and_then(<[u8]>::first_chunk::<HEADER>) {
            let header = *header;
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let end = opened.used + HEADER + len;
            let checked = self.check(header, len);
            // What is wrong with its header is wrong whatever follows.
            if checked.is_ok() && input.len() < end {
                break;
            }
            let from = opened.used - opened.data + HEADER;
            let content = checked.and_then(|()| {
                let room = input.get_mut(opened.data..end).unwrap_or_default();
                self.open_one(&key, header, room, from)
            });
            opened.used = end;
            match content.and_then(|content| self.count(content)) {
                Ok(Content::Data(len)) => opened.data += len,
                Ok(Content::Nothing) => (),
                Ok(Content::NewKeys) => {
                    self.rx.update(self.suite);
                    self.has_asked = false;
                    if let Some(next) = self.rx.key(self.suite) {
                        key = next;
                    }
                }
                Ok(Content::NoRenegotiation) => opened.alert = Some(Alert::NoRenegotiation),
                Ok(Content::Closed(closed)) => {
                    opened.closed = Some(closed);
                    self.is_closed = true;
                    // Both directions: nothing is answered to an alert (RFC 8446 section 6.2).
                    self.has_ended |= closed != Closed::Notify;
                    break;
                }
                Err(alert) => {
                    opened.alert = Some(alert);
                    self.is_closed = true;
                    break;
                }
            }
        }
        opened.used = opened.used.min(input.len());
        self.ask_for_new_keys();
        opened
    }

    /// Bears no more than so many records in a row without data.
    fn count(&mut self, content: Content) -> Result<Content, Alert> {
        match content {
            Content::Data(1..) => self.idle_records = 0,
            Content::Closed(_) => (),
            _ if self.idle_records >= MOST_IDLE_RECORDS => return Err(Alert::UnexpectedMessage),
            _ => self.idle_records += 1,
        }
        Ok(content)
    }

    /// TLS 1.3: a client that has used its keys for long is asked, once, to go on to the next. (RFC 8446 section 5.5 leaves it open
    /// which side sees to that; OpenSSL's clients do not by themselves.)
    fn ask_for_new_keys(&mut self) {
        if self.version == Version::Tls13
            && !(self.has_asked || self.is_closed)
            && self.rx.is_over(self.suite, MANY_BLOCKS, 0)
        {
            self.owed = KeyUpdate::Requesting;
            self.has_asked = true;
        }
    }

    /// What can be told from a record's header.
    fn check(&self, header: [u8; HEADER], len: usize) -> Result<(), Alert> {
        let [kind, major, minor, ..] = header;
        let most = match self.version {
            Version::Tls13 => {
                // Its type is inside, its version means nothing (RFC 8446 section 5.2).
                if kind != content::APPLICATION_DATA {
                    return Err(Alert::UnexpectedMessage);
                }
                MAX_PLAINTEXT + 256
            }
            Version::Tls12 => {
                if !matches!(kind, content::ALERT | content::HANDSHAKE | content::APPLICATION_DATA)
                {
                    return Err(Alert::UnexpectedMessage);
                }
                if [major, minor] != [3, 3] {
                    return Err(Alert::ProtocolVersion);
                }
                MAX_PLAINTEXT + 2048
            }
        };
        if len > most {
            return Err(Alert::RecordOverflow);
        }
        if len < TAG + explicit_nonce_len(self.version, self.suite) {
            return Err(Alert::BadRecordMac);
        }
        Ok(())
    }

    /// Opens the record whose ciphertext is at `from` and all that is left of `room`; the plaintext is at the front of it
    /// afterwards.
    fn open_one(
        &mut self,
        key: &LessSafeKey,
        header: [u8; HEADER],
        room: &mut [u8],
        from: usize,
    ) -> Result<Content, Alert> {
        let explicit_len = explicit_nonce_len(self.version, self.suite);
        let from_sealed = from + explicit_len;
        let explicit = room.get(from..from_sealed).unwrap_or_default();
        let nonce = self.rx.nonce(explicit);
        let opened = match self.version {
            Version::Tls13 => key.open_within(nonce, Aad::from(header), room, from_sealed..),
            Version::Tls12 => {
                let len = room.len().saturating_sub(from_sealed + TAG);
                let aad = aad_tls12(self.rx.seq, header[0], len);
                key.open_within(nonce, Aad::from(aad), room, from_sealed..)
            }
        };
        // The first failure is the last: what would count them against the cipher's limit (RFC 8446 section 5.2, RFC 9147 section
        // 4.5.3) has nothing to count.
        let plain = opened.map_err(|_| Alert::BadRecordMac)?;
        self.rx.advance(plain.len());
        let (kind, plain): (u8, &[u8]) = match self.version {
            Version::Tls12 => (header[0], plain),
            Version::Tls13 => {
                // Data, its type, and any number of zeros (RFC 8446 section 5.2).
                if plain.len() > MAX_PLAINTEXT + 1 {
                    return Err(Alert::RecordOverflow);
                }
                let last = plain.iter().rposition(|byte| *byte != 0);
                let (plain, kind) = last
                    .and_then(|last| plain.get(..=last)?.split_last())
                    .map(|(kind, plain)| (plain, *kind))
                    .ok_or(Alert::UnexpectedMessage)?;
                (kind, plain)
            }
        };
        if plain.len() > MAX_PLAINTEXT {
            return Err(Alert::RecordOverflow);
        }
        // A handshake message in several records has nothing else between them (RFC 8446 section 5.1).
        if self.partial.len > 0 && kind != content::HANDSHAKE {
            return Err(Alert::UnexpectedMessage);
        }
        match kind {
            content::APPLICATION_DATA => Ok(Content::Data(plain.len())),
            content::ALERT => {
                Ok(alert::received(self.version, plain)?.map_or(Content::Nothing, Content::Closed))
            }
            content::HANDSHAKE => self.handshake(plain),
            _ => Err(Alert::UnexpectedMessage),
        }
    }

    fn handshake(&mut self, plain: &[u8]) -> Result<Content, Alert> {
        if self.version == Version::Tls12 {
            // A ClientHello: no answer obliges the client to go on without one (RFC 5746 section 4.4).
            if std::mem::replace(&mut self.has_refused, true) {
                return Err(Alert::UnexpectedMessage);
            }
            return Ok(Content::NoRenegotiation);
        }
        if plain.is_empty() {
            return Err(Alert::UnexpectedMessage);
        }
        let Partial { mut bytes, len } = self.partial;
        let len = usize::from(len);
        let room = bytes.get_mut(len..).unwrap_or_default();
        let taken = room.len().min(plain.len());
        for (byte, new) in room.iter_mut().zip(plain) {
            *byte = *new;
        }
        let so_far = bytes.get(..len + taken).unwrap_or_default();
        let [kind, l2, l1, l0, request] = bytes;
        // No other message of a client has a place after the handshake: certificates are not asked for later.
        if kind != KEY_UPDATE {
            return Err(Alert::UnexpectedMessage);
        }
        if so_far.len() >= 4 && [l2, l1, l0] != [0, 0, 1] {
            return Err(Alert::DecodeError);
        }
        if so_far.len() < bytes.len() {
            self.partial = Partial { bytes, len: so_far.len() as u8 };
            return Ok(Content::Nothing);
        }
        // The next record has other keys: nothing may follow in this one (RFC 8446 section 5.1).
        if plain.len() > taken {
            return Err(Alert::UnexpectedMessage);
        }
        self.partial = Partial::default();
        match request {
            0 => (),
            // One answer is enough for several requests (section 4.6.3).
            1 if self.owed == KeyUpdate::None => self.owed = KeyUpdate::Plain,
            1 => (),
            _ => return Err(Alert::IllegalParameter),
        }
        Ok(Content::NewKeys)
    }
}

/// RFC 5246 section 6.2.3.3.
pub(crate) fn aad_tls12(seq: u64, kind: u8, len: usize) -> [u8; 13] {
    let [s7, s6, s5, s4, s3, s2, s1, s0] = seq.to_be_bytes();
    // Records are shorter than 2^16.
    let [l1, l0] = (len as u16).to_be_bytes();
    [s7, s6, s5, s4, s3, s2, s1, s0, kind, 3, 3, l1, l0]
}
