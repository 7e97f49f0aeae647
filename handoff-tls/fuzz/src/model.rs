//! A client that can send any content, and what has to become of it, by the rules and nothing else: no buffers, no splits.

use handoff_tls::{Alert, Closed, MAX_PLAINTEXT, State, Suite, Version};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use crate::Outcome;

/// A client, and what a server has to make of what it has sent.
pub struct Model {
    version: Version,
    suite: Suite,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    seq: u64,
    /// Handshake bytes that are no whole message yet.
    handshake: Vec<u8>,
    idle: usize,
    has_refused: bool,
    pub wire: Vec<u8>,
    pub outcome: Outcome,
    /// Whether the client has asked for a KeyUpdate.
    pub asked: bool,
}

impl Model {
    pub fn new(state: &State) -> Model {
        let suite = Suite::from_number(state.version, state.suite).expect("a suite");
        let secret = state.rx_secret.as_bytes().to_vec();
        let (key, iv) = match state.version {
            Version::Tls12 => {
                let (key, iv) = secret.split_at(suite.key_len());
                (key.to_vec(), iv.to_vec())
            }
            Version::Tls13 => {
                (expand(suite, &secret, b"key", suite.key_len()), expand(suite, &secret, b"iv", 12))
            }
        };
        Model {
            version: state.version,
            suite,
            key: ready(suite, &key),
            secret,
            iv,
            seq: state.rx_seq,
            handshake: Vec::new(),
            idle: 0,
            has_refused: false,
            wire: Vec::new(),
            outcome: Outcome::default(),
            asked: false,
        }
    }

    /// Bytes that nobody has sealed. Whatever they are, all is over when a record of them is complete, or its header wrong.
    pub fn garbage(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
    }

    /// A sealed record; `padding` zeros where there is padding.
    pub fn record(&mut self, kind: u8, plain: &[u8], padding: usize) {
        match self.version {
            Version::Tls13 => {
                let inner = [plain, &[kind], &vec![0; padding]].concat();
                self.seal_13(inner);
            }
            Version::Tls12 => self.seal_12(kind, plain),
        }
        self.seq += 1;
        if !self.outcome.is_over() {
            self.judge(kind, plain, padding);
        }
    }

    fn judge(&mut self, kind: u8, plain: &[u8], padding: usize) {
        let is_13 = self.version == Version::Tls13;
        // TLS 1.2 shows it in the header.
        if !is_13 && !matches!(kind, 21..=23) {
            return self.fail(Alert::UnexpectedMessage);
        }
        let len = plain.len() + if is_13 { 1 + padding } else { 0 };
        if len > MAX_PLAINTEXT + usize::from(is_13) {
            return self.fail(Alert::RecordOverflow);
        }
        // The last byte that is not zero is the type: of nothing but zeros there is none.
        if is_13 && kind == 0 {
            let Some(last) = plain.iter().rposition(|byte| *byte != 0) else {
                return self.fail(Alert::UnexpectedMessage);
            };
            let (kind, plain) = (plain[last], plain[..last].to_vec());
            return self.judge_content(kind, &plain);
        }
        self.judge_content(kind, plain);
    }

    fn judge_content(&mut self, kind: u8, plain: &[u8]) {
        if !self.handshake.is_empty() && kind != 22 {
            return self.fail(Alert::UnexpectedMessage);
        }
        match (kind, plain) {
            (23, []) => self.idle(),
            (23, data) => {
                self.outcome.data.extend_from_slice(data);
                self.idle = 0;
            }
            (21, [_, 0]) => self.outcome.closed = Some(Closed::Notify),
            (21, [level, description]) => {
                let goes_on = match self.version {
                    Version::Tls13 => *description == 90,
                    Version::Tls12 => *level == 1,
                };
                if goes_on {
                    self.idle();
                } else {
                    self.outcome.closed = Some(Closed::Alert(*description));
                }
            }
            (21, []) => self.fail(Alert::UnexpectedMessage),
            (21, _) => self.fail(Alert::DecodeError),
            (22, _) if self.version == Version::Tls12 => {
                if self.has_refused {
                    return self.fail(Alert::UnexpectedMessage);
                }
                self.has_refused = true;
                self.idle();
                if !self.outcome.is_over() {
                    self.outcome.refused += 1;
                }
            }
            (22, []) => self.fail(Alert::UnexpectedMessage),
            (22, more) => self.judge_handshake(more),
            _ => self.fail(Alert::UnexpectedMessage),
        }
    }

