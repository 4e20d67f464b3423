//! KL the other way round: the student's distribution against the teacher's.
//!
//! Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", arXiv:2306.08543, use it to keep a small
//! student from covering modes it cannot hold.
//!
//! `reverse_kl = T^2 * mean over B of KL(softmax(s/T) || softmax(t/T))`
//!
//! T^2 and T 4 as in `kd`, so that the two can be exchanged.

use candle_core::Tensor;

use crate::allowed::ABOVE_0;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "reverse_kl",
    title: "MiniLLM: Knowledge Distillation of Large Language Models",
    paper: "arXiv:2306.08543",
    components: &[ComponentSpec::new(
        "reverse_kl",
        "KL(student || teacher) over all classes",
    )],
    options: loss::rows::<ReverseKlSpec>,
    build: loss::build::<ReverseKlSpec>,
};

spec! {
    /// Options of [`reverse_kl`].
    ReverseKlSpec of "reverse_kl" {
        /// T: divides both networks' logits; as kd
        temperature: f64 = 4.0, ABOVE_0;
    }
}

/// `T^2 KL(softmax(student/T) || softmax(teacher/T))` of each sample.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Out: (B,), each 0 or more; the loss is their mean.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn reverse_kl(
    student: &Tensor,
    teacher: &Tensor,
    spec: &ReverseKlSpec,
) -> Result<Tensor, LossError> {
    spec.check("")?;
    let of_teacher = (teacher.detach() / spec.temperature)?;
    let divergence = ops::divergence(&(student / spec.temperature)?, &of_teacher)?;
    Ok((divergence * (spec.temperature * spec.temperature))?)
}

impl LogitLoss for ReverseKlSpec {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let losses = reverse_kl(batch.student(), batch.teacher("reverse_kl")?, self)?;
        Ok(vec![Component::new(losses)?])
    }
}
