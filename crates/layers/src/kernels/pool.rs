//! Pooling over windows.

use rayon::prelude::*;

use super::simd::{Level, vectorized};

/// Windows of one pooling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolShape {
    pub h: usize,
    pub w: usize,
    pub channels: usize,
    pub oh: usize,
    pub ow: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    /// What one value weighs in a mean.
    pub share: f32,
}

impl PoolShape {
    /// The input pixels (inside the image) of the window at `(oy, ox)`, in reading order.
    fn window(self, oy: usize, ox: usize) -> impl Iterator<Item = usize> {
        let span = move |o: usize, len: usize| {
            let start = o * self.stride;
            start.saturating_sub(self.padding)
                ..(start + self.kernel).saturating_sub(self.padding).min(len)
        };
        let columns = span(ox, self.w);
        span(oy, self.h).flat_map(move |y| columns.clone().map(move |x| y * self.w + x))
    }

    fn x_image(&self) -> usize {
        self.h * self.w * self.channels
    }

    fn y_image(&self) -> usize {
        self.oh * self.ow * self.channels
    }
}

/// Also notes the input pixel that won, the first one among equals as in PyTorch.
pub(crate) fn max_pool_forward(shape: PoolShape, x: &[f32], y: &mut [f32], winner: &mut [u32]) {
    let (channels, level) = (shape.channels, Level::current());
    let images = y
        .par_chunks_mut(shape.y_image())
        .zip(winner.par_chunks_mut(shape.y_image()));
    images
        .zip(x.par_chunks(shape.x_image()))
        .for_each(|((y, winner), x)| {
            for o in 0..shape.oh * shape.ow {
                let y = &mut y[o * channels..][..channels];
                let winner = &mut winner[o * channels..][..channels];
                let mut window = shape.window(o / shape.ow, o % shape.ow);
                let first = window
                    .next()
                    .expect("padding is at most half a window, so each window sees the image");
                y.copy_from_slice(&x[first * channels..][..channels]);
                winner.fill(first as u32);
                for pixel in window {
                    let x = &x[pixel * channels..][..channels];
                    vectorized(level, || {
                        for ((y, winner), &x) in y.iter_mut().zip(winner.iter_mut()).zip(x) {
                            // What is no number wins and stays, so that it is seen.
                            let wins = (x > *y) | x.is_nan();
                            *y = if wins { x } else { *y };
                            *winner = if wins { pixel as u32 } else { *winner };
                        }
                    });
                }
            }
        });
}

pub(crate) fn max_pool_backward(shape: PoolShape, dy: &[f32], winner: &[u32], dx: &mut [f32]) {
    let channels = shape.channels;
    let images = dy
        .par_chunks(shape.y_image())
        .zip(winner.par_chunks(shape.y_image()));
    dx.par_chunks_mut(shape.x_image())
        .zip(images)
        .for_each(|(dx, (dy, winner))| {
            dx.fill(0.0);
            for (i, (&dy, &winner)) in dy.iter().zip(winner).enumerate() {
                dx[winner as usize * channels + i % channels] += dy;
            }
        });
}

/// Padding counts as zeros, as PyTorch's `count_include_pad=True`, its default.
pub(crate) fn avg_pool_forward(shape: PoolShape, x: &[f32], y: &mut [f32]) {
    let channels = shape.channels;
    y.par_chunks_mut(shape.y_image())
        .zip(x.par_chunks(shape.x_image()))
        .for_each(|(y, x)| {
            for o in 0..shape.oh * shape.ow {
                let y = &mut y[o * channels..][..channels];
                y.fill(0.0);
                for pixel in shape.window(o / shape.ow, o % shape.ow) {
                    for (y, x) in y.iter_mut().zip(&x[pixel * channels..][..channels]) {
                        *y += x;
                    }
                }
                for y in y {
                    *y *= shape.share;
                }
            }
        });
}

pub(crate) fn avg_pool_backward(shape: PoolShape, dy: &[f32], dx: &mut [f32]) {
    let channels = shape.channels;
    dx.par_chunks_mut(shape.x_image())
        .zip(dy.par_chunks(shape.y_image()))
        .for_each(|(dx, dy)| {
            dx.fill(0.0);
            for o in 0..shape.oh * shape.ow {
                let dy = &dy[o * channels..][..channels];
                for pixel in shape.window(o / shape.ow, o % shape.ow) {
                    for (dx, dy) in dx[pixel * channels..][..channels].iter_mut().zip(dy) {
                        *dx += shape.share * dy;
                    }
                }
            }
        });
}
