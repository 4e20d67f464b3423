//! Exponentials of whole rows on the CPU in f32: the four operations that the losses spend their time in.
//!
//! Why they are here: in Candle's operations a log-softmax is six passes, one of them a call of `expf` per number, and
//! MLKD makes twenty of them a step, RLD five; the table in `benches/README-losses.md` has both. Each has the plain
//! form in [`ops`](crate::ops) beside it, which other devices and f64 use; a test holds them together. Gradients are
//! written in tensor operations.

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Whether `z` can take these forms: contiguous f32 on the CPU.
pub(crate) fn serves(z: &Tensor) -> bool {
    z.device().is_cpu() && z.dtype() == DType::F32 && z.is_contiguous()
}

/// `e^x` of each number.
pub(crate) fn exp(x: &Tensor) -> Result<Tensor> {
    x.apply_op1(Exp)
}

/// `log sum exp` over the last axis, which is kept as 1.
pub(crate) fn log_sum_exp(z: &Tensor) -> Result<Tensor> {
    z.apply_op1(LogSumExp)
}

/// `log softmax` over the last axis.
pub(crate) fn log_softmax(z: &Tensor) -> Result<Tensor> {
    z.apply_op1(LogSoftmax)
}

/// `softmax` over the last axis: not the exponential of the above, which loses a digit where it is small.
pub(crate) fn softmax(z: &Tensor) -> Result<Tensor> {
    z.apply_op1(Softmax)
}

struct Exp;

impl CustomOp1 for Exp {
    fn name(&self) -> &'static str {
        "exp"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        each_row(storage, layout, false, |row, out| {
            for (out, x) in out.iter_mut().zip(row) {
                *out = exp_f32(*x);
            }
        })
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((gradient * result)?))
    }
}

struct LogSumExp;

impl CustomOp1 for LogSumExp {
    fn name(&self) -> &'static str {
        "log-sum-exp"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        each_row(storage, layout, true, |row, out| {
            let (max, sum) = max_and_sum(row);
            out[0] = max + sum.ln();
        })
    }

    fn bwd(&self, z: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let p = exp(&z.detach().broadcast_sub(&result.detach())?)?;
        Ok(Some(p.broadcast_mul(gradient)?))
    }
}

struct LogSoftmax;

impl CustomOp1 for LogSoftmax {
    fn name(&self) -> &'static str {
        "log-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        each_row(storage, layout, false, |row, out| {
            let (max, sum) = max_and_sum(row);
            let log_sum = sum.ln();
            for (out, z) in out.iter_mut().zip(row) {
                *out = (z - max) - log_sum;
            }
        })
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let p = exp(&result.detach())?;
        let sums = gradient.sum_keepdim(D::Minus1)?;
        Ok(Some((gradient - p.broadcast_mul(&sums)?)?))
    }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        each_row(storage, layout, false, |row, out| {
            let (max, sum) = max_and_sum(row);
            for (out, z) in out.iter_mut().zip(row) {
                *out = exp_f32(z - max) / sum;
            }
        })
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let weighted = (gradient * result)?;
        let mean = weighted.sum_keepdim(D::Minus1)?;
        Ok(Some((weighted - result.broadcast_mul(&mean)?)?))
    }
}

/// Rows go to other threads from this many numbers on: waking a thread costs as much as some ten thousand of them.
const PARALLEL_FROM: usize = 1 << 16;

/// Calls `f(row, out)` for every row; `out` is as long as the row, or 1 where rows are `reduced`. A row is computed alone
/// and lands in its own place, so the number of threads changes no byte.
fn each_row(
    storage: &CpuStorage,
    layout: &Layout,
    reduced: bool,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) -> Result<(CpuStorage, Shape)> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("rows of a contiguous tensor are wanted");
    };
    let z = &storage.as_slice::<f32>()?[start..end];
    let mut dims = layout.dims().to_vec();
    let width = dims.last().copied().unwrap_or(1).max(1);
    let out_width = if reduced { 1 } else { width };
    if let Some(last) = dims.last_mut() {
        *last = out_width;
    }
    let mut out = vec![0f32; z.len() / width * out_width];
    let walk = |(rows, outs): (&[f32], &mut [f32])| {
        pulp::Arch::new().dispatch(|| {
            let rows = rows.chunks_exact(width);
            rows.zip(outs.chunks_exact_mut(out_width))
                .for_each(|(row, out)| f(row, out));
        });
    };
    if z.len() < PARALLEL_FROM {
        walk((z, &mut out));
    } else {
        let n_rows = (PARALLEL_FROM / 4 / width).max(1);
        let tasks = z.par_chunks(n_rows * width);
        tasks
            .zip(out.par_chunks_mut(n_rows * out_width))
            .for_each(walk);
    }
    Ok((CpuStorage::F32(out), dims.into()))
}

