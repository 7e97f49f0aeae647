//! One direction of a session: its keys, and the number of its next record.

use handoff_protocol::tls::{MAX_SECRET, Secret, Suite, Version};
use ring::aead::{LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::schedule::expand_label;
use crate::suite::aead;

const MAX_KEY: usize = 32;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Half {
    /// TLS 1.3's traffic secret, from which the next one is made.
    secret: Secret,
    key: [u8; MAX_KEY],
    iv: [u8; NONCE_LEN],
    pub(crate) seq: u64,
}

impl Half {
    /// `None` if the secret has another length than the suite's.
    pub(crate) fn new(version: Version, suite: Suite, secret: &Secret, seq: u64) -> Option<Half> {
        if secret.as_bytes().len() != suite.secret_len(version) {
            return None;
        }
        let (key, iv) = ([0; MAX_KEY], [0; NONCE_LEN]);
        let mut half = Half { secret: secret.clone(), key, iv, seq };
        match version {
            Version::Tls13 => half.derive(suite),
            Version::Tls12 => {
                let (key, iv) = secret.as_bytes().split_at_checked(suite.key_len())?;
                half.key.get_mut(..key.len())?.copy_from_slice(key);
                half.iv.get_mut(..iv.len())?.copy_from_slice(iv);
            }
        }
        Some(half)
    }

    /// TLS 1.3: the next generation of keys (RFC 8446 section 7.2).
    pub(crate) fn update(&mut self, suite: Suite) {
        let mut next = [0; MAX_SECRET];
        if let Some(next) = next.get_mut(..self.secret.as_bytes().len()) {
            expand_label(suite, self.secret.as_bytes(), "traffic upd", next);
            if let Some(secret) = Secret::new(next) {
                self.secret = secret;
            }
        }
        next.zeroize();
        self.seq = 0;
        self.derive(suite);
    }

    fn derive(&mut self, suite: Suite) {
        let Half { secret, key, iv, .. } = self;
        if let Some(key) = key.get_mut(..suite.key_len()) {
            expand_label(suite, secret.as_bytes(), "key", key);
        }
        expand_label(suite, secret.as_bytes(), "iv", iv);
    }

    /// The key, made ready for use: more than 500 bytes with AES-GCM, so it is kept for as long as a turn takes only.
    pub(crate) fn key(&self, suite: Suite) -> Option<LessSafeKey> {
        let key = self.key.get(..suite.key_len())?;
        UnboundKey::new(aead(suite), key).ok().map(LessSafeKey::new)
    }

    /// The nonce of the next record; `explicit` is what the record says of it (TLS 1.2 with GCM: RFC 5288 section 3), else
    /// nothing (RFC 8446 section 5.3, RFC 7905 section 2).
    pub(crate) fn nonce(&self, explicit: &[u8]) -> Nonce {
        let mut nonce = self.iv;
        if explicit.is_empty() {
            for (byte, seq) in nonce.iter_mut().skip(4).zip(self.seq.to_be_bytes()) {
                *byte ^= seq;
            }
        } else {
            for (byte, part) in nonce.iter_mut().skip(NONCE_LEN - explicit.len()).zip(explicit) {
                *byte = *part;
            }
        }
        Nonce::assume_unique_for_key(nonce)
    }
}
