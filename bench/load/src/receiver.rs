//! What a server sends: frames, read incrementally and compared with what was expected; nothing of a message is stored.

use crate::contents::{Contents, Label};

/// One connection's place in what it receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The message that comes next, or is coming.
    pub(crate) expected: Label,
    is_text: bool,
    head: [u8; 10],
    head_len: u8,
    /// Of the frame's payload.
    remaining: u64,
    within_frame: bool,
    within_message: bool,
    /// Of the message that is coming, in all of its frames.
    offset: usize,
    control: Vec<u8>,
}

/// What a server must not send, or what ends the connection.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[error("message {number} of sender {sender} is not what was sent, at byte {offset}")]
    Contents { sender: u32, number: u32, offset: usize },
    #[error("message {number} of sender {sender} has {got} bytes, not {size}")]
    Length { sender: u32, number: u32, size: usize, got: usize },
    #[error("text instead of binary, or the reverse")]
    Kind,
    #[error("fragments out of order")]
    Order,
    #[error("a frame begins with {0:#04x} {1:#04x}")]
    Head(u8, u8),
    #[error("closed by the server with {0}")]
    Closed(u16),
}

impl Receiver {
    pub(crate) fn new(expected: Label, is_text: bool) -> Receiver {
        Receiver {
            expected,
            is_text,
            head: [0; 10],
            head_len: 0,
            remaining: 0,
            within_frame: false,
            within_message: false,
            offset: 0,
            control: Vec::new(),
        }
    }

