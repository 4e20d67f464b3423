//! Tiles of images, transformed and back.

use super::tiling::{IN, OUT, Points, Tiling, check_points};
use crate::kernels::simd::{Kernel, Simd};

pub(super) struct Transformed<'a> {
    pub(super) points: Points,
    pub(super) values: &'a mut [f32],
}

/// `Bt d B` of `n` tiles from `first` on.
pub(super) struct InputTransform<'a> {
    pub(super) tiling: Tiling,
    pub(super) x: &'a [f32],
    pub(super) zeros: &'a [f32],
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) to: Transformed<'a>,
}

impl Kernel for InputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            x,
            zeros,
            first,
            n,
            to,
        } = self;
        let channels = tiling.channels;
        check_points::<S>(&to.points, n, channels, to.values.len());
        assert!(zeros.len() >= channels);
        for t in 0..n {
            let pixels = tiling.pixels::<IN>(first + t, x, zeros);
            for c in (0..channels).step_by(S::LANES) {
                let lanes = (channels - c).min(S::LANES);
                let mut z = [[s.splat(0.0); IN]; IN];
                for j in 0..IN {
                    // SAFETY: each pixel is a slice of `channels` values, of the image or of `zeros`.
                    let d = std::array::from_fn(|i| unsafe {
                        load::<S>(s, lanes, pixels[i][j].add(c))
                    });
                    for (z, d) in z.iter_mut().zip(bt(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate() {
                    for (j, v) in bt(s, z).into_iter().enumerate() {
                        let at = (i * IN + j) * to.points.stride + t * to.points.channels + c;
                        // SAFETY: `check_points` saw room for n tiles of whole vectors at each point.
                        unsafe { s.store(v, to.values.as_mut_ptr().add(at)) };
                    }
                }
            }
        }
    }
}

/// `A dy At` of `n` tiles from `first` on.
pub(super) struct GradientTransform<'a> {
    pub(super) tiling: Tiling,
    pub(super) dy: &'a [f32],
    pub(super) zeros: &'a [f32],
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) to: Transformed<'a>,
}

impl Kernel for GradientTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            dy,
            zeros,
            first,
            n,
            to,
        } = self;
        let channels = tiling.channels;
        check_points::<S>(&to.points, n, channels, to.values.len());
        assert!(zeros.len() >= channels);
        for t in 0..n {
            let pixels = tiling.pixels::<OUT>(first + t, dy, zeros);
            for c in (0..channels).step_by(S::LANES) {
                let lanes = (channels - c).min(S::LANES);
                let mut z = [[s.splat(0.0); OUT]; IN];
                for j in 0..OUT {
                    // SAFETY: each pixel is a slice of `channels` values, of the image or of `zeros`.
                    let d = std::array::from_fn(|i| unsafe {
                        load::<S>(s, lanes, pixels[i][j].add(c))
                    });
                    for (z, d) in z.iter_mut().zip(a(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate() {
                    for (j, w) in a(s, z).into_iter().enumerate() {
                        let at = (i * IN + j) * to.points.stride + t * to.points.channels + c;
                        // SAFETY: `check_points` saw room for n tiles of whole vectors at each point.
                        unsafe { s.store(w, to.values.as_mut_ptr().add(at)) };
                    }
                }
            }
        }
    }
}

/// `At m A` of `n` tiles from `first` on, as far as they lie in the image.
pub(super) struct OutputTransform<'a> {
    pub(super) tiling: Tiling,
    pub(super) m: Points,
    pub(super) values: &'a [f32],
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) dims: [usize; 3],
    pub(super) y: &'a mut [f32],
}

impl Kernel for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            m,
            values,
            first,
            n,
            dims: [oh, ow, co],
            y,
        } = self;
        check_points::<S>(&m, n, co, values.len());
        for t in 0..n {
            let (image, row, column) = tiling.place(first + t);
            let y = &mut y[image * oh * ow * co..][..oh * ow * co];
            let (rows, columns) = (OUT.min(oh - row * OUT), OUT.min(ow - column * OUT));
            for c in (0..co).step_by(S::LANES) {
                let lanes = (co - c).min(S::LANES);
                let mut z = [[s.splat(0.0); IN]; OUT];
                for j in 0..IN {
                    let at_point = |i: usize| (i * IN + j) * m.stride + t * m.channels + c;
                    // SAFETY: `check_points` saw n tiles of whole vectors at each point.
                    let d = std::array::from_fn(|i| unsafe {
                        s.load(values.as_ptr().add(at_point(i)))
                    });
                    for (z, d) in z.iter_mut().zip(at(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate().take(rows) {
                    let line = &mut y[((row * OUT + i) * ow + column * OUT) * co..][..columns * co];
                    for (j, value) in at(s, z).into_iter().enumerate().take(columns) {
                        // SAFETY: `lanes` of the channels from c on lie in pixel j of the line.
                        unsafe {
                            let to = line.as_mut_ptr().add(j * co + c);
                            if lanes == S::LANES {
                                s.store(value, to)
                            } else {
                                s.store_first(lanes, value, to)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `Bt d`
#[inline(always)]
fn bt<S: Simd>(s: S, d: [S::V; IN]) -> [S::V; IN] {
    let (four, minus_four, minus_five, two) =
        (s.splat(4.0), s.splat(-4.0), s.splat(-5.0), s.splat(2.0));
    let even = s.mul_add(minus_four, d[2], d[4]);
    let odd = s.mul_add(minus_four, d[1], d[3]);
    let difference = s.sub(d[4], d[2]);
    let twice = s.mul(two, s.sub(d[3], d[1]));
    [
        s.mul_add(four, d[0], s.mul_add(minus_five, d[2], d[4])),
        s.add(even, odd),
        s.sub(even, odd),
        s.add(difference, twice),
        s.sub(difference, twice),
        s.mul_add(four, d[1], s.mul_add(minus_five, d[3], d[5])),
    ]
}

/// `At m`
#[inline(always)]
fn at<S: Simd>(s: S, m: [S::V; IN]) -> [S::V; OUT] {
    let (sum1, difference1) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(sum1, sum2)),
        s.mul_add(s.splat(2.0), difference2, difference1),
        s.mul_add(s.splat(4.0), sum2, sum1),
        s.add(m[5], s.mul_add(s.splat(8.0), difference2, difference1)),
    ]
}

/// `A y`
#[inline(always)]
fn a<S: Simd>(s: S, y: [S::V; OUT]) -> [S::V; IN] {
    let (even, odd) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
    let even2 = s.mul_add(s.splat(4.0), y[2], y[0]);
    let odd2 = s.mul(s.splat(2.0), s.mul_add(s.splat(4.0), y[3], y[1]));
    [
        y[0],
        s.add(even, odd),
        s.sub(even, odd),
        s.add(even2, odd2),
        s.sub(even2, odd2),
        y[3],
    ]
}

/// # Safety
/// `lanes` values, at most a vector, can be read from `from`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(s: S, lanes: usize, from: *const f32) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == S::LANES {
            s.load(from)
        } else {
            s.load_first(lanes, from)
        }
    }
}
