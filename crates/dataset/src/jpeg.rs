//! Baseline JPEG, to the bit as libjpeg decodes it and therefore PIL: the slow integer DCT, "fancy" upsampling of chroma,
//! colours in 16-bit fixed point. Only the blocks that a window of the image needs are transformed, and they can be
//! transformed at half, a quarter or an eighth of the resolution, which is what makes this worth having beside a
//! general decoder: random crops mostly look at a part of an image, and mostly shrink it.
//!
//! What is rarer than one file in a hundred (progressive files, CMYK, unusual sampling) is declined, and decoded by
//! `zune-jpeg`.

/// Why there are no pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A kind of JPEG that is not decoded here.
    Other,
    /// The file is damaged, in these words.
    Damaged(&'static str),
}

use Refusal::{Damaged, Other};

/// What a file's headers say.
pub(crate) struct Header {
    pub(crate) height: usize,
    pub(crate) width: usize,
    components: Vec<Component>,
    quantization: [Option<[u16; 64]>; 4],
    dc_tables: [Option<Table>; 4],
    ac_tables: [Option<Table>; 4],
    restart_interval: usize,
    /// Where the entropy-coded data begin.
    scan: usize,
}

#[derive(Clone, Debug)]
struct Component {
    id: u8,
    /// Blocks per MCU, across and down.
    across: usize,
    down: usize,
    quantization: usize,
    dc_table: usize,
    ac_table: usize,
}

