//! Cosine similarity knowledge distillation, with cosine similarity weighted temperature (CSWT).
//!
//! Ham et al., "Cosine Similarity Knowledge Distillation for Individual Class Information Transfer",
//! arXiv:2311.14307. The formula is known by way of a third party's code (`distillers/CSKD.py` of llieeai/lud); the
//! one-view total is a reconstruction.
//!
//! With `cos(u, v) = <u, v> / (|u| |v| + 1e-8)` and a class's column of probabilities over the batch as its vector:
//!
//! - `fixed = 2 T^2 (1 - mean over classes of cos(student column, teacher column))`
//! - `cswt`: the same, but row i of both networks has its own temperature `T_i` between `low` (the row most like the
//!   teacher's) and `high` (the least like it), linear in the cosine of the two rows at T 1, and `2 (mean over B of T_i)^2`
//!   in front. The `T_i` are constants for the gradient.
//!
//! Where all rows are equally alike (a batch of one) the code divides by 0; here `T_i = low`.

use candle_core::{DType, Tensor};

use crate::allowed::{ABOVE_0, FROM_0};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, Setup};
use crate::spec::{Spec, spec};
use crate::{LossError, Options, PreparedBatch, loss, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "cskd",
    title: "Cosine Similarity Knowledge Distillation for Individual Class Information Transfer",
    paper: "arXiv:2311.14307",
    components: &[
        ComponentSpec::new("fixed", "columns of probabilities at one temperature")
            .whole_batch("a class is compared over the whole batch"),
        ComponentSpec::new(
            "cswt",
            "columns of probabilities, each row at its own temperature",
        )
        .whole_batch("a class is compared over the whole batch"),
    ],
    options: loss::rows::<CskdSpec>,
    build,
};

spec! {
    /// Options of [`cskd`].
    CskdSpec of "cskd" {
        /// T: of `fixed`; third party's code
        temperature: f64 = 4.0, ABOVE_0;
        /// of the row most like the teacher's; third party's code
        low_temperature: f64 = 2.0, ABOVE_0;
        /// of the row least like the teacher's, at least `low_temperature`; third party's code
        high_temperature: f64 = 6.0, ABOVE_0;
        /// factor in front of T^2; third party's code
        inner_alpha: f64 = 2.0, FROM_0;
    }
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let spec = CskdSpec::read(options, "")?;
    spec.ordered()?;
    Ok(Box::new(spec))
}

impl CskdSpec {
    fn ordered(&self) -> Result<(), LossError> {
        match self.high_temperature >= self.low_temperature {
            true => Ok(()),
            false => Err(LossError::BadOption {
                loss: "cskd".to_owned(),
                key: "high_temperature".to_owned(),
                expected: "at least `low_temperature`".to_owned(),
                found: self.high_temperature.to_string(),
            }),
        }
    }
}

/// What [`cskd`] returns: scalars, unweighted.
#[derive(Clone, Debug)]
pub struct CskdParts {
    /// Columns of probabilities at one temperature.
    pub fixed: Tensor,
    /// Columns of probabilities, each row at its own temperature.
    pub cswt: Tensor,
}

/// Cosine similarity distillation.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn cskd(student: &Tensor, teacher: &Tensor, spec: &CskdSpec) -> Result<CskdParts, LossError> {
    spec.check("")?;
    spec.ordered()?;
    let teacher = teacher.detach();
    let own = cswt_temperatures(
        student,
        &teacher,
        spec.low_temperature,
        spec.high_temperature,
    )?;
    let fixed = Tensor::full(spec.temperature, own.shape(), own.device())?;
    let part =
        |temperatures: &Tensor| class_cosine(student, &teacher, temperatures)? * spec.inner_alpha;
    Ok(CskdParts {
        fixed: part(&fixed)?,
        cswt: part(&own)?,
    })
}

/// The temperature of each row by CSWT: (B, C) logits of both networks in, (B,) from `low` to `high` out, f64, constants
/// for the gradient.
///
/// # Errors
/// Shapes that do not fit.
pub fn cswt_temperatures(
    student: &Tensor,
    teacher: &Tensor,
    low: f64,
    high: f64,
) -> Result<Tensor, LossError> {
    // In f64 from here on, as the differences of these are divided by each other.
    let in_f64 = |z: &Tensor| ops::softmax(&z.detach())?.to_dtype(DType::F64);
    let (p, q) = (in_f64(student)?, in_f64(teacher)?);
    // The deficit 1 - cos is the distance from the teacher: least in the row most like it.
    let apart = ops::cosine_deficit(&p, &q)?;
    let least = apart.min_keepdim(0)?;
    let above = apart.broadcast_sub(&least)?;
    let span = above.max_keepdim(0)?;
    // Where all rows are equally alike the numerator is 0, and so is the share.
    let span = (&span + span.eq(0.0)?.to_dtype(DType::F64)?)?;
    Ok(((above.broadcast_div(&span)? * (high - low))? + low)?)
}

/// `(mean over B of T_i)^2 * (1 - mean over classes of cos)`, each row of both networks at its temperature.
fn class_cosine(
    student: &Tensor,
    teacher: &Tensor,
    temperatures: &Tensor,
) -> candle_core::Result<Tensor> {
    let each = temperatures
        .recip()?
        .unsqueeze(1)?
        .to_dtype(student.dtype())?;
    let p = ops::softmax(&student.broadcast_mul(&each)?)?;
    let q = ops::softmax(&teacher.broadcast_mul(&each)?)?;
    let deficit = ops::cosine_deficit(&ops::turned(&p)?, &ops::turned(&q)?)?.mean_all()?;
    let squared = temperatures.mean_all()?.sqr()?;
    deficit * squared.to_dtype(student.dtype())?
}

impl LogitLoss for CskdSpec {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let parts = cskd(batch.student(), batch.teacher("cskd")?, self)?;
        Ok(vec![
            Component::new(parts.fixed)?,
            Component::new(parts.cswt)?,
        ])
    }
}
