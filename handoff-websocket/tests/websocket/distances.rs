//! How far back a deflate stream refers (RFC 1951), read without a window, as none of zlib-rs's inflaters keeps to a small one.

/// The greatest distance in a stream that is valid and ends with a flush, whose last four bytes may be missing.
pub fn greatest(stream: &[u8]) -> usize {
    let mut bits = Bits { stream, at: 0 };
    let mut greatest = 0;
    while bits.at + 10 <= 8 * stream.len() {
        bits.take(1);
        let (lengths, distances) = match bits.take(2) {
            0 => {
                bits.at = bits.at.div_ceil(8) * 8;
                let len = bits.take(16);
                bits.at += 16 + 8 * len;
                continue;
            }
            1 => (fixed(), Code::new(&[5; 30])),
            2 => dynamic(&mut bits),
            _ => panic!("reserved type of block"),
        };
        loop {
            match lengths.read(&mut bits) {
                0..256 => {}
                256 => break,
                symbol => {
                    let extra = if (265..285).contains(&symbol) { (symbol - 261) / 4 } else { 0 };
                    bits.take(extra);
                    let symbol = distances.read(&mut bits);
                    let distance = if symbol < 4 {
                        symbol + 1
                    } else {
                        let extra = symbol / 2 - 1;
                        ((2 + symbol % 2) << extra) + 1 + bits.take(extra)
                    };
                    greatest = greatest.max(distance);
                }
            }
        }
    }
    greatest
}

struct Bits<'s> {
    stream: &'s [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, shift| value | self.bit() << shift)
    }

    fn bit(&mut self) -> usize {
        let byte = self.stream.get(self.at / 8).copied().unwrap_or_default();
        self.at += 1;
        usize::from(byte >> ((self.at - 1) % 8)) & 1
    }
}

/// A Huffman code: how many bits each symbol has.
struct Code(Vec<usize>);

impl Code {
    fn new(lengths: &[usize]) -> Self {
        Self(lengths.to_vec())
    }

    /// Symbols are numbered by length, then by value.
    fn read(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first) = (0, 0);
        for length in 1..=15 {
            code = code << 1 | bits.bit();
            let mut symbols = (0..self.0.len()).filter(|&symbol| self.0[symbol] == length);
            let count = symbols.clone().count();
            if code < first + count {
                return symbols.nth(code - first).expect("counted");
            }
            first = (first + count) << 1;
        }
        panic!("no such code");
    }
}

fn fixed() -> Code {
    let lengths: Vec<usize> =
        [(144, 8), (112, 9), (24, 7), (8, 8)].iter().flat_map(|&(n, len)| vec![len; n]).collect();
    Code(lengths)
}

fn dynamic(bits: &mut Bits<'_>) -> (Code, Code) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (bits.take(5) + 257, bits.take(5) + 1);
    let mut of_lengths = vec![0; 19];
    for &symbol in &ORDER[..bits.take(4) + 4] {
        of_lengths[symbol] = bits.take(3);
    }
    let of_lengths = Code(of_lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match of_lengths.read(bits) {
            16 => (lengths[lengths.len() - 1], 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.extend(vec![length; times]);
    }
    (Code::new(&lengths[..literals]), Code::new(&lengths[literals..]))
}
