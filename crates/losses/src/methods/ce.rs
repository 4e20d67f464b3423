//! Cross-entropy with the labels.
//!
//! `ce = mean over B of -log softmax(s)[label]`, and `lambda` times that of the label plus `1 - lambda` times that of
//! the partner on mixed views. Temperature 1, always on the raw student logits. With label smoothing e (Szegedy et al.,
//! arXiv:1512.00567, section 7) the target is `(1 - e)` times the label plus `e / C` for every class, as in PyTorch.

use candle_core::Tensor;

use crate::allowed::{FLAG, allowed};
use crate::loss::{
    self, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, TeacherNeed,
};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "ce",
    title: "Cross-entropy with the labels",
    paper: "no paper: the classification loss",
    components: &[ComponentSpec::new("ce", "student against label")],
    options: loss::rows::<CeSpec>,
    build: loss::build::<CeSpec>,
};

spec! {
    /// Options of [`ce`].
    CeSpec of "ce" {
        /// also on the strong view, and added (MLKD's two-view setting)
        strong: bool = false, FLAG;
        /// share of the target that is spread evenly over all classes (arXiv:1512.00567)
        label_smoothing: f64 = 0.0, allowed("a number from 0 to just below 1", |x| (0.0..1.0).contains(x));
    }
}

/// Cross-entropy with the labels, natural logarithms.
///
/// # Shapes
/// `student` (B, C), raw logits; `labels` (B,), u32, below C. Out: (B,), each 0 or more; the loss is their mean.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn ce(student: &Tensor, labels: &Tensor, spec: &CeSpec) -> Result<Tensor, LossError> {
    spec.check("")?;
    let log_p = ops::log_softmax(student)?;
    let of_label = ops::pick(&log_p, labels)?.squeeze(1)?.neg()?;
    if spec.label_smoothing == 0.0 {
        return Ok(of_label);
    }
    let of_all = log_p.mean(1)?.neg()?;
    Ok(((of_label * (1.0 - spec.label_smoothing))? + (of_all * spec.label_smoothing)?)?)
}

impl LogitLoss for CeSpec {
    fn needs(&self) -> Needs {
        Needs {
            teacher: TeacherNeed::Nothing,
            labels: LabelNeed::Mixable,
            strong_view: self.strong,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (labels, mixed) = batch.labels();
        let on = |student: &Tensor| {
            let of_label = ce(student, labels, self)?;
            let Some((partner, lambda)) = mixed else {
                return Ok(of_label);
            };
            let of_partner = ce(student, partner, self)?;
            // lambda of the one and 1 - lambda of the other.
            Ok::<_, LossError>((&of_partner + (lambda * (of_label - &of_partner)?)?)?)
        };
        let mut losses = on(batch.student())?;
        if self.strong {
            losses = (losses + on(batch.strong("ce")?.0)?)?;
        }
        Ok(vec![Component::new(losses)?])
    }
}