impl Header {
    /// Reads everything before the scan.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut header = Self {
            height: 0,
            width: 0,
            components: Vec::new(),
            quantization: [None; 4],
            dc_tables: [const { None }; 4],
            ac_tables: [const { None }; 4],
            restart_interval: 0,
            scan: 0,
        };
        let (mut is_jfif, mut adobe_transform) = (false, None);
        let mut at = 2;
        loop {
            let Some(&[0xFF, marker]) = bytes.get(at..at + 2) else {
                return Err(Damaged("a marker is missing in its headers"));
            };
            at += 1;
            if marker == 0xFF {
                continue; // padding
            }
            at += 1;
            let Some(&[high, low]) = bytes.get(at..at + 2) else {
                return Err(Damaged("it is cut off in its headers"));
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let Some(segment) = bytes.get(at + 2..at + length.max(2)) else {
                return Err(Damaged("it is cut off in its headers"));
            };
            at += length.max(2);
            match marker {
                0xC0 | 0xC1 => header.read_frame(segment)?,
                0xC4 => header.read_huffman(segment)?,
                0xDA => {
                    header.read_scan(segment)?;
                    header.scan = at;
                    break;
                }
                0xDB => header.read_quantization(segment)?,
                0xDD => {
                    let &[high, low] = segment else {
                        return Err(Damaged("its restart interval is malformed"));
                    };
                    header.restart_interval = usize::from(u16::from_be_bytes([high, low]));
                }
                0xE0 if segment.starts_with(b"JFIF\0") => is_jfif = true,
                0xEE if segment.starts_with(b"Adobe") => {
                    adobe_transform = segment.get(11).copied();
                }
                0xE0..=0xEF | 0xFE => {}
                _ => return Err(Other),
            }
        }
        if header.components.len() == 3 {
            let ids: [u8; 3] = std::array::from_fn(|i| header.components[i].id);
            let is_rgb = match (is_jfif, adobe_transform) {
                (true, _) => false,
                (false, Some(transform)) => transform == 0,
                (false, None) => ids == *b"RGB",
            };
            if is_rgb {
                return Err(Other);
            }
        }
        Ok(header)
    }

    /// 1 (grey) or 3.
    pub(crate) fn channels(&self) -> usize {
        self.components.len()
    }

    fn read_frame(&mut self, segment: &[u8]) -> Result<(), Refusal> {
        let [8, h1, h0, w1, w0, n, components @ ..] = segment else {
            return Err(Other);
        };
        self.height = usize::from(u16::from_be_bytes([*h1, *h0]));
        self.width = usize::from(u16::from_be_bytes([*w1, *w0]));
        let n = usize::from(*n);
        if !self.components.is_empty() || self.height == 0 || self.width == 0 {
            return Err(Other);
        }
        if !matches!(n, 1 | 3) || components.len() != 3 * n {
            return Err(Other);
        }
        for component in components.chunks_exact(3) {
            self.components.push(Component {
                id: component[0],
                across: usize::from(component[1] >> 4),
                down: usize::from(component[1] & 15),
                quantization: usize::from(component[2]),
                dc_table: 0,
                ac_table: 0,
            });
        }
        match &mut self.components[..] {
            // The blocks of a scan of one component are not grouped, whatever the header says.
            [grey] => (grey.across, grey.down) = (1, 1),
            [luma, chroma @ ..] => {
                let fits = matches!((luma.across, luma.down), (1 | 2, 1 | 2))
                    && chroma.iter().all(|c| (c.across, c.down) == (1, 1));
                if !fits {
                    return Err(Other);
                }
            }
            [] => return Err(Other),
        }
        Ok(())
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Result<(), Refusal> {
        while let [head, rest @ ..] = segment {
            let (wide, to) = (head >> 4 != 0, usize::from(head & 15));
            let n_bytes = if wide { 128 } else { 64 };
            let (Some(values), true) = (rest.get(..n_bytes), to < 4) else {
                return Err(Damaged("a quantization table is malformed"));
            };
            let mut table = [0; 64];
            for (k, &place) in ZIGZAG[..64].iter().enumerate() {
                table[usize::from(place)] = match wide {
                    true => u16::from_be_bytes([values[2 * k], values[2 * k + 1]]),
                    false => values[k].into(),
                };
            }
            self.quantization[to] = Some(table);
            segment = &rest[n_bytes..];
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<(), Refusal> {
        const MALFORMED: Refusal = Damaged("a Huffman table is malformed");
        while let [head, rest @ ..] = segment {
            let (counts, rest) = rest.split_at_checked(16).ok_or(MALFORMED)?;
            let n: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(n).ok_or(MALFORMED)?;
            let is_ac = head >> 4 == 1;
            let tables = if is_ac {
                &mut self.ac_tables
            } else {
                &mut self.dc_tables
            };
            let slot = tables.get_mut(usize::from(head & 15)).ok_or(MALFORMED)?;
            *slot = Some(Table::new(counts, symbols, is_ac).ok_or(MALFORMED)?);
            segment = rest;
        }
        Ok(())
    }

    fn read_scan(&mut self, segment: &[u8]) -> Result<(), Refusal> {
        let [n, rest @ ..] = segment else {
            return Err(Damaged("its scan header is malformed"));
        };
        let n = usize::from(*n);
        // A scan per component is legal and rare.
        if n == 0 || n != self.components.len() || rest.len() != 2 * n + 3 {
            return Err(Other);
        }
        for (component, entry) in self.components.iter_mut().zip(rest.chunks_exact(2)) {
            if entry[0] != component.id {
                return Err(Other);
            }
            component.dc_table = usize::from(entry[1] >> 4);
            component.ac_table = usize::from(entry[1] & 15);
        }
        Ok(())
    }
}

/// Memory of a decoding, kept from image to image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    planes: [Plane; 3],
    rows: [Vec<u8>; 3],
    sums: Vec<u16>,
}

/// The decoded blocks of one component that a window needs.
#[derive(Clone, Debug, Default)]
struct Plane {
    /// Blocks: the first row and column that are kept, and those after the last.
    rows: [usize; 2],
    columns: [usize; 2],
    /// Pixels per side of a block, 8 where nothing is reduced.
    side: usize,
    /// The size of the whole component in pixels, without what fills its last blocks.
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Plane {
    fn stride(&self) -> usize {
        (self.columns[1] - self.columns[0]) * self.side
    }

    /// Row `y` of the component, of which its kept columns.
    fn row(&self, y: usize) -> &[u8] {
        let stride = self.stride();
        &self.pixels[(y - self.rows[0] * self.side) * stride..][..stride]
    }
}

impl Header {
    /// The size of the image at 1/`reduction` of its resolution.
    pub(crate) fn reduced(&self, reduction: usize) -> [usize; 2] {
        [
            self.height.div_ceil(reduction),
            self.width.div_ceil(reduction),
        ]
    }
}

/// Decodes the window [top, left, height, width] of the image at 1/`reduction` of its resolution; the window is in pixels
/// of that resolution. Writes (height, width, channels) to `out`.
///
/// `reduction` is 1, 2, 4 or 8. The reduced image has `height.div_ceil(reduction)` rows, and columns likewise.
pub(crate) fn decode(
    bytes: &[u8],
    header: &Header,
    reduction: usize,
    window: [usize; 4],
    out: &mut [u8],
    buffers: &mut Buffers,
) -> Result<(), Refusal> {
    pulp::Arch::new().dispatch(Decoding {
        bytes,
        header,
        reduction,
        window,
        out,
        buffers,
    })
}

/// A decoding, compiled for each level of vector instructions and chosen at run time. The arithmetic is in integers, so
/// every level gives the same bytes. A closure would do, were it sure to be inlined.
struct Decoding<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    reduction: usize,
    window: [usize; 4],
    out: &'a mut [u8],
    buffers: &'a mut Buffers,
}

impl pulp::NullaryFnOnce for Decoding<'_> {
    type Output = Result<(), Refusal>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self {
            bytes,
            header,
            reduction,
            window,
            out,
            buffers,
        } = self;
        decode_planes(bytes, header, reduction, window, buffers)?;
        write_pixels(header, window, out, buffers);
        Ok(())
    }
}

