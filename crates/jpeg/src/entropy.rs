//! Entropy-coded data: Huffman tables, bits, and the blocks of a sequential scan.

use super::Refusal::{self, Damaged};

/// Codes up to this many bits are looked up at once.
const LOOK: u32 = 10;

/// A Huffman table made ready for looking up.
#[derive(Clone)]
pub(super) struct Table {
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
    pub(super) fn new(counts: &[u8], symbols: &[u8], is_ac: bool) -> Option<Self> {
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
            if code as usize + n > 1 << length {
                return None;
            }
            if length as u32 <= LOOK {
                let spread = 1 << (LOOK - length as u32);
                for symbol in &symbols[at..at + n] {
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
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    ahead: u64,
    n_ahead: u32,
    /// Bits that were made up after the end of the data.
    n_made_up: u32,
}

const CUT_OFF: Refusal = Damaged("its scan is cut off");
pub(super) const NO_CODE: Refusal = Damaged("its scan holds a code that is not in its tables");

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            ahead: 0,
            n_ahead: 0,
            n_made_up: 0,
        }
    }

    /// At least 32 bits afterwards: the longest code, 16, and the longest value, 15.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
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
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Refusal> {
        let (length, symbol) = table.short[(self.ahead >> (64 - LOOK)) as usize];
        if length > 0 {
            self.drop(length.into());
            return Ok(symbol);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Table) -> Result<u8, Refusal> {
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
    pub(super) fn value(&mut self, size: u32) -> i32 {
        let bits = (self.ahead >> (64 - size)) as u32;
        self.drop(size);
        extend(bits, size)
    }

    /// `n` bits, 0 to 16, as they are.
    #[inline(always)]
    pub(super) fn bits(&mut self, n: u32) -> u32 {
        let bits = self.ahead.unbounded_shr(64 - n) as u32;
        self.drop(n);
        bits
    }

    /// The difference of a block's first coefficient, added to `prediction`.
    #[inline(always)]
    pub(super) fn dc(&mut self, table: &Table, prediction: &mut i32) -> Result<(), Refusal> {
        self.refill();
        let size = u32::from(self.symbol(table)?);
        match size {
            0 => {}
            1..=15 => *prediction = prediction.wrapping_add(self.value(size)),
            _ => return Err(NO_CODE),
        }
        Ok(())
    }

    /// Reads a block into `coefficients`, all zero before. Returns the last place in zigzag order that is not zero.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        dc: &Table,
        ac: &Table,
        prediction: &mut i32,
        coefficients: &mut [i16; 64],
    ) -> Result<usize, Refusal> {
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
    pub(super) fn skip_block(
        &mut self,
        dc: &Table,
        ac: &Table,
        prediction: &mut i32,
    ) -> Result<(), Refusal> {
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
    pub(super) fn check_end(&self) -> Result<(), Refusal> {
        if self.n_made_up > self.n_ahead {
            Err(CUT_OFF)
        } else {
            Ok(())
        }
    }

    /// Where the marker begins that ends the scan, counted from the start of the data.
    pub(super) fn end(&self) -> Result<usize, Refusal> {
        self.check_end()?;
        let rest = self.data.get(self.at..).unwrap_or_default();
        let marker = rest
            .windows(2)
            .position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xD0..=0xD7 | 0xFF));
        marker.map(|marker| self.at + marker).ok_or(CUT_OFF)
    }

    /// Goes to what follows the next restart marker.
    pub(super) fn restart(&mut self) -> Result<(), Refusal> {
        self.check_end()?;
        // Bytes that were read ahead lie before the marker: a refill stops there.
        let marker = self.data[self.at.min(self.data.len())..]
            .iter()
            .position(|&byte| byte == 0xFF)
            .ok_or(CUT_OFF)?;
        let mut at = self.at + marker;
        while self.data.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        if !matches!(self.data.get(at + 1), Some(0xD0..=0xD7)) {
            return Err(CUT_OFF);
        }
        *self = Self {
            at: at + 2,
            ..Self::new(self.data)
        };
        Ok(())
    }
}

/// Where the k-th coefficient belongs; what a damaged file places beyond the block lands in the last one.
pub(super) const ZIGZAG: [u8; 128] = {
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
