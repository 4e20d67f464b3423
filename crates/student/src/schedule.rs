//! How the learning rate moves.

use serde::{Deserialize, Serialize};

/// `schedule = { ... }` of a recipe's `[train]`. Epochs are counted in elapsed epochs, so a milestone of 150 first
/// acts in the 151st epoch, as in mdistiller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleSpec {
    /// The same rate throughout.
    Constant {
        /// Epochs of linear warm-up from 0.
        #[serde(default)]
        warmup_epochs: f64,
    },
    /// Multiplied by `gamma` after each milestone.
    Step {
        /// Elapsed epochs after which the rate falls, ascending.
        milestones: Vec<f64>,
        /// The factor at each milestone.
        #[serde(default = "default_gamma")]
        gamma: f64,
        /// Epochs of linear warm-up from 0.
        #[serde(default)]
        warmup_epochs: f64,
    },
    /// Half a cosine from the full rate down to `final_lr`, moved at every step.
    Cosine {
        /// The rate at the very end.
        #[serde(default)]
        final_lr: f64,
        /// Epochs of linear warm-up from 0; the cosine covers the rest.
        #[serde(default)]
        warmup_epochs: f64,
    },
}

fn default_gamma() -> f64 {
    0.1
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        ScheduleSpec::Constant { warmup_epochs: 0.0 }
    }
}

impl ScheduleSpec {
    /// The rate for a step, where `elapsed` is the number of epochs trained before it (a fraction within an epoch) and
    /// `step_epochs` the length of one step in epochs. During warm-up the rate grows linearly, and the first step
    /// already takes a share of it.
    pub fn lr(&self, base_lr: f64, elapsed: f64, step_epochs: f64, total_epochs: f64) -> f64 {
        let warmup = self.warmup_epochs();
        if elapsed < warmup {
            return base_lr * ((elapsed + step_epochs) / warmup).min(1.0);
        }
        match self {
            ScheduleSpec::Constant { .. } => base_lr,
            ScheduleSpec::Step {
                milestones, gamma, ..
            } => {
                // A step's position is a sum of fractions; the tolerance keeps 150 epochs of 782 steps at 150.
                let passed = milestones.iter().filter(|&&m| elapsed >= m - 1e-9).count();
                base_lr * gamma.powi(passed as i32)
            }
            ScheduleSpec::Cosine { final_lr, .. } => {
                let share = ((elapsed - warmup) / (total_epochs - warmup).max(f64::MIN_POSITIVE))
                    .clamp(0.0, 1.0);
                final_lr + (base_lr - final_lr) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        }
    }

    pub(crate) fn warmup_epochs(&self) -> f64 {
        match self {
            ScheduleSpec::Constant { warmup_epochs }
            | ScheduleSpec::Step { warmup_epochs, .. }
            | ScheduleSpec::Cosine { warmup_epochs, .. } => *warmup_epochs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milestone_acts_in_the_epoch_after_it() {
        let schedule = ScheduleSpec::Step {
            milestones: vec![150.0, 180.0, 210.0],
            gamma: 0.1,
            warmup_epochs: 0.0,
        };
        let lr = |elapsed| schedule.lr(0.05, elapsed, 1.0 / 782.0, 240.0);
        assert_eq!(lr(149.999), 0.05);
        assert!((lr(150.0) - 0.005).abs() < 1e-12);
        assert!((lr(239.9) - 0.00005).abs() < 1e-12);
    }

    #[test]
    fn cosine_starts_full_ends_low_and_meets_its_warmup() {
        let schedule = ScheduleSpec::Cosine {
            final_lr: 0.001,
            warmup_epochs: 2.0,
        };
        let lr = |elapsed| schedule.lr(0.1, elapsed, 0.1, 12.0);
        assert!(
            (lr(0.0) - 0.005).abs() < 1e-12,
            "the first of twenty warm-up steps"
        );
        assert!((lr(1.9) - 0.1).abs() < 1e-12);
        assert!((lr(2.0) - 0.1).abs() < 1e-12);
        assert!((lr(7.0) - 0.0505).abs() < 1e-12, "half way");
        assert!((lr(12.0) - 0.001).abs() < 1e-12);
    }
}