#[inline(always)]
fn decode_planes(
    bytes: &[u8],
    header: &Header,
    reduction: usize,
    [top, left, height, width]: [usize; 4],
    buffers: &mut Buffers,
) -> Result<(), Refusal> {
    let (across, down) = (header.components[0].across, header.components[0].down);
    let n_columns = header.width.div_ceil(8 * across);
    let n_rows = header.height.div_ceil(8 * down);
    // The MCUs of the window, and one more on each side, because upsampling looks at the neighbours.
    let side = 8 / reduction;
    let around = |first: usize, n: usize, step: usize, all: usize| {
        [
            (first / step).saturating_sub(1),
            ((first + n).div_ceil(step) + 1).min(all),
        ]
    };
    let mcu_rows = around(top, height, side * down, n_rows);
    let mcu_columns = around(left, width, side * across, n_columns);
    let mut blocks = Vec::with_capacity(3);
    for (component, plane) in header.components.iter().zip(&mut buffers.planes) {
        plane.rows = mcu_rows.map(|row| row * component.down);
        plane.columns = mcu_columns.map(|column| column * component.across);
        // As libjpeg: chroma that is stored at a lower resolution is reduced less.
        plane.side = side;
        while plane.side < 8
            && (across * side).is_multiple_of(component.across * plane.side * 2)
            && (down * side).is_multiple_of(component.down * plane.side * 2)
        {
            plane.side *= 2;
        }
        plane.height = (header.height * component.down * plane.side).div_ceil(8 * down);
        plane.width = (header.width * component.across * plane.side).div_ceil(8 * across);
        let n_block_rows = plane.rows[1] - plane.rows[0];
        plane
            .pixels
            .resize(n_block_rows * plane.side * plane.stride(), 0);
        const NO_TABLE: Refusal = Other;
        let quantization = header.quantization.get(component.quantization);
        let dc = header.dc_tables.get(component.dc_table);
        let ac = header.ac_tables.get(component.ac_table);
        blocks.push((
            quantization.and_then(Option::as_ref).ok_or(NO_TABLE)?,
            dc.and_then(Option::as_ref).ok_or(NO_TABLE)?,
            ac.and_then(Option::as_ref).ok_or(NO_TABLE)?,
        ));
    }
    let mut bits = Bits::new(&bytes[header.scan..]);
    let (mut predictions, mut until_restart) = ([0i32; 3], header.restart_interval);
    let mut coefficients = [0i16; 64];
    for mcu_row in 0..mcu_rows[1] {
        let row_is_kept = mcu_row >= mcu_rows[0];
        for mcu_column in 0..n_columns {
            if header.restart_interval > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    predictions = [0; 3];
                    until_restart = header.restart_interval;
                }
                until_restart -= 1;
            }
            let is_kept = row_is_kept && (mcu_columns[0]..mcu_columns[1]).contains(&mcu_column);
            for (i, component) in header.components.iter().enumerate() {
                let (quantization, dc, ac) = blocks[i];
                for block in 0..component.down * component.across {
                    if !is_kept {
                        bits.skip_block(dc, ac, &mut predictions[i])?;
                        continue;
                    }
                    let last = bits.block(dc, ac, &mut predictions[i], &mut coefficients)?;
                    let plane = &mut buffers.planes[i];
                    let row = mcu_row * component.down + block / component.across - plane.rows[0];
                    let column =
                        mcu_column * component.across + block % component.across - plane.columns[0];
                    let (stride, side) = (plane.stride(), plane.side);
                    let out = &mut plane.pixels[row * side * stride + column * side..];
                    match side {
                        8 => full_block(&coefficients, last, quantization, out, stride),
                        4 => half_block(&coefficients, quantization, out, stride),
                        2 => quarter_block(&coefficients, quantization, out, stride),
                        _ => out[0] = dc_value(&coefficients, quantization),
                    }
                    coefficients = [0; 64];
                }
            }
        }
        bits.check_end()?;
    }
    Ok(())
}

