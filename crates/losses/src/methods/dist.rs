//! Knowledge distillation from a stronger teacher.
//!
//! Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536, equations 8 to 10.
//!
//! With `a`, `b` the student's and teacher's probabilities at temperature tau, and
//! `rho(u, v) = <u - mean u, v - mean v> / (|u - mean u| |v - mean v| + 1e-8)`:
//!
//! - `inter = tau^2 * (1 - mean over samples of rho(a_i, b_i))`
//! - `intra = tau^2 * (1 - mean over classes of rho(a_:c, b_:c))`
//!
//! Defaults are the authors' code's (`dist_kd.py` of hunto/image_classification_sota): tau 4 for CIFAR (1 for
//! ImageNet), and a weight of 2 for both beside `ce` 1. On a batch of one, `intra` is tau^2 with gradient 0, as in
//! the code.

use candle_core::Tensor;

use crate::allowed::ABOVE_0;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "dist",
    title: "Knowledge Distillation from A Stronger Teacher",
    paper: "arXiv:2205.10536",
    components: &[
        ComponentSpec::new(
            "inter",
            "correlation of the two networks' probabilities of one sample",
        )
        .weight(2.0)
        .weight_key("beta"),
        ComponentSpec::new(
            "intra",
            "correlation of their probabilities of one class over the batch",
        )
        .weight(2.0)
        .weight_key("gamma")
        .whole_batch("a class is compared over the whole batch"),
    ],
    options: loss::rows::<DistSpec>,
    build: loss::build::<DistSpec>,
};

spec! {
    /// Options of [`dist`].
    DistSpec of "dist" {
        /// tau: divides both networks' logits; authors' code, CIFAR
        temperature: f64 = 4.0, ABOVE_0;
    }
}

/// What [`dist`] returns, unweighted, with the factor tau^2.
#[derive(Clone, Debug)]
pub struct DistParts {
    /// (B,), from 0 to 2 tau^2: correlation of one sample's probabilities; the loss is their mean.
    pub inter: Tensor,
    /// A scalar: correlation of one class's probabilities over the batch.
    pub intra: Tensor,
}

/// Distillation by correlation. At C = 2 all rows correlate fully: the gradient of `inter` is rounding, in PyTorch too.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn dist(student: &Tensor, teacher: &Tensor, spec: &DistSpec) -> Result<DistParts, LossError> {
    spec.check("")?;
    let tau = spec.temperature;
    let p = ops::softmax(&(student / tau)?)?;
    let q = ops::softmax(&(teacher.detach() / tau)?)?;
    let inter = ops::correlation_deficit(&p, &q)?;
    let intra = ops::correlation_deficit(&ops::turned(&p)?, &ops::turned(&q)?)?;
    Ok(DistParts {
        inter: (inter * (tau * tau))?,
        intra: (intra.mean_all()? * (tau * tau))?,
    })
}

impl LogitLoss for DistSpec {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let parts = dist(batch.student(), batch.teacher("dist")?, self)?;
        Ok(vec![
            Component::new(parts.inter)?,
            Component::new(parts.intra)?,
        ])
    }
}
