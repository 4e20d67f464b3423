//! Batch normalisation with what usually follows it, a residual and a ReLU.
//!
//! These passes do little per value; what they cost is memory. Forward reads x twice and writes y; backward reads x and
//! dy twice and writes dx over dy. The output is read again only where a residual went into it: without one,
//! whether the ReLU was open is computed again from x, by the same instructions and so with the same answer.

use rayon::prelude::*;

use super::{
    pixels::PIXELS,
    simd::{Kernel, Level, Simd, dispatch},
};

/// Mean and (biased) variance of each channel over a batch.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
}

/// `y = x * scale + shift`, the form that normalisation takes once its statistics are known.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// Each piece of work gives its sums around its own first pixel, so that a large mean costs no digits; pieces are
/// joined in f64, in order.
pub(crate) fn norm_moments(channels: usize, x: &[f32]) -> Moments {
    let level = Level::current();
    let parts: Vec<Vec<f32>> = x
        .par_chunks(PIXELS * channels)
        .map(|x| dispatch(level, MomentSums { channels, x }))
        .collect();
    let n = x.len() / channels;
    let (mut mean, mut var) = (vec![0f32; channels], vec![0f32; channels]);
    for c in 0..channels {
        // Chan's formula: join (count, mean, sum of squares around the mean) piece by piece.
        let (mut count, mut centre, mut spread) = (0f64, 0f64, 0f64);
        for (part, sums) in parts.iter().enumerate() {
            let n_part = PIXELS.min(n - part * PIXELS) as f64;
            let sum = f64::from(sums[c]);
            let part_mean = f64::from(x[part * PIXELS * channels + c]) + sum / n_part;
            let part_spread = (f64::from(sums[channels + c]) - sum * sum / n_part).max(0.0);
            let delta = part_mean - centre;
            let total = count + n_part;
            centre += delta * n_part / total;
            spread += part_spread + delta * delta * count * n_part / total;
            count = total;
        }
        mean[c] = centre as f32;
        var[c] = (spread / n as f64) as f32;
    }
    Moments { mean, var }
}

/// `y = x * scale + shift (+ residual)`, and the ReLU of it if there is one.
pub(crate) fn norm_forward(
    x: &[f32],
    affine: &Affine,
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    let level = Level::current();
    let chunk = PIXELS * affine.scale.len();
    y.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .enumerate()
        .for_each(|(i, (y, x))| {
            let residual = residual.map(|residual| &residual[i * chunk..][..y.len()]);
            dispatch(
                level,
                Forward {
                    x,
                    affine,
                    residual,
                    relu,
                    y,
                },
            );
        });
}

