//! WebSocket frames (RFC 6455 section 5.2), just enough to talk and to tell whether anything was
//! lost, doubled or reordered.

use std::io::{self, Read, Write};

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { fin: true, opcode, payload: payload.into() }
    }

    pub fn text(payload: &str) -> Frame {
        Frame::new(TEXT, payload)
    }

    /// The bytes as a client sends them.
    pub fn masked(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = self.header(0x80);
        bytes.extend_from_slice(&MASK);
        bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// The bytes as a server sends them.
    pub fn unmasked(&self) -> Vec<u8> {
        let mut bytes = self.header(0);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Reads one frame, masked or not. An end of file between two frames is `UnexpectedEof`.
    pub fn read(from: &mut impl Read) -> io::Result<Frame> {
        let [first, second] = read_array(from)?;
        let len = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(read_array(from)?)),
            127 => u64::from_be_bytes(read_array(from)?),
            short => u64::from(short),
        };
        let mask: Option<[u8; 4]> = if second & 0x80 != 0 { Some(read_array(from)?) } else { None };
        let mut payload = vec![0; usize::try_from(len).expect("a length that fits")];
        from.read_exact(&mut payload)?;
        if let Some(mask) = mask {
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        Ok(Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }

    fn header(&self, masked: u8) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.opcode];
        match self.payload.len() {
            len @ 0..=125 => bytes.push(masked | u8::try_from(len).expect("small")),
            len @ 126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&u16::try_from(len).expect("16 bits").to_be_bytes());
            }
            len => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&u64::try_from(len).expect("64 bits").to_be_bytes());
            }
        }
        bytes
    }
}

/// Echoes `stream` as a WebSocket server until the client closes or goes away; `early` is what the
/// client had sent before `stream` begins. Pings are answered.
pub fn echo<S: Read + Write>(stream: &mut S, early: &[u8]) {
    let mut pending = early.to_vec();
    loop {
        let frame = Frame::read(&mut Early { pending: &mut pending, stream: &mut *stream });
        let Ok(frame) = frame else { return };
        let answer = match frame.opcode {
            PING => Frame { opcode: PONG, ..frame },
            PONG => continue,
            _ => frame,
        };
        if stream.write_all(&answer.unmasked()).is_err() || answer.opcode == CLOSE {
            return;
        }
    }
}

/// Bytes that were received already, then the stream.
struct Early<'a, S> {
    pending: &'a mut Vec<u8>,
    stream: S,
}

impl<S: Read> Read for Early<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.pending.is_empty() {
            return self.stream.read(buf);
        }
        let len = buf.len().min(self.pending.len());
        buf[..len].copy_from_slice(&self.pending[..len]);
        self.pending.drain(..len);
        Ok(len)
    }
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
