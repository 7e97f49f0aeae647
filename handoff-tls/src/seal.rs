//! The server's records.

use handoff_protocol::tls::Version;
use ring::aead::{Aad, LessSafeKey};

use crate::MAX_PLAINTEXT;
use crate::alert::Alert;
use crate::half::{Half, MANY_BLOCKS, MOST_BLOCKS};
use crate::open::{HEADER, KEY_UPDATE, TAG, aad_tls12, content};
use crate::session::{KeyUpdate, Session};
use crate::suite::explicit_nonce_len;

/// Why nothing more can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A TLS 1.2 session has no next keys, and the server has sent as much as is safe with these: it should have been closed
    /// when [`Session::is_wearing_out`] first said so.
    #[error("the session's keys are used up")]
    Exhausted,
    /// This side has sent an alert that ends the session.
    #[error("the session has been ended")]
    Closed,
}

impl Session {
    /// Appends records with `data` to `out`; before them, where one is due, a KeyUpdate: the one that the client has asked for,
    /// or one because the keys have been used for long enough. With no data, only that.
    ///
    /// # Errors
    ///
    /// [`SealError`]; `out` is as it was.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if self.has_ended {
            return Err(SealError::Closed);
        }
        if self.version == Version::Tls12 && self.tx.is_over(self.suite, MOST_BLOCKS, data.len()) {
            return Err(SealError::Exhausted);
        }
        // A key of the suite's length is a key.
        let mut key = self.tx.key(self.suite).ok_or(SealError::Exhausted)?;
        let records = data.len().div_ceil(MAX_PLAINTEXT);
        out.reserve(data.len() + (records + 1) * (HEADER + 8 + TAG + 1));
        if self.owed != KeyUpdate::None {
            key = self.update(&key, out)?;
        }
        for part in data.chunks(MAX_PLAINTEXT) {
            if self.version == Version::Tls13
                && self.tx.is_over(self.suite, MOST_BLOCKS, part.len())
            {
                key = self.update(&key, out)?;
            }
            self.record(&key, content::APPLICATION_DATA, part, out);
        }
        Ok(())
    }

    /// Appends a record with an alert; nothing if this side has ended the session already. Any but
    /// [`Alert::NoRenegotiation`] ends it: nothing can be sealed behind it.
    pub fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if self.has_ended {
            return;
        }
        if let Some(key) = self.tx.key(self.suite) {
            self.record(&key, content::ALERT, &alert.to_bytes(), out);
        }
        self.has_ended = alert != Alert::NoRenegotiation;
    }

    /// Whether the session is to be closed before long: it is one of TLS 1.2, without next keys, and either direction's has
    /// been used for three quarters of what is safe. About 64 GiB can still be sent.
    #[must_use]
    pub fn is_wearing_out(&self) -> bool {
        let is_worn = |half: &Half| half.is_over(self.suite, MANY_BLOCKS, 0);
        self.version == Version::Tls12 && (is_worn(&self.tx) || is_worn(&self.rx))
    }

    /// Announces the next keys, and uses them from here on.
    fn update(&mut self, key: &LessSafeKey, out: &mut Vec<u8>) -> Result<LessSafeKey, SealError> {
        let request = u8::from(self.owed == KeyUpdate::Requesting);
        self.record(key, content::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, request], out);
        self.tx.update(self.suite);
        self.owed = KeyUpdate::None;
        self.tx.key(self.suite).ok_or(SealError::Exhausted)
    }

    fn record(&mut self, key: &LessSafeKey, kind: u8, plain: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        let explicit = self.explicit_nonce();
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
        self.tx.advance(inner);
    }

    /// TLS 1.2 with GCM: the eight bytes of the nonce that are in the record (RFC 5288 section 3 leaves them to the sender). The
    /// sequence number, which no two records have in common.
    ///
    /// nginx has sealed records with this key, too: the handshake's Finished, answers to requests before, the 101. OpenSSL's eight
    /// bytes for these are a counter that begins at random. `tls1_change_cipher_state()`, from 3.2 on `tls1_set_crypto_state()`,
    /// sets the first four bytes alone (`EVP_CTRL_GCM_SET_IV_FIXED`); `gcm_tls_iv_set_fixed()` in ciphercommon_gcm.c fills the
    /// other eight by `RAND_bytes_ex()`; and `getivgen()` adds one for each record (`ctr64_inc()`). The same in 3.0 and 3.5, and
    /// in 1.1.1 (`aes_gcm_ctrl()`). Nobody can ask OpenSSL for them.
    ///
    /// So it is not certain that none of the two sequences' values coincide, but as improbable as it has to be. nginx has sealed `n`
    /// records, this side seals `m`: of the 2^64 values that OpenSSL may begin at, chosen before anybody could know or influence
    /// them, `n + m - 1` lead to one that occurs in both. There are fewer than 2^32 records (`BLOCKS_OF_RECORD`), so that this is
    /// less than 2^-32, which NIST SP 800-38D section 8 asks for; with the few thousand that most connections live to see it is
    /// less than 2^-50. Any other beginning here would be as good, without knowing OpenSSL's.
    ///
    /// TLS 1.3 and ChaCha20-Poly1305 leave nothing to chance: their nonces are the sequence number, for both sides.
    fn explicit_nonce(&self) -> [u8; 8] {
        self.tx.seq.to_be_bytes()
    }
}
