//! Multi-perspective contrastive logit distillation.
//!
//! Wang and Zhou, "Multi-perspective Contrastive Logit Distillation", arXiv:2411.10693.
//!
//! Three contrastive losses on the logits themselves take the place of KL. With student rows `a_i`, teacher rows
//! `b_j` (normalised as `normalize` says) and `M_ij = <a_i, b_j> / temperature`, (B, B):
//!
//! | part | reading | loss of anchor i, averaged over B |
//! |---|---|---|
//! | `instance` | `icld` | `-log(e^M_ii / sum_j e^M_ij)`: its own teacher row against those of the other samples |
//! | | `icld_masked` | the same, samples of the same class left out of the sum |
//! | `sample` | `scld_teacher_anchor` | `-log(e^M_ii / sum_j e^M_ji)`: the teacher's row picks among the student's |
//! | | `scld_within` | `-log softmax_c(a_ic b_ic / temperature)[label]`: one sample, its classes against each other |
//! | `category` | `ccld_label_out` | `-mean over P_i of log(e^M_ij / sum_k e^M_ik)`, `P_i` = samples of i's class, i included |
//! | | `ccld_label_in` | `-log(sum over P_i of e^M_ij / sum_k e^M_ik)` |
//! | | `ccld_column` | classes as batch vectors `u_c`, `v_c`: `-log(e^N_cc / sum_d e^N_cd)`, `N_cd = <u_c, v_d> / temperature`, averaged over C |
//!
//! `bank = K` adds K teacher rows from the whole cache as negatives to `instance` and to `ccld_label_*`; rows of the
//! anchor's class are left out of `icld_masked` and of `ccld_label_*`, where they are not negatives.
//!
//! **What is certain.** No equation, temperature or weight of the paper was at hand: the parts are named readings of
//! its description (instance, sample and category level, a target mask, one to N, a warm-up of the category part, no
//! classification loss), and the defaults are the configuration that beat KD in a first measurement: unit rows,
//! temperature 0.3, `icld_masked + scld_teacher_anchor + ccld_label_in`, weights 1, category warm-up over the first
//! third of the run, no `ce`. Neither the temperature nor any part carries a factor T or T^2.
//!
//! On a batch of one, `instance` and `sample` are 0 with gradient 0. Logits are absolute: a shift changes every loss.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::allowed::{ABOVE_0, ABOVE_0_IF_ANY, COUNT, FLAG_IF_ANY, word};
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, Setup, Warmup,
};
use crate::spec::{Spec, spec};
use crate::{LossError, Options, PreparedBatch, loss, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mcld",
    title: "Multi-perspective Contrastive Logit Distillation",
    paper: "arXiv:2411.10693",
    components: &[
        ComponentSpec::new(
            "instance",
            "a sample's student row against the teacher's rows of all samples",
        ),
        ComponentSpec::new(
            "sample",
            "a sample's teacher row against the student's rows (or its classes against each other)",
        ),
        ComponentSpec::new(
            "category",
            "a sample's student row against the teacher's rows of its class",
        )
        .warmup(Warmup::Share(1.0 / 3.0)),
    ],
    options: loss::rows::<McldSpec>,
    build,
};

spec! {
    /// Options of [`mcld`].
    McldSpec of "mcld" {
        /// divides similarities, in all parts that name none; chosen by measurement
        temperature: f64 = 0.3, ABOVE_0;
        /// `l2` (unit rows), `none` (raw), `softmax` (unit rows of probabilities), `teacher` (student raw, teacher unit)
        normalize: Normalize = Normalize::L2, word();
        /// of the probabilities of `normalize = "softmax"`; as in kd
        softmax_temperature: f64 = 4.0, ABOVE_0;
        /// whether samples of the anchor's class are no negatives of the instance part; left out: as `instance.reading` says, else they are none
        target_mask: Option<bool> = None, FLAG_IF_ANY;
        /// further teacher rows from the whole cache per step, as negatives
        bank: usize = 0, COUNT;
        in /// The instance part's own.
        instance: InstanceSpec;
        in /// The sample part's own.
        sample: SampleSpec;
        in /// The category part's own.
        category: CategorySpec;
    }
}

spec! {
    /// Options of the instance part of [`mcld`].
    InstanceSpec of "mcld" {
        /// `icld_masked` with the target mask, `icld` without; left out: as `target_mask` says
        reading: Option<InstanceReading> = None, word();
        /// left out: `temperature`
        temperature: Option<f64> = None, ABOVE_0_IF_ANY;
    }
}

