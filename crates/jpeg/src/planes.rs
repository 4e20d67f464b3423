//! The decoded blocks of each component that a window needs.

use crate::coefficients::Coefficients;
use crate::entropy::Bits;
use crate::error::Error;
use crate::header::{Component, Header};
use crate::scans;
use crate::transform::{average, full_block, half_block, quarter_block};

/// The blocks of one component that are kept, as pixels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plane {
    /// Blocks: the first row and column that are kept, and those after the last.
    rows: [usize; 2],
    columns: [usize; 2],
    /// Pixels per side of a block, 8 where nothing is reduced.
    side: usize,
    /// The size of the whole component in pixels, without what fills its last blocks.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Pixels of the image for one of the component's, down and across.
    pub(crate) scale: [usize; 2],
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
            _ => out[0] = average(coefficients, quantization),
        }
    }

    /// Row `y` of the component, of which its kept columns.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let stride = self.stride();
        &self.pixels[(y - self.rows[0] * self.side) * stride..][..stride]
    }

    /// The first of the kept columns, in pixels.
    pub(crate) fn first_column(&self) -> usize {
        self.columns[0] * self.side
    }
}

/// Decodes what the window [top, left, height, width] of the reduced image needs.
#[inline(always)]
pub(crate) fn decode(
    bytes: &[u8],
    header: &Header,
    reduction: usize,
    window: [usize; 4],
    planes: &mut [Plane; 4],
    coefficients: &mut Coefficients,
) -> Result<(), Error> {
    let mcus = lay_out(header, reduction, window, planes);
    if header.is_one_scan() {
        return decode_scan(bytes, header, mcus, planes);
    }
    let found = scans::read(bytes, header, coefficients)?;
    for (i, plane) in planes.iter_mut().enumerate().take(header.components.len()) {
        let (rows, columns) = (plane.rows, plane.columns);
        let quantization = &found.quantization[i];
        for row in rows[0]..rows[1] {
            for column in columns[0]..columns[1] {
                let smoothed;
                let mut block = coefficients.block(i, row, column);
                if let Some(smoothing) = &found.smoothing {
                    smoothed = smoothing.block(header, coefficients, i, [row, column]);
                    block = &smoothed;
                }
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
    planes: &mut [Plane; 4],
) -> [[usize; 2]; 2] {
    let [down, across] = header.largest;
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
        plane.side = side_of(header, component, side);
        plane.height = (header.height * component.down * plane.side).div_ceil(8 * down);
        plane.width = (header.width * component.across * plane.side).div_ceil(8 * across);
        plane.scale = [
            down * side / (component.down * plane.side),
            across * side / (component.across * plane.side),
        ];
        let n_block_rows = plane.rows[1] - plane.rows[0];
        plane
            .pixels
            .resize(n_block_rows * plane.side * plane.stride(), 0);
    }
    [mcu_rows, mcu_columns]
}

/// Pixels per side of a component's blocks, where those of the highest resolution have `side`. As libjpeg: what is
/// stored at a lower resolution is reduced less.
fn side_of(header: &Header, component: &Component, side: usize) -> usize {
    let [down, across] = header.largest;
    let mut own = side;
    while own < 8
        && (across * side).is_multiple_of(component.across * own * 2)
        && (down * side).is_multiple_of(component.down * own * 2)
    {
        own *= 2;
    }
    own
}

/// Decodes a file's only scan, block by block as they come, and transforms those of the MCUs that are kept. Reads no
/// further than the last row of those.
#[inline(always)]
pub(crate) fn decode_scan(
    bytes: &[u8],
    header: &Header,
    [mcu_rows, mcu_columns]: [[usize; 2]; 2],
    planes: &mut [Plane],
) -> Result<(), Error> {
    let tables = &header.tables;
    let mut parts = Vec::with_capacity(4);
    for scan in &header.scan.components {
        let component = &header.components[scan.index];
        parts.push((
            scan.index,
            header.scan.blocks_of(component),
            tables.quantization(component)?,
            tables.dc_table(scan)?,
            tables.ac_table(scan)?,
        ));
    }
    let [_, n_columns] = header.mcus();
    let mut bits = Bits::new(&bytes[header.scan.data..]);
    let (mut predictions, mut until_restart) = ([0i32; 4], tables.restart_interval);
    let mut coefficients = [0i16; 64];
    for mcu_row in 0..mcu_rows[1] {
        let row_is_kept = mcu_row >= mcu_rows[0];
        for mcu_column in 0..n_columns {
            if tables.restart_interval > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    predictions = [0; 4];
                    until_restart = tables.restart_interval;
                }
                until_restart -= 1;
            }
            let is_kept = row_is_kept && (mcu_columns[0]..mcu_columns[1]).contains(&mcu_column);
            for &(i, [down, across], quantization, dc, ac) in &parts {
                for block in 0..down * across {
                    if !is_kept {
                        bits.skip_block(dc, ac, &mut predictions[i])?;
                        continue;
                    }
                    let last = bits.block(dc, ac, &mut predictions[i], &mut coefficients)?;
                    let row = mcu_row * down + block / across;
                    let column = mcu_column * across + block % across;
                    planes[i].write_block([row, column], &coefficients, last, quantization);
                    coefficients = [0; 64];
                }
            }
        }
        bits.check_end()?;
    }
    Ok(())
}
