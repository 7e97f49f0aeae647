//! The chunked transfer coding (RFC 9112 section 7.1) of a refusal's body, decoded as it arrives.
//!
//! The arguments of nginx's own `ngx_http_parse_chunked` differ between 1.26 and 1.28, so the module does
//! not call it. Nothing is copied or allocated here: the body is reported as ranges of the input.

use core::ops::Range;

/// Decodes a chunked body.
///
/// ```
/// # use handoff_protocol::{ChunkedDecoder, ChunkedError};
/// # fn main() -> Result<(), ChunkedError> {
/// let mut input: &[u8] = b"5\r\nHello\r\n2\r\n!!\r\n0\r\n\r\n";
/// let (mut decoder, mut body) = (ChunkedDecoder::default(), Vec::new());
/// loop {
///     let decoded = decoder.decode(input)?;
///     body.extend_from_slice(&input[decoded.data]);
///     input = &input[decoded.consumed..];
///     if decoded.done || input.is_empty() {
///         break;
///     }
/// }
/// assert_eq!(body, b"Hello!!");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of extensions and trailers so far.
    skipped: usize,
}

/// What [`ChunkedDecoder::decode`] did with its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes used, counted from the input's start: at least one, unless the input was empty or the body done.
    pub consumed: usize,
    /// The run of body bytes among them, a range of the input; may be empty.
    pub data: Range<usize>,
    /// Whether the body, its last CRLF included, is complete. Nothing is consumed behind it.
    pub done: bool,
}

/// Why a body is not chunked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkedError {
    /// A chunk does not begin with a hexadecimal number, or something else than an extension follows it.
    #[error("malformed chunk size: unexpected byte 0x{0:02x}")]
    Size(u8),
    /// A chunk size of more than 16 digits.
    #[error("chunk size of more than 16 digits")]
    SizeTooLong,
    /// CR without LF, LF without CR, or chunk data that is not followed by them.
    #[error("malformed chunk: expected CRLF, got byte 0x{0:02x}")]
    LineEnd(u8),
    /// Chunk extensions and trailers that do not end.
    #[error("more than {limit} bytes of chunk extensions and trailers")]
    TooMuchMetadata {
        /// The limit for a whole body, in bytes.
        limit: usize,
    },
}

impl ChunkedDecoder {
    /// Uses up a prefix of `input` that contains at most one run of body bytes. To be called in a loop,
    /// with what was not consumed, until that is empty or the body is done.
    ///
    /// # Errors
    ///
    /// [`ChunkedError`], and the same one on every later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, ChunkedError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let mut consumed = 0;
        while let Some(&byte) = input.get(consumed) {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let rest = input.len().saturating_sub(consumed);
                    let run = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
                    let left = left.saturating_sub(run as u64);
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    let end = consumed.saturating_add(run);
                    return Ok(Decoded { consumed: end, data: consumed..end, done: false });
                }
                _ => {}
            }
            self.state =
                self.framing(byte).inspect_err(|&error| self.state = State::Failed(error))?;
            consumed = consumed.saturating_add(1);
        }
        let done = matches!(self.state, State::Done);
        Ok(Decoded { consumed, data: consumed..consumed, done })
    }

    /// The state after a byte that is not body. A bare LF ends no line: this is a backend's own encoder,
    /// and leniency is how two parsers come to disagree about where a body ends.
    fn framing(&mut self, byte: u8) -> Result<State, ChunkedError> {
        Ok(match self.state {
            State::SizeStart => State::Size { value: size_digit(byte)?, digits: 1 },
            State::Size { value, digits } => match byte {
                b' ' | b'\t' | b';' | b'\r' => self.behind_size(value, byte)?,
                _ if digits >= 16 => return Err(ChunkedError::SizeTooLong),
                _ => State::Size { value: (value << 4) | size_digit(byte)?, digits: digits + 1 },
            },
            State::Padding { value } => self.behind_size(value, byte)?,
            State::Extension { value } => match byte {
                b'\r' => State::SizeLf { value },
                _ => self.skip(byte, State::Extension { value })?,
            },
            State::SizeLf { value: 0 } => expect(b'\n', byte, State::TrailerStart)?,
            State::SizeLf { value } => expect(b'\n', byte, State::Data { left: value })?,
            State::DataCr => expect(b'\r', byte, State::DataLf)?,
            State::DataLf => expect(b'\n', byte, State::SizeStart)?,
            State::TrailerStart if byte == b'\r' => State::LastLf,
            State::Trailer if byte == b'\r' => State::TrailerLf,
            State::TrailerStart | State::Trailer => self.skip(byte, State::Trailer)?,
            State::TrailerLf => expect(b'\n', byte, State::TrailerStart)?,
            State::LastLf => expect(b'\n', byte, State::Done)?,
            State::Data { .. } | State::Done | State::Failed(_) => self.state,
        })
    }

    /// Behind the digits of a chunk size, which some servers pad with spaces.
    fn behind_size(&mut self, value: u64, byte: u8) -> Result<State, ChunkedError> {
        match byte {
            b'\r' => Ok(State::SizeLf { value }),
            b' ' | b'\t' => self.skip(byte, State::Padding { value }),
            b';' => self.skip(byte, State::Extension { value }),
            _ => Err(ChunkedError::Size(byte)),
        }
    }

    /// Counts a byte that nobody reads.
    fn skip(&mut self, byte: u8, next: State) -> Result<State, ChunkedError> {
        if byte == b'\n' {
            return Err(ChunkedError::LineEnd(byte));
        }
        self.skipped = self.skipped.saturating_add(1);
        if self.skipped > METADATA_LIMIT {
            return Err(ChunkedError::TooMuchMetadata { limit: METADATA_LIMIT });
        }
        Ok(next)
    }
}

/// Bytes of extensions and trailers in a body: nobody reads them, and a refusal has no use for more.
const METADATA_LIMIT: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    SizeStart,
    Size {
        value: u64,
        digits: u8,
    },
    Padding {
        value: u64,
    },
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
    Failed(ChunkedError),
}

fn expect(wanted: u8, byte: u8, next: State) -> Result<State, ChunkedError> {
    if byte == wanted { Ok(next) } else { Err(ChunkedError::LineEnd(byte)) }
}

fn size_digit(byte: u8) -> Result<u64, ChunkedError> {
    match byte {
        b'0'..=b'9' => Ok(u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(u64::from(byte - b'a') + 10),
        b'A'..=b'F' => Ok(u64::from(byte - b'A') + 10),
        _ => Err(ChunkedError::Size(byte)),
    }
}
