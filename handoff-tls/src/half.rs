//! One direction of a session: its keys, the number of its next record, and how far the keys are used up.

use handoff_protocol::tls::{MAX_SECRET, Secret, Suite, Version};
use ring::aead::{LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::schedule::expand_label;
use crate::suite::aead;

pub(crate) const MAX_KEY: usize = 32;

/// Blocks of 16 bytes that AES-GCM may handle under one key: 2^24 records of full length. RFC 8446 section 5.5 sets 2^24.5 of
/// these as the limit, at which the advantage of whoever wants to tell the cipher from a random one is about 2^-57. What
/// counts for it are blocks, not records (Luykx and Paterson, "Limits on Authenticated Encryption Use in TLS"; the bound in
/// draft-irtf-cfrg-aead-limits is the square of their number, by 2^129): there is room for more records where they are
/// short. That holds for the cipher, whichever version of TLS uses it. ChaCha20-Poly1305 has no limit that could be reached.
pub(crate) const MOST_BLOCKS: u64 = 1 << 34;

/// The same, some time before: there are 2^32 blocks left, 64 GiB, to end or to go on to other keys in order.
pub(crate) const MANY_BLOCKS: u64 = MOST_BLOCKS / 4 * 3;

/// What a record takes besides its plaintext: additional data, lengths, and the tag. So there are fewer than 2^32 records.
const BLOCKS_OF_RECORD: u64 = 3;

/// What a record of full length takes, which is what those are taken for that somebody else has counted.
const BLOCKS_OF_LONGEST: u64 = (crate::MAX_PLAINTEXT / BLOCK) as u64;
const BLOCK: usize = 16;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Half {
    /// TLS 1.3's traffic secret, from which the next one is made.
    pub(crate) secret: Secret,
    pub(crate) key: [u8; MAX_KEY],
    pub(crate) iv: [u8; NONCE_LEN],
    pub(crate) seq: u64,
    /// What the key has been used for, in blocks.
    blocks: u64,
}

impl Half {
    /// `None` if the secret has another length than the suite's.
    pub(crate) fn new(version: Version, suite: Suite, secret: &Secret, seq: u64) -> Option<Half> {
        if secret.as_bytes().len() != suite.secret_len(version) {
            return None;
        }
        let (key, iv) = ([0; MAX_KEY], [0; NONCE_LEN]);
        let blocks = seq.saturating_mul(BLOCKS_OF_LONGEST);
        let mut half = Half { secret: secret.clone(), key, iv, seq, blocks };
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
        self.blocks = 0;
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

    /// A record with so many bytes of plaintext is done: the next one has the next number.
    pub(crate) fn advance(&mut self, len: usize) {
        // Neither gets near its end: `State::decode` admits no number over 2^48.
        self.seq += 1;
        self.blocks = self.blocks.saturating_add(blocks(len));
    }

    /// Whether the key would be used for more than `most` blocks with `len` bytes more, in records of full length.
    pub(crate) fn is_over(&self, suite: Suite, most: u64, len: usize) -> bool {
        let records = len.div_ceil(crate::MAX_PLAINTEXT) as u64;
        let more = (len / BLOCK) as u64 + records * (BLOCKS_OF_RECORD + 1);
        suite != Suite::ChaCha20Poly1305 && self.blocks.saturating_add(more) > most
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

fn blocks(len: usize) -> u64 {
    len.div_ceil(BLOCK) as u64 + BLOCKS_OF_RECORD
}
