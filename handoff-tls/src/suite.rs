//! What ring and the record formats make of a suite.

use handoff_protocol::tls::{Suite, Version};
use ring::{aead, hkdf};

/// Bytes in front of a record's ciphertext that are a part of its nonce (RFC 5288 section 3).
pub(crate) fn explicit_nonce_len(version: Version, suite: Suite) -> usize {
    match version {
        Version::Tls12 => aead::NONCE_LEN - suite.fixed_iv_len(),
        Version::Tls13 => 0,
    }
}

pub(crate) fn aead(suite: Suite) -> &'static aead::Algorithm {
    match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

pub(crate) fn hkdf(suite: Suite) -> hkdf::Algorithm {
    match suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
    }
}
