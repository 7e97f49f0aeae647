//! The last words from nginx to a backend: the offer's byte, and the commit message.
//!
//! A commit is the byte [`COMMIT`], then sections (`u8` type, `u32` big-endian length, that many bytes),
//! closed by a section of type [`section::END`] and length 0. Everything but the descriptor itself, which
//! travels beside the offer's byte, is defined here.

/// The byte that carries the client's descriptor in its ancillary data.
pub const OFFER: u8 = b'F';

/// The first byte of a commit. Every other value is reserved.
pub const COMMIT: u8 = b'C';

/// Section types of a commit. Types not listed here are to be skipped.
pub mod section {
    /// Closes the commit; its length is 0.
    pub const END: u8 = 0;
    /// What the client had already sent after its request head.
    pub const EARLY_DATA: u8 = 1;
    /// Reserved for the state of a TLS connection.
    pub const TLS_STATE: u8 = 2;
}

/// The length in bytes of the commit with these sections, the closing one included.
///
/// `None` if it cannot be written: a section's length exceeds `u32`, the total exceeds `usize`, or a
/// section is itself of type [`section::END`].
#[must_use]
pub fn commit_len(sections: &[(u8, &[u8])]) -> Option<usize> {
    sections.iter().try_fold(1 + SECTION_HEAD, |total: usize, &(kind, bytes)| {
        if kind == section::END {
            return None;
        }
        u32::try_from(bytes.len()).ok()?;
        total.checked_add(SECTION_HEAD)?.checked_add(bytes.len())
    })
}

/// Writes the commit into the start of `out` and returns its length.
///
/// `None` where [`commit_len`] is, or if `out` is shorter than that; `out` may then be partly written.
#[must_use]
pub fn encode_commit(sections: &[(u8, &[u8])], out: &mut [u8]) -> Option<usize> {
    let len = commit_len(sections)?;
    let rest = put(out, &[COMMIT])?;
    let rest = sections.iter().try_fold(rest, |rest, &(kind, bytes)| {
        let rest = put_section_head(rest, kind, u32::try_from(bytes.len()).ok()?)?;
        put(rest, bytes)
    })?;
    put_section_head(rest, section::END, 0)?;
    Some(len)
}

/// What a complete commit said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// What the client had already sent after its request head: to be read before the descriptor is.
    pub early_data: Vec<u8>,
}

/// Reads a commit that arrives in pieces of any size.
#[derive(Debug)]
pub struct CommitDecoder {
    state: State,
    early_data: Vec<u8>,
    early_data_limit: usize,
}

/// What [`CommitDecoder::feed`] did with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Bytes used, counted from the input's start: all of it, unless the commit ended before.
    pub consumed: usize,
    /// Whether the commit is complete.
    pub done: bool,
}

/// Why what followed the offer is no commit. The handoff is void: hang up on the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The first byte is a reserved one.
    #[error("expected a commit (0x{COMMIT:02x}) after the offer, got byte 0x{0:02x}")]
    UnexpectedByte(u8),
    /// More early data than the backend is willing to buffer.
    #[error("the commit carries more than {limit} bytes of early data")]
    EarlyDataTooLong {
        /// The limit given to [`CommitDecoder::new`].
        limit: usize,
    },
    /// The closing section claims to have content.
    #[error("the closing section of the commit has length {0} instead of 0")]
    EndNotEmpty(u32),
}

impl CommitDecoder {
    /// A decoder that refuses a commit with more than `early_data_limit` bytes of early data in total.
    #[must_use]
    pub fn new(early_data_limit: usize) -> Self {
        Self { state: State::First, early_data: Vec::new(), early_data_limit }
    }

    /// Reads on. Once the commit is complete, nothing more is consumed.
    ///
    /// Memory grows with the early data that has arrived, never with a length that was only announced.
    ///
    /// # Errors
    ///
    /// [`CommitError`], and the same one on every later call.
    pub fn feed(&mut self, input: &[u8]) -> Result<Feed, CommitError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let mut rest = input;
        while let [byte, behind @ ..] = rest {
            rest = match self.state {
                State::Done => break,
                State::Content { early_data, left } => {
                    let (bytes, behind) = take(rest, left);
                    if early_data {
                        self.early_data.extend_from_slice(bytes);
                    }
                    let taken = u32::try_from(bytes.len()).unwrap_or(left);
                    self.state = State::content(early_data, left.saturating_sub(taken));
                    behind
                }
                _ => {
                    self.state =
                        self.head(*byte).inspect_err(|&error| self.state = State::Failed(error))?;
                    behind
                }
            };
        }
        let done = matches!(self.state, State::Done);
        Ok(Feed { consumed: input.len() - rest.len(), done })
    }

    /// The commit, if it is complete.
    #[must_use]
    pub fn into_commit(self) -> Option<Commit> {
        matches!(self.state, State::Done).then_some(Commit { early_data: self.early_data })
    }

    /// The state after a byte that is not a section's content.
    fn head(&self, byte: u8) -> Result<State, CommitError> {
        match self.state {
            State::First if byte == COMMIT => Ok(State::Type),
            State::First => Err(CommitError::UnexpectedByte(byte)),
            State::Type => Ok(State::Length { kind: byte, value: 0, missing: 4 }),
            State::Length { kind, value, missing } => {
                let value = (value << 8) | u32::from(byte);
                match missing {
                    0 | 1 => self.section(kind, value),
                    _ => Ok(State::Length { kind, value, missing: missing - 1 }),
                }
            }
            State::Content { .. } | State::Done | State::Failed(_) => Ok(self.state),
        }
    }

    /// The state after a section's head.
    fn section(&self, kind: u8, length: u32) -> Result<State, CommitError> {
        match (kind, length) {
            (section::END, 0) => Ok(State::Done),
            (section::END, _) => Err(CommitError::EndNotEmpty(length)),
            (section::EARLY_DATA, _) => {
                let room = self.early_data_limit.saturating_sub(self.early_data.len());
                if usize::try_from(length).is_ok_and(|length| length <= room) {
                    Ok(State::content(true, length))
                } else {
                    Err(CommitError::EarlyDataTooLong { limit: self.early_data_limit })
                }
            }
            _ => Ok(State::content(false, length)),
        }
    }
}

/// A section's type and length.
const SECTION_HEAD: usize = 5;

#[derive(Clone, Copy, Debug)]
enum State {
    First,
    /// At a section's type.
    Type,
    /// In a section's length, `missing` bytes of which are still to come.
    Length {
        kind: u8,
        value: u32,
        missing: u8,
    },
    /// In a section's content, which is kept only if it is early data.
    Content {
        early_data: bool,
        left: u32,
    },
    Done,
    Failed(CommitError),
}

impl State {
    fn content(early_data: bool, left: u32) -> Self {
        if left == 0 { Self::Type } else { Self::Content { early_data, left } }
    }
}

/// Splits `input` behind its first `left` bytes, or behind all of them.
fn take(input: &[u8], left: u32) -> (&[u8], &[u8]) {
    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
    input.split_at_checked(wanted).unwrap_or((input, &[]))
}

fn put_section_head(out: &mut [u8], kind: u8, length: u32) -> Option<&mut [u8]> {
    put(put(out, &[kind])?, &length.to_be_bytes())
}

/// Writes `bytes` at the start of `out`; returns the room behind them.
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> Option<&'o mut [u8]> {
    let (place, rest) = out.split_at_mut_checked(bytes.len())?;
    place.copy_from_slice(bytes);
    Some(rest)
}
