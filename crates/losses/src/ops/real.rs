//! Arithmetic on one row, written once for f32 and f64.
//!
//! Every function runs with the widest vector instructions of the processor ([`pulp`] picks them at run time), yet
//! gives the same bytes with and without them: sums go through a fixed number of lanes in a fixed order, and
//! a product is fused with an addition only where the code says so.

use candle_core::WithDType;
use pulp::Simd;

/// Independent partial sums per reduction: two 512-bit registers of f32.
const LANES: usize = 32;

/// The two precisions in which losses are computed: f32 in training, f64 where a test wants to see the formula.
pub(crate) trait Real: WithDType + std::ops::Neg<Output = Self> {
    /// Below every logit; its exponential is 0.
    const NEG_INFINITY: Self;

    /// `e^x` for `x` up to 0 (and a little above), 0 where the result would not be a normal number.
    fn exp(self) -> Self;

    /// `from_f64`, under a name that does not clash with num-traits.
    fn of(value: f64) -> Self {
        <Self as WithDType>::from_f64(value)
    }

    /// `self * b + c`, rounded once.
    fn fused_multiply_add(self, b: Self, c: Self) -> Self;

    /// A register of the instruction set `S`.
    type Vector<S: Simd>: Copy;

    /// `x` in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;

    /// [`fused_multiply_add`](Self::fused_multiply_add) in every lane.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// The slice as registers, and what is left over.
    fn as_vectors<S: Simd>(x: &[Self]) -> (&[Self::Vector<S>], &[Self]);

    /// The slice as registers to write to, and what is left over.
    fn as_vectors_mut<S: Simd>(x: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);

    /// The larger of two; neither is ever NaN here.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn fused_multiply_add(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }

    type Vector<S: Simd> = S::f64s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f64s {
        simd.splat_f64s(x)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_f64s(a, b, c)
    }

    #[inline(always)]
    fn as_vectors<S: Simd>(x: &[Self]) -> (&[S::f64s], &[Self]) {
        S::as_simd_f64s(x)
    }

    #[inline(always)]
    fn as_vectors_mut<S: Simd>(x: &mut [Self]) -> (&mut [S::f64s], &mut [Self]) {
        S::as_mut_simd_f64s(x)
    }
}

impl Real for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    /// Range reduction `x = n ln 2 + r` with ln 2 in two pieces, a polynomial of degree 6 in `r` (coefficients of
    /// Cephes' expf) and `2^n` from its bits: no branch and no call, so that a row of it becomes vector code, which
    /// a call of the standard library's `exp` does not. The error stays under 2 units in the last place.
    #[inline(always)]
    fn exp(self) -> Self {
        const SMALLEST: f32 = -87.336_54; // ln of the smallest normal number
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
        let x = if self < SMALLEST { SMALLEST } else { self };
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 5e-1;
        let exp_r = p * (r * r) + r + 1.0;
        let power_of_two =
            f32::from_bits(rounded.to_bits().wrapping_shl(23).wrapping_add(127 << 23));
        let exp_x = exp_r * power_of_two;
        if self < SMALLEST { 0.0 } else { exp_x }
    }

    #[inline(always)]
    fn fused_multiply_add(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }

    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: Self) -> S::f32s {
        simd.splat_f32s(x)
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_f32s(a, b, c)
    }

    #[inline(always)]
    fn as_vectors<S: Simd>(x: &[Self]) -> (&[S::f32s], &[Self]) {
        S::as_simd_f32s(x)
    }

    #[inline(always)]
    fn as_vectors_mut<S: Simd>(x: &mut [Self]) -> (&mut [S::f32s], &mut [Self]) {
        S::as_mut_simd_f32s(x)
    }
}

/// Runs `f` with the widest vector instructions there are. `f` must be small enough to be inlined.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    struct Inlined<G>(G);
    impl<R, G: FnOnce() -> R> pulp::WithSimd for Inlined<G> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Inlined(f))
}

/// `join` over `term(x, y)`, in lanes; `start` must be neutral for `join`.
#[inline(always)]
fn reduce<F: Real>(
    x: &[F],
    y: &[F],
    start: F,
    term: impl Fn(F, F) -> F,
    join: impl Fn(F, F) -> F,
) -> F {
    debug_assert_eq!(x.len(), y.len());
    let mut lanes = [start; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            lanes[lane] = join(lanes[lane], term(x[lane], y[lane]));
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = join(*lane, term(x, y));
    }
    lanes.into_iter().fold(start, join)
}

/// The largest entry.
pub(crate) fn max<F: Real>(x: &[F]) -> F {
    vectorized(
        #[inline(always)]
        || reduce(x, x, F::NEG_INFINITY, |x, _| x, F::larger),
    )
}

/// The sum of the entries.
pub(crate) fn sum<F: Real>(x: &[F]) -> F {
    vectorized(
        #[inline(always)]
        || reduce(x, x, F::zero(), |x, _| x, |a, b| a + b),
    )
}

/// `sum_c x_c * y_c`.
pub(crate) fn dot<F: Real>(x: &[F], y: &[F]) -> F {
    vectorized(
        #[inline(always)]
        || reduce(x, y, F::zero(), |x, y| x * y, |a, b| a + b),
    )
}

