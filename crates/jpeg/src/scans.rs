//! Files of several scans: progressive ones (ITU-T T.81, annex G), each of whose scans brings some bits of some
//! coefficients of all blocks, and sequential ones with a scan for each component. All coefficients are kept until
//! the last scan has been read.

use crate::coefficients::Coefficients;
use crate::entropy::{Bits, NO_CODE, Table, ZIGZAG};
use crate::error::Error::{self, Damaged};
use crate::header::{Header, Scan, ScanComponent, Tables};
use crate::markers::{END_OF_IMAGE, START_OF_SCAN, next_segment};
use crate::smooth::{Known, Smoothing};

/// More than ten are unusual. Without a limit a small file could cost hours.
const MOST_SCANS: usize = 256;

/// What belongs to the coefficients.
pub(crate) struct Found {
    /// Of each component: zeros, which make it grey, where it never came.
    pub(crate) quantization: [[u16; 64]; 4],
    pub(crate) smoothing: Option<Smoothing>,
}

/// Reads all scans. The quantization of a component is that before its first scan.
pub(crate) fn read(
    bytes: &[u8],
    header: &Header,
    coefficients: &mut Coefficients,
) -> Result<Found, Error> {
    coefficients.clear(header);
    let mut tables = header.tables.clone();
    let mut quantization = [None; 4];
    let mut known: [Known; 4] = [[-1; 10]; 4];
    let mut scan = header.scan.clone();
    for _ in 0..MOST_SCANS {
        for component in &scan.components {
            let index = component.index;
            if quantization[index].is_none() {
                let table = tables.quantization(&header.components[index])?;
                quantization[index] = Some(*table);
            }
            let [first, last] = scan.band;
            let places = known[index].iter_mut().take(last + 1).skip(first);
            places.for_each(|lowest| *lowest = scan.bits[1] as i32);
        }
        let mut at = read_scan(bytes, header, &tables, &scan, coefficients)?;
        scan = loop {
            match next_segment(bytes, &mut at)? {
                (END_OF_IMAGE, _) => {
                    return Ok(Found {
                        smoothing: Smoothing::new(header, &quantization, &known),
                        quantization: quantization.map(|table| table.unwrap_or([0; 64])),
                    });
                }
                (START_OF_SCAN, segment) => break Scan::read(segment, header, at)?,
                (marker, segment) => tables.read(marker, segment)?,
            }
        };
    }
    Err(Damaged("it has more than 256 scans"))
}

