//! Variational information distillation, on logits.
//!
//! Ahn et al., "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835, equation 6. The
//! paper works on features through learned regressors; on logits the two networks share their axes, and the
//! regressor is the identity.
//!
//! `vid = mean over B and C of ((s - t)^2 / v_c + log v_c) / 2` with `v_c = log(1 + e^a_c) + 1e-5`
//!
//! `a` (`log_scale`, length C) is trained with the student. In the official code it never reaches the optimiser, so that v
//! stays at its initial 5 there, and the loss is a tenth of the squared error plus a constant; here it is declared
//! as a parameter, and learned.

use candle_core::{Device, Tensor, Var};

use crate::allowed::ABOVE_0;
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs, Setup};
use crate::spec::{Spec, spec};
use crate::{LossError, Options, PreparedBatch, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "vid",
    title: "Variational Information Distillation for Knowledge Transfer",
    paper: "arXiv:1904.05835",
    components: &[ComponentSpec::new(
        "vid",
        "squared difference of raw logits under a learned variance per class",
    )],
    options: loss::rows::<VidSpec>,
    build,
};

spec! {
    /// Options of [`vid`].
    VidSpec of "vid" {
        /// of every class, in squared logits, above `epsilon`; mdistiller
        initial_variance: f64 = 5.0, ABOVE_0;
        /// the least variance; mdistiller
        epsilon: f64 = 1e-5, ABOVE_0;
    }
}

impl VidSpec {
    /// Where `log_scale` starts: the a with `log(1 + e^a) + epsilon = initial_variance`.
    ///
    /// # Errors
    /// An `initial_variance` that is not above `epsilon`.
    pub fn initial_log_scale(&self) -> Result<f64, LossError> {
        self.check("")?;
        let x = self.initial_variance - self.epsilon;
        match x > 0.0 {
            // expm1 and the split keep it finite for large variances.
            true => Ok(if x > 30.0 { x } else { x.exp_m1().ln() }),
            false => Err(LossError::BadOption {
                loss: "vid".to_owned(),
                key: "initial_variance".to_owned(),
                expected: "a number above `epsilon`".to_owned(),
                found: self.initial_variance.to_string(),
            }),
        }
    }
}

/// Squared differences of raw logits under a learned variance per class, averaged over the classes of each sample.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits; `log_scale` (C,), the parameter a, which gets a gradient; all of one type.
/// Out: (B,), negative where variances are small; the loss is their mean.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn vid(
    student: &Tensor,
    teacher: &Tensor,
    log_scale: &Tensor,
    spec: &VidSpec,
) -> Result<Tensor, LossError> {
    spec.check("")?;
    // log(1 + e^a) as the log-sum-exp of a and 0: never an overflow.
    let with_0 = Tensor::stack(&[log_scale, &log_scale.zeros_like()?], 1)?;
    let variance = (ops::log_sum_exp(&with_0)? + spec.epsilon)?;
    // A product with 1 / (2 C v), so that only two (B, C) tensors are made.
    let squares = (student - teacher.detach())?.sqr()?;
    let fit = squares.matmul(&(variance.recip()? / (2.0 * student.dim(1)? as f64))?)?;
    let spread = (variance.log()?.mean_all()? / 2.0)?;
    Ok(fit.squeeze(1)?.broadcast_add(&spread)?)
}

struct Vid {
    spec: VidSpec,
    log_scale: Var,
}

fn build(options: &mut Options, setup: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let spec = VidSpec::read(options, "")?;
    let start = spec.initial_log_scale()?;
    let log_scale = Tensor::full(start, setup.n_classes, &Device::Cpu)?.to_dtype(setup.dtype)?;
    Ok(Box::new(Vid {
        spec,
        log_scale: Var::from_tensor(&log_scale.to_device(setup.device)?)?,
    }))
}

impl LogitLoss for Vid {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        vec![("log_scale".to_owned(), self.log_scale.clone())]
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let student = batch.student();
        let log_scale = self.log_scale.to_device(student.device())?;
        let log_scale = log_scale.to_dtype(student.dtype())?;
        let losses = vid(student, batch.teacher("vid")?, &log_scale, &self.spec)?;
        Ok(vec![Component::new(losses)?])
    }
}
