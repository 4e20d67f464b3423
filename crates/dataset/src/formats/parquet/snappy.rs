//! Pieces of a Snappy block, found without reading what lies before them.
//!
//! Compressors work on 64 KiB at a time, and nothing in a fragment refers to what lies before it: a list of where the
//! fragments begin is all that it takes to read an image out of the middle of a page of many megabytes. The format does
//! not promise it (github.com/google/snappy, `format_description.txt`), so it is checked for each block.

/// What a compressor works on at a time, in bytes of output.
const FRAGMENT: usize = 1 << 16;

/// Where the fragments of a compressed block begin.
pub(super) struct Fragments {
    /// In the compressed bytes; the last entry is where they end.
    starts: Vec<u32>,
    /// The length of the whole output.
    n_bytes: usize,
}

impl Fragments {
    /// None where the block is damaged or not made of fragments that stand alone.
    pub(super) fn of(block: &[u8]) -> Option<Self> {
        let (n_bytes, mut at) = length(block)?;
        let (mut starts, mut done) = (Vec::new(), 0);
        while at < block.len() {
            if done % FRAGMENT == 0 {
                starts.push(u32::try_from(at).ok()?);
            }
            let element = Element::at(block, at)?;
            let behind = done % FRAGMENT;
            if element.reaches_back > behind || behind + element.n_bytes > FRAGMENT {
                return None;
            }
            done += element.n_bytes;
            at += element.length;
        }
        starts.push(u32::try_from(block.len()).ok()?);
        (done == n_bytes && at == block.len()).then_some(Self { starts, n_bytes })
    }

    /// The fragments that output bytes `start` to `start + n` lie in, `n` being above 0. None where there are none such.
    pub(super) fn around(&self, start: usize, n: usize) -> Option<Piece> {
        let end = start.checked_add(n).filter(|&end| end <= self.n_bytes)?;
        let (first, last) = (start / FRAGMENT, end.div_ceil(FRAGMENT));
        Some(Piece {
            compressed: (*self.starts.get(first)?, *self.starts.get(last)?),
            n_bytes: self.n_bytes.min(last * FRAGMENT) - first * FRAGMENT,
            skip: start - first * FRAGMENT,
        })
    }
}

/// Some fragments of a block that follow each other.
pub(super) struct Piece {
    /// Where they begin and end in the compressed bytes.
    pub(super) compressed: (u32, u32),
    /// The length of their output.
    n_bytes: usize,
    /// How far into the output the bytes asked for begin.
    pub(super) skip: usize,
}

impl Piece {
    /// What begins a block of this output.
    pub(super) fn preamble(&self) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), self.n_bytes);
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }
}

/// The length that a block begins with, and how many bytes it takes.
fn length(block: &[u8]) -> Option<(usize, usize)> {
    let mut n = 0u64;
    for (at, &byte) in block.iter().take(5).enumerate() {
        n |= u64::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            return Some((usize::try_from(n).ok()?, at + 1));
        }
    }
    None
}

/// A literal or a copy.
struct Element {
    /// Bytes of the element itself, its tag included.
    length: usize,
    /// The length of its output.
    n_bytes: usize,
    /// How far before its output it copies from; 0 for a literal.
    reaches_back: usize,
}

impl Element {
    fn at(block: &[u8], at: usize) -> Option<Self> {
        let tag = block[at];
        let number = |n: usize| {
            let bytes = block.get(at + 1..at + 1 + n)?;
            let bits = bytes.iter().rev();
            Some(bits.fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let n_bytes = usize::from(tag >> 2) + 1;
        let copy = |length, n_bytes, reaches_back| Self {
            length,
            n_bytes,
            reaches_back,
        };
        Some(match tag & 3 {
            0 => {
                let extra = n_bytes.saturating_sub(60);
                let n_bytes = if extra == 0 {
                    n_bytes
                } else {
                    number(extra)? + 1
                };
                copy(1 + extra + n_bytes, n_bytes, 0)
            }
            1 => copy(
                2,
                4 + (usize::from(tag >> 2) & 7),
                usize::from(tag >> 5) << 8 | number(1)?,
            ),
            2 => copy(3, n_bytes, number(2)?),
            _ => copy(5, n_bytes, number(4)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logitcask_philox::{Purpose, Stream};

    /// Half noise, half repetition, so that there are literals and copies of every kind.
    fn mixture(n: usize) -> Vec<u8> {
        let mut noise = Stream::new(7, Purpose::Synthetic, [0, 0, 0]);
        let mut bytes = Vec::with_capacity(n);
        while bytes.len() < n {
            let run = noise.below(3000) as usize;
            match noise.below(3) {
                0 => bytes.extend((0..run).map(|_| noise.below(256) as u8)),
                1 => bytes.extend((0..run).map(|i| (i / 64) as u8)),
                _ => {
                    let from = noise.below(bytes.len() as u64 + 1) as usize;
                    bytes.extend_from_within(from..bytes.len().min(from + run));
                }
            }
        }
        bytes.truncate(n);
        bytes
    }

    #[test]
    fn any_piece_of_a_block_is_read_by_itself() {
        for n in [1, 1000, FRAGMENT, FRAGMENT + 1, 5 * FRAGMENT - 7] {
            let whole = mixture(n);
            let block = snap::raw::Encoder::new().compress_vec(&whole).unwrap();
            let fragments = Fragments::of(&block).unwrap();
            for (start, length) in [
                (0, n),
                (n / 2, n - n / 2),
                (n / 3, 1),
                (n - 1, 1),
                (n / 4, n / 3 + 1),
            ] {
                let Some(piece) = fragments.around(start, length) else {
                    assert!(start + length > n, "{start} and {length} of {n}");
                    continue;
                };
                let mut alone = piece.preamble();
                alone.extend(&block[piece.compressed.0 as usize..piece.compressed.1 as usize]);
                let output = snap::raw::Decoder::new().decompress_vec(&alone).unwrap();
                assert_eq!(output[piece.skip..][..length], whole[start..][..length]);
            }
            assert!(fragments.around(n, 1).is_none());
        }
    }

    #[test]
    fn a_block_that_cannot_be_taken_apart_is_left_whole() {
        let block = snap::raw::Encoder::new()
            .compress_vec(&mixture(3 * FRAGMENT))
            .unwrap();
        for length in (0..block.len()).step_by(97) {
            assert!(Fragments::of(&block[..length]).is_none(), "{length} bytes");
        }
        // One literal over two fragments, and a copy from the fragment before: what another compressor may write.
        let n = FRAGMENT as u32 + 1;
        let preamble = [0x81, 0x80, 4];
        let mut literal = preamble.to_vec();
        literal.push(62 << 2);
        literal.extend(&(n - 1).to_le_bytes()[..3]);
        literal.extend(vec![7; n as usize]);
        assert_eq!(
            snap::raw::Decoder::new()
                .decompress_vec(&literal)
                .unwrap()
                .len(),
            n as usize
        );
        assert!(Fragments::of(&literal).is_none());
        let mut copy = preamble.to_vec();
        copy.push(61 << 2);
        copy.extend(&(n - 2).to_le_bytes()[..2]);
        copy.extend(vec![7; n as usize - 1]);
        copy.extend([2, 1, 0]);
        assert_eq!(
            snap::raw::Decoder::new()
                .decompress_vec(&copy)
                .unwrap()
                .len(),
            n as usize
        );
        assert!(Fragments::of(&copy).is_none());
    }
}
