//! UTF-8 that arrives in pieces.

use crate::Violation;

/// `text`, if it is UTF-8 as a whole.
pub(crate) fn whole(text: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(text).map_err(|_| Violation::NotUtf8)
}

/// Up to where `text`, of which more may come, is UTF-8, if it is so up to `valid`: all but the last three bytes at most.
/// Fails at the first byte with which no continuation can make it valid (Autobahn 6.4).
pub(crate) fn valid_up_to(text: &[u8], valid: usize) -> Result<usize, Violation> {
    let unknown = text.get(valid..).unwrap_or_default();
    match simdutf8::compat::from_utf8(unknown) {
        Ok(_) => Ok(text.len()),
        Err(error) if error.error_len().is_some() => Err(Violation::NotUtf8),
        Err(error) => Ok(valid.saturating_add(error.valid_up_to())),
    }
}