    fn judge_handshake(&mut self, more: &[u8]) {
        self.handshake.extend_from_slice(more);
        let message = self.handshake.clone();
        let begins = |with: &[u8]| message.iter().zip(with).all(|(a, b)| a == b);
        if !begins(&[24]) {
            return self.fail(Alert::UnexpectedMessage);
        }
        if message.len() >= 4 && !begins(&[24, 0, 0, 1]) {
            return self.fail(Alert::DecodeError);
        }
        match message.len() {
            0..5 => self.idle(),
            5 if message[4] < 2 => {
                self.handshake.clear();
                self.asked |= message[4] == 1;
                self.idle();
                let suite = self.suite;
                self.secret = expand(suite, &self.secret, b"traffic upd", self.secret.len());
                self.key = ready(suite, &expand(suite, &self.secret, b"key", suite.key_len()));
                self.iv = expand(suite, &self.secret, b"iv", 12);
                self.seq = 0;
            }
            5 => self.fail(Alert::IllegalParameter),
            _ => self.fail(Alert::UnexpectedMessage),
        }
    }

    /// Nothing came of it: so many times in a row are borne.
    fn idle(&mut self) {
        self.idle += 1;
        if self.idle > 32 {
            self.fail(Alert::UnexpectedMessage);
        }
    }

    fn fail(&mut self, alert: Alert) {
        self.outcome.alert = Some(alert);
    }

    fn seal_13(&mut self, mut inner: Vec<u8>) {
        let header = header(23, inner.len() + 16);
        let nonce = self.xored();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).expect("sealed");
        self.wire.extend_from_slice(&header);
        self.wire.extend(inner);
    }

    fn seal_12(&mut self, kind: u8, plain: &[u8]) {
        let explicit = (self.seq ^ 0x5a5a_0000_0000_a5a5).to_be_bytes();
        let (nonce, explicit): (Nonce, &[u8]) = match self.suite {
            Suite::ChaCha20Poly1305 => (self.xored(), &[]),
            _ => {
                let nonce = [&self.iv[..], &explicit].concat().try_into().expect("12 bytes");
                (Nonce::assume_unique_for_key(nonce), &explicit)
            }
        };
        let len = (plain.len() as u16).to_be_bytes();
        let aad = [&self.seq.to_be_bytes()[..], &[kind, 3, 3], &len].concat();
        let mut sealed = plain.to_vec();
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("sealed");
        self.wire.extend_from_slice(&header(kind, explicit.len() + sealed.len()));
        self.wire.extend_from_slice(explicit);
        self.wire.extend(sealed);
    }

    fn xored(&self) -> Nonce {
        let mut nonce: [u8; 12] = self.iv[..].try_into().expect("12 bytes");
        nonce[4..].iter_mut().zip(self.seq.to_be_bytes()).for_each(|(n, s)| *n ^= s);
        Nonce::assume_unique_for_key(nonce)
    }
}

fn header(kind: u8, len: usize) -> [u8; 5] {
    let [l1, l0] = (len as u16).to_be_bytes();
    [kind, 3, 3, l1, l0]
}

fn ready(suite: Suite, key: &[u8]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key"))
}

/// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
fn expand(suite: Suite, secret: &[u8], label: &[u8], len: usize) -> Vec<u8> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let hash = if suite == Suite::Aes256Gcm { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 };
    let label = [b"tls13 ", label].concat();
    let info = [&(len as u16).to_be_bytes()[..], &[label.len() as u8], &label, &[0]];
    let mut out = vec![0; len];
    let prk = hkdf::Prk::new_less_safe(hash, secret);
    prk.expand(&info, Len(len)).and_then(|okm| okm.fill(&mut out)).expect("short enough");
    out
}
