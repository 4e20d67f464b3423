//! Softmax over the classes of a row, or over some of them, always by way of log-sum-exp.
//!
//! What a whole row leaves behind (a log-sum-exp, a divergence) is f64 in either precision: it costs nothing per row
//! and keeps the small differences of large numbers that divergences are made of.

use super::real::{self, Real};
use super::rows::{Matrix, View, for_each_row};

/// Writes `softmax(row / temperature)` to `out` and returns `log sum_c exp(row_c / temperature)`.
pub(crate) fn softmax<F: Real>(out: &mut [F], row: &[F], temperature: f64) -> f64 {
    let highest = real::max(row);
    let total = real::exp_into(out, row, highest, F::of(1.0 / temperature));
    real::scale(out, F::one() / total);
    highest.to_f64() / temperature + total.to_f64().ln()
}

/// The softmax of every row, each at its own temperature.
pub(crate) fn softmax_rows<F: Real>(
    logits: View<'_, F>,
    temperature: impl Fn(usize) -> f64 + Sync,
) -> Matrix<F> {
    let mut out = Matrix::zeros(logits.n_rows, logits.n_cols);
    for_each_row(&mut out.data, logits.n_cols, |i, row| {
        softmax(row, logits.row(i), temperature(i));
    });
    out
}

/// Like [`softmax`], over the classes that `keep` names; the others get probability 0.
///
/// With no class kept the probabilities are all 0 and the log-sum-exp is minus infinity.
pub(crate) fn softmax_where<F: Real>(
    out: &mut [F],
    row: &[F],
    temperature: f64,
    keep: impl Fn(usize) -> bool,
) -> f64 {
    let kept: Vec<F> = row
        .iter()
        .enumerate()
        .map(|(class, &z)| if keep(class) { z } else { F::NEG_INFINITY })
        .collect();
    if real::max(&kept) == F::NEG_INFINITY {
        out.fill(F::zero());
        return f64::NEG_INFINITY;
    }
    softmax(out, &kept, temperature)
}

/// Takes derivatives by `p = softmax(row / temperature)`, in place, to derivatives by the row.
pub(crate) fn softmax_pull_back<F: Real>(gradient: &mut [F], p: &[F], temperature: f64) {
    let mean = real::dot(gradient, p);
    let inverse = F::of(1.0 / temperature);
    real::update(gradient, p, |g, p| inverse * p * (g - mean));
}

/// `KL(q || p)` of two softmaxes over the same classes, from `q`, both rows of logits and both log-sum-exps.
///
/// As `log q_c - log p_c = (t_c - s_c) / temperature - (lse_t - lse_s)`, no logarithm of a probability is taken, and
/// equal logits give exactly 0.
pub(crate) fn divergence<F: Real>(
    q: &[F],
    (teacher, lse_t): (&[F], f64),
    (student, lse_s): (&[F], f64),
    temperature: f64,
) -> f64 {
    real::dot_difference(q, teacher, student).to_f64() / temperature - (lse_t - lse_s)
}

/// One row as one class against all others.
pub(crate) struct AgainstRest<F> {
    class: usize,
    /// `log(p / (1 - p))` of the class.
    pub(crate) log_odds: f64,
    /// Softmax over the other classes, 0 at the class.
    pub(crate) rest: Vec<F>,
    /// `log sum exp(z / T)` over the other classes.
    pub(crate) log_sum_rest: f64,
}

/// Splits `row / temperature` into `class` and the others.
pub(crate) fn against_rest<F: Real>(row: &[F], class: usize, temperature: f64) -> AgainstRest<F> {
    let mut rest = row.to_vec();
    rest[class] = F::NEG_INFINITY;
    let others = rest.clone();
    let log_sum_rest = softmax(&mut rest, &others, temperature);
    let log_odds = row[class].to_f64() / temperature - log_sum_rest;
    AgainstRest {
        class,
        log_odds,
        rest,
        log_sum_rest,
    }
}

impl<F: Real> AgainstRest<F> {
    /// Writes `slope * d log_odds / d (row / temperature)` to `gradient`.
    pub(crate) fn gradient_of_log_odds(&self, gradient: &mut [F], slope: f64) {
        real::zip_into(gradient, &self.rest, &self.rest, |rest, _| {
            F::of(-slope) * rest
        });
        gradient[self.class] = F::of(slope);
    }
}

/// `KL` between two choices of one out of two, given by their log-odds, and its derivative by the student's.
pub(crate) fn binary_divergence(teacher_log_odds: f64, student_log_odds: f64) -> (f64, f64) {
    let (t, s) = (teacher_log_odds, student_log_odds);
    let value =
        sigmoid(t) * (softplus(-s) - softplus(-t)) + sigmoid(-t) * (softplus(s) - softplus(t));
    (value, sigmoid(s) - sigmoid(t))
}

/// `1 / (1 + e^-x)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `log(1 + e^x)`.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
