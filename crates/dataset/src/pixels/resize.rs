//! Antialiased bilinear resizing, to the bit as PIL does it: horizontal pass, then vertical, with 22-bit fixed-point
//! weights and rounding to bytes after each.

use super::{Scratch, swap_pixels};
use crate::{Image, ImageSize};

const PRECISION_BITS: u32 = 22;

/// Resizes to `height` x `width`.
pub(crate) fn resize(image: &mut Image, height: usize, width: usize, scratch: &mut Scratch) {
    let size = image.size();
    if size.width != width {
        let weights = Weights::new(size.width, width);
        horizontal(image, &weights, &mut scratch.image);
        swap_pixels(image, &mut scratch.image);
    }
    if size.height != height {
        let weights = Weights::new(size.height, height);
        vertical(image, &weights, &mut scratch.image);
        swap_pixels(image, &mut scratch.image);
    }
}

/// For each output position, where its window of input positions begins, and the weights in it.
struct Weights {
    windows: Vec<(usize, usize)>,
    values: Vec<i32>,
    /// Weights per output position, zeros included.
    stride: usize,
}

impl Weights {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        // Enlarging interpolates between neighbours; shrinking widens the triangle so that no pixel is passed over.
        let support = scale.max(1.0);
        let stride = support.ceil() as usize * 2 + 1;
        let mut values = vec![0; to * stride];
        let windows = values
            .chunks_exact_mut(stride)
            .enumerate()
            .map(|(i, values)| {
                let center = (i as f64 + 0.5) * scale;
                let first = (center - support + 0.5).max(0.0) as usize;
                let last = ((center + support + 0.5) as usize).min(from);
                let triangle =
                    |at: usize| (1.0 - ((at as f64 - center + 0.5) / support).abs()).max(0.0);
                let sum: f64 = (first..last).map(triangle).sum();
                for (value, at) in values.iter_mut().zip(first..last) {
                    let weight = triangle(at) / sum;
                    *value = (0.5 + weight * f64::from(1 << PRECISION_BITS)) as i32;
                }
                (first, last)
            });
        Self {
            windows: windows.collect(),
            stride,
            values,
        }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.stride);
        self.windows
            .iter()
            .zip(values)
            .map(|(&(first, last), values)| (first, &values[..last - first]))
    }
}

fn horizontal(image: &Image, weights: &Weights, into: &mut Image) {
    let size = image.size();
    let channels = size.channels;
    into.reshape(ImageSize {
        width: weights.windows.len(),
        ..size
    });
    let stride = weights.windows.len() * channels;
    for (y, out) in into.pixels_mut().chunks_exact_mut(stride).enumerate() {
        let row = image.row(y);
        for (out, (first, weights)) in out.chunks_exact_mut(channels).zip(weights.each()) {
            for (channel, out) in out.iter_mut().enumerate() {
                let values = row[first * channels + channel..].iter().step_by(channels);
                *out = round(
                    values
                        .zip(weights)
                        .map(|(&value, weight)| i32::from(value) * weight)
                        .sum(),
                );
            }
        }
    }
}

fn vertical(image: &Image, weights: &Weights, into: &mut Image) {
    let size = image.size();
    let stride = size.width * size.channels;
    into.reshape(ImageSize {
        height: weights.windows.len(),
        ..size
    });
    for (out, (first, weights)) in into
        .pixels_mut()
        .chunks_exact_mut(stride)
        .zip(weights.each())
    {
        for (x, out) in out.iter_mut().enumerate() {
            let values = (first..).zip(weights);
            *out = round(
                values
                    .map(|(y, weight)| i32::from(image.pixels()[y * stride + x]) * weight)
                    .sum(),
            );
        }
    }
}

fn round(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}