#[inline(always)]
fn write_pixels(
    header: &Header,
    [top, left, _, width]: [usize; 4],
    out: &mut [u8],
    buffers: &mut Buffers,
) {
    let Buffers { planes, rows, sums } = buffers;
    let first = left - planes[0].columns[0] * planes[0].side;
    if header.components.len() == 1 {
        for (y, out) in (top..).zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&planes[0].row(y)[first..first + width]);
        }
        return;
    }
    let (luma, chroma) = planes.split_at(1);
    let across = header.components[0].across * luma[0].side / chroma[0].side;
    let down = header.components[0].down * luma[0].side / chroma[0].side;
    for row in rows.iter_mut() {
        row.resize(width, 0);
    }
    let [red, green, blue] = rows;
    for (y, out) in (top..).zip(out.chunks_exact_mut(3 * width)) {
        // Chroma goes where blue and red will be written.
        for (plane, row) in chroma.iter().zip([&mut *blue, &mut *red]) {
            upsample(plane, [across, down], [y, left], sums, row);
        }
        let luma = &luma[0].row(y)[first..first + width];
        colours(luma, red, green, blue);
        let channels = red.iter().zip(&*green).zip(&*blue);
        for (pixel, ((&r, &g), &b)) in out.chunks_exact_mut(3).zip(channels) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    }
}

/// YCbCr to RGB, as libjpeg's tables have it: `red` holds Cr and `blue` holds Cb before.
#[inline(always)]
fn colours(luma: &[u8], red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let chroma = red.iter_mut().zip(green).zip(blue);
    for (&y, ((red, green), blue)) in luma.iter().zip(chroma) {
        let (y, cb, cr) = (i32::from(y), i32::from(*blue) - 128, i32::from(*red) - 128);
        *red = (y + ((91_881 * cr + HALF) >> 16)).clamp(0, 255) as u8;
        *green = (y + ((HALF - 22_554 * cb - 46_802 * cr) >> 16)).clamp(0, 255) as u8;
        *blue = (y + ((116_130 * cb + HALF) >> 16)).clamp(0, 255) as u8;
    }
}