/// What a scan does to a block.
enum Pass<'a> {
    Sequential(&'a Table, &'a Table),
    FirstDc(&'a Table),
    MoreDc,
    FirstAc(&'a Table),
    MoreAc(&'a Table),
}

impl<'a> Pass<'a> {
    fn of(
        header: &Header,
        tables: &'a Tables,
        scan: &Scan,
        component: &ScanComponent,
    ) -> Result<Self, Error> {
        Ok(match (header.is_progressive, scan.band[0], scan.bits[0]) {
            (false, ..) => {
                Pass::Sequential(tables.dc_table(component)?, tables.ac_table(component)?)
            }
            (true, 0, 0) => Pass::FirstDc(tables.dc_table(component)?),
            (true, 0, _) => Pass::MoreDc,
            (true, _, 0) => Pass::FirstAc(tables.ac_table(component)?),
            (true, ..) => Pass::MoreAc(tables.ac_table(component)?),
        })
    }
}

/// Reads one scan. Returns where the marker after it begins.
fn read_scan(
    bytes: &[u8],
    header: &Header,
    tables: &Tables,
    scan: &Scan,
    coefficients: &mut Coefficients,
) -> Result<usize, Error> {
    let mut reader = Reader {
        bits: Bits::new(&bytes[scan.data..]),
        band: scan.band,
        low: scan.bits[1],
        predictions: [0; 4],
        blocks_to_skip: 0,
    };
    let mut parts = Vec::with_capacity(scan.components.len());
    for component in &scan.components {
        let pass = Pass::of(header, tables, scan, component)?;
        let blocks = scan.blocks_of(&header.components[component.index]);
        parts.push((component.index, blocks, pass));
    }
    let [n_rows, n_columns] = scan.mcus(header);
    let mut until_restart = tables.restart_interval;
    for row in 0..n_rows {
        for column in 0..n_columns {
            if tables.restart_interval > 0 {
                if until_restart == 0 {
                    reader.restart()?;
                    until_restart = tables.restart_interval;
                }
                until_restart -= 1;
            }
            for (i, [down, across], pass) in &parts {
                for block in 0..down * across {
                    let row = row * down + block / across;
                    let column = column * across + block % across;
                    reader.block(pass, *i, coefficients.block_mut(*i, row, column))?;
                }
            }
        }
        reader.bits.check_end()?;
    }
    Ok(scan.data + reader.bits.end()?)
}

struct Reader<'a> {
    bits: Bits<'a>,
    band: [usize; 2],
    /// The lowest bit of a coefficient that this scan brings.
    low: u32,
    predictions: [i32; 4],
    /// So many blocks to come bring no new coefficients.
    blocks_to_skip: u32,
}

impl Reader<'_> {
    fn restart(&mut self) -> Result<(), Error> {
        self.bits.restart()?;
        self.predictions = [0; 4];
        self.blocks_to_skip = 0;
        Ok(())
    }

    fn block(
        &mut self,
        pass: &Pass<'_>,
        component: usize,
        block: &mut [i16; 64],
    ) -> Result<(), Error> {
        let prediction = &mut self.predictions[component];
        match pass {
            Pass::Sequential(dc, ac) => self.bits.block(dc, ac, prediction, block).map(|_| ()),
            Pass::FirstDc(table) => {
                self.bits.dc(table, prediction)?;
                block[0] = (*prediction << self.low) as i16;
                Ok(())
            }
            Pass::MoreDc => {
                self.bits.refill();
                block[0] |= (self.bits.bits(1) << self.low) as i16;
                Ok(())
            }
            Pass::FirstAc(table) => self.first_ac(table, block),
            Pass::MoreAc(table) => self.more_ac(table, block),
        }
    }

    fn first_ac(&mut self, table: &Table, block: &mut [i16; 64]) -> Result<(), Error> {
        if self.blocks_to_skip > 0 {
            self.blocks_to_skip -= 1;
            return Ok(());
        }
        let [mut k, last] = self.band;
        while k <= last {
            self.bits.refill();
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    self.blocks_to_skip = self.run_of_blocks(run) - 1;
                    break;
                }
                _ => {
                    k += usize::from(run);
                    block[usize::from(ZIGZAG[k & 127])] =
                        (self.bits.value(size.into()) << self.low) as i16;
                    k += 1;
                }
            }
        }
        Ok(())
    }

    /// This block and how many after it bring nothing more.
    fn run_of_blocks(&mut self, size: u8) -> u32 {
        (1 << size) + self.bits.bits(size.into())
    }

    /// One bit more of every coefficient that is not zero, and new ones of that bit alone among those that were zero.
    fn more_ac(&mut self, table: &Table, block: &mut [i16; 64]) -> Result<(), Error> {
        let [mut k, last] = self.band;
        while self.blocks_to_skip == 0 && k <= last {
            self.bits.refill();
            let symbol = self.bits.symbol(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            let new = match size {
                0 if run < 15 => {
                    self.blocks_to_skip = self.run_of_blocks(run);
                    break;
                }
                0 => 0,
                1 => (2 * self.bits.bits(1) as i16 - 1) << self.low,
                _ => return Err(NO_CODE),
            };
            k = self.refine(k, Some(run), block);
            if new != 0 {
                block[usize::from(ZIGZAG[k & 127])] = new;
            }
            k += 1;
        }
        if self.blocks_to_skip > 0 {
            self.refine(k, None, block);
            self.blocks_to_skip -= 1;
        }
        Ok(())
    }

    /// Reads a bit for each coefficient from place `k` on that is not zero, up to the zero after `zeros` zeros or to the
    /// band's end, and returns that place.
    fn refine(&mut self, mut k: usize, zeros: Option<u8>, block: &mut [i16; 64]) -> usize {
        let mut zeros = zeros.map_or(usize::MAX, usize::from);
        let bit = 1i16 << self.low;
        while k <= self.band[1] {
            let value = &mut block[usize::from(ZIGZAG[k])];
            if *value == 0 {
                if zeros == 0 {
                    break;
                }
                zeros -= 1;
            } else {
                self.bits.refill();
                if self.bits.bits(1) == 1 && *value & bit == 0 {
                    *value = value.wrapping_add(bit * value.signum());
                }
            }
            k += 1;
        }
        k
    }
}
