//! Refined logit distillation.
//!
//! Sun et al., "Knowledge Distillation with Refined Logits", arXiv:2408.07703; equations known by way of the
//! authors' code (`distillers/RLD.py` of zju-SWJ/RLD).
//!
//! With m the teacher's own first choice (the first class on ties) and y the label:
//!
//! - `scd = Ta^2 * mean over B of KL([q_m, 1 - q_m] || [p_y, 1 - p_y])` at temperature Ta: the teacher's confidence in
//!   *its* choice is what the student should have in the *true* class
//! - `mcd = T^2 * mean over B of KL` between the softmaxes over the classes that the teacher puts strictly below y.
//!   A sample whose label is the teacher's last choice keeps no class, and counts as 0 in the mean.
//!
//! The authors mask by -1e9 and take the logarithm of a summed probability, which in f32 is infinite at logits of
//! scale 50 with Ta 1; here both come from log-sum-exp. Defaults are the code's: T 4, Ta 1, alpha 1, beta 8, a
//! warm-up of 20 epochs; the paper's beta is 4, and its README's commands set Ta to T (`--same-t`).

use candle_core::Tensor;

use crate::allowed::{ABOVE_0, FLAG};
use crate::loss::{self, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, Warmup};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "rld",
    title: "Knowledge Distillation with Refined Logits",
    paper: "arXiv:2408.07703",
    components: &[
        ComponentSpec::new(
            "scd",
            "the teacher's confidence in its choice against the student's in the label",
        )
        .weight_key("alpha")
        .warmup(Warmup::Epochs(20.0)),
        ComponentSpec::new(
            "mcd",
            "KL among the classes that the teacher puts below the label",
        )
        .weight(8.0)
        .weight_key("beta")
        .warmup(Warmup::Epochs(20.0)),
    ],
    options: loss::rows::<RldSpec>,
    build: loss::build::<RldSpec>,
};

spec! {
    /// Options of [`rld`].
    RldSpec of "rld" {
        /// T: divides both networks' logits in `mcd`; authors' code
        temperature: f64 = 4.0, ABOVE_0;
        /// Ta: the same in `scd`; authors' code
        scd_temperature: f64 = 1.0, ABOVE_0;
        /// LSKD (arXiv:2403.01427): both networks' rows are brought to mean 0 and standard deviation 1 first
        standardize: bool = false, FLAG;
    }
}

/// What [`rld`] returns: both (B,), unweighted; a loss is their mean.
#[derive(Clone, Debug)]
pub struct RldParts {
    /// The teacher's confidence in its choice against the student's in the label, times Ta^2.
    pub scd: Tensor,
    /// KL among the classes that the teacher puts below the label, times T^2.
    pub mcd: Tensor,
}

/// Refined logit distillation.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type; `labels` (B,), u32, below C.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn rld(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    spec: &RldSpec,
) -> Result<RldParts, LossError> {
    spec.check("")?;
    let (student, teacher) = ops::standardize_if(spec.standardize, student, teacher)?;
    let confidence = |z: &Tensor, classes: &Tensor| -> candle_core::Result<Tensor> {
        Ok(ops::one_against_rest(&(z / spec.scd_temperature)?, classes)?.0)
    };
    let in_label = confidence(&student, labels)?;
    let in_choice = confidence(&teacher, &ops::largest(&teacher)?)?;

    let is_removed = teacher.broadcast_ge(&ops::pick(&teacher, labels)?)?;
    let removal = ops::removal_where(&is_removed, teacher.dtype())?;
    let below_label = |z: &Tensor| (z / spec.temperature)? + &removal;
    let mcd = ops::divergence(&below_label(&teacher)?, &below_label(&student)?)?;
    Ok(RldParts {
        scd: (ops::divergence(&in_choice, &in_label)? * spec.scd_temperature.powi(2))?,
        mcd: (mcd * spec.temperature.powi(2))?,
    })
}

impl LogitLoss for RldSpec {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("rld")?);
        let parts = rld(student, teacher, batch.single_labels("rld")?, self)?;
        Ok(vec![Component::new(parts.scd)?, Component::new(parts.mcd)?])
    }
}
