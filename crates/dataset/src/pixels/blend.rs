//! Brightness, contrast, saturation and sharpness: each a blend of the image with a degenerate form of it, which PIL's
//! `ImageEnhance` computes in single precision. A factor above 1 extrapolates.

use super::channels::luma;
use crate::Image;

/// PIL's `Image.blend(degenerate, image, factor)` of one value.
#[inline]
fn blended(degenerate: u8, value: u8, factor: f32) -> u8 {
    let degenerate = f32::from(degenerate);
    // Inside 0..1 nothing is to be clipped; outside the cast saturates. Either way the fraction is cut off.
    (degenerate + factor * (f32::from(value) - degenerate)) as u8
}

pub(super) fn brightness(image: &mut Image, factor: f32) {
    blend_with(image, 0, factor);
}

pub(super) fn contrast(image: &mut Image, factor: f32) {
    let channels = image.size().channels;
    let pixels = image.pixels().chunks_exact(channels);
    let n_pixels = pixels.len().max(1) as f64;
    let sum: u64 = pixels
        .map(|pixel| u64::from(if channels == 1 { pixel[0] } else { luma(pixel) }))
        .sum();
    let mean = (sum as f64 / n_pixels + 0.5) as u8;
    blend_with(image, mean, factor);
}

fn blend_with(image: &mut Image, degenerate: u8, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| blended(degenerate, value as u8, factor));
    image
        .pixels_mut()
        .iter_mut()
        .for_each(|value| *value = table[usize::from(*value)]);
}

pub(super) fn saturation(image: &mut Image, factor: f32) {
    if image.size().channels == 3 {
        for pixel in image.pixels_mut().chunks_exact_mut(3) {
            let grey = luma(pixel);
            pixel
                .iter_mut()
                .for_each(|value| *value = blended(grey, *value, factor));
        }
    }
}

/// The degenerate form is PIL's `SMOOTH` filter; it leaves the outermost pixels as they are.
pub(super) fn sharpness(image: &mut Image, factor: f32, smooth: &mut Image) {
    smooth.copy_from(image);
    let size = image.size();
    let (stride, channels) = (size.width * size.channels, size.channels);
    if size.height > 2 && size.width > 2 {
        let rows = smooth.pixels_mut().chunks_exact_mut(stride);
        for (y, out) in rows.enumerate().skip(1).take(size.height - 2) {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| image.row(y));
            for x in channels..stride - channels {
                out[x] = smoothed(
                    [below, here, above].map(|row| [row[x - channels], row[x], row[x + channels]]),
                );
            }
        }
    }
    for (value, &smooth) in image.pixels_mut().iter_mut().zip(smooth.pixels()) {
        *value = blended(smooth, *value, factor);
    }
}

/// Weights 1 1 1, 1 5 1, 1 1 1 over 13, summed row by row in single precision as PIL does.
#[inline]
fn smoothed(rows: [[u8; 3]; 3]) -> u8 {
    const SIDE: f32 = 1.0 / 13.0;
    const MIDDLE: f32 = 5.0 / 13.0;
    let mut sum = 0.5;
    for (row, middle) in rows.iter().zip([SIDE, MIDDLE, SIDE]) {
        let [a, b, c] = row.map(f32::from);
        sum += a * SIDE + b * middle + c * SIDE;
    }
    sum as u8
}
