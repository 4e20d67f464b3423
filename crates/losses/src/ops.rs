//! What the losses share: softmaxes, divergences, unit vectors, cosines, in Candle's operations on any device.
//!
//! The class axis is the last. Everything stays in log space; the maximum that is subtracted is a constant for the
//! gradient, as it cancels.

use candle_core::{D, DType, Result, Tensor};

use crate::fast;

/// Stands for minus infinity at classes that a mask removes. Added to a logit it leaves exactly itself in f32 and f64
/// (their last place there is 1e22 and 1e14), so that two removed entries differ by 0, where infinities would give NaN;
/// and its exponential is 0 beside any class that stays. With no class left all entries are equal: a uniform
/// distribution in both networks, whose divergence is 0.
pub(crate) const REMOVED: f64 = -1e30;

/// The forms that any device can run; the CPU has others for f32.
pub(crate) mod plain {
    use candle_core::{D, Result, Tensor};

    pub(crate) fn log_sum_exp(z: &Tensor) -> Result<Tensor> {
        let max = z.detach().max_keepdim(D::Minus1)?;
        let sum = z.broadcast_sub(&max)?.exp()?.sum_keepdim(D::Minus1)?;
        sum.log()? + max
    }

    pub(crate) fn log_softmax(z: &Tensor) -> Result<Tensor> {
        let shifted = z.broadcast_sub(&z.detach().max_keepdim(D::Minus1)?)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        shifted.broadcast_sub(&log_sum)
    }

    pub(crate) fn softmax(z: &Tensor) -> Result<Tensor> {
        let e = z
            .broadcast_sub(&z.detach().max_keepdim(D::Minus1)?)?
            .exp()?;
        e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
    }
}

/// `e^x`.
pub(crate) fn exp(x: &Tensor) -> Result<Tensor> {
    match fast::serves(x) {
        true => fast::exp(x),
        false => x.exp(),
    }
}

/// `log sum exp` over the last axis, which is kept as 1.
pub(crate) fn log_sum_exp(z: &Tensor) -> Result<Tensor> {
    match fast::serves(z) {
        true => fast::log_sum_exp(z),
        false => plain::log_sum_exp(z),
    }
}

/// `log softmax` over the last axis.
pub(crate) fn log_softmax(z: &Tensor) -> Result<Tensor> {
    match fast::serves(z) {
        true => fast::log_softmax(z),
        false => plain::log_softmax(z),
    }
}

/// `softmax` over the last axis.
pub(crate) fn softmax(z: &Tensor) -> Result<Tensor> {
    match fast::serves(z) {
        true => fast::softmax(z),
        false => plain::softmax(z),
    }
}

/// A (n, k) matrix as (k, n), laid out anew: Candle's reductions over any axis but the last are slow on the CPU.
pub(crate) fn turned(z: &Tensor) -> Result<Tensor> {
    z.t()?.contiguous()
}

/// `KL(q || p)` over the last axis, from logarithms of probabilities; equal ones give exactly 0.
pub(crate) fn kl(log_q: &Tensor, log_p: &Tensor) -> Result<Tensor> {
    (exp(log_q)? * (log_q - log_p)?)?.sum(D::Minus1)
}

/// `KL(softmax(teacher) || softmax(student))` over the last axis.
pub(crate) fn divergence(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    kl(&log_softmax(teacher)?, &log_softmax(student)?)
}

/// Entry `classes[i]` of row i: (B, C) and (B,) in, (B, 1) out.
pub(crate) fn pick(z: &Tensor, classes: &Tensor) -> Result<Tensor> {
    z.gather(&classes.unsqueeze(1)?, 1)
}

/// The index of the largest entry of each row, (B,); of equal ones the CPU takes the first.
pub(crate) fn largest(z: &Tensor) -> Result<Tensor> {
    z.detach().argmax(D::Minus1)
}

/// (B, C), to be added to logits: [`REMOVED`] at the given classes, (B, k), and 0 elsewhere.
pub(crate) fn removal(z: &Tensor, classes: &Tensor) -> Result<Tensor> {
    let removed = Tensor::full(REMOVED, classes.shape(), z.device())?.to_dtype(z.dtype())?;
    z.detach()
        .zeros_like()?
        .scatter(classes, &removed, D::Minus1)
}

/// The same from a mask of 0 and 1, of any shape.
pub(crate) fn removal_where(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    mask.to_dtype(dtype)? * REMOVED
}

/// (B, 2): the logit of `classes[i]`, (B,), and the log-sum-exp of the others; and the others, (B, C), the class removed.
pub(crate) fn one_against_rest(z: &Tensor, classes: &Tensor) -> Result<(Tensor, Tensor)> {
    let others = (z + removal(z, &classes.unsqueeze(1)?)?)?;
    let two = Tensor::cat(&[&pick(z, classes)?, &log_sum_exp(&others)?], 1)?;
    Ok((two, others))
}

/// Rows divided by their lengths. One shorter than 1e-12 has no direction to learn: it becomes 0, with gradient 0, where
/// PyTorch's `normalize` has 1e12 times the gradient.
pub(crate) fn unit(z: &Tensor) -> Result<Tensor> {
    let squares = z.sqr()?.sum_keepdim(1)?;
    let (alive, dead) = alive(&squares, 1e-24)?;
    z.broadcast_mul(&(alive / (squares + dead)?.sqrt()?)?)
}

/// 1 where `x` is above `least`, and the opposite: `sqrt(x + dead)` has a slope everywhere.
fn alive(x: &Tensor, least: f64) -> Result<(Tensor, Tensor)> {
    let alive = x.detach().gt(least)?.to_dtype(x.dtype())?;
    let dead = (1.0 - &alive)?;
    Ok((alive, dead))
}

