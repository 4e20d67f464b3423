//! What stands before the entropy-coded data: the frame, the tables, a scan's header.

use crate::entropy::{Table, ZIGZAG, standard_tables};
use crate::error::Error::{self, Damaged};
use crate::markers::{END_OF_IMAGE, START_OF_SCAN, next_segment};

/// What a file's headers say, up to the data of its first scan.
pub struct Header {
    /// Rows of pixels, by the frame header.
    pub height: usize,
    /// Columns of pixels, by the frame header.
    pub width: usize,
    pub(crate) components: Vec<Component>,
    /// The largest sampling factors among the components, down and across.
    pub(crate) largest: [usize; 2],
    pub(crate) colour: Colour,
    pub(crate) is_progressive: bool,
    pub(crate) tables: Tables,
    pub(crate) scan: Scan,
}

#[derive(Clone, Debug)]
pub(crate) struct Component {
    id: u8,
    /// Blocks per MCU, across and down.
    pub(crate) across: usize,
    pub(crate) down: usize,
    /// `down` as the file has it: a lone component is not grouped, whatever it says, but smoothing goes by its word.
    pub(crate) stated_down: usize,
    pub(crate) quantization: usize,
}

/// What the components stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// What segments before a scan set for it and for those after it.
#[derive(Clone, Default)]
pub(crate) struct Tables {
    pub(crate) quantization: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    pub(crate) restart_interval: usize,
}

/// The header of a scan.
#[derive(Clone, Default)]
pub(crate) struct Scan {
    pub(crate) components: Vec<ScanComponent>,
    /// The first and the last coefficient in zigzag order.
    pub(crate) band: [usize; 2],
    /// The lowest bit that was there before and that is there afterwards, of a progressive scan.
    pub(crate) bits: [u32; 2],
    /// Where its data begin.
    pub(crate) data: usize,
}

#[derive(Clone)]
pub(crate) struct ScanComponent {
    pub(crate) index: usize,
    dc_table: usize,
    ac_table: usize,
}

/// libjpeg takes no more blocks in an MCU.
const MOST_BLOCKS: usize = 10;
/// libjpeg takes no larger images.
const MOST_ROWS: usize = 65_500;

