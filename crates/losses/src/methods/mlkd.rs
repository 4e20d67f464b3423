//! Multi-level logit distillation.
//!
//! Jin et al., "Multi-level Logit Distillation", CVPR 2023; equations known by way of the authors' code
//! (`distillers/KD_ours.py`) and of its one-view form by the authors of RLD (`distillers/MLKD_NOAUG.py`).
//!
//! At each of several temperatures, with `P`, `Q` the (B, C) matrices of the student's and teacher's probabilities:
//!
//! - `kd = m_b * sum over T of T^2 * mean over B of KL(Q || P)`
//! - `cc = m_c * sum over T of |Q'Q - P'P|^2 / C`: which classes go together, (C, C)
//! - `bc = m_b * sum over T of |QQ' - PP'|^2 / B`: which samples go together, (B, B)
//!
//! `m_b` is the share of samples whose teacher confidence at T 1 is at most the batch's median, `m_c` the share of classes
//! whose summed probability is at most the median over classes. The paper means masks per sample and class; the
//! code multiplies a reduced scalar by the mask and averages, so only these shares remain. We keep to the code,
//! whose numbers are the published ones.
//!
//! With `two_view = true` the above is on the weak view, and `kd` gains `KL` on the strong view at the first three
//! temperatures and once more on the *weak* view at the others (apparently a slip in the code, kept). The strong view's
//! `cc` and `bc`, which the code computes and drops, are left out.
//!
//! Defaults are the code's for CIFAR: temperatures 4, 3, 5, 2, 6, weight 0.9 for each part beside `ce` 0.1 (with
//! `strong = true` in the two-view form). `standardize` (LSKD's setting: first temperature 2, weight 9) touches `kd` alone.

use candle_core::{DType, Tensor};

use crate::allowed::{FLAG, allowed};
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::ops::Gram;
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mlkd",
    title: "Multi-level Logit Distillation",
    paper: "CVPR 2023, Jin et al. (no arXiv version)",
    components: &[
        ComponentSpec::new("kd", "KL of each sample at several temperatures").weight(0.9),
        ComponentSpec::new("cc", "Gram matrices of classes")
            .weight(0.9)
            .whole_batch("classes are compared over the whole batch"),
        ComponentSpec::new("bc", "Gram matrices of samples")
            .weight(0.9)
            .whole_batch("every sample is compared with every other"),
    ],
    options: loss::rows::<MlkdSpec>,
    build: loss::build::<MlkdSpec>,
};

spec! {
    /// Options of [`mlkd`].
    MlkdSpec of "mlkd" {
        /// summed over; authors' code, CIFAR (ImageNet: the first is 1)
        temperatures: Vec<f64> = vec![4.0, 3.0, 5.0, 2.0, 6.0],
            allowed("a list of numbers above 0", |list: &Vec<f64>| !list.is_empty() && list.iter().all(|x| x.is_finite() && *x > 0.0));
        /// the authors' own form, on a weak and a strong view; false is the RLD authors' fair one-view form
        two_view: bool = false, FLAG;
        /// LSKD (arXiv:2403.01427): in `kd`, both networks' rows are brought to mean 0 and standard deviation 1 first
        standardize: bool = false, FLAG;
    }
}

/// How many of the temperatures the code applies to the strong view.
const ON_STRONG_VIEW: usize = 3;

/// What [`mlkd`] returns, unweighted.
#[derive(Clone, Debug)]
pub struct MlkdParts {
    /// (B,): KL at all temperatures; the loss is their mean.
    pub kd: Tensor,
    /// A scalar: which classes go together.
    pub cc: Tensor,
    /// A scalar: which samples go together.
    pub bc: Tensor,
}

