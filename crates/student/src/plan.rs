//! Which samples an epoch shows, in which order and in which views; and what cannot be trained at all.

use std::collections::HashSet;

use logitcask_dataset::epoch_view;
use logitcask_philox::{Purpose, Stream};

use crate::train::{Job, Shown};
use crate::{OptimizerSpec, ScheduleSpec, StudentError, TrainSpec};

/// Batches of (sample, view).
pub(crate) type Plan = Vec<Vec<(u32, u32)>>;

/// The samples that training uses, and those it leaves out for a calibration temperature: `train.held_out` of the
/// selected ones, drawn by the seed alone. Both in ascending order.
pub fn hold_out(seed: u64, selected: &[u32], held_out: usize) -> (Vec<u32>, Vec<u32>) {
    let mut order = selected.to_vec();
    Stream::new(seed, Purpose::HeldOut, [0; 3]).shuffle(&mut order);
    let held_out: HashSet<u32> = order.into_iter().take(held_out).collect();
    selected
        .iter()
        .partition(|sample| !held_out.contains(sample))
}

/// The epoch's batches in each of the job's families. Seed and epoch decide the order of samples; seed, sample and
/// epoch decide the view. Batches of the strong family hold the same samples in the same places.
pub(crate) fn epoch_plan(job: &Job, samples: &[u32], epoch: usize) -> (Plan, Option<Plan>) {
    let mut order = samples.to_vec();
    Stream::new(job.seed, Purpose::Shuffle, [epoch as u64, 0, 0]).shuffle(&mut order);
    let spec = job.spec;
    let batches: Vec<&[u32]> = order
        .chunks(spec.batch_size)
        .filter(|batch| batch.len() == spec.batch_size || (batch.len() > 1 && !spec.drop_last))
        .collect();
    let of = |shown: &Shown| {
        let batch = |samples: &&[u32]| views_of(job, shown, samples, epoch);
        batches.iter().map(batch).collect()
    };
    (of(&job.views), job.strong.as_ref().map(of))
}

/// With several views per step an epoch takes several turns of the cycle, so that a batch shows a sample in different
/// views. They stand side by side: the loader then decodes the sample once.
fn views_of(job: &Job, shown: &Shown, samples: &[u32], epoch: usize) -> Vec<(u32, u32)> {
    let per_step = job.views_per_step;
    let pairs = samples.iter().flat_map(|&sample| {
        (0..per_step).map(move |turn| {
            let turn = epoch as u32 * per_step + turn;
            let view = epoch_view(job.seed, sample, turn, shown.n_views, shown.draw);
            (sample, view)
        })
    });
    pairs.collect()
}

/// Refuses what cannot be trained; returns the number of steps in an epoch.
pub(crate) fn check(job: &Job, n_samples: usize) -> Result<usize, StudentError> {
    check_spec(job.spec)?;
    let batch_size = job.spec.batch_size;
    if batch_size > n_samples {
        return Err(StudentError::TooFewSamples {
            n_samples,
            batch_size,
        });
    }
    check_views(job)?;
    let rest = n_samples % batch_size;
    Ok(n_samples / batch_size + usize::from(rest > 1 && !job.spec.drop_last))
}

/// Refuses a step without views or with too many, a strong view that mixes images, and teachers of other classes.
fn check_views(job: &Job) -> Result<(), StudentError> {
    let n_views = job.views.n_views;
    if job.views_per_step == 0 || job.views_per_step > n_views {
        return Err(setting(
            "views.views_per_step",
            format!(
                "is {}, expected 1 to the {n_views} views of `views.count`",
                job.views_per_step
            ),
        ));
    }
    if let Some(strong) = job.strong.as_ref().filter(|strong| strong.family.mixes()) {
        return Err(setting(
            "views.strong.augment",
            format!(
                "mixes images ({}), but the strong view has the labels of the weak one",
                strong.family.identity()
            ),
        ));
    }
    let n_classes = job.train.n_classes();
    for shown in std::iter::once(&job.views).chain(&job.strong) {
        if let Some(teacher) = shown
            .teacher
            .filter(|teacher| teacher.n_classes() != n_classes)
        {
            return Err(StudentError::Classes {
                left_name: "the dataset".into(),
                left: n_classes,
                right_name: "the teacher's cache".into(),
                right: teacher.n_classes(),
            });
        }
    }
    Ok(())
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

fn setting(setting: &'static str, problem: String) -> StudentError {
    StudentError::Setting { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_samples_are_the_seeds_choice_and_a_larger_choice_contains_a_smaller() {
        let selected: Vec<u32> = (10..60).collect();
        let (kept, held_out) = hold_out(1, &selected, 8);
        assert_eq!((kept.len(), held_out.len()), (42, 8));
        assert!(held_out.iter().all(|sample| !kept.contains(sample)));
        assert!(kept.is_sorted() && held_out.is_sorted());
        let (_, more) = hold_out(1, &selected, 16);
        assert!(held_out.iter().all(|sample| more.contains(sample)));
        assert_ne!(hold_out(2, &selected, 8).1, held_out);
        assert_eq!(hold_out(1, &selected, 0).0, selected);
    }
}
