//! Everything a run needs, what it shows its student, and what of it cannot be trained at all.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use logitcask_dataset::{Dataset, Draw, Preprocess, ViewFamily};
use logitcask_durable::Claim;

use crate::train_spec::{check_spec, setting};
use crate::{Evaluation, StudentError, TeacherRows, TrainSpec};

/// Everything a run needs. What decides its outcome is in the recipe; the rest is where to read and where to write.
pub struct Job<'a> {
    /// The recipe's seed: it decides what is held out, the order of samples, their views, and the rows of banks.
    pub seed: u64,
    /// The recipe's `[train]`: epochs, batches, optimiser and schedule.
    pub spec: &'a TrainSpec,
    /// The training split, samples that are held out included.
    pub train: Arc<Dataset>,
    /// How the student sees it.
    pub views: Shown<'a>,
    /// Views of each sample in a batch.
    pub views_per_step: u32,
    /// `[views.strong]`: a second look at each sample of the batch.
    pub strong: Option<Shown<'a>>,
    /// How pixels become the student's input.
    pub preprocess: Preprocess,
    /// The evaluation split, if the recipe names one.
    pub evaluation: Option<Evaluation<'a>>,
    /// BLAKE3 of everything that decides the run, in hex: a checkpoint of another run is refused.
    pub run_digest: String,
    /// The run's folder; it exists.
    pub run: &'a Path,
    /// The claim on that folder, where others may want it too: checked before anything is saved.
    pub claim: Option<&'a Claim>,
    /// Threads that prepare pixels.
    pub loader_threads: usize,
    /// Where the student computes.
    pub device: Device,
}

/// A family of views with what the teacher says about them.
pub struct Shown<'a> {
    /// The views that student and teacher share.
    pub family: Arc<ViewFamily>,
    /// Captured views to draw from.
    pub n_views: u32,
    /// How they are drawn.
    pub draw: Draw,
    /// The teacher's rows; `None` where no loss asks for them.
    pub teacher: Option<&'a dyn TeacherRows>,
}

impl Job<'_> {
    /// An error if another process has taken the run over while this one was paused.
    pub(crate) fn still_ours(&self) -> Result<(), StudentError> {
        Ok(self.claim.map_or(Ok(()), Claim::check)?)
    }

    /// Refuses what cannot be trained; returns the number of steps in an epoch.
    pub(crate) fn check(&self, n_samples: usize) -> Result<usize, StudentError> {
        check_spec(self.spec)?;
        let batch_size = self.spec.batch_size;
        if batch_size > n_samples {
            return Err(StudentError::TooFewSamples {
                n_samples,
                batch_size,
            });
        }
        self.check_views()?;
        let rest = n_samples % batch_size;
        Ok(n_samples / batch_size + usize::from(rest > 1 && !self.spec.drop_last))
    }

    /// Refuses a step without views or with too many, a strong view that mixes images, and teachers of other classes.
    fn check_views(&self) -> Result<(), StudentError> {
        let n_views = self.views.n_views;
        if self.views_per_step == 0 || self.views_per_step > n_views {
            return Err(setting(
                "views.views_per_step",
                format!(
                    "is {}, expected 1 to the {n_views} views of `views.count`",
                    self.views_per_step
                ),
            ));
        }
        if let Some(strong) = self.strong.as_ref().filter(|strong| strong.family.mixes()) {
            return Err(setting(
                "views.strong.augment",
                format!(
                    "mixes images ({}), but the strong view has the labels of the weak one",
                    strong.family.identity()
                ),
            ));
        }
        let n_classes = self.train.n_classes();
        for shown in std::iter::once(&self.views).chain(&self.strong) {
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
}
