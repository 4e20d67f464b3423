//! Entropy-coded data: Huffman tables, bits, and the blocks of a sequential scan.

use crate::error::Error::{self, Damaged};
use crate::markers::next_marker;

/// Codes up to this many bits are looked up at once.
const LOOK: u32 = 10;

/// A Huffman table made ready for looking up.
#[derive(Clone)]
pub(crate) struct Table {
    /// By the next `LOOK` bits: length of the code and its symbol; length 0 where the code is longer.
    short: Vec<(u8, u8)>,
    /// By the next `LOOK` bits, where a code and the bits of its value both fit: (value, bits in all, run); 0 bits
    /// where they do not.
    values: Vec<(i16, u8, u8)>,
    /// For each length, the first code after the last one of it, in 16 bits.
    ends: [u32; 17],
    /// For each length, what leads from a code to its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length and the symbols in order. None where there can be no such table.
    pub(crate) fn new(counts: &[u8; 16], symbols: &[u8], is_ac: bool) -> Option<Self> {
        // Differences of first coefficients have at most 15 bits.
        if symbols.len() > 256 || !is_ac && symbols.iter().any(|&symbol| symbol > 15) {
            return None;
        }
        let mut table = Self {
            short: vec![(0, 0); 1 << LOOK],
            values: Vec::new(),
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut at) = (0u32, 0usize);
        for length in 1..=16 {
            let n = usize::from(counts[length - 1]);
            table.offsets[length] = at as i32 - code as i32;
            // No code may be all ones; the lengths without codes cannot be full.
            if n > 0 && code as usize + n >= 1 << length {
                return None;
            }
            if length as u32 <= LOOK {
                let spread = 1 << (LOOK - length as u32);
                for symbol in symbols.get(at..at + n)? {
                    let start = (code as usize) * spread;
                    table.short[start..start + spread].fill((length as u8, *symbol));
                    code += 1;
                }
            } else {
                code += n as u32;
            }
            at += n;
            table.ends[length] = code << (16 - length);
            code <<= 1;
        }
        if is_ac {
            table.values = (0..1u32 << LOOK)
                .map(|bits| {
                    let (length, symbol) = table.short[bits as usize];
                    let (run, size) = (symbol >> 4, symbol & 15);
                    let all = length + size;
                    if length == 0 || size == 0 || u32::from(all) > LOOK {
                        return (0, 0, 0);
                    }
                    let value = (bits >> (LOOK - u32::from(all))) & ((1 << size) - 1);
                    (extend(value, size.into()) as i16, all, run)
                })
                .collect();
        }
        Some(table)
    }
}

/// The value that `size` bits stand for: those that begin with a zero are negative.
#[inline(always)]
fn extend(bits: u32, size: u32) -> i32 {
    let is_negative = (bits >> (size - 1)) == 0;
    bits as i32 - if is_negative { (1 << size) - 1 } else { 0 }
}

/// Bits of entropy-coded data.
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    ahead: u64,
    n_ahead: u32,
    /// Bits that were made up after the end of the data.
    n_made_up: u32,
    /// Restart markers so far, of eight.
    n_restarts: u8,
}

const CUT_OFF: Error = Damaged("its scan is cut off");
pub(crate) const NO_CODE: Error = Damaged("its scan holds a code that is not in its tables");

