//! Class-aware logit knowledge distillation.
//!
//! Zhang et al., "Class-aware Information for Logit-based Knowledge Distillation" (CLKD), arXiv:2211.14773. The
//! paper's own equations were not at hand; two independent reimplementations agree but for the correlation, of
//! which both readings are here.
//!
//! On raw logits, no softmax and no temperature, with rows or columns divided by `max(length, 1e-12)`:
//!
//! - `instance = mean over B and C of (unit rows of s - unit rows of t)^2`
//! - `class = mean over B and C of (unit columns of s - unit columns of t)^2`, a column being a class over the batch
//! - `correlation = |M(s) - M(t)|^2 / C^2`, with `Zc = z - column mean` and
//!   `correlation.reading = "nxn"`: `M = Zc Zc' / (C - 1)`, (B, B), or `"cxc"`: `M = Zc' Zc / (B - 1)`, (C, C).
//!
//! The name and the 1/C^2 speak for cxc, the 1/(C - 1) of the constants' source for nxn, which is the default. On a
//! batch of one cxc has no meaning (0/0), and is 0. Total there: `0.1 ce + 0.5 (instance + 2 class) + 0.4
//! correlation`.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::allowed::word;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::ops::Gram;
use crate::spec::spec;
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "clkd",
    title: "Class-aware Information for Logit-based Knowledge Distillation",
    paper: "arXiv:2211.14773",
    components: &[
        ComponentSpec::new("instance", "unit rows of logits").weight(0.5),
        ComponentSpec::new("class", "unit columns of logits")
            .weight(1.0)
            .whole_batch("a class is compared over the whole batch"),
        ComponentSpec::new("correlation", "inner products of centred logits")
            .weight(0.4)
            .weight_key("nu")
            .whole_batch("it compares all pairs of the batch"),
    ],
    options: loss::rows::<ClkdSpec>,
    build: loss::build::<ClkdSpec>,
};

spec! {
    /// Options of [`clkd`].
    ClkdSpec of "clkd" {
        in /// The correlation's own.
        correlation: CorrelationSpec;
    }
}

spec! {
    /// Options of the correlation of [`clkd`].
    CorrelationSpec of "clkd" {
        /// `nxn`: samples with samples, or `cxc`: classes with classes; a public reimplementation, whose weights these are
        reading: CorrelationReading = CorrelationReading::Nxn, word();
    }
}

/// What the correlation of [`clkd`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrelationReading {
    /// Samples with samples, (B, B).
    Nxn,
    /// Classes with classes, (C, C).
    Cxc,
}

/// What [`clkd`] returns, unweighted.
#[derive(Clone, Debug)]
pub struct ClkdParts {
    /// (B,): unit rows; the loss is their mean.
    pub instance: Tensor,
    /// A scalar: unit columns.
    pub class: Tensor,
    /// A scalar: inner products of centred logits.
    pub correlation: Tensor,
}

/// Class-aware logit distillation, on raw logits.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type.
///
/// # Errors
/// Shapes that do not fit.
pub fn clkd(student: &Tensor, teacher: &Tensor, spec: &ClkdSpec) -> Result<ClkdParts, LossError> {
    let teacher = teacher.detach();
    let apart = |s: &Tensor, t: &Tensor| (ops::unit(s)? - ops::unit(t)?)?.sqr();
    let (columns, of_teacher) = (ops::turned(student)?, ops::turned(&teacher)?);
    Ok(ClkdParts {
        instance: apart(student, &teacher)?.mean(1)?,
        class: apart(&columns, &of_teacher)?.mean_all()?,
        correlation: correlation(&columns, &of_teacher, spec.correlation.reading)?,
    })
}

/// From columns as rows, (C, B).
fn correlation(
    student: &Tensor,
    teacher: &Tensor,
    reading: CorrelationReading,
) -> candle_core::Result<Tensor> {
    let centred = |z: &Tensor| z.broadcast_sub(&z.mean_keepdim(1)?);
    let (s, t) = (centred(student)?, centred(teacher)?);
    let (n_cols, n_rows) = (s.dim(0)? as f64, s.dim(1)? as f64);
    let (distance, divisor) = match reading {
        CorrelationReading::Nxn => (ops::gram_distance(&s, &t, Gram::OfColumns)?, n_cols - 1.0),
        // Centred, a batch of one is 0: any divisor gives the 0 that we define.
        CorrelationReading::Cxc => (
            ops::gram_distance(&s, &t, Gram::OfRows)?,
            (n_rows - 1.0).max(1.0),
        ),
    };
    distance / (divisor * n_cols).powi(2)
}

impl LogitLoss for ClkdSpec {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let parts = clkd(batch.student(), batch.teacher("clkd")?, self)?;
        let parts = [parts.instance, parts.class, parts.correlation];
        parts.into_iter().map(Component::new).collect()
    }
}
