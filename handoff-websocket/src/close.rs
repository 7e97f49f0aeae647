//! The payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).

use crate::{Violation, utf8};

/// Whether an endpoint may send this code: those that are defined for sending, or registered, or private. fastwebsockets'
/// `CloseCode` does not know 1014.
pub(crate) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Code and reason of a whole payload, if there are any.
pub(crate) fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = code(*high, *low)?;
            Ok(Some((code, utf8::whole(reason)?)))
        }
    }
}

/// Fails if nothing that may follow `payload` makes it a valid one.
pub(crate) fn check_begun(payload: &[u8]) -> Result<(), Violation> {
    if let [high, low, reason @ ..] = payload {
        code(*high, *low)?;
        utf8::valid_up_to(reason, 0)?;
    }
    Ok(())
}

fn code(high: u8, low: u8) -> Result<u16, Violation> {
    let code = u16::from_be_bytes([high, low]);
    if may_be_sent(code) { Ok(code) } else { Err(Violation::CloseCode) }
}
