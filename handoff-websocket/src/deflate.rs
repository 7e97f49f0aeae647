//! permessage-deflate's codecs (RFC 7692 section 7), which a thread has for all of its connections.

use crate::Violation;

/// Inflates messages, one after the other, for all connections of a thread.
#[derive(Debug, Default)]
pub struct Inflater {}

/// The most bytes to which the compressed form of a message of `max_message` bytes may grow.
pub(crate) fn compressed_limit(max_message: usize) -> usize {
    max_message.saturating_add(max_message / 8).saturating_add(64)
}

impl Inflater {
    /// What `compressed`, a whole message's payload, inflates to: at most `limit` bytes.
    pub(crate) fn inflate(
        &mut self,
        _compressed: &[u8],
        _limit: usize,
    ) -> Result<&[u8], Violation> {
        Err(Violation::NotDeflated)
    }

    /// To be called when what `inflate` returned is not needed any more.
    pub(crate) fn shrink(&mut self) {}
}