/// Multi-level logit distillation on one view, or on two where `strong` is given: student's and teacher's logits of the
/// strong views.
///
/// # Shapes
/// All (B, C), raw logits of one type.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn mlkd(
    student: &Tensor,
    teacher: &Tensor,
    strong: Option<(&Tensor, &Tensor)>,
    spec: &MlkdSpec,
) -> Result<MlkdParts, LossError> {
    spec.check("")?;
    let teacher = teacher.detach();
    // In f64: near certainty f32 rounds different confidences to equal ones, and moves the median.
    let q = ops::softmax(&teacher.to_dtype(DType::F64)?)?;
    let dtype = student.dtype();
    let share_of_samples = share_below_median(&q.max(1)?)?.to_dtype(dtype)?;
    let share_of_classes = share_below_median(&ops::turned(&q)?.sum(1)?)?.to_dtype(dtype)?;

    let pair = ops::standardize_if(spec.standardize, student, &teacher)?;
    let mut kd = summed_kl(&pair, &spec.temperatures)?.broadcast_mul(&share_of_samples)?;
    if let Some((strong, strong_teacher)) = strong {
        let on_strong = ops::standardize_if(spec.standardize, strong, strong_teacher)?;
        let n_strong = ON_STRONG_VIEW.min(spec.temperatures.len());
        let (first, last) = spec.temperatures.split_at(n_strong);
        kd = (kd + summed_kl(&on_strong, first)?)?;
        if !last.is_empty() {
            kd = (kd + summed_kl(&pair, last)?)?;
        }
    }
    let (cc, bc) = relations(student, &teacher, &spec.temperatures)?;
    Ok(MlkdParts {
        kd,
        cc: (cc * share_of_classes)?,
        bc: (bc * share_of_samples)?,
    })
}

/// `T^2 KL` summed over temperatures, (B,).
fn summed_kl(
    (student, teacher): &(Tensor, Tensor),
    temperatures: &[f64],
) -> candle_core::Result<Tensor> {
    let (s, t) = (
        at_each(student, temperatures)?,
        at_each(teacher, temperatures)?,
    );
    let each = ops::divergence(&t, &s)?;
    let squares: Vec<f64> = temperatures.iter().map(|t| t * t).collect();
    let squares = Tensor::new(squares, s.device())?.to_dtype(s.dtype())?;
    squares.unsqueeze(0)?.matmul(&each)?.squeeze(0)
}

/// `z / T` for each temperature: (B, C) in, (temperatures, B, C) out, so that all of them share their operations.
fn at_each(z: &Tensor, temperatures: &[f64]) -> candle_core::Result<Tensor> {
    let scaled = temperatures.iter().map(|temperature| z / *temperature);
    Tensor::stack(&scaled.collect::<candle_core::Result<Vec<_>>>()?, 0)
}

/// `cc` and `bc` without their masks: scalars.
fn relations(
    student: &Tensor,
    teacher: &Tensor,
    temperatures: &[f64],
) -> candle_core::Result<(Tensor, Tensor)> {
    let (n_rows, n_cols) = student.dims2()?;
    let p = ops::softmax(&at_each(student, temperatures)?)?;
    let q = ops::softmax(&at_each(teacher, temperatures)?)?;
    Ok((
        (ops::gram_distance(&p, &q, Gram::OfColumns)? / n_cols as f64)?,
        (ops::gram_distance(&p, &q, Gram::OfRows)? / n_rows as f64)?,
    ))
}

/// The share of `values`, (n,), up to their median, which lies halfway between the middle two of an even number: a
/// scalar.
fn share_below_median(values: &Tensor) -> candle_core::Result<Tensor> {
    let n = values.dim(0)?;
    let at_or_below = ops::count_below(values)?;
    // The smallest value that at least `rank` values do not exceed.
    let of_rank = |rank: usize| {
        let is_lower = at_or_below.lt(rank as f64)?.to_dtype(DType::F64)?;
        (values + (is_lower * f64::MAX.sqrt())?)?.min(0)
    };
    let median = ((of_rank(n.div_ceil(2))? + of_rank(n / 2 + 1)?)? / 2.0)?;
    let below = values.broadcast_le(&median)?.to_dtype(DType::F64)?;
    below.mean_all()
}

impl LogitLoss for MlkdSpec {
    fn needs(&self) -> Needs {
        Needs {
            strong_view: self.two_view,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let strong = match self.two_view {
            true => Some(batch.strong("mlkd")?),
            false => None,
        };
        let parts = mlkd(batch.student(), batch.teacher("mlkd")?, strong, self)?;
        let parts = [parts.kd, parts.cc, parts.bc];
        parts.into_iter().map(Component::new).collect()
    }
}