spec! {
    /// Options of the sample part of [`mcld`].
    SampleSpec of "mcld" {
        /// `scld_teacher_anchor` or `scld_within`
        reading: SampleReading = SampleReading::ScldTeacherAnchor, word();
        /// left out: `temperature`
        temperature: Option<f64> = None, ABOVE_0_IF_ANY;
    }
}

spec! {
    /// Options of the category part of [`mcld`].
    CategorySpec of "mcld" {
        /// `ccld_label_in`, `ccld_label_out` or `ccld_column` (no loss per sample)
        reading: CategoryReading = CategoryReading::CcldLabelIn, word();
        /// left out: `temperature`
        temperature: Option<f64> = None, ABOVE_0_IF_ANY;
    }
}

/// Which vectors of the two networks [`mcld`] compares, and at what length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Both networks' vectors have unit length.
    L2,
    /// Raw logits: temperatures must be of the order of their squared length.
    None,
    /// Unit length after a softmax over the classes.
    Softmax,
    /// The teacher's vectors have unit length, the student's are raw.
    Teacher,
}

/// Readings of the instance part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceReading {
    /// All other samples are negatives.
    Icld,
    /// Those of the anchor's class are not.
    IcldMasked,
}

/// Readings of the sample part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleReading {
    /// The teacher's row picks among the student's.
    ScldTeacherAnchor,
    /// A sample's classes against each other.
    ScldWithin,
}

/// Readings of the category part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoryReading {
    /// One loss of all positives together.
    CcldLabelIn,
    /// The mean over positives of a loss each.
    CcldLabelOut,
    /// Classes as vectors over the batch.
    CcldColumn,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let spec = McldSpec::read(options, "")?;
    spec.is_masked()?;
    Ok(Box::new(spec))
}

impl McldSpec {
    /// Whether the target mask is on, as either of two options may say.
    fn is_masked(&self) -> Result<bool, LossError> {
        let (word, opposite, masked) = match (self.instance.reading, self.target_mask) {
            (None, mask) => return Ok(mask.unwrap_or(true)),
            (Some(InstanceReading::Icld), Some(true)) => ("icld", "false", false),
            (Some(InstanceReading::IcldMasked), Some(false)) => ("icld_masked", "true", true),
            (Some(reading), _) => return Ok(reading == InstanceReading::IcldMasked),
        };
        Err(LossError::BadOption {
            loss: "mcld".to_owned(),
            key: "target_mask".to_owned(),
            expected: format!("{opposite} or left out with `instance.reading = \"{word}\"`"),
            found: (!masked).to_string(),
        })
    }
}

/// What [`mcld`] returns, unweighted: losses of the samples, (B,), whose mean is the loss; `category` is a scalar by its
/// reading `ccld_column`.
#[derive(Clone, Debug)]
pub struct McldParts {
    /// A sample's student row against the teacher's rows of all samples.
    pub instance: Tensor,
    /// A sample's teacher row against the student's rows (or its classes against each other).
    pub sample: Tensor,
    /// A sample's student row against the teacher's rows of its class.
    pub category: Tensor,
}

/// Multi-perspective contrastive logit distillation.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type; `labels` (B,), u32, below C. For `spec.bank` rows more see
/// [`mcld_with_bank`].
///
/// # Errors
/// An option out of range, two that contradict each other, or shapes that do not fit.
///
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// use logitcask_losses::{McldSpec, mcld};
///
/// let student = Var::new(&[[1f32, 2., 3.], [2., 0., 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[3f32, 0., 1.], [0., 2., 0.]], &Device::Cpu)?;
/// let labels = Tensor::new(&[0u32, 1], &Device::Cpu)?;
/// let parts = mcld(&student, &teacher, &labels, &McldSpec::default())?;
/// let total = (parts.instance.mean_all()? + parts.sample.mean_all()?)?;
/// assert!(total.backward()?.get(&student).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn mcld(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    spec: &McldSpec,
) -> Result<McldParts, LossError> {
    contrast(student, teacher, labels, None, spec)
}