impl Header {
    /// Reads everything before the first scan's data.
    ///
    /// # Errors
    /// What is not decoded, by its name; damage in the headers; a file that ends without an end-of-image marker after
    /// its scan, or is shorter than the pixels it claims could possibly be.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut header = Self {
            height: 0,
            width: 0,
            components: Vec::new(),
            largest: [1, 1],
            colour: Colour::Grey,
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
                START_OF_SCAN => {
                    header.scan = Scan::read(segment, &header, at)?;
                    break;
                }
                0xE0 if segment.len() >= 14 && segment.starts_with(b"JFIF\0") => is_jfif = true,
                0xEE if segment.starts_with(b"Adobe") => {
                    adobe_transform = segment.get(11).copied().or(adobe_transform);
                }
                _ => header.tables.read(marker, segment)?,
            }
        }
        header.colour = header.colour(is_jfif, adobe_transform);
        if !header.is_progressive {
            header.tables.add_standard();
        }
        header.check_length(bytes)?;
        Ok(header)
    }

    /// 1 (grey) or 3: of four components PIL makes red, green and blue.
    pub fn channels(&self) -> usize {
        self.components.len().min(3)
    }

    /// Rows and columns of the image at 1/`reduction` of its resolution.
    pub fn reduced(&self, reduction: usize) -> [usize; 2] {
        [
            self.height.div_ceil(reduction),
            self.width.div_ceil(reduction),
        ]
    }

    /// Rows and columns of MCUs in the whole image.
    pub(crate) fn mcus(&self) -> [usize; 2] {
        let [down, across] = self.largest;
        [
            self.height.div_ceil(8 * down),
            self.width.div_ceil(8 * across),
        ]
    }

    /// Rows and columns of blocks that hold pixels of the component.
    pub(crate) fn blocks_in(&self, component: &Component) -> [usize; 2] {
        let [down, across] = self.largest;
        [
            (self.height * component.down).div_ceil(8 * down),
            (self.width * component.across).div_ceil(8 * across),
        ]
    }

    /// Whether its first scan holds all of it.
    pub(crate) fn is_one_scan(&self) -> bool {
        !self.is_progressive && self.scan.components.len() == self.components.len()
    }

    fn read_frame(&mut self, segment: &[u8]) -> Result<(), Error> {
        const MALFORMED: Error = Damaged("its frame header is malformed");
        let [precision, h1, h0, w1, w0, n, components @ ..] = segment else {
            return Err(MALFORMED);
        };
        if *precision != 8 {
            return Err(Error::Precision(*precision));
        }
        self.height = usize::from(u16::from_be_bytes([*h1, *h0]));
        self.width = usize::from(u16::from_be_bytes([*w1, *w0]));
        if !self.components.is_empty() {
            return Err(Damaged("it has two frame headers"));
        }
        if self.height == 0 || self.width == 0 {
            return Err(Damaged("its frame header states no size"));
        }
        if self.height > MOST_ROWS || self.width > MOST_ROWS {
            return Err(Damaged("it has more than 65500 rows or columns"));
        }
        if !matches!(n, 1 | 3 | 4) {
            return Err(Error::Components(*n));
        }
        if components.len() != 3 * usize::from(*n) {
            return Err(MALFORMED);
        }
        let (entries, _) = components.as_chunks();
        for entry in entries {
            self.components.push(Component::read(*entry)?);
        }
        if let [grey] = &mut self.components[..] {
            (grey.across, grey.down) = (1, 1);
        }
        self.find_largest()
    }

    /// Sets the largest sampling factors, which those of every component have to divide.
    fn find_largest(&mut self) -> Result<(), Error> {
        for component in &self.components {
            let [down, across] = self.largest;
            self.largest = [down.max(component.down), across.max(component.across)];
        }
        let [down, across] = self.largest;
        let divides = |c: &Component| down % c.down == 0 && across % c.across == 0;
        if !self.components.iter().all(divides) {
            return Err(Error::Sampling);
        }
        Ok(())
    }

    fn colour(&self, is_jfif: bool, adobe_transform: Option<u8>) -> Colour {
        match (&self.components[..], adobe_transform) {
            ([_], _) => Colour::Grey,
            ([_, _, _], _) if is_jfif => Colour::YCbCr,
            ([_, _, _], Some(0)) => Colour::Rgb,
            ([_, _, _], Some(_)) => Colour::YCbCr,
            ([a, b, c], None) if [a.id, b.id, c.id] == *b"RGB" => Colour::Rgb,
            ([_, _, _], None) => Colour::YCbCr,
            (_, None | Some(0)) => Colour::Cmyk,
            (_, Some(_)) => Colour::Ycck,
        }
    }

    /// Refuses what cannot be whole, before anybody takes memory for it. Decoders fill the rest of a file that is cut off
    /// with grey, as browsers do; a teacher must not see that.
    fn check_length(&self, bytes: &[u8]) -> Result<(), Error> {
        let data = bytes.get(self.scan.data..).unwrap_or_default();
        // Entropy-coded data never hold the marker, and the thumbnail inside an EXIF segment, which does end in one,
        // lies before the scan.
        let mut pairs = data.windows(2).rev();
        if !pairs.any(|pair| pair == [0xFF, END_OF_IMAGE]) {
            return Err(Damaged(
                "it is cut off: no end-of-image marker after the scan",
            ));
        }
        let [n_rows, n_columns] = self.scan.mcus(self);
        let n_blocks = n_rows * n_columns * self.scan.blocks_per_mcu(self);
        // The shortest code is one bit long, and a sequential block has two codes at least.
        let n_bits = n_blocks * if self.is_progressive { 1 } else { 2 };
        if n_bits > 8 * data.len() {
            return Err(Error::TooShort {
                n_bytes: bytes.len(),
                width: self.width,
                height: self.height,
            });
        }
        Ok(())
    }
}

impl Component {
    /// Reads a frame header's entry: the name, the sampling factors in one byte, the table of quantization.
    fn read([id, factors, quantization]: [u8; 3]) -> Result<Self, Error> {
        let (across, down) = (factors >> 4, factors & 15);
        if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
            return Err(Damaged("its sampling factors are not 1 to 4"));
        }
        Ok(Self {
            id,
            across: across.into(),
            down: down.into(),
            stated_down: down.into(),
            quantization: quantization.into(),
        })
    }
}

impl Tables {
    pub(crate) fn dc_table(&self, scan: &ScanComponent) -> Result<&Table, Error> {
        table(&self.dc, scan.dc_table)
    }

    pub(crate) fn ac_table(&self, scan: &ScanComponent) -> Result<&Table, Error> {
        table(&self.ac, scan.ac_table)
    }

    /// The quantization table that a component asks for.
    pub(crate) fn quantization(&self, component: &Component) -> Result<&[u16; 64], Error> {
        let table = self.quantization.get(component.quantization);
        let missing = Damaged("it names a quantization table that it does not have");
        table.and_then(Option::as_ref).ok_or(missing)
    }