/// [`dot`] with every product and sum in f64.
pub(crate) fn dot_in_f64<F: Real>(x: &[F], y: &[F]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [0.0; LANES];
            let (x_chunks, x_rest) = x.as_chunks::<LANES>();
            let (y_chunks, y_rest) = y.as_chunks::<LANES>();
            for (x, y) in x_chunks.iter().zip(y_chunks) {
                for lane in 0..LANES {
                    lanes[lane] += x[lane].to_f64() * y[lane].to_f64();
                }
            }
            for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
                *lane += x.to_f64() * y.to_f64();
            }
            lanes.into_iter().sum()
        },
    )
}

/// `sum_c (x_c - y_c)^2`.
pub(crate) fn squared_distance<F: Real>(x: &[F], y: &[F]) -> F {
    vectorized(
        #[inline(always)]
        || {
            let square = |x: F, y: F| (x - y) * (x - y);
            reduce(x, y, F::zero(), square, |a, b| a + b)
        },
    )
}

/// `sum_c q_c * (t_c - s_c)`: the difference first, so that equal logits give exactly 0.
pub(crate) fn dot_difference<F: Real>(q: &[F], t: &[F], s: &[F]) -> F {
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [F::zero(); LANES];
            let (q_chunks, q_rest) = q.as_chunks::<LANES>();
            let (t_chunks, t_rest) = t.as_chunks::<LANES>();
            let (s_chunks, s_rest) = s.as_chunks::<LANES>();
            for ((q, t), s) in q_chunks.iter().zip(t_chunks).zip(s_chunks) {
                for lane in 0..LANES {
                    lanes[lane] += q[lane] * (t[lane] - s[lane]);
                }
            }
            let rest = q_rest.iter().zip(t_rest).zip(s_rest);
            for (lane, ((&q, &t), &s)) in lanes.iter_mut().zip(rest) {
                *lane += q * (t - s);
            }
            lanes.into_iter().fold(F::zero(), |a, b| a + b)
        },
    )
}

/// `out_c = exp((x_c - origin) * scale)`; returns the sum of `out`. The difference comes first: its error is then
/// relative to the difference, not to the logits.
pub(crate) fn exp_into<F: Real>(out: &mut [F], x: &[F], origin: F, scale: F) -> F {
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [F::zero(); LANES];
            let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
            let (x_chunks, x_rest) = x.as_chunks::<LANES>();
            for (out, x) in out_chunks.iter_mut().zip(x_chunks) {
                for lane in 0..LANES {
                    out[lane] = ((x[lane] - origin) * scale).exp();
                    lanes[lane] += out[lane];
                }
            }
            for ((lane, out), &x) in lanes.iter_mut().zip(out_rest).zip(x_rest) {
                *out = ((x - origin) * scale).exp();
                *lane += *out;
            }
            lanes.into_iter().fold(F::zero(), |a, b| a + b)
        },
    )
}

/// `out_c *= factor`.
pub(crate) fn scale<F: Real>(out: &mut [F], factor: F) {
    vectorized(
        #[inline(always)]
        || out.iter_mut().for_each(|out| *out *= factor),
    );
}

/// `out_c += factor * x_c`.
pub(crate) fn add_scaled<F: Real>(out: &mut [F], factor: F, x: &[F]) {
    vectorized(
        #[inline(always)]
        || {
            for (out, &x) in out.iter_mut().zip(x) {
                *out += factor * x;
            }
        },
    );
}

/// `out_c = f(x_c, y_c)`.
pub(crate) fn zip_into<F: Real>(out: &mut [F], x: &[F], y: &[F], f: impl Fn(F, F) -> F) {
    vectorized(
        #[inline(always)]
        || {
            for (out, (&x, &y)) in out.iter_mut().zip(x.iter().zip(y)) {
                *out = f(x, y);
            }
        },
    );
}

/// `out_c = f(out_c, x_c)`.
pub(crate) fn update<F: Real>(out: &mut [F], x: &[F], f: impl Fn(F, F) -> F) {
    vectorized(
        #[inline(always)]
        || {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = f(*out, x);
            }
        },
    );
}

/// Whether every entry is a finite number.
pub(crate) fn all_finite<F: Real>(x: &[F]) -> bool {
    // 0 * x is 0 for finite numbers and NaN otherwise, and NaN survives the sum.
    vectorized(
        #[inline(always)]
        || reduce(x, x, F::zero(), |x, _| x * F::zero(), |a, b| a + b) == F::zero(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_in_f32_is_within_two_units_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for i in 0..2_000_000 {
            let x = -87.3 * (i as f32 / 2e6);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(Real::exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON) / 2.0, "{worst:e}");
    }

    #[test]
    fn exp_in_f32_at_the_ends() {
        assert_eq!(Real::exp(0f32), 1.0);
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-1e30f32), 0.0);
        assert_eq!(Real::exp(-100f32), 0.0);
        assert!(Real::exp(-87.3f32) > 0.0);
        assert!((Real::exp(80f32) / 80f32.exp() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn reductions_reach_every_entry_at_any_length() {
        for n in [1, 2, 31, 32, 33, 100, 1000] {
            let x: Vec<f64> = (0..n).map(|i| f64::from(i) * 0.5 - 3.0).collect();
            let y: Vec<f64> = (0..n).map(|i| 2.0 - f64::from(i)).collect();
            let exact: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert!((dot(&x, &y) - exact).abs() <= 1e-9 * exact.abs().max(1.0));
            assert_eq!(max(&x), x[x.len() - 1]);
            assert!(all_finite(&x));
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut x = x.clone();
                let last = x.len() - 1;
                x[last] = bad;
                assert!(!all_finite(&x), "{n} {bad}");
            }
        }
    }
}