/// [`mcld`] with K further teacher rows as negatives of `instance` and of `ccld_label_*`.
///
/// # Shapes
/// As [`mcld`]; `bank` (K, C) and its labels (K,), u32.
///
/// # Errors
/// As [`mcld`].
pub fn mcld_with_bank(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    bank: (&Tensor, &Tensor),
    spec: &McldSpec,
) -> Result<McldParts, LossError> {
    contrast(student, teacher, labels, Some(bank), spec)
}

fn contrast(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    bank: Option<(&Tensor, &Tensor)>,
    spec: &McldSpec,
) -> Result<McldParts, LossError> {
    spec.check("")?;
    let is_masked = spec.is_masked()?;
    let teacher = teacher.detach();
    let (candidates, candidate_labels) = with_bank(&teacher, labels, bank)?;
    let a = vectors(student, spec, true)?;
    let b = vectors(&candidates, spec, false)?;
    let similarity = Similarity::new(a.matmul(&b.t()?)?, labels, &candidate_labels)?;
    let of_part = |own: Option<f64>| own.unwrap_or(spec.temperature);
    let tau = of_part(spec.sample.temperature);
    let sample = match spec.sample.reading {
        SampleReading::ScldTeacherAnchor => similarity.teacher_anchor(tau)?,
        SampleReading::ScldWithin => {
            let own = b.narrow(0, 0, a.dim(0)?)?;
            let log_p = ops::log_softmax(&((&a * own)? / tau)?)?;
            ops::pick(&log_p, labels)?.squeeze(1)?.neg()?
        }
    };
    let tau = of_part(spec.category.temperature);
    let category = match spec.category.reading {
        CategoryReading::CcldLabelIn => similarity.label_in(tau)?,
        CategoryReading::CcldLabelOut => similarity.label_out(tau)?,
        CategoryReading::CcldColumn => columns(student, &teacher, spec, tau)?,
    };
    Ok(McldParts {
        instance: similarity.instance(of_part(spec.instance.temperature), is_masked)?,
        sample,
        category,
    })
}

/// What each sample is compared with: the batch's teacher rows, (B, C) or with the bank's behind them (B + K, C), and
/// their labels.
fn with_bank(
    teacher: &Tensor,
    labels: &Tensor,
    bank: Option<(&Tensor, &Tensor)>,
) -> candle_core::Result<(Tensor, Tensor)> {
    Ok(match bank {
        None => (teacher.clone(), labels.clone()),
        Some((rows, of_rows)) => (
            Tensor::cat(&[teacher, &rows.detach()], 0)?,
            Tensor::cat(&[labels, of_rows], 0)?,
        ),
    })
}

/// Rows as they are compared.
fn vectors(rows: &Tensor, spec: &McldSpec, of_student: bool) -> candle_core::Result<Tensor> {
    let rows = probabilities_if(rows, spec)?;
    lengths_as(&rows, spec, of_student)
}

fn probabilities_if(rows: &Tensor, spec: &McldSpec) -> candle_core::Result<Tensor> {
    match spec.normalize {
        Normalize::Softmax => ops::softmax(&(rows / spec.softmax_temperature)?),
        _ => Ok(rows.clone()),
    }
}

fn lengths_as(z: &Tensor, spec: &McldSpec, of_student: bool) -> candle_core::Result<Tensor> {
    match (spec.normalize, of_student) {
        (Normalize::None, _) | (Normalize::Teacher, true) => Ok(z.clone()),
        _ => ops::unit(z),
    }
}

/// Inner products of the batch's student rows with its teacher rows, and with those of the bank behind them.
struct Similarity {
    /// (B, B + K).
    products: Tensor,
    /// (B, B + K), 1 where both are of one class, in the products' type.
    same: Tensor,
    /// (B, B + K), 1 where a candidate is the anchor's own row.
    own: Tensor,
    /// (1, B + K), 1 where a candidate is of the batch.
    of_batch: Tensor,
}

impl Similarity {
    fn new(
        products: Tensor,
        labels: &Tensor,
        candidate_labels: &Tensor,
    ) -> candle_core::Result<Self> {
        let (n, n_candidates) = products.dims2()?;
        let (dtype, device) = (products.dtype(), products.device());
        let same = labels
            .unsqueeze(1)?
            .broadcast_eq(&candidate_labels.unsqueeze(0)?)?;
        let own = Tensor::eye(n, dtype, device)?.pad_with_zeros(1, 0, n_candidates - n)?;
        let of_batch = Tensor::ones((1, n), dtype, device)?;
        Ok(Self {
            products,
            same: same.to_dtype(dtype)?,
            own,
            of_batch: of_batch.pad_with_zeros(1, 0, n_candidates - n)?,
        })
    }

