//! Decoupled knowledge distillation.
//!
//! Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679, equations 5 to 7.
//!
//! KL splits into what is said of the target class against all others, and what is said among the others. With
//! `b = [p_y, 1 - p_y]` at temperature T, of either network at the true label y:
//!
//! - `tckd = T^2 * mean over B of KL(b_t || b_s)`
//! - `nckd = T^2 * mean over B of KL` between the softmaxes over the C - 1 classes other than y.
//!
//! The authors' code removes class y by adding -1000 to its logit, and takes logarithms of summed probabilities:
//! NaN in f32 for logits of scale 50 at T 1. Here both parts come from the log-sum-exp over the other classes; in
//! float64 the two agree. Defaults are mdistiller's for CIFAR-100: T 4, alpha 1, beta 8 (2 for ResNet-56 to
//! ResNet-20), a warm-up of 20 epochs; ImageNet T 1, beta 0.5, no warm-up. The LSKD setting is `standardize =
//! true`, T 2, alpha 9, beta 72.

use candle_core::Tensor;

use crate::allowed::{ABOVE_0, FLAG};
use crate::loss::{self, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, Warmup};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "dkd",
    title: "Decoupled Knowledge Distillation",
    paper: "arXiv:2203.08679",
    components: &[
        ComponentSpec::new("tckd", "KL of target against non-target")
            .weight_key("alpha")
            .warmup(Warmup::Epochs(20.0)),
        ComponentSpec::new("nckd", "KL among the non-target classes")
            .weight(8.0)
            .weight_key("beta")
            .warmup(Warmup::Epochs(20.0)),
    ],
    options: loss::rows::<DkdSpec>,
    build: loss::build::<DkdSpec>,
};

spec! {
    /// Options of [`dkd`].
    DkdSpec of "dkd" {
        /// T: divides both networks' logits; mdistiller, CIFAR-100
        temperature: f64 = 4.0, ABOVE_0;
        /// LSKD (arXiv:2403.01427): both networks' rows are brought to mean 0 and standard deviation 1 first
        standardize: bool = false, FLAG;
    }
}

/// What [`dkd`] returns: both (B,), with the factor T^2, unweighted; a loss is their mean.
#[derive(Clone, Debug)]
pub struct DkdParts {
    /// KL of the target against the non-target classes.
    pub tckd: Tensor,
    /// KL among the non-target classes.
    pub nckd: Tensor,
}

/// Decoupled knowledge distillation: the two parts of KL, each to be weighed on its own.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type; `labels` (B,), u32, below C. With C = 2 `nckd` is 0.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn dkd(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    spec: &DkdSpec,
) -> Result<DkdParts, LossError> {
    spec.check("")?;
    let (student, teacher) = ops::standardize_if(spec.standardize, student, teacher)?;
    let split = |z: &Tensor| ops::one_against_rest(&(z / spec.temperature)?, labels);
    let (two_s, others_s) = split(&student)?;
    let (two_t, others_t) = split(&teacher)?;
    let squared = spec.temperature * spec.temperature;
    Ok(DkdParts {
        tckd: (ops::divergence(&two_t, &two_s)? * squared)?,
        nckd: (ops::divergence(&others_t, &others_s)? * squared)?,
    })
}

impl LogitLoss for DkdSpec {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("dkd")?);
        let parts = dkd(student, teacher, batch.single_labels("dkd")?, self)?;
        Ok(vec![
            Component::new(parts.tckd)?,
            Component::new(parts.nckd)?,
        ])
    }
}
