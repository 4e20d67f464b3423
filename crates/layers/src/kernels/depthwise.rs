//! Convolution where every channel sees itself alone. There is one product per value loaded, so that nothing is to be
//! gained from tiles; what counts is to touch memory once, in order, without a padded copy.

use rayon::prelude::*;

use super::{
    ConvShape,
    simd::{Kernel, Level, Simd, dispatch},
};
use crate::buffer::Buffer;

/// `y = conv(x, weight)`, where `ci = co = groups`.
pub(crate) fn forward(level: Level, shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let rows = Taps::forward(shape, shape.oh, shape.h);
    let columns = Taps::forward(shape, shape.ow, shape.w);
    gather(
        level,
        shape,
        [&rows, &columns],
        (x, [shape.h, shape.w]),
        weight,
        (y, [shape.oh, shape.ow]),
    );
}

/// `dx`, the gradient of the input.
pub(crate) fn backward_input(
    level: Level,
    shape: &ConvShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let rows = Taps::backward(shape, shape.h, shape.oh);
    let columns = Taps::backward(shape, shape.w, shape.ow);
    gather(
        level,
        shape,
        [&rows, &columns],
        (dy, [shape.oh, shape.ow]),
        weight,
        (dx, [shape.h, shape.w]),
    );
}

/// `dw`, the gradient of the weight: one sum for each of at most 16 parts of the batch, added in order.
pub(crate) fn backward_weight(
    level: Level,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let rows = Taps::forward(shape, shape.oh, shape.h);
    let columns = Taps::forward(shape, shape.ow, shape.w);
    let (x_image, y_image) = (shape.h * shape.w * shape.ci, shape.oh * shape.ow * shape.co);
    let images = shape.batch.div_ceil(16);
    let parts: Vec<Buffer> = x
        .par_chunks(images * x_image)
        .zip(dy.par_chunks(images * y_image))
        .map(|(x, dy)| {
            let mut part = Buffer::for_overwrite(dw.len());
            part.fill(0.0);
            for (x, dy) in x.chunks_exact(x_image).zip(dy.chunks_exact(y_image)) {
                dispatch(
                    level,
                    WeightGradient {
                        shape,
                        rows: &rows,
                        columns: &columns,
                        x,
                        dy,
                        dw: &mut part,
                    },
                );
            }
            part
        })
        .collect();
    dw.fill(0.0);
    for part in &parts {
        for (dw, part) in dw.iter_mut().zip(&part[..]) {
            *dw += part;
        }
    }
}

/// Along one axis: for each position that is written, the (kernel tap, position that is read) within the image.
struct Taps {
    of: Vec<Vec<(usize, usize)>>,
    read: usize,
}

impl Taps {
    /// Written: outputs. Read: inputs.
    fn forward(shape: &ConvShape, written: usize, read: usize) -> Self {
        Self::new(shape, written, read, |o, k| {
            (o * shape.stride + k).checked_sub(shape.padding)
        })
    }

    /// Written: inputs. Read: outputs.
    fn backward(shape: &ConvShape, written: usize, read: usize) -> Self {
        Self::new(shape, written, read, |i, k| {
            let distance = (i + shape.padding).checked_sub(k)?;
            (distance % shape.stride == 0).then_some(distance / shape.stride)
        })
    }

    fn new(
        shape: &ConvShape,
        written: usize,
        read: usize,
        from: impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let inside = |at: usize, k: usize| {
            from(at, k)
                .filter(|&from| from < read)
                .map(|from| (k, from))
        };
        let of = (0..written)
            .map(|at| (0..shape.kernel).filter_map(|k| inside(at, k)).collect())
            .collect();
        Self { of, read }
    }
}

fn gather(
    level: Level,
    shape: &ConvShape,
    [rows, columns]: [&Taps; 2],
    (from, [from_h, from_w]): (&[f32], [usize; 2]),
    weight: &[f32],
    (to, [to_h, to_w]): (&mut [f32], [usize; 2]),
) {
    let channels = shape.ci;
    let images = to
        .par_chunks_mut(to_h * to_w * channels)
        .zip(from.par_chunks(from_h * from_w * channels));
    images.for_each(|(to, from)| {
        dispatch(
            level,
            Gather {
                kernel: shape.kernel,
                channels,
                rows,
                columns,
                from,
                weight,
                to,
            },
        );
    });
}

