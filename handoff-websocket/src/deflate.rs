//! permessage-deflate's codecs (RFC 7692 section 7.2), which a thread has for all of its connections: no context is taken
//! over from one message to the next, and so none belongs to a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::extension::{Agreement, MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use crate::{Message, Violation, encoder};

/// Deflates messages, one after the other, for all connections of a thread.
///
/// Holds about 300 kB for each size of window that some client has asked for.
#[derive(Debug, Default)]
pub struct Deflater {
    compressors: [Option<Compress>; COMPRESSORS],
}

/// Inflates messages, one after the other, for all connections of a thread.
///
/// Holds about 40 kB from the first message on, and at most 64 KiB of room for a message.
#[derive(Debug, Default)]
pub struct Inflater {
    decompressor: Option<Decompress>,
    inflated: Vec<u8>,
}

impl Deflater {
    /// Appends `message` to `out`, as one frame: compressed where that is shorter (RFC 7692 section 7.2.1).
    pub fn encode(&mut self, out: &mut Vec<u8>, message: Message<'_>, agreement: Agreement) {
        let start = out.len();
        if self.encode_compressed(out, message, agreement).is_none() {
            out.truncate(start);
            encoder::encode(out, message);
        }
    }

    /// `None` if it would not be shorter; `out` then has some of it.
    fn encode_compressed(
        &mut self,
        out: &mut Vec<u8>,
        message: Message<'_>,
        agreement: Agreement,
    ) -> Option<()> {
        let payload = message.payload();
        if payload.len() < MIN_COMPRESSED {
            return None;
        }
        let bits = agreement.server_window_bits();
        let slot = self.compressors.get_mut(usize::from(bits.checked_sub(MIN_WINDOW_BITS)?))?;
        let mut compressor = match slot.take() {
            Some(mut used) => {
                used.reset();
                used
            }
            None => Compress::new_with_window_bits(LEVEL, false, bits),
        };

        // The length is known, and with it the head's, when everything is compressed: what follows the head is moved.
        let start = out.len();
        let room = start.checked_add(encoder::MAX_HEAD)?;
        out.resize(room, 0);
        // zlib never needs that much. A compressor that runs out of room is not used again: reset, it believes that it has
        // less room for what is pending, and panics (zlib-rs 0.6.8: `Pending::reset_keep` forgets `out`).
        out.reserve(payload.len().checked_add(payload.len() / 4)?.checked_add(128)?);
        compressor.compress_vec(payload, out, FlushCompress::Sync).ok()?;
        if compressor.total_in() != payload.len() as u64 || out.len() == out.capacity() {
            return None;
        }
        *slot = Some(compressor);
        let compressed = out.get(room..)?.strip_suffix(&FLUSHED)?;
        if compressed.len() >= payload.len() {
            return None;
        }
        let len = compressed.len();
        let (mut head, head_len) = encoder::head(message.opcode(), compressed);
        *head.first_mut()? |= RSV1;
        let head = head.get(..head_len)?;
        out.get_mut(start..)?.get_mut(..head_len)?.copy_from_slice(head);
        out.copy_within(room..room.checked_add(len)?, start.checked_add(head_len)?);
        out.truncate(start.checked_add(head_len)?.checked_add(len)?);
        Some(())
    }
}

impl Inflater {
    /// Bytes of room held for a message, besides the codec's own.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.inflated.capacity()
    }

    /// What `compressed`, a whole message's payload, inflates to: at most `limit` bytes.
    pub(crate) fn inflate(&mut self, compressed: &[u8], limit: usize) -> Result<&[u8], Violation> {
        // One that was in vain has left what it got.
        self.shrink();
        let decompressor = match &mut self.decompressor {
            Some(used) => {
                used.reset(false);
                used
            }
            none => none.insert(Decompress::new(false)),
        };
        // No sender should, but some leave out the byte 0 that an empty message has.
        if compressed.is_empty() {
            return Ok(&[]);
        }
        // A block with BFINAL ends a deflate stream, but not the message (RFC 7692 section 7.2.3.4).
        let mut rest = compressed;
        while run(decompressor, &mut rest, &mut self.inflated, limit)? == Status::StreamEnd {
            if rest.is_empty() {
                return Ok(&self.inflated);
            }
            decompressor.reset(false);
        }
        let mut rest = END.as_slice();
        match run(decompressor, &mut rest, &mut self.inflated, limit)? {
            Status::StreamEnd if rest.is_empty() => Ok(&self.inflated),
            _ => Err(Violation::NotDeflated),
        }
    }

    /// To be called when what [`inflate`](Self::inflate) returned is not needed any more.
    pub(crate) fn shrink(&mut self) {
        self.inflated.clear();
        self.inflated.shrink_to(KEPT);
    }
}

/// The most bytes to which the compressed form of a message of `max_message` bytes may grow. A deflate stream need not be
/// longer than 5 bytes more for each 65,535; one of zlib's for small windows is by a sixteenth.
#[inline]
pub(crate) fn compressed_limit(max_message: usize) -> usize {
    max_message.saturating_add(max_message / 8).saturating_add(64)
}

const COMPRESSORS: usize = (MAX_WINDOW_BITS - MIN_WINDOW_BITS + 1) as usize;

const LEVEL: Compression = Compression::new(3);

/// What is shorter, in bytes, is not worth the time.
const MIN_COMPRESSED: usize = 64;

const RSV1: u8 = 0x40;

/// What a flush ends with, and a message does not (RFC 7692 section 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// What a message lacks (section 7.2.2), and an empty block with BFINAL: only if the message was complete does the stream
/// end with it.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Bytes of room that an inflater keeps.
const KEPT: usize = 64 * 1024;

/// Inflates all of `input`, up to the end of a stream.
fn run(
    decompressor: &mut Decompress,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<Status, Violation> {
    loop {
        if out.len() == out.capacity() {
            // One byte more shows that a message is too long.
            let most = limit.saturating_add(1).max(out.len().saturating_add(1));
            let wanted = out.capacity().saturating_mul(2).clamp(most.min(FIRST), most);
            out.reserve_exact(wanted.saturating_sub(out.len()));
        }
        let (before, out_before) = (decompressor.total_in(), out.len());
        let result = decompressor.decompress_vec(input, out, FlushDecompress::None);
        if out.len() > limit {
            return Err(Violation::TooLong);
        }
        let status = result.map_err(|_| Violation::NotDeflated)?;
        let used = usize::try_from(decompressor.total_in() - before).unwrap_or(usize::MAX);
        *input = input.get(used..).unwrap_or_default();
        let is_done = input.is_empty() && out.len() < out.capacity();
        if status == Status::StreamEnd || is_done {
            return Ok(status);
        }
        if used == 0 && out.len() == out_before {
            return Err(Violation::NotDeflated);
        }
    }
}

/// Bytes of room that an inflater begins with.
const FIRST: usize = 4096;
