//! The last words from nginx to a backend: the offer's byte, and the commit message.
//!
//! A commit is the byte [`COMMIT`], then sections (`u8` type, `u32` big-endian length, that many bytes),
//! closed by a section of type [`section::END`] and length 0. Everything but the descriptor itself, which
//! travels beside the offer's byte, is defined here.

use core::fmt;

use zeroize::Zeroize;

use crate::tls;

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
    /// The state of a TLS session ([`tls::State`](crate::tls::State)): with `Handoff: fd-tls`.
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
    /// The session that is to be carried on, if it was expected. In a box: a secret that is moved leaves bytes behind which
    /// nobody zeroes.
    pub tls: Option<Box<tls::State>>,
}

/// Reads a commit that arrives in pieces of any size.
#[derive(Debug)]
pub struct CommitDecoder {
    state: State,
    early_data: Vec<u8>,
    early_data_limit: usize,
    tls: Option<TlsState>,
}

/// A TLS session's state as far as it has come.
struct TlsState {
    bytes: [u8; tls::State::MAX_LEN],
    len: usize,
    decoded: Option<Box<tls::State>>,
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
    /// The commit carries no TLS session, though one was promised, or one that makes no sense.
    #[error("the commit's TLS state: {0}")]
    TlsState(#[from] tls::StateError),
    /// The commit carries a TLS session that was not asked for: the client's bytes are records, and who takes them for anything
    /// else misreads all of them.
    #[error("the commit carries a TLS session, though the answer did not say fd-tls")]
    UnexpectedTls,
    /// The closing section claims to have content.
    #[error("the closing section of the commit has length {0} instead of 0")]
    EndNotEmpty(u32),
}

impl CommitDecoder {
    /// A decoder that refuses a commit with more than `early_data_limit` bytes of early data in total.
    #[must_use]
    pub fn new(early_data_limit: usize) -> Self {
        Self { state: State::First, early_data: Vec::new(), early_data_limit, tls: None }
    }

    /// Expects the state of a TLS session, too, without which the commit is none. Otherwise one that has it is refused.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = Some(TlsState { bytes: [0; tls::State::MAX_LEN], len: 0, decoded: None });
        self
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
                State::Content { kind, left } => {
                    let (bytes, behind) = take(rest, left);
                    self.keep(kind, bytes);
                    let taken = u32::try_from(bytes.len()).unwrap_or(left);
                    self.state = State::content(kind, left.saturating_sub(taken));
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
        let tls = self.tls.and_then(|mut tls| tls.decoded.take());
        matches!(self.state, State::Done).then_some(Commit { early_data: self.early_data, tls })
    }

    fn keep(&mut self, kind: u8, bytes: &[u8]) {
        match (kind, &mut self.tls) {
            (section::EARLY_DATA, _) => self.early_data.extend_from_slice(bytes),
            (section::TLS_STATE, Some(tls)) => {
                // `section` has seen to it that there is room.
                if let Some(room) = tls.bytes.get_mut(tls.len..tls.len + bytes.len()) {
                    room.copy_from_slice(bytes);
                    tls.len += bytes.len();
                }
            }
            _ => (),
        }
    }

    /// The state after a byte that is not a section's content.
    fn head(&mut self, byte: u8) -> Result<State, CommitError> {
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
    fn section(&mut self, kind: u8, length: u32) -> Result<State, CommitError> {
        match (kind, length) {
            (section::END, 0) => {
                if let Some(tls) = &mut self.tls {
                    let bytes = tls.bytes.get(..tls.len).unwrap_or_default();
                    tls.decoded = Some(Box::new(tls::State::decode(bytes)?));
                    tls.bytes.zeroize();
                }
                Ok(State::Done)
            }
            (section::END, _) => Err(CommitError::EndNotEmpty(length)),
            (section::EARLY_DATA, _) => {
                let room = self.early_data_limit.saturating_sub(self.early_data.len());
                if usize::try_from(length).is_ok_and(|length| length <= room) {
                    Ok(State::content(kind, length))
                } else {
                    Err(CommitError::EarlyDataTooLong { limit: self.early_data_limit })
                }
            }
            (section::TLS_STATE, _) => {
                let tls = self.tls.as_ref().ok_or(CommitError::UnexpectedTls)?;
                let room = tls.bytes.len() - tls.len;
                if usize::try_from(length).is_ok_and(|length| length <= room) {
                    Ok(State::content(kind, length))
                } else {
                    Err(tls::StateError::Length.into())
                }
            }
            _ => Ok(State::content(kind, length)),
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
    /// In the content of a section of this type.
    Content {
        kind: u8,
        left: u32,
    },
    Done,
    Failed(CommitError),
}

impl State {
    fn content(kind: u8, left: u32) -> Self {
        if left == 0 { Self::Type } else { Self::Content { kind, left } }
    }
}

/// Without the bytes, which are secret.
impl fmt::Debug for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsState").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Drop for TlsState {
    fn drop(&mut self) {
        self.bytes.zeroize();
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
