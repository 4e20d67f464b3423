//! `[train]` of a recipe, and which settings no training can have.

use serde::{Deserialize, Serialize};

use crate::{OptimizerSpec, ScheduleSpec, StudentError};

/// `[train]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Passes over the selected samples.
    pub epochs: usize,
    /// Samples per step, each in `views.views_per_step` views.
    pub batch_size: usize,
    /// The optimiser and its settings.
    pub optimizer: OptimizerSpec,
    /// How the learning rate moves; constant where absent.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Leave out the last, smaller batch of each epoch. Kept by default, as PyTorch does; a last batch of a single
    /// sample is always left out, because batch statistics of one sample say nothing.
    #[serde(default)]
    pub drop_last: bool,
    /// Batches whose mean gradient makes one step of the optimiser. Batch statistics remain those of one batch.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// The length that a step's gradient is cut down to, over all parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// The decay of a moving average of the weights, which then is what is evaluated and exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Epochs from one evaluation to the next; the last epoch ends with one anyway.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub eval_every: usize,
    /// Epochs without a better evaluation after which training ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<usize>,
    /// Training samples left out of training, drawn by the seed, on which `evaluate` fits a calibration temperature.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_out: usize,
    /// Steps between two checkpoints within an epoch. Each epoch ends with one anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<usize>,
    /// Epochs whose checkpoints are kept, beside the last and the best.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keep_checkpoints: usize,
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Refuses settings that do not go together or that no training can have.
///
/// # Errors
/// [`StudentError::Setting`] with the setting's key.
pub fn check_spec(spec: &TrainSpec) -> Result<(), StudentError> {
    if spec.batch_size < 2 {
        return Err(setting(
            "train.batch_size",
            format!(
                "is {}, but batch statistics need at least 2 samples",
                spec.batch_size
            ),
        ));
    }
    if spec.epochs == 0 {
        return Err(setting(
            "train.epochs",
            "is 0, so there is nothing to train".into(),
        ));
    }
    if spec.accumulate == 0 {
        return Err(setting(
            "train.accumulate",
            "is 0, expected a number of batches, 1 or more".into(),
        ));
    }
    if spec.checkpoint_steps == Some(0) {
        return Err(setting(
            "train.checkpoint_steps",
            "is 0, expected a number of steps, 1 or more".into(),
        ));
    }
    if spec.eval_every == 0 {
        return Err(setting(
            "train.eval_every",
            "is 0, expected a number of epochs, 1 or more".into(),
        ));
    }
    if spec.early_stop == Some(0) {
        return Err(setting(
            "train.early_stop",
            "is 0, expected a number of epochs, 1 or more".into(),
        ));
    }
    check_optimizer(&spec.optimizer)?;
    check_schedule(&spec.schedule)?;
    if let Some(norm) = spec
        .clip_norm
        .filter(|norm| !(norm.is_finite() && *norm > 0.0))
    {
        return Err(setting(
            "train.clip_norm",
            format!("is {norm}, expected a number above 0"),
        ));
    }
    match spec.ema {
        Some(decay) if !(0.0..1.0).contains(&decay) => Err(setting(
            "train.ema",
            format!("is {decay}, expected a decay from 0 to just below 1, such as 0.999"),
        )),
        _ => Ok(()),
    }
}

fn check_optimizer(spec: &OptimizerSpec) -> Result<(), StudentError> {
    let share = |name, x: f64| match (0.0..1.0).contains(&x) {
        true => Ok(()),
        false => Err(setting(
            name,
            format!("is {x}, expected a number from 0 to just below 1"),
        )),
    };
    above_zero("train.optimizer.lr", spec.lr())?;
    match *spec {
        OptimizerSpec::Sgd {
            momentum,
            weight_decay,
            ..
        } => {
            share("train.optimizer.momentum", momentum)?;
            not_negative("train.optimizer.weight_decay", weight_decay)
        }
        OptimizerSpec::Adamw {
            betas,
            eps,
            weight_decay,
            ..
        } => {
            share("train.optimizer.betas", betas[0])?;
            share("train.optimizer.betas", betas[1])?;
            above_zero("train.optimizer.eps", eps)?;
            not_negative("train.optimizer.weight_decay", weight_decay)
        }
    }
}

fn check_schedule(spec: &ScheduleSpec) -> Result<(), StudentError> {
    not_negative("train.schedule.warmup_epochs", spec.warmup_epochs())?;
    match spec {
        ScheduleSpec::Constant { .. } => Ok(()),
        ScheduleSpec::Step {
            milestones, gamma, ..
        } => {
            if !milestones.is_sorted() {
                return Err(setting(
                    "train.schedule.milestones",
                    format!("is {milestones:?}, expected ascending epochs"),
                ));
            }
            above_zero("train.schedule.gamma", *gamma)
        }
        ScheduleSpec::Cosine { final_lr, .. } => not_negative("train.schedule.final_lr", *final_lr),
    }
}

fn above_zero(name: &'static str, x: f64) -> Result<(), StudentError> {
    match x.is_finite() && x > 0.0 {
        true => Ok(()),
        false => Err(setting(name, format!("is {x}, expected a number above 0"))),
    }
}

fn not_negative(name: &'static str, x: f64) -> Result<(), StudentError> {
    match x.is_finite() && x >= 0.0 {
        true => Ok(()),
        false => Err(setting(
            name,
            format!("is {x}, expected a number, 0 or more"),
        )),
    }
}

/// An error about the setting of that name.
pub(crate) fn setting(setting: &'static str, problem: String) -> StudentError {
    StudentError::Setting { setting, problem }
}
