//! Mean squared error between logits.
//!
//! Ba and Caruana, "Do Deep Nets Really Need to be Deep?", arXiv:1312.6184, equation 1.
//!
//! `mse = mean over B and C of (s - t)^2`: the mean over classes, not their sum, and no factor 1/2. Raw logits, so a shift
//! of the teacher's row matters.

use candle_core::Tensor;

use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::spec::spec;
use crate::{LossError, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mse",
    title: "Do Deep Nets Really Need to be Deep?",
    paper: "arXiv:1312.6184",
    components: &[ComponentSpec::new(
        "mse",
        "squared difference of raw logits",
    )],
    options: loss::rows::<MseSpec>,
    build: loss::build::<MseSpec>,
};

spec! {
    /// Options of [`mse`]; it has none.
    MseSpec of "mse" {
    }
}

/// `mean over C of (student - teacher)^2` of each sample, in squared logits.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Out: (B,), each 0 or more; the loss is their mean.
///
/// # Errors
/// Shapes that do not fit.
pub fn mse(student: &Tensor, teacher: &Tensor, _: &MseSpec) -> Result<Tensor, LossError> {
    Ok((student - teacher.detach())?.sqr()?.mean(1)?)
}

impl LogitLoss for MseSpec {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let losses = mse(batch.student(), batch.teacher("mse")?, self)?;
        Ok(vec![Component::new(losses)?])
    }
}
