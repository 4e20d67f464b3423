//! Sums over pixels and the like, channel by channel.

use rayon::prelude::*;

use super::simd::{Level, vectorized};

/// Pixels per piece of work. Fixed, so that sums do not depend on the number of threads.
pub(crate) const PIXELS: usize = 512;

/// `y[pixel][c] += bias[c]`.
pub(crate) fn add_bias(bias: &[f32], y: &mut [f32]) {
    let level = Level::current();
    y.par_chunks_mut(PIXELS * bias.len()).for_each(|y| {
        vectorized(level, || {
            for y in y.chunks_exact_mut(bias.len()) {
                for (y, bias) in y.iter_mut().zip(bias) {
                    *y += bias;
                }
            }
        })
    });
}

/// `sum[c]` over pixels of `values[pixel][c]`.
pub(crate) fn sum_pixels(channels: usize, values: &[f32]) -> Vec<f32> {
    let level = Level::current();
    let parts: Vec<Vec<f32>> = values
        .par_chunks(PIXELS * channels)
        .map(|values| {
            let mut part = vec![0.0; channels];
            vectorized(level, || {
                for pixel in values.chunks_exact(channels) {
                    for (part, value) in part.iter_mut().zip(pixel) {
                        *part += value;
                    }
                }
            });
            part
        })
        .collect();
    let mut sum = vec![0f64; channels];
    for part in &parts {
        for (sum, &part) in sum.iter_mut().zip(part) {
            *sum += f64::from(part);
        }
    }
    sum.into_iter().map(|sum| sum as f32).collect()
}
