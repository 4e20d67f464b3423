//! Cosine similarity knowledge distillation, with cosine similarity weighted temperature (CSWT).
//!
//! Ham et al., "Cosine Similarity Knowledge Distillation for Individual Class Information Transfer",
//! arXiv:2311.14307. The formula is known by way of a third party's code (`distillers/CSKD.py` of llieeai/lud); the
//! one-view total is a reconstruction.
//!
//! With `cos(u, v) = <u, v> / (|u| |v| + 1e-8)` and a class's column of probabilities over the batch as its vector:
//!
//! - `fixed = 2 T^2 (1 - mean over classes of cos(student column, teacher column))`
//! - `cswt`: the same, but row i of both networks has its own temperature `T_i` between `low` (the row most like the
//!   teacher's) and `high` (the least like it), linear in the cosine of the two rows at T 1, and `2 (mean over B of T_i)^2`
//!   in front. The `T_i` are constants for the gradient.
//!
//! Where all rows are equally alike (a batch of one) the code divides by 0; here `T_i = low`.

use candle_core::{DType, Tensor};

use crate::fused::{Closed, Outcome, Rows, Values, fused, with_view};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, View, for_each_row};
use crate::ops::similarity::{cosine, cosine_only};
use crate::ops::softmax::{softmax_pull_back, softmax_rows};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "cskd",
    title: "Cosine Similarity Knowledge Distillation for Individual Class Information Transfer",
    paper: "arXiv:2311.14307",
    components: &[
        ComponentSpec::new("fixed", "columns of probabilities at one temperature")
            .whole_batch("a class is compared over the whole batch"),
        ComponentSpec::new(
            "cswt",
            "columns of probabilities, each row at its own temperature",
        )
        .whole_batch("a class is compared over the whole batch"),
    ],
    options: &[
        OptionRow::new("temperature", "4", "of `fixed`; third party's code"),
        OptionRow::new(
            "low_temperature",
            "2",
            "of the row most like the teacher's; third party's code",
        ),
        OptionRow::new(
            "high_temperature",
            "6",
            "of the row least like the teacher's; third party's code",
        ),
        OptionRow::new(
            "inner_alpha",
            "2",
            "factor in front of T^2; third party's code",
        ),
    ],
    build,
};

struct Cskd {
    temperature: f64,
    low: f64,
    high: f64,
    inner_alpha: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let low = options.positive("low_temperature", 2.0)?;
    Ok(Box::new(Cskd {
        temperature: options.positive("temperature", 4.0)?,
        low,
        high: options.number(
            "high_temperature",
            6.0,
            "at least `low_temperature`",
            |high| high >= low,
        )?,
        inner_alpha: options.not_negative("inner_alpha", 2.0)?,
    }))
}

impl LogitLoss for Cskd {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("cskd")?);
        let fixed = vec![self.temperature; batch.labels.len()];
        let own = cswt_temperatures(student, teacher, self.low, self.high)?;
        [fixed, own]
            .into_iter()
            .map(|temperatures| {
                let value = class_cosine(student, teacher, &temperatures)?;
                Component::from_values((value * self.inner_alpha)?)
            })
            .collect()
    }
}

/// The temperature of each row by CSWT: (B, C) logits of both networks in, B temperatures from `low` to `high` out.
///
/// # Errors
/// Logits that are not contiguous f32 or f64 tensors on the host.
pub fn cswt_temperatures(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    low: f64,
    high: f64,
) -> Result<Vec<f64>, LossError> {
    let cosines = match student_logits.dtype() {
        DType::F64 => row_cosines::<f64>(student_logits, teacher_logits)?,
        _ => row_cosines::<f32>(student_logits, teacher_logits)?,
    };
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    let most = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if least == most {
        return Ok(vec![low; cosines.len()]);
    }
    let temperature = |cosine: &f64| low + (high - low) * (most - cosine) / (most - least);
    Ok(cosines.iter().map(temperature).collect())
}

fn row_cosines<F: Real>(student: &Tensor, teacher: &Tensor) -> Result<Vec<f64>, LossError> {
    with_view::<F, _>(student, |student| {
        with_view::<F, _>(teacher, |teacher: View<'_, F>| {
            let (p, q) = (
                softmax_rows(student, |_| 1.0),
                softmax_rows(teacher, |_| 1.0),
            );
            let rows = p.view().rows().zip(q.view().rows());
            rows.map(|(p, q)| cosine_only(p, q)).collect()
        })
    })?
}

/// `(mean over B of T_i)^2 * (1 - mean over classes of cos)`, each row of both networks at its temperature.
fn class_cosine(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperatures: &[f64],
) -> Result<Tensor, LossError> {
    let method = ClassCosine { temperatures };
    Ok(fused(&method, student_logits, teacher_logits, &[])?.swap_remove(0))
}

struct ClassCosine<'a> {
    temperatures: &'a [f64],
}

impl Closed for ClassCosine<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let temperatures = self.temperatures.to_vec();
        let p = softmax_rows(rows.student, |i| temperatures[i]);
        let q_columns = softmax_rows(rows.teacher, |i| temperatures[i]).transposed();
        let p_columns = p.transposed();
        let mut by_columns = Matrix::zeros(p.n_cols, p.n_rows);
        let cosines = for_each_row(&mut by_columns.data, p.n_rows, |class, gradient| {
            cosine(p_columns.row(class), q_columns.row(class), gradient)
        });
        let mean = temperatures.iter().sum::<f64>() / temperatures.len() as f64;
        let n_classes = cosines.len() as f64;
        let factor = mean * mean / n_classes;
        let value = mean * mean * (1.0 - cosines.iter().sum::<f64>() / n_classes);
        Ok(Outcome {
            components: vec![Values::Whole(F::of(value))],
            pullback: Box::new(move |upstream, gradient| {
                let mut by_logits = by_columns.transposed();
                for_each_row(&mut by_logits.data, p.n_cols, |i, row| {
                    softmax_pull_back(row, p.row(i), temperatures[i]);
                });
                real::add_scaled(
                    &mut gradient.data,
                    upstream[0][0] * F::of(factor),
                    &by_logits.data,
                );
            }),
        })
    }
}