/// One row of chroma at the resolution of luma, from column `left`: three parts of the nearest sample and one of the next
/// nearest, in each direction.
#[inline(always)]
fn upsample(
    plane: &Plane,
    [across, down]: [usize; 2],
    [y, left]: [usize; 2],
    sums: &mut Vec<u16>,
    out: &mut [u8],
) {
    let width = out.len();
    let near = plane.row(y / down);
    let first_column = plane.columns[0] * plane.side;
    if across == 1 && down == 1 {
        out.copy_from_slice(&near[left - first_column..][..width]);
        return;
    }
    // libjpeg repeats pixels where there are hardly any.
    let is_fancy = plane.side > 1 && (across == 1 || plane.width > 2);
    if !is_fancy {
        for (x, out) in (left..).zip(out) {
            *out = near[x / across - first_column];
        }
        return;
    }
    let far = match (down, y % 2) {
        (1, _) => near,
        (_, 0) => plane.row((y / 2).saturating_sub(1)),
        (_, _) => plane.row((y / 2 + 1).min(plane.height - 1)),
    };
    if across == 1 {
        let bias = if y % 2 == 0 { 1 } else { 2 };
        let start = left - first_column;
        let pairs = near[start..].iter().zip(&far[start..]);
        for (out, (&near, &far)) in out.iter_mut().zip(pairs) {
            *out = ((u16::from(near) * 3 + u16::from(far) + bias) >> 2) as u8;
        }
        return;
    }
    // Sums of the column above and below each sample of the row, with a neighbour on each side.
    let (begin, end) = (left / 2, (left + width).div_ceil(2).min(plane.width));
    let weigh = |x: usize| {
        let (near, far) = (
            u16::from(near[x - first_column]),
            u16::from(far[x - first_column]),
        );
        if down == 2 { near * 3 + far } else { near }
    };
    sums.clear();
    sums.push(weigh(begin.saturating_sub(1)));
    let kept = begin - first_column..end - first_column;
    let pairs = near[kept.clone()].iter().zip(&far[kept]);
    match down {
        2 => sums.extend(pairs.map(|(&near, &far)| u16::from(near) * 3 + u16::from(far))),
        _ => sums.extend(pairs.map(|(&near, _)| u16::from(near))),
    }
    sums.push(weigh(end.min(plane.width - 1)));
    let (round_left, round_right, shift) = if down == 2 { (8, 7, 4) } else { (1, 2, 2) };
    let left_one =
        |((&last, &this), _): ((&u16, &u16), &u16)| ((this * 3 + last + round_left) >> shift) as u8;
    let right_one = |((_, &this), &next): ((&u16, &u16), &u16)| {
        ((this * 3 + next + round_right) >> shift) as u8
    };
    // A window may begin in the middle of a pair.
    let (odd, out) = out.split_at_mut(left % 2);
    let mut triples = sums.iter().zip(&sums[1..]).zip(&sums[2..]);
    for first in odd {
        triples
            .next()
            .map(right_one)
            .into_iter()
            .for_each(|value| *first = value);
    }
    let mut pairs = out.chunks_exact_mut(2);
    for (pair, triple) in pairs.by_ref().zip(triples.by_ref()) {
        pair[0] = left_one(triple);
        pair[1] = right_one(triple);
    }
    if let ([last], Some(triple)) = (pairs.into_remainder(), triples.next()) {
        *last = left_one(triple);
    }
}

// ------------------------------------------------------------------------------------------------ entropy decoding

/// Codes up to this many bits are looked up at once.
const LOOK: u32 = 10;

