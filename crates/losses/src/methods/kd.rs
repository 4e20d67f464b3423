//! Knowledge distillation.
//!
//! Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
//!
//! `kd = T^2 * mean over B of KL(softmax(t/T) || softmax(s/T))`
//!
//! As the authors of mdistiller compute it (`distillers/KD.py`), at their T 4 for CIFAR-100; they weigh it 0.9 beside 0.1
//! of `ce`, and for ImageNet take T 1 and weights 0.5. With `standardize = true` this is LSKD
//! (arXiv:2403.01427), whose own setting is T 2 and weight 9. Labels are ignored.
//!
//! From a top-k cache the divergence runs over k + 1 outcomes: the teacher's k largest classes, and all others as one.
//! Their shares follow exactly from the listed logits and the stored log-sum-exp of the others; the cache keeps that at
//! three temperatures, and another one is refused. By the log-sum inequality it is never more than the loss over all
//! classes. `standardize` divides each row by a number of its own, for which no log-sum-exp is kept: it wants all classes.

use candle_core::{DType, Tensor};

use crate::allowed::{ABOVE_0, FLAG};
use crate::error::Need;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs, TeacherNeed};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch, TopKLogits, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "kd",
    title: "Distilling the Knowledge in a Neural Network",
    paper: "arXiv:1503.02531",
    components: &[ComponentSpec::new(
        "kd",
        "KL(teacher || student) over all classes",
    )],
    options: loss::rows::<KdSpec>,
    build: loss::build::<KdSpec>,
};

spec! {
    /// Options of [`kd`].
    KdSpec of "kd" {
        /// T: both networks' logits are divided by it; mdistiller, CIFAR-100
        temperature: f64 = 4.0, ABOVE_0;
        /// LSKD (arXiv:2403.01427): both networks' rows are brought to mean 0 and standard deviation 1 first
        standardize: bool = false, FLAG;
    }
}

/// `T^2 KL(softmax(teacher/T) || softmax(student/T))` of each sample, in nats times T^2.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Out: (B,), each 0 or more; the loss is their mean.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use logitcask_losses::{KdSpec, kd};
///
/// let student = Tensor::new(&[[1f32, 2., 3.], [0., 0., 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[3f32, 0., 1.], [0., 0., 0.]], &Device::Cpu)?;
/// let losses: Vec<f32> = kd(&student, &teacher, &KdSpec { temperature: 2.0, ..KdSpec::default() })?.to_vec1()?;
/// assert!(losses[0] > 0.0 && losses[1] == 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn kd(student: &Tensor, teacher: &Tensor, spec: &KdSpec) -> Result<Tensor, LossError> {
    spec.check("")?;
    let (student, teacher) = ops::standardize_if(spec.standardize, student, teacher)?;
    let divergence = ops::divergence(
        &(teacher / spec.temperature)?,
        &(student / spec.temperature)?,
    )?;
    Ok((divergence * (spec.temperature * spec.temperature))?)
}

/// KD over k + 1 outcomes: the listed classes, and all others as one.
///
/// # Shapes
/// `student` (B, C); the teacher's rows on the host, k below C. Out: (B,), as [`kd`] and never above it.
///
/// # Errors
/// [`LossError::Unserved`] where the rest is not kept at `temperature`, or rows are to be standardised, which the k
/// largest do not tell.
pub fn kd_top_k(
    student: &Tensor,
    teacher: &TopKLogits,
    spec: &KdSpec,
) -> Result<Tensor, LossError> {
    spec.check("")?;
    let at = column_of_rest(teacher, spec)?;

    let (device, n_rows) = (student.device(), student.dim(0)?);
    let matrix = |values: &[f32], width: usize| -> candle_core::Result<Tensor> {
        let values = Tensor::from_slice(values, (n_rows, width), &candle_core::Device::Cpu)?;
        // On the host first: a GPU may not have the types in between.
        values
            .to_dtype(DType::F64)?
            .to_dtype(student.dtype())?
            .to_device(device)
    };
    let classes = Tensor::from_slice(&teacher.classes, (n_rows, teacher.k), device)?;
    let rest = matrix(&teacher.rest, teacher.temperatures.len())?.narrow(1, at, 1)?;
    let listed = (matrix(&teacher.logits, teacher.k)? / spec.temperature)?;
    let of_teacher = Tensor::cat(&[listed, rest], 1)?;

    let student = (student / spec.temperature)?;
    let others = (&student + ops::removal(&student, &classes)?)?;
    let of_student = Tensor::cat(
        &[student.gather(&classes, 1)?, ops::log_sum_exp(&others)?],
        1,
    )?;
    let squared = spec.temperature * spec.temperature;
    Ok((ops::divergence(&of_teacher, &of_student)? * squared)?)
}

/// Which of the kept temperatures is the loss's own; refuses what the k largest classes do not tell.
fn column_of_rest(teacher: &TopKLogits, spec: &KdSpec) -> Result<usize, LossError> {
    let unserved = |needs, supplied| LossError::Unserved {
        loss: "kd".to_owned(),
        needs,
        supplied,
    };
    if spec.standardize {
        return Err(unserved(Need::DenseLogits, "the batch holds the top k"));
    }
    let is_ours = |kept: &f32| f64::from(*kept) == spec.temperature;
    let at = teacher.temperatures.iter().position(is_ours);
    at.ok_or_else(|| {
        let supplied = "the batch holds the rest at other temperatures";
        unserved(Need::RestAt(spec.temperature), supplied)
    })
}

impl LogitLoss for KdSpec {
    fn needs(&self) -> Needs {
        let temperature = self.temperature;
        Needs {
            teacher: match self.standardize {
                false => TeacherNeed::TopK { temperature },
                true => TeacherNeed::Dense,
            },
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let losses = match batch.top_k() {
            Some(top_k) => kd_top_k(batch.student(), top_k, self)?,
            None => kd(batch.student(), batch.teacher("kd")?, self)?,
        };
        Ok(vec![Component::new(losses)?])
    }
}