impl<'a> Bits<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            ahead: 0,
            n_ahead: 0,
            n_made_up: 0,
            n_restarts: 0,
        }
    }

    /// At least 32 bits afterwards: the longest code, 16, and the longest value, 15.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        if self.n_ahead >= 32 {
            return;
        }
        if let Some(&eight) = self
            .data
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let word = u64::from_be_bytes(eight);
            let holes = !word;
            // Whether any byte is 0xFF: then one of `holes` is zero.
            let is_plain =
                holes.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0;
            if is_plain {
                let n_bytes = (64 - self.n_ahead) / 8;
                self.ahead |= word >> self.n_ahead;
                // What lies below the whole bytes taken is taken again next time, over the same bits.
                self.at += n_bytes as usize;
                self.n_ahead += n_bytes * 8;
                if self.n_ahead < 64 {
                    self.ahead &= !(u64::MAX >> self.n_ahead);
                }
                return;
            }
        }
        self.refill_slowly();
    }

    fn refill_slowly(&mut self) {
        while self.n_ahead <= 56 {
            let byte = match self.data.get(self.at..) {
                Some(&[0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                // Padding before a marker; or, as libjpeg has it, before a stuffed zero.
                Some(&[0xFF, 0xFF, ..]) => {
                    self.at += 1;
                    continue;
                }
                // A marker, or the end: zeros from here on, which nobody may come to use.
                Some(&[0xFF, ..] | &[]) | None => {
                    self.n_made_up += 8;
                    0
                }
                Some(&[byte, ..]) => {
                    self.at += 1;
                    byte
                }
            };
            self.ahead |= u64::from(byte) << (56 - self.n_ahead);
            self.n_ahead += 8;
        }
    }

    #[inline(always)]
    fn drop(&mut self, n: u32) {
        self.ahead <<= n;
        self.n_ahead -= n;
    }

    #[inline(always)]
    pub(crate) fn symbol(&mut self, table: &Table) -> Result<u8, Error> {
        let (length, symbol) = table.short[(self.ahead >> (64 - LOOK)) as usize];
        if length > 0 {
            self.drop(length.into());
            return Ok(symbol);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Table) -> Result<u8, Error> {
        let bits = (self.ahead >> 48) as u32;
        for length in LOOK as usize + 1..=16 {
            if bits < table.ends[length] {
                let code = (bits >> (16 - length)) as i32;
                self.drop(length as u32);
                let at = usize::try_from(code + table.offsets[length]).map_err(|_| NO_CODE)?;
                return table.symbols.get(at).copied().ok_or(NO_CODE);
            }
        }
        Err(NO_CODE)
    }

    /// `size` bits, 1 to 16, as a signed value.
    #[inline(always)]
    pub(crate) fn value(&mut self, size: u32) -> i32 {
        let bits = (self.ahead >> (64 - size)) as u32;
        self.drop(size);
        extend(bits, size)
    }

    /// `n` bits, 0 to 16, as they are.
    #[inline(always)]
    pub(crate) fn bits(&mut self, n: u32) -> u32 {
        let bits = self.ahead.unbounded_shr(64 - n) as u32;
        self.drop(n);
        bits
    }

    /// The difference of a block's first coefficient, added to `prediction`.
    #[inline(always)]
    pub(crate) fn dc(&mut self, table: &Table, prediction: &mut i32) -> Result<(), Error> {
        self.refill();
        let size = u32::from(self.symbol(table)?);
        if size > 0 {
            *prediction = prediction.wrapping_add(self.value(size));
        }
        Ok(())
    }

    /// Reads a block into `coefficients`, all zero before. Returns the last place in zigzag order that is not zero.
    #[inline(always)]
    pub(crate) fn block(
        &mut self,
        dc: &Table,
        ac: &Table,
        prediction: &mut i32,
        coefficients: &mut [i16; 64],
    ) -> Result<usize, Error> {
        self.dc(dc, prediction)?;
        coefficients[0] = *prediction as i16;
        let (mut k, mut last) = (1, 0);
        while k < 64 {
            self.refill();
            let (value, length, run) = ac.values[(self.ahead >> (64 - LOOK)) as usize];
            if length > 0 {
                k += usize::from(run);
                self.drop(length.into());
                coefficients[usize::from(ZIGZAG[k & 127])] = value;
                last = k;
                k += 1;
                continue;
            }
            let symbol = self.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run < 15 {
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            coefficients[usize::from(ZIGZAG[k & 127])] = self.value(size) as i16;
            last = k;
            k += 1;
        }
        // A run that leads beyond the block is damage; libjpeg lets it end there.
        Ok(last.min(63))
    }

    /// As [`Self::block`], for nobody.
    #[inline(always)]
    pub(crate) fn skip_block(
        &mut self,
        dc: &Table,
        ac: &Table,
        prediction: &mut i32,
    ) -> Result<(), Error> {
        self.dc(dc, prediction)?;
        let mut k = 1;
        while k < 64 {
            self.refill();
            let (_, length, run) = ac.values[(self.ahead >> (64 - LOOK)) as usize];
            if length > 0 {
                self.drop(length.into());
                k += usize::from(run) + 1;
                continue;
            }
            let symbol = self.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => break,
                _ => {
                    self.drop(size);
                    k += run + 1;
                }
            }
        }
        Ok(())
    }

    /// Whether more bits were used than there are.
    pub(crate) fn check_end(&self) -> Result<(), Error> {
        if self.n_made_up > self.n_ahead {
            Err(CUT_OFF)
        } else {
            Ok(())
        }
    }

    /// Where the marker begins that ends the scan, counted from the start of the data.
    pub(crate) fn end(&self) -> Result<usize, Error> {
        self.check_end()?;
        let mut at = self.at;
        loop {
            at = next_marker(self.data, at).ok_or(CUT_OFF)?;
            if !matches!(self.data[at + 1], 0xD0..=0xD7) {
                return Ok(at);
            }
            at += 2;
        }
    }

    /// Goes to what follows the next restart marker, which must be that of this number: another one says that something is
    /// missing.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.check_end()?;
        // Bytes that were read ahead lie before the marker: a refill stops there.
        let marker = next_marker(self.data, self.at).ok_or(CUT_OFF)?;
        if self.data[marker + 1] != 0xD0 + self.n_restarts % 8 {
            return Err(Damaged("a restart marker of its scan is missing"));
        }
        *self = Self {
            at: marker + 2,
            n_restarts: (self.n_restarts + 1) % 8,
            ..Self::new(self.data)
        };
        Ok(())
    }
}

/// The Huffman tables of ITU-T T.81, annex K.3: of luma (0) and of chroma (1).
pub(crate) fn standard_tables(index: usize, is_ac: bool) -> Option<Table> {
    match (index, is_ac) {
        (0, false) => Table::new(&DC_COUNTS[0], &DC_SYMBOLS, false),
        (1, false) => Table::new(&DC_COUNTS[1], &DC_SYMBOLS, false),
        (0, true) => Table::new(&AC_COUNTS[0], &AC_SYMBOLS[0], true),
        (1, true) => Table::new(&AC_COUNTS[1], &AC_SYMBOLS[1], true),
        _ => None,
    }
}

/// Where the k-th coefficient belongs; what a damaged file places beyond the block lands in the last one.
pub(crate) const ZIGZAG: [u8; 128] = {
    let mut order = [63; 128];
    let (mut k, mut diagonal) = (0, 0);
    while diagonal < 15 {
        let first = if diagonal < 8 { 0 } else { diagonal - 7 };
        let last = if diagonal < 8 { diagonal } else { 7 };
        let mut i = first;
        while i <= last {
            // Odd diagonals run down, even ones up.
            let (row, column) = if diagonal % 2 == 1 {
                (i, diagonal - i)
            } else {
                (diagonal - i, i)
            };
            order[k] = (row * 8 + column) as u8;
            k += 1;
            i += 1;
        }
        diagonal += 1;
    }
    order
};

const DC_COUNTS: [[u8; 16]; 2] = [
    [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
];
const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const AC_COUNTS: [[u8; 16]; 2] = [
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
];
#[rustfmt::skip]
const AC_SYMBOLS: [[u8; 162]; 2] = [
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1,
        0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
        0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
        0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3,
        0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
    [
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1,
        0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
        0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
        0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
        0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca,
        0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
];