/// `to[r][c] = sum of from[r'][c'] * weight[kr][kc]` over the taps of row r and column c, of one image.
struct Gather<'a> {
    kernel: usize,
    channels: usize,
    rows: &'a Taps,
    columns: &'a Taps,
    from: &'a [f32],
    weight: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            kernel,
            channels,
            rows,
            columns,
            from,
            weight,
            to,
        } = self;
        assert_eq!(from.len(), rows.read * columns.read * channels);
        assert_eq!(to.len(), rows.of.len() * columns.of.len() * channels);
        assert_eq!(weight.len(), kernel * kernel * channels);
        let mut at = 0;
        for row in &rows.of {
            for column in &columns.of {
                for c in (0..channels).step_by(S::LANES) {
                    let lanes = (channels - c).min(S::LANES);
                    let mut sum = s.splat(0.0);
                    for &(ky, y) in row {
                        for &(kx, x) in column {
                            let (value, weight_at) = (
                                (y * columns.read + x) * channels + c,
                                (ky * kernel + kx) * channels + c,
                            );
                            // SAFETY: `Taps` holds positions below `read` and taps below `kernel`, and `lanes` channels
                            // from c on are left, so that both lie in slices whose lengths were asserted.
                            sum = unsafe {
                                s.mul_add(
                                    load(s, lanes, from, value),
                                    load(s, lanes, weight, weight_at),
                                    sum,
                                )
                            };
                        }
                    }
                    // SAFETY: `at + c` is a channel of a pixel of `to`, whose length was asserted.
                    unsafe {
                        let to = to.as_mut_ptr().add(at + c);
                        if lanes == S::LANES {
                            s.store(sum, to)
                        } else {
                            s.store_first(lanes, sum, to)
                        }
                    }
                }
                at += channels;
            }
        }
    }
}

/// Adds one image's share to `dw`.
struct WeightGradient<'a> {
    shape: &'a ConvShape,
    rows: &'a Taps,
    columns: &'a Taps,
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'a mut [f32],
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            shape,
            rows,
            columns,
            x,
            dy,
            dw,
        } = self;
        let channels = shape.ci;
        assert_eq!(x.len(), rows.read * columns.read * channels);
        assert_eq!(dy.len(), rows.of.len() * columns.of.len() * channels);
        assert_eq!(dw.len(), shape.kernel * shape.kernel * channels);
        for c in (0..channels).step_by(S::LANES) {
            let lanes = (channels - c).min(S::LANES);
            for ky in 0..shape.kernel {
                for kx in 0..shape.kernel {
                    // The columns that this tap reaches are neighbours: those between the first and the last.
                    let reaches = |ox: &usize| columns.of[*ox].iter().any(|&(k, _)| k == kx);
                    let Some(first) = (0..columns.of.len()).find(reaches) else {
                        continue;
                    };
                    let last = (first..columns.of.len()).rfind(reaches).unwrap_or(first);
                    let first_x = first * shape.stride + kx - shape.padding;
                    let mut sums = [s.splat(0.0); 4];
                    for (oy, row) in rows.of.iter().enumerate() {
                        let Some(&(_, y)) = row.iter().find(|&&(k, _)| k == ky) else {
                            continue;
                        };
                        let from_x = (y * columns.read + first_x) * channels + c;
                        let from_dy = (oy * columns.of.len() + first) * channels + c;
                        let n = last - first + 1;
                        for i in (0..n).step_by(4) {
                            for (j, sum) in sums.iter_mut().enumerate() {
                                let i = i + j;
                                if i < n {
                                    let (x_at, dy_at) = (
                                        from_x + i * shape.stride * channels,
                                        from_dy + i * channels,
                                    );
                                    // SAFETY: outputs first..=last reach inputs inside the image by this tap, and
                                    // `lanes` channels from c on are left; the lengths of both were asserted.
                                    *sum = unsafe {
                                        s.mul_add(
                                            load(s, lanes, x, x_at),
                                            load(s, lanes, dy, dy_at),
                                            *sum,
                                        )
                                    };
                                }
                            }
                        }
                    }
                    let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
                    let at = (ky * shape.kernel + kx) * channels + c;
                    // SAFETY: `lanes` channels from c on lie in tap (ky, kx) of dw, whose length was asserted.
                    unsafe {
                        s.store_first(
                            lanes,
                            s.add(sum, load(s, lanes, dw, at)),
                            dw.as_mut_ptr().add(at),
                        )
                    };
                }
            }
        }
    }
}

/// # Safety
/// `lanes` values, at most a vector, lie in `from` from `at` on.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, lanes: usize, from: &[f32], at: usize) -> S::V {
    debug_assert!(at + lanes <= from.len());
    // SAFETY: the caller's promise.
    unsafe {
        let from = from.as_ptr().add(at);
        if lanes == S::LANES {
            s.load(from)
        } else {
            s.load_first(lanes, from)
        }
    }
}