/// A Huffman table made ready for looking up.
struct Table {
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
    fn new(counts: &[u8], symbols: &[u8], is_ac: bool) -> Option<Self> {
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
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    ahead: u64,
    n_ahead: u32,
    /// Bits that were made up after the end of the data.
    n_made_up: u32,
}

const CUT_OFF: Refusal = Damaged("its scan is cut off");
const NO_CODE: Refusal = Damaged("its scan holds a code that is not in its tables");

impl<'a> Bits<'a> {
    fn new(data: &'a [u8]) -> Self {
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
    fn refill(&mut self) {
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
    fn symbol(&mut self, table: &Table) -> Result<u8, Refusal> {
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
    fn value(&mut self, size: u32) -> i32 {
        let bits = (self.ahead >> (64 - size)) as u32;
        self.drop(size);
        extend(bits, size)
    }

    #[inline(always)]
    fn dc(&mut self, table: &Table, prediction: &mut i32) -> Result<(), Refusal> {
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
    fn block(
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
    fn skip_block(&mut self, dc: &Table, ac: &Table, prediction: &mut i32) -> Result<(), Refusal> {
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
    fn check_end(&self) -> Result<(), Refusal> {
        if self.n_made_up > self.n_ahead {
            Err(CUT_OFF)
        } else {
            Ok(())
        }
    }

    /// Goes to what follows the next restart marker.
    fn restart(&mut self) -> Result<(), Refusal> {
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
const ZIGZAG: [u8; 128] = {
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

// ------------------------------------------------------------------------------------------------- transformations

const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;

#[inline(always)]
fn descale(x: i32, bits: u32) -> i32 {
    x.wrapping_add(1 << (bits - 1)) >> bits
}

#[inline(always)]
fn to_byte(x: i32) -> u8 {
    (x + 128).clamp(0, 255) as u8
}

#[inline(always)]
fn dc_value(coefficients: &[i16; 64], quantization: &[u16; 64]) -> u8 {
    to_byte(descale(
        i32::from(coefficients[0]) * i32::from(quantization[0]),
        3,
    ))
}

/// The 8 x 8 block (libjpeg's jidctint.c).
#[inline(always)]
fn full_block(
    coefficients: &[i16; 64],
    last: usize,
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    if last == 0 {
        let value = dc_value(coefficients, quantization);
        for row in out.chunks_mut(stride).take(8) {
            row[..8].fill(value);
        }
        return;
    }
    let mut block = [0i32; 64];
    for ((out, &c), &q) in block.iter_mut().zip(coefficients).zip(quantization) {
        *out = i32::from(c) * i32::from(q);
    }
    let columns = eight_transforms(&block, CONST_BITS - PASS1_BITS);
    let rows = eight_transforms(&transposed(&columns), CONST_BITS + PASS1_BITS + 3);
    let block = transposed(&rows);
    for (row, values) in out.chunks_mut(stride).zip(block.chunks_exact(8)) {
        for (out, &value) in row[..8].iter_mut().zip(values) {
            *out = to_byte(value);
        }
    }
}

#[inline(always)]
fn transposed(block: &[i32; 64]) -> [i32; 64] {
    let mut out = [0; 64];
    for row in 0..8 {
        for column in 0..8 {
            out[column * 8 + row] = block[row * 8 + column];
        }
    }
    out
}

/// A one-dimensional transform of each column, eight at a time in vector instructions.
#[inline(always)]
fn eight_transforms(block: &[i32; 64], shift: u32) -> [i32; 64] {
    let mut out = [0i32; 64];
    for i in 0..8 {
        let x = |k: usize| block[k * 8 + i];
        let m = |x: i32, constant: i32| x.wrapping_mul(constant);
        // Even part.
        let z1 = m(x(2).wrapping_add(x(6)), 4433);
        let tmp2 = z1.wrapping_add(m(x(6), -15137));
        let tmp3 = z1.wrapping_add(m(x(2), 6270));
        let tmp0 = x(0).wrapping_add(x(4)).wrapping_shl(CONST_BITS);
        let tmp1 = x(0).wrapping_sub(x(4)).wrapping_shl(CONST_BITS);
        let even = [
            tmp0.wrapping_add(tmp3),
            tmp1.wrapping_add(tmp2),
            tmp1.wrapping_sub(tmp2),
            tmp0.wrapping_sub(tmp3),
        ];
        // Odd part.
        let (t0, t1, t2, t3) = (x(7), x(5), x(3), x(1));
        let z5 = m(t0.wrapping_add(t2).wrapping_add(t1).wrapping_add(t3), 9633);
        let z1 = m(t0.wrapping_add(t3), -7373);
        let z2 = m(t1.wrapping_add(t2), -20995);
        let z3 = m(t0.wrapping_add(t2), -16069).wrapping_add(z5);
        let z4 = m(t1.wrapping_add(t3), -3196).wrapping_add(z5);
        let odd = [
            m(t3, 12299).wrapping_add(z1).wrapping_add(z4),
            m(t2, 25172).wrapping_add(z2).wrapping_add(z3),
            m(t1, 16819).wrapping_add(z2).wrapping_add(z4),
            m(t0, 2446).wrapping_add(z1).wrapping_add(z3),
        ];
        for k in 0..4 {
            out[k * 8 + i] = descale(even[k].wrapping_add(odd[k]), shift);
            out[(7 - k) * 8 + i] = descale(even[k].wrapping_sub(odd[k]), shift);
        }
    }
    out
}

/// The block at half its resolution, 4 x 4 (libjpeg's jidctred.c).
#[inline(always)]
fn half_block(coefficients: &[i16; 64], quantization: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut block = [0i32; 64];
    for ((out, &c), &q) in block.iter_mut().zip(coefficients).zip(quantization) {
        *out = i32::from(c) * i32::from(q);
    }
    let columns = half_transforms(&block, CONST_BITS - PASS1_BITS + 1);
    // Four rows of eight become eight columns of four for the second pass.
    let mut turned = [0i32; 64];
    for row in 0..4 {
        for column in 0..8 {
            turned[column * 8 + row] = columns[row * 8 + column];
        }
    }
    let rows = half_transforms(&turned, CONST_BITS + PASS1_BITS + 3 + 1);
    for (y, row) in out.chunks_mut(stride).take(4).enumerate() {
        for (x, out) in row[..4].iter_mut().enumerate() {
            *out = to_byte(rows[x * 8 + y]);
        }
    }
}

/// Eight coefficients down each column become four values.
#[inline(always)]
fn half_transforms(block: &[i32; 64], shift: u32) -> [i32; 32] {
    let mut out = [0i32; 32];
    for i in 0..8 {
        let x = |k: usize| block[k * 8 + i];
        let m = |k: usize, constant: i32| x(k).wrapping_mul(constant);
        let tmp0 = x(0).wrapping_shl(CONST_BITS + 1);
        let tmp2 = m(2, 15137).wrapping_add(m(6, -6270));
        let (tmp10, tmp12) = (tmp0.wrapping_add(tmp2), tmp0.wrapping_sub(tmp2));
        let low = m(7, -1730)
            .wrapping_add(m(5, 11893))
            .wrapping_add(m(3, -17799))
            .wrapping_add(m(1, 8697));
        let high = m(7, -4176)
            .wrapping_add(m(5, -4926))
            .wrapping_add(m(3, 7373))
            .wrapping_add(m(1, 20995));
        out[i] = descale(tmp10.wrapping_add(high), shift);
        out[8 + i] = descale(tmp12.wrapping_add(low), shift);
        out[16 + i] = descale(tmp12.wrapping_sub(low), shift);
        out[24 + i] = descale(tmp10.wrapping_sub(high), shift);
    }
    out
}

/// The block at a quarter of its resolution, 2 x 2 (libjpeg's jidctred.c).
#[inline(always)]
fn quarter_block(
    coefficients: &[i16; 64],
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    let pair = |x: [i32; 5], shift: u32| {
        let [x0, x1, x3, x5, x7] = x;
        let even = x0.wrapping_shl(CONST_BITS + 2);
        let odd = x7
            .wrapping_mul(-5906)
            .wrapping_add(x5.wrapping_mul(6967))
            .wrapping_add(x3.wrapping_mul(-10426))
            .wrapping_add(x1.wrapping_mul(29692));
        [
            descale(even.wrapping_add(odd), shift),
            descale(even.wrapping_sub(odd), shift),
        ]
    };
    const USED: [usize; 5] = [0, 1, 3, 5, 7];
    let columns = USED.map(|column| {
        let x = USED.map(|row| {
            let at = row * 8 + column;
            i32::from(coefficients[at]) * i32::from(quantization[at])
        });
        pair(x, CONST_BITS - PASS1_BITS + 2)
    });
    for (y, row) in out.chunks_mut(stride).take(2).enumerate() {
        let values = pair(
            columns.map(|column| column[y]),
            CONST_BITS + PASS1_BITS + 3 + 2,
        );
        row[..2].copy_from_slice(&values.map(to_byte));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use logitcask_philox::{Purpose, Stream};
    use serde_json::Value;

    use super::*;

    /// The JPEG files of the fixture that are decoded here, with what PIL makes of them: (name, reduction, file, pixels).
    fn fixture() -> Vec<(String, usize, Vec<u8>, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let blob = fs::read(folder.join("pixels.bin")).unwrap();
        let json = fs::read(folder.join("pixels.json")).unwrap();
        let document: Value = serde_json::from_slice(&json).unwrap();
        let bytes = |place: &Value| {
            let number = |key: &str| place[key].as_u64().unwrap() as usize;
            blob[number("offset")..][..number("bytes")].to_vec()
        };
        let lists = [&document["encoded"], &document["reduced"]];
        let cases = lists.into_iter().flat_map(|list| list.as_array().unwrap());
        cases
            .map(|case| {
                let name = case["name"].as_str().unwrap().to_owned();
                let by = case["by"].as_u64().unwrap_or(1) as usize;
                (name, by, bytes(&case["file"]), bytes(&case["result"]))
            })
            .filter(|(name, ..)| {
                name.starts_with("jpeg")
                    && !name.ends_with("cmyk")
                    && !name.ends_with("progressive")
            })
            .collect()
    }

    fn decoded(file: &[u8], reduction: usize, window: Option<[usize; 4]>) -> Vec<u8> {
        let header = Header::read(file).unwrap();
        let [height, width] = header.reduced(reduction);
        let window = window.unwrap_or([0, 0, height, width]);
        let mut out = vec![0; window[2] * window[3] * header.channels()];
        decode(
            file,
            &header,
            reduction,
            window,
            &mut out,
            &mut Buffers::default(),
        )
        .unwrap();
        out
    }

    /// To the bit, whole and reduced: PIL's `draft` is libjpeg's scaled decoding.
    #[test]
    fn pixels_are_those_of_libjpeg() {
        let cases = fixture();
        for (name, reduction, file, expected) in &cases {
            assert!(
                decoded(file, *reduction, None) == *expected,
                "{name} at 1/{reduction}"
            );
        }
        assert!(cases.len() >= 23, "the fixture has shrunk");
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let mut stream = Stream::new(1, Purpose::Synthetic, [0; 3]);
        for (name, reduction, file, _) in fixture() {
            let header = Header::read(&file).unwrap();
            let ([rows, columns], channels) = (header.reduced(reduction), header.channels());
            let whole = decoded(&file, reduction, None);
            for _ in 0..200 {
                let mut below = |n: usize| stream.below(n as u64) as usize;
                let (height, width) = (1 + below(rows), 1 + below(columns));
                let (top, left) = (below(rows - height + 1), below(columns - width + 1));
                let part = decoded(&file, reduction, Some([top, left, height, width]));
                for (y, part) in (top..).zip(part.chunks_exact(width * channels)) {
                    let row = &whole[(y * columns + left) * channels..][..width * channels];
                    assert!(
                        part == row,
                        "{name} at 1/{reduction}: {height} x {width} at {top}, {left}"
                    );
                }
            }
        }
    }

    /// What is cut off or flipped is refused or decoded to something; it never panics. The header is left whole in half
    /// of the cases, so that the scan is reached.
    #[test]
    fn damaged_files_never_panic() {
        let mut stream = Stream::new(2, Purpose::Synthetic, [0; 3]);
        for (_, reduction, file, _) in fixture() {
            let scan = Header::read(&file).unwrap().scan;
            for round in 0..300 {
                let mut damaged = file.clone();
                let from = if round % 2 == 0 { 2 } else { scan };
                for _ in 0..1 + stream.below(3) {
                    let at = from + stream.below((file.len() - from) as u64) as usize;
                    damaged[at] = stream.next_u64() as u8;
                }
                damaged.truncate(file.len() - (round % 3) * stream.below(40) as usize);
                let Ok(header) = Header::read(&damaged) else {
                    continue;
                };
                let [height, width] = header.reduced(reduction);
                if height * width > 1 << 20 {
                    continue;
                }
                let mut out = vec![0; height * width * header.channels()];
                let window = [0, 0, height, width];
                let _ = decode(
                    &damaged,
                    &header,
                    reduction,
                    window,
                    &mut out,
                    &mut Buffers::default(),
                );
            }
        }
    }
}
