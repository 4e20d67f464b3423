//! Mean squared error between logits.
//!
//! Ba and Caruana, "Do Deep Nets Really Need to be Deep?", arXiv:1312.6184, equation 1.
//!
//! `mse = mean over B and C of (s - t)^2`: the mean over classes, not their sum, and no factor 1/2. Raw logits, so a shift
//! of the teacher's row matters.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, Setup};
use crate::ops::real::{self, Real};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mse",
    title: "Do Deep Nets Really Need to be Deep?",
    paper: "arXiv:1312.6184",
    components: &[ComponentSpec::new(
        "mse",
        "squared difference of raw logits",
    )],
    options: &[],
    build,
};

struct Mse;

fn build(_: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Mse))
}

impl LogitLoss for Mse {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(self, batch.student(), batch.teacher("mse")?, &batch.labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Mse {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student, teacher, ..
        } = rows;
        let n_classes = student.n_cols as f64;
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [gradient]| {
                let (s, t) = (student.row(i), teacher.row(i));
                let twice = F::of(2.0 / n_classes);
                real::zip_into(gradient, s, t, |s, t| twice * (s - t));
                [real::squared_distance(s, t).to_f64() / n_classes]
            },
        ))
    }
}
