//! JPEG, to the bit as libjpeg decodes it and therefore PIL: the slow integer DCT, "fancy" upsampling of chroma, colours
//! in 16-bit fixed point. Only the blocks that a window of the image needs are transformed, and they can be
//! transformed at half, a quarter or an eighth of the resolution, which is what makes this worth having beside a
//! general decoder: random crops mostly look at a part of an image, and mostly shrink it.
//!
//! A file goes from its headers (here) through its entropy-coded data ([`entropy`]; [`scans`] where there are several
//! scans) and the transformation of its blocks ([`transform`]) to planes, which are upsampled and become RGB (here again).
//!
//! What is rarer than one file in a hundred (CMYK, RGB, unusual sampling, arithmetic coding) is declined, and decoded by
//! `zune-jpeg`.

mod entropy;
mod scans;
mod transform;

use entropy::{Bits, Table, ZIGZAG};
use scans::Coefficients;
use transform::{dc_value, full_block, half_block, quarter_block};

/// Why there are no pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A kind of JPEG that is not decoded here.
    Other,
    /// The file is damaged, in these words.
    Damaged(&'static str),
}

use Refusal::{Damaged, Other};

/// What a file's headers say, up to its first scan.
pub struct Header {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    components: Vec<Component>,
    is_progressive: bool,
    tables: Tables,
    scan: Scan,
}

#[derive(Clone, Debug)]
struct Component {
    id: u8,
    /// Blocks per MCU, across and down.
    across: usize,
    down: usize,
    quantization: usize,
}

/// What segments before a scan set for it and for those after it.
#[derive(Clone, Default)]
struct Tables {
    quantization: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
}

/// The header of a scan.
#[derive(Clone, Default)]
struct Scan {
    components: Vec<ScanComponent>,
    /// The first and the last coefficient in zigzag order.
    band: [usize; 2],
    /// The lowest bit that was there before and that is there afterwards, of a progressive scan.
    bits: [u32; 2],
    /// Where its data begin.
    data: usize,
}

#[derive(Clone)]
struct ScanComponent {
    index: usize,
    dc_table: usize,
    ac_table: usize,
}

