//! The head of a client's frame (RFC 6455 section 5.2): 6, 8 or 14 bytes.

use fastwebsockets::OpCode;

use crate::Violation;

/// What a head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    /// RSV1: the first frame of a compressed message.
    pub(crate) compressed: bool,
    pub(crate) opcode: OpCode,
    pub(crate) mask: [u8; 4],
    /// Of the payload, in bytes.
    pub(crate) len: u64,
}

/// What a head is judged by besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Whether a message has begun and not ended.
    pub(crate) in_message: bool,
    /// Whether permessage-deflate was negotiated, which gives RSV1 its meaning.
    pub(crate) deflate: bool,
    /// How many bytes a continuation may have.
    pub(crate) room: u64,
    /// How many bytes the first frame of a message may have, if it is not compressed and if it is.
    pub(crate) limit: u64,
    pub(crate) compressed_limit: u64,
}

/// The longest head: two bytes, eight of length, four of mask.
pub(crate) const MAX_LEN: usize = 14;

/// The head at the start of `bytes` and its length, `None` if more bytes are needed. A rule is broken as soon as the first
/// byte is there with which no other byte can mend it, and always the same rule however many are there.
#[inline]
pub(crate) fn parse(bytes: &[u8], context: &Context) -> Result<Option<(Head, usize)>, Violation> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let (opcode, compressed) = first_byte(first, context)?;
    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::NotMasked);
    }
    let short = second & 0x7f;
    let is_control = is_control_frame(opcode);
    if is_control && short > MAX_CONTROL {
        return Err(Violation::ControlTooLong);
    }
    if opcode == OpCode::Close && short == 1 {
        return Err(Violation::CloseTooShort);
    }
    let room = match (is_control, opcode, compressed) {
        (true, ..) => u64::MAX,
        (_, OpCode::Continuation, _) => context.room,
        (.., true) => context.compressed_limit,
        _ => context.limit,
    };
    let (len, width) = match short {
        126 => (long_len::<2>(rest, 126, room)?, 2),
        127 => (long_len::<8>(rest, 1 << 16, room)?, 8),
        _ if u64::from(short) > room => return Err(Violation::TooLong),
        _ => (Some(u64::from(short)), 0),
    };
    let mask = rest.get(width..).and_then(|rest| rest.first_chunk());
    let (Some(len), Some(&mask)) = (len, mask) else { return Ok(None) };
    let head = Head { fin: first & FIN != 0, compressed, opcode, mask, len };
    Ok(Some((head, 2 + width + mask.len())))
}

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;

/// RFC 6455 section 5.5: in bytes.
pub(crate) const MAX_CONTROL: u8 = 125;

#[inline]
fn first_byte(first: u8, context: &Context) -> Result<(OpCode, bool), Violation> {
    let rsv1 = first & RSV1 != 0;
    if first & RSV2_AND_3 != 0 || (rsv1 && !context.deflate) {
        return Err(Violation::ReservedBits);
    }
    let opcode = match first & 0x0f {
        0 => OpCode::Continuation,
        1 => OpCode::Text,
        2 => OpCode::Binary,
        8 => OpCode::Close,
        9 => OpCode::Ping,
        10 => OpCode::Pong,
        _ => return Err(Violation::ReservedOpcode),
    };
    match opcode {
        OpCode::Continuation if !context.in_message => Err(Violation::UnexpectedContinuation),
        // RFC 7692 section 6.1: only a message's first frame has it.
        OpCode::Continuation if rsv1 => Err(Violation::ReservedBits),
        OpCode::Text | OpCode::Binary if context.in_message => Err(Violation::ExpectedContinuation),
        OpCode::Text | OpCode::Binary | OpCode::Continuation => Ok((opcode, rsv1)),
        _ if rsv1 => Err(Violation::ReservedBits),
        _ if first & FIN == 0 => Err(Violation::ControlFragmented),
        _ => Ok((opcode, false)),
    }
}

/// The length in the first `N` bytes, if they are there. The bytes that are there tell between which bounds it will be.
fn long_len<const N: usize>(bytes: &[u8], least: u64, room: u64) -> Result<Option<u64>, Violation> {
    let mut value = 0;
    let mut missing = 8 * N as u32;
    for &byte in bytes.iter().take(N) {
        missing -= 8;
        value |= u64::from(byte) << missing;
        if value >> 63 != 0 {
            return Err(Violation::LengthTopBit);
        }
        if value + ((1 << missing) - 1) < least {
            return Err(Violation::LengthNotMinimal);
        }
        if value > room {
            return Err(Violation::TooLong);
        }
    }
    Ok((missing == 0).then_some(value))
}

pub(crate) fn is_control_frame(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

/// The bytes of a head that is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl Begun {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