    /// `log sum exp(products / tau)` over the candidates that `removed` (1 or 0) leaves, less the own product.
    fn instance(&self, tau: f64, is_masked: bool) -> candle_core::Result<Tensor> {
        let z = (&self.products / tau)?;
        let own = self.own_entries(&z)?;
        let z = match is_masked {
            true => (z + ((&self.same - &self.own)? * ops::REMOVED)?)?,
            false => z,
        };
        ops::log_sum_exp(&z)?.squeeze(1)? - own
    }

    fn teacher_anchor(&self, tau: f64) -> candle_core::Result<Tensor> {
        let z = (self.products.narrow(1, 0, self.products.dim(0)?)? / tau)?;
        ops::log_sum_exp(&ops::turned(&z)?)?.squeeze(1)? - self.own_entries(&z)?
    }

    /// Positives together against all candidates but bank rows of the anchor's class, which are no negatives.
    fn label_in(&self, tau: f64) -> candle_core::Result<Tensor> {
        // In f64: a small difference of two sums that hold mostly the same terms.
        let z = self
            .without_positives_of_the_bank(tau)?
            .to_dtype(DType::F64)?;
        let negatives = (1.0 - self.positives()?)?.to_dtype(DType::F64)?;
        let positives = (&z + (negatives * ops::REMOVED)?)?;
        let losses = (ops::log_sum_exp(&z)? - ops::log_sum_exp(&positives)?)?;
        losses.squeeze(1)?.to_dtype(self.products.dtype())
    }

    fn label_out(&self, tau: f64) -> candle_core::Result<Tensor> {
        let positives = self.positives()?;
        let shares = positives.broadcast_div(&positives.sum_keepdim(1)?)?;
        let mean = (shares * (&self.products / tau)?)?.sum(1)?;
        let z = self.without_positives_of_the_bank(tau)?;
        ops::log_sum_exp(&z)?.squeeze(1)? - mean
    }

    fn positives(&self) -> candle_core::Result<Tensor> {
        self.same.broadcast_mul(&self.of_batch)
    }

    fn without_positives_of_the_bank(&self, tau: f64) -> candle_core::Result<Tensor> {
        let removed = ((&self.same - self.positives()?)? * ops::REMOVED)?;
        (&self.products / tau)? + removed
    }

    /// (B,): what stands in row i and column i, each sample's product with itself.
    fn own_entries(&self, z: &Tensor) -> candle_core::Result<Tensor> {
        let n = z.dim(0)? as u32;
        ops::pick(z, &Tensor::arange(0, n, z.device())?)?.squeeze(1)
    }
}

/// `ccld_column`: every class of the student picks its own among the teacher's classes; a scalar.
fn columns(
    student: &Tensor,
    teacher: &Tensor,
    spec: &McldSpec,
    tau: f64,
) -> candle_core::Result<Tensor> {
    let columns = |z: &Tensor| ops::turned(&probabilities_if(z, spec)?);
    let u = lengths_as(&columns(student)?, spec, true)?;
    let v = lengths_as(&columns(teacher)?, spec, false)?;
    let log_p = ops::log_softmax(&(u.matmul(&v.t()?)? / tau)?)?;
    let n_classes = log_p.dim(0)? as u32;
    let own = Tensor::arange(0, n_classes, log_p.device())?;
    ops::pick(&log_p, &own)?.mean_all()?.neg()
}

impl LogitLoss for McldSpec {
    fn needs(&self) -> Needs {
        Needs {
            // Unit rows are as little invariant to shifts as raw ones; probabilities are invariant.
            absolute_logits: self.normalize != Normalize::Softmax,
            labels: LabelNeed::Single,
            bank: self.bank,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("mcld")?);
        let labels = batch.single_labels("mcld")?;
        let parts = match self.bank {
            0 => mcld(student, teacher, labels, self)?,
            wanted => {
                let (rows, of_rows) = batch.bank("mcld", wanted)?;
                mcld_with_bank(student, teacher, labels, (&rows, &of_rows), self)?
            }
        };
        let parts = [parts.instance, parts.sample, parts.category];
        parts.into_iter().map(Component::new).collect()
    }
}