impl Header {
    /// Reads everything before the first scan's data.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut header = Self {
            height: 0,
            width: 0,
            components: Vec::new(),
            is_progressive: false,
            tables: Tables::default(),
            scan: Scan::default(),
        };
        let (mut is_jfif, mut adobe_transform) = (false, None);
        let mut at = 2;
        loop {
            let (marker, segment) = next_segment(bytes, &mut at)?;
            match marker {
                0xC0..=0xC2 => {
                    header.is_progressive = marker == 0xC2;
                    header.read_frame(segment)?;
                }
                0xDA => {
                    header.scan = Scan::read(segment, &header, at)?;
                    break;
                }
                0xE0 if segment.starts_with(b"JFIF\0") => is_jfif = true,
                0xEE if segment.starts_with(b"Adobe") => {
                    adobe_transform = segment.get(11).copied();
                }
                _ => header.tables.read(marker, segment)?,
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
    pub fn channels(&self) -> usize {
        self.components.len()
    }

    /// Whether its first scan holds all of it.
    fn is_one_scan(&self) -> bool {
        !self.is_progressive && self.scan.components.len() == self.components.len()
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
}

/// The next marker and what belongs to it; `at` moves behind it. The end of the image has nothing.
fn next_segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<(u8, &'a [u8]), Refusal> {
    const CUT_OFF: Refusal = Damaged("it is cut off in its headers");
    loop {
        let Some(&[0xFF, marker]) = bytes.get(*at..*at + 2) else {
            return Err(Damaged("a marker is missing in its headers"));
        };
        *at += 1;
        if marker == 0xFF {
            continue; // padding
        }
        *at += 1;
        if marker == END_OF_IMAGE {
            return Ok((marker, &[]));
        }
        let Some(&[high, low]) = bytes.get(*at..*at + 2) else {
            return Err(CUT_OFF);
        };
        let length = usize::from(u16::from_be_bytes([high, low])).max(2);
        let segment = bytes.get(*at + 2..*at + length).ok_or(CUT_OFF)?;
        *at += length;
        return Ok((marker, segment));
    }
}

const END_OF_IMAGE: u8 = 0xD9;

impl Tables {
    fn dc_table(&self, scan: &ScanComponent) -> Result<&Table, Refusal> {
        let table = self.dc.get(scan.dc_table);
        table.and_then(Option::as_ref).ok_or(Other)
    }

    fn ac_table(&self, scan: &ScanComponent) -> Result<&Table, Refusal> {
        let table = self.ac.get(scan.ac_table);
        table.and_then(Option::as_ref).ok_or(Other)
    }

    /// Takes a segment's tables; passes over what says nothing about pixels.
    fn read(&mut self, marker: u8, segment: &[u8]) -> Result<(), Refusal> {
        match marker {
            0xC4 => self.read_huffman(segment),
            0xDB => self.read_quantization(segment),
            0xDD => {
                let &[high, low] = segment else {
                    return Err(Damaged("its restart interval is malformed"));
                };
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
                Ok(())
            }
            0xE0..=0xEF | 0xFE => Ok(()),
            _ => Err(Other),
        }
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
            let tables = if is_ac { &mut self.ac } else { &mut self.dc };
            let slot = tables.get_mut(usize::from(head & 15)).ok_or(MALFORMED)?;
            *slot = Some(Table::new(counts, symbols, is_ac).ok_or(MALFORMED)?);
            segment = rest;
        }
        Ok(())
    }
}

impl Scan {
    /// Reads the header of a scan whose data begin at `data`.
    fn read(segment: &[u8], header: &Header, data: usize) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Damaged("a scan's header is malformed");
        let (&n, rest) = segment.split_first().ok_or(MALFORMED)?;
        let n = usize::from(n);
        let (entries, rest) = rest.split_at_checked(2 * n).ok_or(MALFORMED)?;
        let &[first, last, bits] = rest else {
            return Err(MALFORMED);
        };
        let mut components = Vec::with_capacity(n);
        let mut places = header.components.iter().enumerate();
        for entry in entries.chunks_exact(2) {
            // In the order of the frame, as the standard has it.
            let (index, _) = places.find(|(_, c)| c.id == entry[0]).ok_or(Other)?;
            components.push(ScanComponent {
                index,
                dc_table: usize::from(entry[1] >> 4),
                ac_table: usize::from(entry[1] & 15),
            });
        }
        let (band, bits) = match header.is_progressive {
            true => (
                [first, last].map(usize::from),
                [bits >> 4, bits & 15].map(u32::from),
            ),
            false => ([0, 63], [0, 0]),
        };
        let is_possible = match band {
            [0, last] => !components.is_empty() && (last == 0 || !header.is_progressive),
            [first, last] => components.len() == 1 && first <= last && last < 64,
        };
        let [before, after] = bits;
        if !is_possible || after > 13 || (before != 0 && before != after + 1) {
            return Err(Other);
        }
        Ok(Self {
            components,
            band,
            bits,
            data,
        })
    }
}

/// Memory of a decoding, kept from image to image.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    planes: [Plane; 3],
    rows: [Vec<u8>; 3],
    sums: Vec<u16>,
    coefficients: Coefficients,
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

    /// Transforms a block and writes its pixels; its place is among all blocks of the component.
    #[inline(always)]
    fn write_block(
        &mut self,
        [row, column]: [usize; 2],
        coefficients: &[i16; 64],
        last: usize,
        quantization: &[u16; 64],
    ) {
        let (stride, side) = (self.stride(), self.side);
        let (row, column) = (row - self.rows[0], column - self.columns[0]);
        let out = &mut self.pixels[row * side * stride + column * side..];
        match side {
            8 => full_block(coefficients, last, quantization, out, stride),
            4 => half_block(coefficients, quantization, out, stride),
            2 => quarter_block(coefficients, quantization, out, stride),
            _ => out[0] = dc_value(coefficients, quantization),
        }
    }

    /// Row `y` of the component, of which its kept columns.
    fn row(&self, y: usize) -> &[u8] {
        let stride = self.stride();
        &self.pixels[(y - self.rows[0] * self.side) * stride..][..stride]
    }
}

