//! Is the teacher as good as the recipe says? Asked before anything is written, so that a wrong guess at its preprocessing
//! leaves nothing behind.

use std::sync::atomic::Ordering;

use logitcask_cache::LogitCache;
use logitcask_dataset::{Preprocess, Role};
use logitcask_teacher::{
    Accuracy, ENOUGH, Pixels, Warning, explain, gate, is_chance, measure_accuracy, spread,
};

use super::{Stage, stopped};
use crate::event::Event;
use crate::failure::Outcome;
use crate::want::CacheWant;

/// Labelled images that a bar is held against; enough to tell 97 % from 98 %.
const JUDGED_BY: usize = 1000;

impl Stage<'_> {
    /// Asks the teacher about labelled images before the long work. Evaluation images are captured anyway, and tell more
    /// then; they are asked here only where a bar may forbid that, or where this part of the work sees few of them.
    pub(super) fn gate_before(&mut self, want: &CacheWant, pixels: Pixels) -> Outcome {
        let has_bar = self.spec.min_accuracy.is_some();
        match want.split.role {
            Role::Eval if has_bar || !self.how.part.is_whole() => {
                self.measure(pixels, JUDGED_BY, "evaluation images")
            }
            Role::Train if self.experiment.eval.is_none() => {
                let clean = self.experiment.train_in_clean_view()?;
                let pixels = Pixels {
                    dataset: &clean.dataset,
                    family: &clean.family,
                    ..pixels
                };
                // Without a bar so many that the look costs little beside the capture, but enough to see a guess by.
                let images = want.split.dataset.len() * want.split.n_views as usize;
                let few = (images / 20).clamp(ENOUGH, JUDGED_BY);
                self.measure(
                    pixels,
                    if has_bar { JUDGED_BY } else { few },
                    "training images",
                )
            }
            _ => Ok(()),
        }
    }

    /// What a whole evaluation split says. A cache of an inaccurate teacher may have been made on purpose; a recipe that
    /// sets a bar is told all the same, and what else the teacher may want to be shown.
    pub(super) fn gate_by_eval(&mut self, want: &CacheWant, cache: &LogitCache) -> Outcome {
        let (Some(top1), Role::Eval) = (cache.accuracy(), want.split.role) else {
            return Ok(());
        };
        let n_samples = want.split.dataset.len() - cache.null_samples().len();
        let accuracy = Accuracy {
            n_samples,
            correct: (top1 * n_samples as f64).round() as usize,
            correct_top5: 0,
        };
        let is_fine = match self.spec.min_accuracy {
            Some(wanted) => top1 >= wanted,
            None => !is_chance(&accuracy, cache.n_classes()),
        };
        if is_fine {
            return Ok(());
        }
        let preprocess = Preprocess::new(&self.spec.preprocess)?;
        let pixels = Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        };
        self.teacher()?;
        self.judge(pixels, &accuracy)
    }

    fn measure(&mut self, pixels: Pixels, n_samples: usize, what: &str) -> Outcome {
        let samples = spread(&pixels.dataset.selected(), n_samples);
        let (stop, decoders) = (self.how.stop, self.how.machine.threads);
        let teacher = self.loaded_teacher()?;
        let accuracy = measure_accuracy(teacher, pixels, &samples, decoders, stop)?;
        // Asked to stop, it has looked at fewer: too few to judge by.
        if stop.load(Ordering::Relaxed) {
            return Err(stopped(0));
        }
        if accuracy.n_samples == 0 {
            return Ok(());
        }
        (self.watch)(Event::Accuracy {
            of: what,
            accuracy: &accuracy,
        });
        self.judge(pixels, &accuracy)
    }

    /// Refuses what is below the bar; without one, warns of a teacher that guesses.
    fn judge(&mut self, pixels: Pixels, accuracy: &Accuracy) -> Outcome {
        let samples = pixels.dataset.selected();
        let (stop, decoders) = (self.how.stop, self.how.machine.threads);
        let n_classes = pixels.dataset.n_classes();
        let teacher = self.loaded_teacher()?;
        gate(teacher, pixels, &samples, accuracy, decoders, stop)?;
        if teacher.spec().min_accuracy.is_none() && is_chance(accuracy, n_classes) {
            let best = explain(teacher, pixels, &samples, decoders, stop)?;
            let warning = Warning::Guesses {
                n_samples: accuracy.n_samples,
                accuracy: accuracy.top1(),
            };
            (self.watch)(Event::Warning {
                what: warning.to_string(),
                hint: best.map_or_else(|| warning.hint(), |best| best.to_string()),
            });
        }
        Ok(())
    }
}
