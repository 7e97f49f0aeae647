//! How the targets take an input apart.

/// The parts of an input between its separators. None of these is valid in a head, so that the parts can hold CR and LF.
pub fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    input.split(|&byte| byte == 0x1e)
}

/// A part as a field: name and value.
pub fn field(part: &[u8]) -> (&[u8], &[u8]) {
    let colon = part.iter().position(|&byte| byte == b':').unwrap_or(part.len());
    let (name, value) = part.split_at(colon);
    (name, value.get(1..).unwrap_or_default())
}

/// `bytes` in pieces of these lengths, over and over; the rest in one if there are none.
pub fn pieces<'b>(mut bytes: &'b [u8], lengths: &[u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(usize::from(length).clamp(1, bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}