/// Sums side by side, so that they can run on vectors.
const LANES: usize = 16;

/// The largest of a row, and the sum of the exponentials of what all lie below it.
#[inline(always)]
fn max_and_sum(row: &[f32]) -> (f32, f32) {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            maxima[lane] = larger(maxima[lane], chunk[lane]);
        }
    }
    let max = maxima
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, larger);
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += exp_f32(chunk[lane] - max);
        }
    }
    let of_rest: f32 = rest.iter().map(|z| exp_f32(z - max)).sum();
    (max, sums.iter().sum::<f32>() + of_rest)
}

/// Range reduction `x = n ln 2 + r` with ln 2 in two pieces, a polynomial of degree 6 in `r` (coefficients of
/// Cephes' expf) and `2^n` from its bits: no branch and no call, so that a row of it becomes vector code, which
/// a call of the standard library's `exp` does not. The error stays under 2 units in the last place.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const SMALLEST: f32 = -87.336_54; // ln of the smallest normal number
    const LARGEST: f32 = 88.722_83; // ln of the largest number
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let exp_r = p * (r * r) + r + 1.0;
    let power_of_two = f32::from_bits(rounded.to_bits().wrapping_shl(23).wrapping_add(127 << 23));
    let exp_x = exp_r * power_of_two;
    let exp_x = if x > LARGEST { f32::INFINITY } else { exp_x };
    if x < SMALLEST { 0.0 } else { exp_x }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops::plain;

    type Form = fn(&Tensor) -> Result<Tensor>;

    #[test]
    fn they_are_the_plain_forms() {
        let forms: [(&str, Form, Form); 4] = [
            ("exp", exp, Tensor::exp),
            ("log_sum_exp", log_sum_exp, plain::log_sum_exp),
            ("log_softmax", log_softmax, plain::log_softmax),
            ("softmax", softmax, plain::softmax),
        ];
        for (n, width, scale) in [
            (1, 1, 1.0),
            (3, 2, 1e4),
            (5, 33, 4.0),
            (300, 257, 9.0),
            (2, 16, 0.0),
        ] {
            let wave = |i: usize| -scale * (1.0 + (1.7 * i as f32).sin());
            let data: Vec<f32> = (0..n * width).map(wave).collect();
            let z = Var::from_vec(data, (n, width), &Device::Cpu).unwrap();
            for (name, fast, plain) in forms {
                let evaluate = |form: Form| {
                    let value = form(&z).unwrap();
                    // A slope that differs from entry to entry.
                    let sum = (&value * value.detach().cos().unwrap())
                        .unwrap()
                        .sum_all()
                        .unwrap();
                    let gradient = sum.backward().unwrap().get(&z).unwrap().clone();
                    let all = Tensor::cat(
                        &[
                            value.flatten_all().unwrap(),
                            gradient.flatten_all().unwrap(),
                        ],
                        0,
                    );
                    all.unwrap().to_vec1::<f32>().unwrap()
                };
                let (fast, plain) = (evaluate(fast), evaluate(plain));
                let largest = plain.iter().fold(1f32, |largest, x| largest.max(x.abs()));
                for (fast, plain) in fast.iter().zip(plain) {
                    let error = (fast - plain).abs();
                    assert!(
                        error <= 1e-6 * largest,
                        "{name} {n}x{width}: {fast} {plain}"
                    );
                }
            }
        }
    }

    #[test]
    fn exp_in_f32_is_within_two_units_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for i in 0..2_000_000 {
            let x = 88.0 - 175.3 * (i as f32 / 2e6);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_f32(x)) - exact).abs() / exact);
        }
        assert!(worst < f64::from(f32::EPSILON), "{worst:e}");
        let ends = [0.0, f32::NEG_INFINITY, -1e30, -100.0, 89.0, f32::INFINITY];
        assert_eq!(
            ends.map(exp_f32),
            [1.0, 0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY]
        );
        assert!(exp_f32(f32::NAN).is_nan());
    }
}