    /// Takes all of `bytes`, and appends answers to pings to `pongs`.
    ///
    /// Returns how many messages are complete now that were not.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        contents: &Contents,
        pongs: &mut Vec<u8>,
    ) -> Result<u32, Wrong> {
        let mut complete = 0;
        loop {
            if !self.within_frame && !self.take_head(&mut bytes)? {
                return Ok(complete);
            }
            let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            self.remaining -= len as u64;
            let is_control = self.head[0] & 0x8 != 0;
            if is_control {
                self.control.extend_from_slice(piece);
            } else {
                if !contents.matches(self.expected, self.offset, piece) {
                    return Err(self.differs(len));
                }
                self.offset += len;
            }
            if self.remaining > 0 {
                return Ok(complete);
            }
            self.within_frame = false;
            if is_control {
                self.answer(pongs)?;
            } else if self.head[0] & 0x80 != 0 {
                self.end_message()?;
                complete += 1;
            }
        }
    }

    /// Whether the head is whole, and the frame begun.
    fn take_head(&mut self, bytes: &mut &[u8]) -> Result<bool, Wrong> {
        let need = loop {
            let have = usize::from(self.head_len);
            let need = match (have, self.head[1] & 0x7f) {
                (0 | 1, _) => 2,
                (_, 126) => 4,
                (_, 127) => 10,
                _ => 2,
            };
            if have >= need {
                break need;
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(false) };
            self.head[have] = *first;
            self.head_len += 1;
            *bytes = rest;
        };
        self.head_len = 0;
        self.remaining = match need {
            2 => u64::from(self.head[1]),
            4 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            _ => self.head[2..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let (first, second) = (self.head[0], self.head[1]);
        match first & 0x0f {
            // Masked, or with a reserved bit: no server's frame without an extension.
            _ if second & 0x80 != 0 || first & 0x70 != 0 => return Err(Wrong::Head(first, second)),
            0x0 if !self.within_message => return Err(Wrong::Order),
            0x1 | 0x2 if self.within_message => return Err(Wrong::Order),
            0x1 | 0x2 if (first & 0x0f == 0x1) != self.is_text => return Err(Wrong::Kind),
            0x0..=0x2 => self.within_message = true,
            0x8..=0xa if first & 0x80 != 0 && self.remaining <= 125 => self.control.clear(),
            _ => return Err(Wrong::Head(first, second)),
        }
        self.within_frame = true;
        Ok(true)
    }

    fn answer(&mut self, pongs: &mut Vec<u8>) -> Result<(), Wrong> {
        match self.head[0] & 0x0f {
            0x8 => match self.control[..] {
                [high, low, ..] => Err(Wrong::Closed(u16::from_be_bytes([high, low]))),
                // No code was given, RFC 6455 7.1.5.
                _ => Err(Wrong::Closed(1005)),
            },
            0x9 => {
                // Of at most 125 bytes. The key is not zero, and its bytes are.
                pongs.extend_from_slice(&[0x8a, 0x80 | self.control.len() as u8, 0, 0, 0, 1]);
                let masked = |(index, byte): (usize, &u8)| byte ^ u8::from(index % 4 == 3);
                pongs.extend(self.control.iter().enumerate().map(masked));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end_message(&mut self) -> Result<(), Wrong> {
        let Label { sender, number, size } = self.expected;
        if self.offset != size {
            return Err(Wrong::Length { sender, number, size, got: self.offset });
        }
        self.offset = 0;
        self.within_message = false;
        self.expected.number = number.wrapping_add(1);
        Ok(())
    }

    fn differs(&self, len: usize) -> Wrong {
        let Label { sender, number, size } = self.expected;
        if self.offset + len > size {
            return Wrong::Length { sender, number, size, got: self.offset + len };
        }
        Wrong::Contents { sender, number, offset: self.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Label = Label { sender: 1, number: 0, size: 300 };

    /// As a server sends it, in frames of at most `most` bytes.
    fn message(contents: &Contents, label: Label, most: usize) -> Vec<u8> {
        let mut masked = Vec::new();
        contents.encode(label, false, 0x0101_0101, &mut masked);
        let payload: Vec<u8> =
            masked[masked.len() - label.size..].iter().map(|byte| byte ^ 1).collect();
        let mut frames = Vec::new();
        let count = payload.len().div_ceil(most);
        for (index, piece) in payload.chunks(most).enumerate() {
            frames.push(if index + 1 == count { 0x80 } else { 0 } | if index == 0 { 2 } else { 0 });
            if piece.len() < 126 {
                frames.push(piece.len() as u8);
            } else {
                frames.push(126);
                frames.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            }
            frames.extend_from_slice(piece);
        }
        frames
    }

    fn feed_all(bytes: &[u8], step: usize) -> Result<(u32, Vec<u8>), Wrong> {
        let contents = Contents::new(300);
        let mut receiver = Receiver::new(FIRST, false);
        let mut pongs = Vec::new();
        let mut complete = 0;
        for piece in bytes.chunks(step) {
            complete += receiver.feed(piece, &contents, &mut pongs)?;
        }
        Ok((complete, pongs))
    }

    #[test]
    fn messages_are_counted_however_they_come() {
        let contents = Contents::new(300);
        for most in [1, 100, 126, 300] {
            let mut bytes = message(&contents, FIRST, most);
            bytes.extend_from_slice(&[0x89, 2, b'h', b'i']);
            bytes.extend(message(&contents, Label { number: 1, ..FIRST }, most));
            for step in [1, 2, 3, 7, 1000] {
                let (complete, pongs) = feed_all(&bytes, step).expect("as sent");
                assert_eq!(complete, 2, "frames of {most}, pieces of {step}");
                assert_eq!(pongs, [0x8a, 0x82, 0, 0, 0, 1, b'h', b'i']);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let contents = Contents::new(300);
        let good = message(&contents, FIRST, 300);
        let doubled = [good.clone(), good.clone()].concat();
        assert_eq!(
            feed_all(&doubled, 1),
            Err(Wrong::Contents { sender: 1, number: 1, offset: 7 + 8 })
        );
        let mut cut = good.clone();
        cut[3] = 43;
        cut.truncate(4 + 299);
        assert_eq!(
            feed_all(&cut, 1000),
            Err(Wrong::Length { sender: 1, number: 0, size: 300, got: 299 })
        );
        let mut text = good.clone();
        text[0] = 0x81;
        assert_eq!(feed_all(&text, 1000), Err(Wrong::Kind));
        let mut masked = good;
        masked[1] |= 0x80;
        assert_eq!(feed_all(&masked, 1000), Err(Wrong::Head(0x82, 0xfe)));
        assert_eq!(feed_all(&[0x80, 0], 1000), Err(Wrong::Order));
        assert_eq!(feed_all(&[0x88, 2, 0x03, 0xe9], 1), Err(Wrong::Closed(1001)));
        assert_eq!(feed_all(&[0x88, 0], 1), Err(Wrong::Closed(1005)));
    }
}
