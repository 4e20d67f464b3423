//! Passes over memory that look at one value at a time.

use rayon::prelude::*;

use super::simd::{Level, vectorized};

/// Values per piece of work.
const CHUNK: usize = 1 << 14;

/// `sum += more`
pub(crate) fn add_to(sum: &mut [f32], more: &[f32]) {
    let level = Level::current();
    sum.par_chunks_mut(CHUNK)
        .zip(more.par_chunks(CHUNK))
        .for_each(|(sum, more)| {
            vectorized(level, || {
                for (sum, more) in sum.iter_mut().zip(more) {
                    *sum += more;
                }
            });
        });
}

/// `y = a + b`
pub(crate) fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    let level = Level::current();
    y.par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK))
        .zip(b.par_chunks(CHUNK))
        .for_each(|((y, a), b)| {
            vectorized(level, || {
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = a + b;
                }
            });
        });
}

/// `y = max(x, 0)`
pub(crate) fn relu(x: &[f32], y: &mut [f32]) {
    let level = Level::current();
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(y, x)| {
            vectorized(level, || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if *x < 0.0 { 0.0 } else { *x }; // what is no number stays none
                }
            });
        });
}

/// `dy = 0` where a ReLU answered `y = 0`.
pub(crate) fn relu_backward(y: &[f32], dy: &mut [f32]) {
    let level = Level::current();
    dy.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK))
        .for_each(|(dy, y)| {
            vectorized(level, || {
                for (dy, &y) in dy.iter_mut().zip(y) {
                    *dy = if y > 0.0 { *dy } else { 0.0 };
                }
            });
        });
}

/// Copies `width` channels of each pixel, from channel `from_first` of `from_channels` to `to_first` of `to_channels`.
pub(crate) fn copy_channels(
    (from, from_channels, from_first): (&[f32], usize, usize),
    (to, to_channels, to_first): (&mut [f32], usize, usize),
    width: usize,
) {
    let pixels = CHUNK.div_ceil(to_channels);
    to.par_chunks_mut(pixels * to_channels)
        .zip(from.par_chunks(pixels * from_channels))
        .for_each(|(to, from)| {
            for (to, from) in to
                .chunks_exact_mut(to_channels)
                .zip(from.chunks_exact(from_channels))
            {
                to[to_first..][..width].copy_from_slice(&from[from_first..][..width]);
            }
        });
}

/// `y[pixel][i * groups + g] = x[pixel][g * (channels / groups) + i]`: channels of the groups, taken in turn.
pub(crate) fn shuffle_channels(x: &[f32], channels: usize, groups: usize, y: &mut [f32]) {
    let pixels = CHUNK.div_ceil(channels) * channels;
    let per_group = channels / groups;
    y.par_chunks_mut(pixels)
        .zip(x.par_chunks(pixels))
        .for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                for (i, y) in y.chunks_exact_mut(groups).enumerate() {
                    for (g, y) in y.iter_mut().enumerate() {
                        *y = x[g * per_group + i];
                    }
                }
            }
        });
}
