//! TLS 1.3's key schedule from the application traffic secrets on (RFC 8446 sections 7.1 to 7.3).

use handoff_protocol::tls::Suite;
use ring::hkdf::{KeyType, Prk};

use crate::suite::hkdf;

/// HKDF-Expand-Label with an empty context, of `out.len()` bytes.
pub(crate) fn expand_label(suite: Suite, secret: &[u8], label: &str, out: &mut [u8]) {
    const PREFIX: &[u8] = b"tls13 ";
    // The labels used here have at most 11 bytes, the outputs 48.
    let out_len = (out.len() as u16).to_be_bytes();
    let label_len = [(PREFIX.len() + label.len()) as u8];
    let info: [&[u8]; 5] = [&out_len, &label_len, PREFIX, label.as_bytes(), &[0]];
    let prk = Prk::new_less_safe(hkdf(suite), secret);
    let filled = prk.expand(&info, Len(out.len())).and_then(|okm| okm.fill(out));
    // It fails for more than 255 hashes.
    debug_assert!(filled.is_ok());
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}