/// Whether the activation let a value through.
#[derive(Clone, Copy)]
pub(crate) enum Gate<'a> {
    /// No activation: every value went through.
    Open,
    /// A ReLU of `x * scale + shift`.
    Sign(&'a Affine),
    /// A ReLU that answered this.
    Output(&'a [f32]),
}

impl<'a> Gate<'a> {
    fn part(self, from: usize, len: usize) -> Self {
        match self {
            Self::Output(y) => Self::Output(&y[from..][..len]),
            other => other,
        }
    }
}

/// The first half of the way back: per channel, the sums over pixels of `dy * (x - mean)` and of `dy`, where dy counts
/// as 0 behind a closed gate. If the gate is the output, dy is changed so that it needs no gate any more.
pub(crate) fn norm_backward_sums(
    x: &[f32],
    mean: &[f32],
    gate: Gate<'_>,
    dy: &mut [f32],
) -> (Vec<f64>, Vec<f64>) {
    let level = Level::current();
    let channels = mean.len();
    let chunk = PIXELS * channels;
    let parts: Vec<Vec<f32>> = dy
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .enumerate()
        .map(|(i, (dy, x))| {
            dispatch(
                level,
                BackwardSums {
                    x,
                    mean,
                    gate: gate.part(i * chunk, x.len()),
                    dy,
                },
            )
        })
        .collect();
    let mut sums = vec![0f64; 2 * channels];
    for part in &parts {
        for (sum, &part) in sums.iter_mut().zip(part) {
            *sum += f64::from(part);
        }
    }
    let sum = sums.split_off(channels);
    (sums, sum)
}

/// `dx = a * dy + b * x + c` per channel, the second half of the way back.
#[derive(Clone, Debug)]
pub(crate) struct Slope {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
}

/// Writes dx over dy.
pub(crate) fn norm_backward_in_place(x: &[f32], slope: &Slope, gate: Gate<'_>, dy: &mut [f32]) {
    let level = Level::current();
    let chunk = PIXELS * slope.a.len();
    dy.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .enumerate()
        .for_each(|(i, (dy, x))| {
            dispatch(
                level,
                BackwardInPlace {
                    x,
                    slope,
                    gate: gate.part(i * chunk, x.len()),
                    dy,
                },
            );
        });
}

/// Writes dx beside dy, which has passed its gate.
pub(crate) fn norm_backward(x: &[f32], slope: &Slope, dy: &[f32], dx: &mut [f32]) {
    let level = Level::current();
    let chunk = PIXELS * slope.a.len();
    dx.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .zip(dy.par_chunks(chunk))
        .for_each(|((dx, x), dy)| {
            dispatch(level, Backward { x, slope, dy, dx });
        });
}

/// Walks the channels of every pixel by vectors: `visit(offset in the values, channel, lanes)`.
#[inline(always)]
fn each_vector<S: Simd>(channels: usize, len: usize, mut visit: impl FnMut(usize, usize, usize)) {
    // One place where `visit` is called, here and in `sum_pairs`: from several it would not be inlined, and then it
    // would not be compiled for the level.
    for pixel in (0..len).step_by(channels) {
        for c in (0..channels).step_by(S::LANES) {
            visit(pixel + c, c, (channels - c).min(S::LANES));
        }
    }
}

/// Sums over pixels of two vectors' worth of `terms(offset, channel, lanes)`, in registers, written to `sums` as
/// `[first of all channels, second of all channels]`.
#[inline(always)]
fn sum_pairs<S: Simd>(
    s: S,
    channels: usize,
    len: usize,
    mut terms: impl FnMut(usize, usize, usize) -> (S::V, S::V),
) -> Vec<f32> {
    let mut sums = vec![0f32; 2 * channels];
    for c in (0..channels).step_by(S::LANES) {
        let lanes = (channels - c).min(S::LANES);
        // Four chains, so that an addition need not wait for the last one.
        let mut chains = [[s.splat(0.0); 2]; 4];
        for pixels in (0..len).step_by(4 * channels) {
            for (i, [first, second]) in chains.iter_mut().enumerate() {
                let pixel = pixels + i * channels;
                if pixel < len {
                    let (one, two) = terms(pixel + c, c, lanes);
                    (*first, *second) = (s.add(*first, one), s.add(*second, two));
                }
            }
        }
        for half in [0, 1] {
            let sum = s.add(
                s.add(chains[0][half], chains[1][half]),
                s.add(chains[2][half], chains[3][half]),
            );
            // SAFETY: `lanes` channels from c on lie in each half of `sums`.
            unsafe { s.store_first(lanes, sum, sums.as_mut_ptr().add(half * channels + c)) };
        }
    }
    sums
}

/// # Safety
/// `lanes` values, at most a vector, lie in `from` from `at` on.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: &[f32], at: usize, lanes: usize) -> S::V {
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

/// # Safety
/// `lanes` values, at most a vector, lie in `to` from `at` on.
#[inline(always)]
unsafe fn store<S: Simd>(s: S, value: S::V, to: &mut [f32], at: usize, lanes: usize) {
    debug_assert!(at + lanes <= to.len());
    // SAFETY: the caller's promise.
    unsafe {
        let to = to.as_mut_ptr().add(at);
        if lanes == S::LANES {
            s.store(value, to)
        } else {
            s.store_first(lanes, value, to)
        }
    }
}

// SAFETY, for all kernels below: `each_vector` and `sum_pairs` visit offsets below `len` in whole pixels, and channels
// below `channels`; each kernel first asserts that its slices have those lengths.

struct MomentSums<'a> {
    channels: usize,
    x: &'a [f32],
}

impl Kernel for MomentSums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self { channels, x } = self;
        assert!(x.len() >= channels && x.len() % channels == 0);
        sum_pairs(s, channels, x.len(), |at, c, lanes| {
            let d = unsafe { s.sub(load(s, x, at, lanes), load(s, x, c, lanes)) };
            (d, s.mul(d, d))
        })
    }
}

