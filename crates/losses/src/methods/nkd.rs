//! Normalised knowledge distillation.
//!
//! Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
//! and Customized Soft Labels", arXiv:2303.13005, equation 6.
//!
//! - `target = mean over B of -q_y log p_y`: cross-entropy with the label, weighted by the teacher's own confidence in
//!   it, at temperature 1
//! - `non_target = T^2 * mean over B of -sum over c != y of q'_c log p'_c`, the softmaxes over the C - 1 other classes at
//!   temperature T. A cross-entropy, not a KL: it does not vanish where the networks agree, and its gradient is that of KL.
//!
//! Total in the paper: `ce + target + gamma * non_target`. Defaults are the authors' for CIFAR-100 (T 3, gamma
//! 3.5); for ImageNet they take T 1, gamma 1.5. Their code (`nkd.py` of yzd-v/cls_KD) removes class y from both softmaxes,
//! as the equation does and as here.

use candle_core::Tensor;

use crate::allowed::ABOVE_0;
use crate::loss::{self, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "nkd",
    title: "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
    paper: "arXiv:2303.13005",
    components: &[
        ComponentSpec::new(
            "target",
            "cross-entropy with the label, weighted by the teacher's confidence",
        ),
        ComponentSpec::new(
            "non_target",
            "cross-entropy with the teacher among the other classes",
        )
        .weight(3.5)
        .weight_key("gamma"),
    ],
    options: loss::rows::<NkdSpec>,
    build: loss::build::<NkdSpec>,
};

spec! {
    /// Options of [`nkd`].
    NkdSpec of "nkd" {
        /// T: divides both networks' logits in `non_target`; authors, CIFAR-100
        temperature: f64 = 3.0, ABOVE_0;
    }
}

/// What [`nkd`] returns: both (B,), unweighted; a loss is their mean.
#[derive(Clone, Debug)]
pub struct NkdParts {
    /// Cross-entropy with the label, weighted by the teacher's confidence in it.
    pub target: Tensor,
    /// Cross-entropy with the teacher among the other classes, times T^2.
    pub non_target: Tensor,
}

/// Normalised knowledge distillation.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type; `labels` (B,), u32, below C.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn nkd(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    spec: &NkdSpec,
) -> Result<NkdParts, LossError> {
    spec.check("")?;
    let teacher = teacher.detach();
    let confidence = ops::pick(&ops::softmax(&teacher)?, labels)?;
    let of_label = ops::pick(&ops::log_softmax(student)?, labels)?;
    let label = labels.unsqueeze(1)?;
    let among_others = |z: &Tensor| {
        let z = (z / spec.temperature)?;
        ops::log_softmax(&(&z + ops::removal(&z, &label)?)?)
    };
    let agreement = (ops::exp(&among_others(&teacher)?)? * among_others(student)?)?.sum(1)?;
    Ok(NkdParts {
        target: (confidence * of_label)?.squeeze(1)?.neg()?,
        non_target: (agreement * -(spec.temperature * spec.temperature))?,
    })
}

impl LogitLoss for NkdSpec {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("nkd")?);
        let parts = nkd(student, teacher, batch.single_labels("nkd")?, self)?;
        Ok(vec![
            Component::new(parts.target)?,
            Component::new(parts.non_target)?,
        ])
    }
}
