//! The server's records.

use handoff_protocol::tls::Version;
use ring::aead::{Aad, LessSafeKey};

use crate::MAX_PLAINTEXT;
use crate::alert::Alert;
use crate::open::{HEADER, KEY_UPDATE, TAG, aad_tls12, content};
use crate::session::Session;
use crate::suite::explicit_nonce_len;

/// Records after which a key has done enough: AES-GCM's limit is 2^24.5 of full length (RFC 8446 section 5.5).
const MOST: u64 = 1 << 24;
/// Of these some are kept for alerts, where there are no next keys.
const SPARE: u64 = 16;

/// Of a TLS 1.2 session, which has no next keys: the server has sent 2^24 records, and no more are safe. It is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session's keys are used up")]
pub struct Exhausted;

impl Session {
    /// Appends records with `data` to `out`; before them, where one is due, a KeyUpdate: the one that the client has asked for,
    /// or one because the keys have been used long enough. With no data, only that.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]; `out` is as it was.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        let records = data.len().div_ceil(MAX_PLAINTEXT);
        let room = data.len() + (records + 1) * (HEADER + 8 + TAG + 1);
        if self.version == Version::Tls12 && self.tx.seq + records as u64 > MOST - SPARE {
            return Err(Exhausted);
        }
        let mut key = self.tx.key(self.suite).ok_or(Exhausted)?;
        out.reserve(room);
        if self.owes_key_update {
            key = self.update(&key, out)?;
        }
        for part in data.chunks(MAX_PLAINTEXT) {
            if self.version == Version::Tls13 && self.tx.seq >= MOST {
                key = self.update(&key, out)?;
            }
            self.record(&key, content::APPLICATION_DATA, part, out);
        }
        Ok(())
    }

    /// Appends a record with an alert.
    pub fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if let Some(key) = self.tx.key(self.suite) {
            self.record(&key, content::ALERT, &alert.to_bytes(), out);
        }
    }

    /// Announces the next keys, and uses them from here on.
    fn update(&mut self, key: &LessSafeKey, out: &mut Vec<u8>) -> Result<LessSafeKey, Exhausted> {
        const NOT_REQUESTED: u8 = 0;
        self.record(key, content::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, NOT_REQUESTED], out);
        self.tx.update(self.suite);
        self.owes_key_update = false;
        self.tx.key(self.suite).ok_or(Exhausted)
    }

    fn record(&mut self, key: &LessSafeKey, kind: u8, plain: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        let explicit = self.tx.seq.to_be_bytes();
        let explicit = explicit.get(..explicit_nonce_len(self.version, self.suite));
        let explicit = explicit.unwrap_or_default();
        let inner = plain.len() + usize::from(self.version == Version::Tls13);
        // At most 2^14 and some bytes.
        let [l1, l0] = ((explicit.len() + inner + TAG) as u16).to_be_bytes();
        let outer = if self.version == Version::Tls13 { content::APPLICATION_DATA } else { kind };
        let header = [outer, 3, 3, l1, l0];
        out.extend_from_slice(&header);
        out.extend_from_slice(explicit);
        out.extend_from_slice(plain);
        if self.version == Version::Tls13 {
            out.push(kind);
        }
        let nonce = self.tx.nonce(explicit);
        let sealed = out.get_mut(begin + HEADER + explicit.len()..).unwrap_or_default();
        let tag = match self.version {
            Version::Tls13 => key.seal_in_place_separate_tag(nonce, Aad::from(header), sealed),
            Version::Tls12 => {
                let aad = aad_tls12(self.tx.seq, kind, plain.len());
                key.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed)
            }
        };
        match tag {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            // Only of more than 64 GiB. Nothing may leave in the clear.
            Err(_) => out.truncate(begin),
        }
        self.tx.seq += 1;
    }
}
