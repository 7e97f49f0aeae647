//! What messages say: told by sender and number, so that a lost, doubled, reordered or misdelivered one cannot pass for
//! another, and compared without being stored.

/// Where in the pattern a message's body may begin.
const OFFSETS: usize = 1 << 16;
/// In hexadecimal digits: the sender, and the message's number.
const TAG: usize = 16;

/// Contents of all messages of up to some size. ASCII, so that they can be text too.
pub(crate) struct Contents {
    pattern: Vec<u8>,
}

/// One message's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) sender: u32,
    pub(crate) number: u32,
    pub(crate) size: usize,
}

impl Contents {
    pub(crate) fn new(max_size: usize) -> Contents {
        let mut keys = Keys::new(0x9e37_79b9_7f4a_7c15);
        let pattern = (0..OFFSETS + max_size).map(|_| b' ' + (keys.next() % 95) as u8).collect();
        Contents { pattern }
    }

    /// Appends the message as a client's frame.
    pub(crate) fn encode(&self, label: Label, is_text: bool, key: u32, out: &mut Vec<u8>) {
        out.push(if is_text { 0x81 } else { 0x82 });
        match label.size {
            0..=125 => out.push(0x80 | label.size as u8),
            126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(label.size as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(label.size as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&key.to_be_bytes());
        let begin = out.len();
        let tag = label.tag();
        out.extend_from_slice(label.tag_of(&tag));
        out.extend_from_slice(self.body(label));
        mask(&mut out[begin..], key);
    }

    /// Whether `piece` is what the message has at `offset`.
    pub(crate) fn matches(&self, label: Label, offset: usize, piece: &[u8]) -> bool {
        let tag = label.tag();
        let tag = label.tag_of(&tag);
        let (of_tag, of_body) = piece.split_at(tag.len().saturating_sub(offset).min(piece.len()));
        let body_offset = offset.saturating_sub(tag.len());
        let range = body_offset..body_offset + of_body.len();
        (of_tag.is_empty() || tag.get(offset..offset + of_tag.len()) == Some(of_tag))
            && self.body(label).get(range) == Some(of_body)
    }

    fn body(&self, label: Label) -> &[u8] {
        let place = (label.sender as usize).wrapping_mul(7919)
            ^ (label.number as usize).wrapping_mul(104_729);
        let begin = place % OFFSETS;
        &self.pattern[begin..begin + label.size.saturating_sub(TAG)]
    }
}

impl Label {
    fn tag(self) -> [u8; TAG] {
        let value = u64::from(self.sender) << 32 | u64::from(self.number);
        let mut tag = [0; TAG];
        for (index, digit) in tag.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(value >> (60 - 4 * index)) as usize & 0xf];
        }
        tag
    }

    /// As much of it as a short message has room for: its end, which changes from one message to the next.
    fn tag_of(self, tag: &[u8; TAG]) -> &[u8] {
        &tag[TAG.saturating_sub(self.size)..]
    }
}

fn mask(payload: &mut [u8], key: u32) {
    let wide = u64::from_ne_bytes(
        [key.to_be_bytes(), key.to_be_bytes()].concat().try_into().unwrap_or_default(),
    );
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Masking keys, none of which is zero: a server that forgets to unmask is found out. (xorshift64*)
pub(crate) struct Keys(u64);

impl Keys {
    pub(crate) fn new(seed: u64) -> Keys {
        Keys(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(contents: &Contents, label: Label) -> Vec<u8> {
        let mut frame = Vec::new();
        contents.encode(label, false, 0x0102_0304, &mut frame);
        let mut payload = frame.split_off(frame.len() - label.size);
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= [1, 2, 3, 4][index % 4];
        }
        payload
    }

    #[test]
    fn a_message_matches_itself_in_any_pieces() {
        let contents = Contents::new(100);
        for size in [1, 15, 16, 17, 100] {
            let label = Label { sender: 3, number: 70_000, size };
            let payload = payload(&contents, label);
            assert!(payload.is_ascii());
            for begin in 0..size {
                for end in begin..=size {
                    assert!(
                        contents.matches(label, begin, &payload[begin..end]),
                        "{begin}..{end} of {size}"
                    );
                }
            }
            let mut longer = payload.clone();
            longer.push(b'x');
            assert!(!contents.matches(label, 0, &longer));
        }
    }

    #[test]
    fn a_message_matches_no_other() {
        let contents = Contents::new(100);
        let label = Label { sender: 3, number: 9, size: 100 };
        let payload = payload(&contents, label);
        assert!(!contents.matches(Label { sender: 4, ..label }, 0, &payload));
        assert!(!contents.matches(Label { number: 10, ..label }, 0, &payload));
        for place in 0..payload.len() {
            let mut wrong = payload.clone();
            wrong[place] ^= 1;
            assert!(!contents.matches(label, 0, &wrong), "byte {place}");
        }
    }

    #[test]
    fn lengths_take_as_few_bytes_as_they_need() {
        let contents = Contents::new(70_000);
        for (size, head) in [(125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let mut frame = Vec::new();
            contents.encode(Label { sender: 0, number: 0, size }, true, 5, &mut frame);
            assert_eq!((frame.len(), frame[0]), (head + size, 0x81));
        }
    }
}