    /// Takes a segment's tables; passes over what says nothing about pixels.
    pub(crate) fn read(&mut self, marker: u8, segment: &[u8]) -> Result<(), Error> {
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
            0xC3 | 0xCB => Err(Error::Lossless),
            0xC5..=0xC7 | 0xCD..=0xCF | 0xDE | 0xDF => Err(Error::Hierarchical),
            0xC9 | 0xCA => Err(Error::Arithmetic),
            0xC0..=0xC2 => Err(Damaged("it has two frame headers")),
            // Conditioning of arithmetic coding, a number of lines, comments and the like.
            0xCC | 0xDC | 0xE0..=0xEF | 0xFE => Ok(()),
            _ => Err(Damaged("it holds a marker that has no meaning")),
        }
    }

    fn read_quantization(&mut self, mut segment: &[u8]) -> Result<(), Error> {
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

    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        const MALFORMED: Error = Damaged("a Huffman table is malformed");
        while let [head, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(MALFORMED)?;
            let n: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(n).ok_or(MALFORMED)?;
            let (is_ac, to) = (head & 0x10 != 0, usize::from(head & !0x10));
            let tables = if is_ac { &mut self.ac } else { &mut self.dc };
            let slot = tables.get_mut(to).ok_or(MALFORMED)?;
            *slot = Some(Table::new(counts, symbols, is_ac).ok_or(MALFORMED)?);
            segment = rest;
        }
        Ok(())
    }

    /// The tables of the standard where the file brings none of its own, as frames of Motion JPEG do not.
    fn add_standard(&mut self) {
        for (to, is_ac) in [(0, false), (1, false), (0, true), (1, true)] {
            let tables = if is_ac { &mut self.ac } else { &mut self.dc };
            if tables[to].is_none() {
                tables[to] = standard_tables(to, is_ac);
            }
        }
    }
}

fn table(tables: &[Option<Table>; 4], index: usize) -> Result<&Table, Error> {
    let missing = Damaged("it names a Huffman table that it does not have");
    tables.get(index).and_then(Option::as_ref).ok_or(missing)
}

impl Scan {
    /// Reads the header of a scan whose data begin at `data`.
    pub(crate) fn read(segment: &[u8], header: &Header, data: usize) -> Result<Self, Error> {
        const MALFORMED: Error = Damaged("a scan's header is malformed");
        let (&n, rest) = segment.split_first().ok_or(MALFORMED)?;
        let n = usize::from(n);
        let (entries, rest) = rest.split_at_checked(2 * n).ok_or(MALFORMED)?;
        let (&[first, last, bits], 1..=4) = (rest, n) else {
            return Err(MALFORMED);
        };
        let components = scan_components(entries, header)?;
        let (band, bits) = match header.is_progressive {
            true => (
                [first, last].map(usize::from),
                [bits >> 4, bits & 15].map(u32::from),
            ),
            // Some files have zeros there.
            false => ([0, 63], [0, 0]),
        };
        let is_possible = match band {
            [0, last] => last == 0 || !header.is_progressive,
            [first, last] => components.len() == 1 && first <= last && last < 64,
        };
        let [before, after] = bits;
        if !is_possible || after > 13 || (before != 0 && before != after + 1) {
            return Err(Damaged("a progressive scan's header is malformed"));
        }
        let scan = Self {
            components,
            band,
            bits,
            data,
        };
        if scan.blocks_per_mcu(header) > MOST_BLOCKS {
            return Err(Damaged("a scan has more than ten blocks in an MCU"));
        }
        Ok(scan)
    }

    /// Rows and columns of its MCUs. The blocks of a single component come row by row and without those that fill the
    /// image's last MCUs.
    pub(crate) fn mcus(&self, header: &Header) -> [usize; 2] {
        match &self.components[..] {
            [single] => header.blocks_in(&header.components[single.index]),
            _ => header.mcus(),
        }
    }

    /// Rows and columns of a component's blocks in an MCU.
    pub(crate) fn blocks_of(&self, component: &Component) -> [usize; 2] {
        match self.components.len() {
            1 => [1, 1],
            _ => [component.down, component.across],
        }
    }

    fn blocks_per_mcu(&self, header: &Header) -> usize {
        let blocks = self.components.iter().map(|scan| {
            let [down, across] = self.blocks_of(&header.components[scan.index]);
            down * across
        });
        blocks.sum()
    }
}

/// The components that a scan's header names, of which each has two bytes in `entries`: its name, and the two tables.
fn scan_components(entries: &[u8], header: &Header) -> Result<Vec<ScanComponent>, Error> {
    let mut components: Vec<ScanComponent> = Vec::with_capacity(entries.len() / 2);
    for (place, entry) in entries.chunks_exact(2).enumerate() {
        // As libjpeg looks for them: never before their own place, which tells apart those of one name.
        let named = |&i: &usize| header.components[i].id == entry[0];
        let index = (place..header.components.len()).find(named);
        let index = index.filter(|index| components.iter().all(|c| c.index != *index));
        components.push(ScanComponent {
            index: index.ok_or(Damaged("a scan names a component that its frame lacks"))?,
            dc_table: usize::from(entry[1] >> 4),
            ac_table: usize::from(entry[1] & 15),
        });
    }
    Ok(components)
}
