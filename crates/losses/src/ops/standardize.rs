//! Logit standardisation (LSKD): an operation that a method applies to both networks' logits before anything else.
//!
//! Sun et al., "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.

use candle_core::{DType, Tensor};

use super::real::{self, Real};
use super::rows::{Matrix, for_each_row};
use crate::{LossError, fused};

/// Added to the standard deviation, as in the authors' code.
const EPSILON: f64 = 1e-7;

/// `N(z) = (z - mean_c z) / (1e-7 + std_c z)` per row of (B, C) logits, the variance divided by C - 1 as in the
/// authors' code (the paper divides by C). The gradient passes through mean and deviation.
///
/// A row of equal logits becomes 0, and gets gradient 0: the true derivative there is 1e7, the authors' code gives
/// NaN.
pub(crate) fn standardize(logits: &Tensor) -> Result<Tensor, LossError> {
    match logits.dtype() {
        DType::F64 => standardize_rows::<f64>(logits),
        _ => standardize_rows::<f32>(logits),
    }
}

/// Both networks' logits as the method is to see them.
pub(crate) fn standardize_if(
    on: bool,
    student: &Tensor,
    teacher: &Tensor,
) -> Result<(Tensor, Tensor), LossError> {
    match on {
        true => Ok((standardize(student)?, standardize(teacher)?.detach())),
        false => Ok((student.clone(), teacher.clone())),
    }
}

fn standardize_rows<F: Real>(logits: &Tensor) -> Result<Tensor, LossError> {
    let (mut standard, deviations) = fused::with_view::<F, _>(logits, |logits| {
        let mut standard = Matrix {
            data: logits.data.to_vec(),
            n_rows: logits.n_rows,
            n_cols: logits.n_cols,
        };
        let deviations = for_each_row(&mut standard.data, logits.n_cols, |_, row| {
            let n = row.len() as f64;
            let mean = row.iter().map(|z| z.to_f64()).sum::<f64>() / n;
            let square = |z: &F| (z.to_f64() - mean) * (z.to_f64() - mean);
            let deviation = (row.iter().map(square).sum::<f64>() / (n - 1.0)).sqrt();
            for z in row {
                *z = F::of((z.to_f64() - mean) / (EPSILON + deviation));
            }
            deviation
        });
        (standard, deviations)
    })?;
    let values = std::mem::take(&mut standard.data);
    let kept = values.clone();
    let n_cols = standard.n_cols;
    // With u = z - mean, d = 1e-7 + std and n = u / d:
    // dL/du = g / d - n <g, n> / ((C - 1) std), then its mean is removed.
    let pullback = move |upstream: &[F]| {
        let mut gradient = upstream.to_vec();
        for_each_row(&mut gradient, n_cols, |index, g| {
            let n = &kept[index * n_cols..(index + 1) * n_cols];
            let deviation = deviations[index];
            if deviation == 0.0 {
                return g.fill(F::zero());
            }
            let along = real::dot(g, n).to_f64() / ((n_cols - 1) as f64 * deviation);
            real::scale(g, F::of(1.0 / (EPSILON + deviation)));
            real::add_scaled(g, F::of(-along), n);
            let mean = F::of(real::sum(g).to_f64() / n_cols as f64);
            g.iter_mut().for_each(|g| *g -= mean);
        });
        gradient
    };
    fused::attach(logits, values, logits.shape().clone(), pullback)
}
