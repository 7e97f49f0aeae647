//! What a session can be encrypted with.

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// As on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Version::Tls12 => 0x0303,
            Version::Tls13 => 0x0304,
        }
    }

    /// The version with this number, if it is one of these.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Version> {
        [Version::Tls12, Version::Tls13].into_iter().find(|version| version.number() == number)
    }
}

/// A cipher suite, as far as records are concerned: how keys were agreed on makes no difference to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128-GCM, with SHA-256.
    Aes128Gcm,
    /// AES-256-GCM, with SHA-384.
    Aes256Gcm,
    /// ChaCha20-Poly1305, with SHA-256 (RFC 8439, RFC 7905).
    ChaCha20Poly1305,
}

impl Suite {
    /// The suite with this IANA number: all of TLS 1.3's AEADs with a full tag, and of TLS 1.2's those with an ephemeral
    /// elliptic-curve key exchange.
    #[must_use]
    pub fn from_number(version: Version, number: u16) -> Option<Suite> {
        match (version, number) {
            (Version::Tls13, 0x1301) => Some(Suite::Aes128Gcm),
            (Version::Tls13, 0x1302) => Some(Suite::Aes256Gcm),
            (Version::Tls13, 0x1303) => Some(Suite::ChaCha20Poly1305),
            // ECDHE_ECDSA and ECDHE_RSA: RFC 5289, RFC 7905.
            (Version::Tls12, 0xc02b | 0xc02f) => Some(Suite::Aes128Gcm),
            (Version::Tls12, 0xc02c | 0xc030) => Some(Suite::Aes256Gcm),
            (Version::Tls12, 0xcca8 | 0xcca9) => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// A key's length in bytes.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Suite::Aes128Gcm => 16,
            Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => 32,
        }
    }

    /// The length in bytes of what [`Secret`](super::Secret) holds for each direction: the traffic secret (RFC 8446 section
    /// 7.1), or the key and the IV of TLS 1.2's key block (RFC 5246 section 6.3).
    #[must_use]
    pub fn secret_len(self, version: Version) -> usize {
        match (version, self) {
            (Version::Tls13, Suite::Aes256Gcm) => 48,
            (Version::Tls13, _) => 32,
            (Version::Tls12, _) => self.key_len() + self.fixed_iv_len(),
        }
    }

    /// Bytes of IV in TLS 1.2's key block: with GCM the other eight are in each record (RFC 5288 section 3).
    #[must_use]
    pub fn fixed_iv_len(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::Aes256Gcm => 4,
            Suite::ChaCha20Poly1305 => 12,
        }
    }
}