struct Forward<'a> {
    x: &'a [f32],
    affine: &'a Affine,
    residual: Option<&'a [f32]>,
    relu: bool,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            x,
            affine: Affine { scale, shift },
            residual,
            relu,
            y,
        } = self;
        let channels = scale.len();
        assert!(y.len() == x.len() && x.len() % channels == 0 && shift.len() == channels);
        assert!(residual.is_none_or(|residual| residual.len() == x.len()));
        let floor = |v| if relu { s.relu(v) } else { v };
        each_vector::<S>(channels, x.len(), |at, c, lanes| unsafe {
            let normal = s.mul_add(
                load(s, x, at, lanes),
                load(s, scale, c, lanes),
                load(s, shift, c, lanes),
            );
            let sum = match residual {
                Some(residual) => s.add(normal, load(s, residual, at, lanes)),
                None => normal,
            };
            store(s, floor(sum), y, at, lanes);
        });
    }
}

struct BackwardSums<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    gate: Gate<'a>,
    dy: &'a mut [f32],
}

impl Kernel for BackwardSums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self { x, mean, gate, dy } = self;
        let channels = mean.len();
        assert!(dy.len() == x.len() && x.len() % channels == 0);
        match gate {
            Gate::Open => sum_pairs(s, channels, x.len(), |at, c, lanes| unsafe {
                pair(
                    s,
                    load(s, dy, at, lanes),
                    load(s, x, at, lanes),
                    load(s, mean, c, lanes),
                )
            }),
            Gate::Sign(Affine { scale, shift }) => {
                assert!(scale.len() == channels && shift.len() == channels);
                sum_pairs(s, channels, x.len(), |at, c, lanes| unsafe {
                    let x = load(s, x, at, lanes);
                    let y = s.mul_add(x, load(s, scale, c, lanes), load(s, shift, c, lanes));
                    pair(
                        s,
                        s.where_positive(y, load(s, dy, at, lanes)),
                        x,
                        load(s, mean, c, lanes),
                    )
                })
            }
            Gate::Output(y) => {
                assert_eq!(y.len(), x.len());
                sum_pairs(s, channels, x.len(), |at, c, lanes| unsafe {
                    let passed = s.where_positive(load(s, y, at, lanes), load(s, dy, at, lanes));
                    store(s, passed, dy, at, lanes);
                    pair(s, passed, load(s, x, at, lanes), load(s, mean, c, lanes))
                })
            }
        }
    }
}

/// `(dy * (x - mean), dy)`
#[inline(always)]
fn pair<S: Simd>(s: S, dy: S::V, x: S::V, mean: S::V) -> (S::V, S::V) {
    (s.mul(dy, s.sub(x, mean)), dy)
}

struct BackwardInPlace<'a> {
    x: &'a [f32],
    slope: &'a Slope,
    gate: Gate<'a>,
    dy: &'a mut [f32],
}

impl Kernel for BackwardInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, slope, gate, dy } = self;
        let channels = slope.check();
        assert!(dy.len() == x.len() && x.len() % channels == 0);
        match gate {
            Gate::Sign(Affine { scale, shift }) => {
                assert!(scale.len() == channels && shift.len() == channels);
                each_vector::<S>(channels, x.len(), |at, c, lanes| unsafe {
                    let x = load(s, x, at, lanes);
                    let y = s.mul_add(x, load(s, scale, c, lanes), load(s, shift, c, lanes));
                    let passed = s.where_positive(y, load(s, dy, at, lanes));
                    store(s, slope.apply(s, x, passed, c, lanes), dy, at, lanes);
                });
            }
            // What the output let through, the sums have left in dy.
            Gate::Open | Gate::Output(_) => {
                each_vector::<S>(channels, x.len(), |at, c, lanes| unsafe {
                    let dx =
                        slope.apply(s, load(s, x, at, lanes), load(s, dy, at, lanes), c, lanes);
                    store(s, dx, dy, at, lanes);
                })
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    slope: &'a Slope,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, slope, dy, dx } = self;
        let channels = slope.check();
        assert!(dy.len() == x.len() && dx.len() == x.len() && x.len() % channels == 0);
        each_vector::<S>(channels, x.len(), |at, c, lanes| unsafe {
            store(
                s,
                slope.apply(s, load(s, x, at, lanes), load(s, dy, at, lanes), c, lanes),
                dx,
                at,
                lanes,
            );
        });
    }
}

impl Slope {
    fn check(&self) -> usize {
        assert!(self.b.len() == self.a.len() && self.c.len() == self.a.len());
        self.a.len()
    }

    /// # Safety
    /// `c + lanes` is at most the number of channels, which `check` has seen.
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, s: S, x: S::V, dy: S::V, c: usize, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        let [a, b, c] =
            [&self.a, &self.b, &self.c].map(|values| unsafe { load(s, values, c, lanes) });
        s.mul_add(a, dy, s.mul_add(b, x, c))
    }
}