impl Header {
    /// Rows and columns of MCUs in the whole image.
    fn mcus(&self) -> [usize; 2] {
        let (across, down) = (self.components[0].across, self.components[0].down);
        [
            self.height.div_ceil(8 * down),
            self.width.div_ceil(8 * across),
        ]
    }

    /// The size of the image at 1/`reduction` of its resolution.
    pub fn reduced(&self, reduction: usize) -> [usize; 2] {
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
pub fn decode(
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
    window: [usize; 4],
    buffers: &mut Buffers,
) -> Result<(), Refusal> {
    let mcus = lay_out(header, reduction, window, &mut buffers.planes);
    if header.is_one_scan() {
        return decode_scan(bytes, header, mcus, &mut buffers.planes);
    }
    let quantization = scans::read(bytes, header, &mut buffers.coefficients)?;
    let components = buffers.planes.iter_mut().zip(&quantization);
    for (i, (plane, quantization)) in components.take(header.channels()).enumerate() {
        let (rows, columns) = (plane.rows, plane.columns);
        for row in rows[0]..rows[1] {
            for column in columns[0]..columns[1] {
                let block = buffers.coefficients.block(i, row, column);
                let last = if block[1..] == [0; 63] { 0 } else { 63 };
                plane.write_block([row, column], block, last, quantization);
            }
        }
    }
    Ok(())
}

/// Gives the planes the sizes that the window needs, and returns the MCUs that they consist of, in rows and in columns:
/// those of the window, and one more on each side, because upsampling looks at the neighbours.
fn lay_out(
    header: &Header,
    reduction: usize,
    [top, left, height, width]: [usize; 4],
    planes: &mut [Plane; 3],
) -> [[usize; 2]; 2] {
    let (across, down) = (header.components[0].across, header.components[0].down);
    let side = 8 / reduction;
    let around = |first: usize, n: usize, step: usize, all: usize| {
        [
            (first / step).saturating_sub(1),
            ((first + n).div_ceil(step) + 1).min(all),
        ]
    };
    let [n_rows, n_columns] = header.mcus();
    let mcu_rows = around(top, height, side * down, n_rows);
    let mcu_columns = around(left, width, side * across, n_columns);
    for (component, plane) in header.components.iter().zip(planes) {
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
    }
    [mcu_rows, mcu_columns]
}

/// Decodes a file's only scan, block by block as they come, and transforms those of the MCUs that are kept.
#[inline(always)]
fn decode_scan(
    bytes: &[u8],
    header: &Header,
    [mcu_rows, mcu_columns]: [[usize; 2]; 2],
    planes: &mut [Plane; 3],
) -> Result<(), Refusal> {
    let tables = &header.tables;
    let mut blocks = Vec::with_capacity(3);
    for (component, scan) in header.components.iter().zip(&header.scan.components) {
        let quantization = tables.quantization.get(component.quantization);
        blocks.push((
            quantization.and_then(Option::as_ref).ok_or(Other)?,
            tables.dc_table(scan)?,
            tables.ac_table(scan)?,
        ));
    }
    let [_, n_columns] = header.mcus();
    let mut bits = Bits::new(&bytes[header.scan.data..]);
    let (mut predictions, mut until_restart) = ([0i32; 3], tables.restart_interval);
    let mut coefficients = [0i16; 64];
    for mcu_row in 0..mcu_rows[1] {
        let row_is_kept = mcu_row >= mcu_rows[0];
        for mcu_column in 0..n_columns {
            if tables.restart_interval > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    predictions = [0; 3];
                    until_restart = tables.restart_interval;
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
                    let row = mcu_row * component.down + block / component.across;
                    let column = mcu_column * component.across + block % component.across;
                    planes[i].write_block([row, column], &coefficients, last, quantization);
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
    let Buffers {
        planes, rows, sums, ..
    } = buffers;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use logitcask_philox::{Purpose, Stream};
    use serde_json::Value;

    use super::*;

    /// The JPEG files of the fixture that are decoded here, with what PIL makes of them: (name, reduction, file, pixels).
    fn fixture() -> Vec<(String, usize, Vec<u8>, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataset/tests/fixtures");
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
            .filter(|(name, ..)| name.starts_with("jpeg") && !name.ends_with("cmyk"))
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
            let scan = Header::read(&file).unwrap().scan.data;
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