/// `1 - <u, v> / (|u| |v| + 1e-8)` of each two rows, (n, k) each: (n,). The epsilon is DIST's and CSKD's.
///
/// A small difference of numbers near 1, so it is formed in f64, with its slope `(k u - v) / bottom`: in f32 that loses
/// its digits where one row is much longer than the other, and as f64 operations on the way back it costs twice as much.
pub(crate) fn cosine_deficit(u: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (value, slope) = deficit_and_slope(&in_f64(u)?, &in_f64(v)?)?;
    known_by_row(&value, u, &slope)
}

/// The same after rows have lost their means.
pub(crate) fn correlation_deficit(u: &Tensor, v: &Tensor) -> Result<Tensor> {
    let centre = |z: &Tensor| z.broadcast_sub(&z.mean_keepdim(1)?);
    let (value, slope) = deficit_and_slope(&centre(&in_f64(u)?)?, &centre(&in_f64(v)?)?)?;
    known_by_row(&value, u, &centre(&slope)?)
}

fn in_f64(z: &Tensor) -> Result<Tensor> {
    z.detach().to_dtype(DType::F64)
}

fn deficit_and_slope(u: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
    let inner = |a: &Tensor, b: &Tensor| (a * b)?.sum_keepdim(1);
    let (uu, vv, uv) = (inner(u, u)?, inner(v, v)?, inner(u, v)?);
    let lengths = (uu * &vv)?.sqrt()?;
    let (_, dead) = alive(&lengths, 0.0)?;
    let bottom = (&lengths + 1e-8)?;
    let value = ((&bottom - &uv)? / &bottom)?;
    // d bottom / d u = u |v| / |u|, and 0 where a length is 0: then so is the numerator.
    let k = (((uv * vv)? / (lengths + dead)?)? / &bottom)?;
    let slope = (u.broadcast_mul(&k)? - v)?.broadcast_div(&bottom)?;
    Ok((value, slope))
}

/// What a Gram matrix relates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gram {
    /// `z z'`, (n, n).
    OfRows,
    /// `z' z`, (k, k).
    OfColumns,
}

/// The sum of the squared differences of the Gram matrices of two (.., n, k) stacks of matrices. With mean m and difference d of the
/// two, `t t' - s s' = m d' + d m'`, so that equal matrices give exactly 0.
///
/// The slope is written out, `-4 (t t' - s s') s`: autograd would multiply twice as often on the way back.
pub(crate) fn gram_distance(student: &Tensor, teacher: &Tensor, gram: Gram) -> Result<Tensor> {
    let s = student.detach();
    let (mean, apart) = (((&s + teacher)? * 0.5)?, (teacher - &s)?);
    let (difference, slope) = match gram {
        Gram::OfRows => {
            let difference = (mean.matmul(&apart.t()?)? + apart.matmul(&mean.t()?)?)?;
            let slope = difference.matmul(&s)?;
            (difference, slope)
        }
        Gram::OfColumns => {
            let difference = (mean.t()?.matmul(&apart)? + apart.t()?.matmul(&mean)?)?;
            let slope = s.matmul(&difference)?;
            (difference, slope)
        }
    };
    // Row by row: one sum over millions of f32 loses two digits.
    let value = difference.sqr()?.sum(D::Minus1)?.sum_all()?;
    known(&value, student, &(slope * -4.0)?)
}

/// A scalar whose value is known, and its derivatives by `x` as well.
pub(crate) fn known(value: &Tensor, x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    value + ((x - x.detach())? * slope)?.sum_all()?
}

/// The same of each row of `x`, (n, k): values (n, 1) in, (n,) out, in the type of `x`.
fn known_by_row(value: &Tensor, x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    let (value, slope) = (value.to_dtype(x.dtype())?, slope.to_dtype(x.dtype())?);
    value.squeeze(1)? + ((x - x.detach())? * slope)?.sum(1)?
}

/// Logit standardisation (LSKD): Sun et al., "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.
///
/// `N(z) = (z - mean_c z) / (1e-7 + std_c z)` per row of (B, C) logits, the variance divided by C - 1 as in the authors'
/// code (the paper divides by C). The gradient passes through mean and deviation.
///
/// A row of equal logits becomes 0, with gradient 0; the authors' code has a gradient of 4e5 there.
pub(crate) fn standardize(z: &Tensor) -> Result<Tensor> {
    // From the maximum, so that equal logits are exactly equal to their mean.
    let z = z.broadcast_sub(&z.detach().max_keepdim(1)?)?;
    let z = z.broadcast_sub(&z.mean_keepdim(1)?)?;
    let variance = (z.sqr()?.sum_keepdim(1)? / (z.dim(1)? as f64 - 1.0))?;
    let (alive, dead) = alive(&variance, 0.0)?;
    z.broadcast_mul(&(alive / ((variance + dead)?.sqrt()? + 1e-7)?)?)
}

/// Both networks' logits as a method is to see them; the teacher's never get a gradient.
pub(crate) fn standardize_if(
    on: bool,
    student: &Tensor,
    teacher: &Tensor,
) -> Result<(Tensor, Tensor)> {
    match on {
        true => Ok((standardize(student)?, standardize(&teacher.detach())?)),
        false => Ok((student.clone(), teacher.detach())),
    }
}

/// How many of `values`, (n,), lie at or below each of them, (n,), in f64: an order without sorting, which Candle has
/// on CUDA only up to some thousand values.
pub(crate) fn count_below(values: &Tensor) -> Result<Tensor> {
    values
        .unsqueeze(1)?
        .broadcast_ge(&values.unsqueeze(0)?)?
        .to_dtype(DType::F64)?
        .sum(1)
}
