//! Looking at a dataset: a contact sheet of views, and the exact tensor that a model would see.

use std::io::{self, Write};
use std::path::Path;

use crate::batch::Scratch;
use crate::pixels::repeat_grey;
use crate::{Dataset, DatasetError, Image, ImageSize, PixelBatch, ViewFamily};

/// Pixels between the tiles of a sheet, and their value.
const GAP: usize = 2;
const PAPER: u8 = 255;
/// Small images are enlarged by a whole factor, until they are at least this large.
const LEGIBLE: usize = 64;

/// Draws views side by side, a row of the sheet per entry of `rows`: (sample, view) pairs each. The clean image can be
/// had by drawing a row with [`ViewFamily::clean`] and [stacking](stack) the sheets.
///
/// # Errors
/// A sample that cannot be rendered.
pub fn contact_sheet(
    dataset: &Dataset,
    family: &ViewFamily,
    rows: &[Vec<(u32, u32)>],
) -> Result<Image, DatasetError> {
    let mut scratch = Scratch::default();
    let mut tiles = Vec::new();
    for row in rows {
        let mut line = Vec::new();
        for &(sample, view) in row {
            scratch.render(dataset, family, sample, view)?;
            let mut tile = scratch.image().clone();
            if tile.size().channels == 1 {
                repeat_grey(&mut tile);
            }
            line.push(tile);
        }
        tiles.push(line);
    }
    Ok(arranged(&tiles))
}

/// Puts sheets below each other.
pub fn stack(sheets: &[Image]) -> Image {
    let sizes = || sheets.iter().map(Image::size);
    let size = ImageSize {
        height: sizes().map(|size| size.height).sum(),
        width: sizes().map(|size| size.width).max().unwrap_or(0),
        channels: 3,
    };
    let mut all = Image::from_pixels(size, vec![PAPER; size.n_bytes()]);
    let mut top = 0;
    for sheet in sheets {
        paste(&mut all, sheet, top, 0, 1);
        top += sheet.size().height;
    }
    all
}

/// Tiles of three channels in a grid whose fields have the size of the largest, all enlarged by the same factor.
fn arranged(tiles: &[Vec<Image>]) -> Image {
    let sizes = || tiles.iter().flatten().map(Image::size);
    let height = sizes().map(|size| size.height).max().unwrap_or(1);
    let width = sizes().map(|size| size.width).max().unwrap_or(1);
    let factor = LEGIBLE.div_ceil(height.max(width)).max(1);
    let n_columns = tiles.iter().map(Vec::len).max().unwrap_or(0);
    let pitch = (height * factor + GAP, width * factor + GAP);
    let size = ImageSize {
        height: tiles.len() * pitch.0 + GAP,
        width: n_columns * pitch.1 + GAP,
        channels: 3,
    };
    let mut sheet = Image::from_pixels(size, vec![PAPER; size.n_bytes()]);
    for (row, line) in tiles.iter().enumerate() {
        for (column, tile) in line.iter().enumerate() {
            paste(
                &mut sheet,
                tile,
                row * pitch.0 + GAP,
                column * pitch.1 + GAP,
                factor,
            );
        }
    }
    sheet
}

fn paste(sheet: &mut Image, tile: &Image, top: usize, left: usize, factor: usize) {
    let (size, stride) = (tile.size(), sheet.size().width * 3);
    for y in 0..size.height * factor {
        let out =
            &mut sheet.pixels_mut()[(top + y) * stride + left * 3..][..size.width * factor * 3];
        for (x, out) in out.chunks_exact_mut(3).enumerate() {
            out.copy_from_slice(&tile.row(y / factor)[x / factor * 3..][..3]);
        }
    }
}

/// Writes an image of 1 or 3 channels as PNG; the file appears whole or not at all.
///
/// # Errors
/// What the file system reports.
pub fn write_png(path: &Path, image: &Image) -> Result<(), DatasetError> {
    write(path, |file| file.write_all(&png(image)?))
}

/// An image of 1 or 3 channels as the bytes of a PNG file.
///
/// # Errors
/// If the encoder refuses: an image without pixels.
pub fn png(image: &Image) -> io::Result<Vec<u8>> {
    let size = image.size();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width as u32, size.height as u32);
    encoder.set_color(if size.channels == 1 {
        png::ColorType::Grayscale
    } else {
        png::ColorType::Rgb
    });
    encoder.set_depth(png::BitDepth::Eight);
    let encoded = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(image.pixels())?;
        writer.finish()
    });
    encoded.map(|()| bytes).map_err(io::Error::other)
}

/// Writes a batch's values as a NumPy array of f32, in the shape of its layout.
///
/// # Errors
/// What the file system reports.
pub fn write_npy(path: &Path, batch: &PixelBatch) -> Result<(), DatasetError> {
    let [a, b, c, d] = batch.shape();
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({a}, {b}, {c}, {d}), }}");
    // Magic, version and length take 10 bytes; with padding and a final newline the header ends on a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    write(path, |file| {
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(padded as u16).to_le_bytes())?;
        writeln!(file, "{header:<width$}", width = padded - 1)?;
        batch
            .pixels
            .iter()
            .try_for_each(|value| file.write_all(&value.to_le_bytes()))
    })
}

fn write(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<std::fs::File>) -> io::Result<()>,
) -> Result<(), DatasetError> {
    logitcask_durable::write_atomic(path, fill).map_err(|source| DatasetError::Io {
        action: "write",
        path: path.into(),
        source,
    })
}
