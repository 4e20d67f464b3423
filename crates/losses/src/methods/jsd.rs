//! Jensen-Shannon divergence.
//!
//! Lin, "Divergence Measures Based on the Shannon Entropy" (1991); for distillation Agarwal et al., "On-Policy
//! Distillation of Language Models", arXiv:2306.13649, with beta 1/2.
//!
//! With p, q the softmaxes at temperature T and `m = (p + q) / 2`:
//! `jsd = T^2 * mean over B of (KL(p || m) + KL(q || m)) / 2`
//!
//! Never above `T^2 log 2`, however far apart the networks are. T^2 and T 4 as in `kd`.

use candle_core::Tensor;

use crate::allowed::ABOVE_0;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "jsd",
    title: "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
    paper: "arXiv:2306.13649",
    components: &[ComponentSpec::new(
        "jsd",
        "Jensen-Shannon divergence over all classes",
    )],
    options: loss::rows::<JsdSpec>,
    build: loss::build::<JsdSpec>,
};

spec! {
    /// Options of [`jsd`].
    JsdSpec of "jsd" {
        /// T: divides both networks' logits; as kd
        temperature: f64 = 4.0, ABOVE_0;
    }
}

/// `T^2 (KL(p || m) + KL(q || m)) / 2` of each sample, p and q the networks' softmaxes at T and m their mean.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Out: (B,), from 0 to T^2 log 2; the loss is their mean.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn jsd(student: &Tensor, teacher: &Tensor, spec: &JsdSpec) -> Result<Tensor, LossError> {
    spec.check("")?;
    let log_p = ops::log_softmax(&(student / spec.temperature)?)?;
    let log_q = ops::log_softmax(&(teacher.detach() / spec.temperature)?)?;
    let highest = log_p.detach().maximum(&log_q)?;
    let (p, q) = (
        ops::exp(&(&log_p - &highest)?)?,
        ops::exp(&(&log_q - &highest)?)?,
    );
    // The mean inside the logarithm, so that equal networks leave exactly log 1.
    let log_m = (highest + ((p + q)? * 0.5)?.log()?)?;
    let both = (ops::kl(&log_p, &log_m)? + ops::kl(&log_q, &log_m)?)?;
    Ok((both * (spec.temperature * spec.temperature / 2.0))?)
}

impl LogitLoss for JsdSpec {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let losses = jsd(batch.student(), batch.teacher("jsd")?, self)?;
        Ok(vec![Component::new(losses)?])
    }
}
