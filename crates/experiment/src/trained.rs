//! A student as a run left it.

use std::path::Path;

use candle_core::Device;
use logitcask_cache::LogitCache;
use logitcask_dataset::Preprocess;
use logitcask_student::{
    Checkpoint, Evaluation, Metrics, Network, StudentError, Tally, TeacherRows, fit_temperature,
    hold_out, predict,
};

use crate::event::{Watch, info};
use crate::experiment::student_preprocess;
use crate::failure::{Failure, Outcome};
use crate::own::Own;
use crate::recipe::Recipe;
use crate::run::RECIPE;
use crate::split::Split;
use crate::want::CacheWant;

/// A student with the recipe that made it.
pub struct Trained {
    /// The recipe, as the run obeyed it.
    pub recipe: Recipe,
    /// The network with its weights.
    pub network: Network,
    /// How it takes its images.
    pub preprocess: Preprocess,
    /// After how many epochs it was saved.
    pub epochs_done: usize,
}

impl Trained {
    /// Reads `checkpoint`, a file in the run's folder; overrides change the recipe beside it.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn open(run: &Path, checkpoint: &str, overrides: &[String]) -> Outcome<Self> {
        Self::open_with(run, checkpoint, overrides, Own::NONE)
    }

    /// The same of a run whose recipe names something of a program's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        run: &Path,
        checkpoint: &str,
        overrides: &[String],
        own: Own,
    ) -> Outcome<Self> {
        let path = run.join(checkpoint);
        let checkpoint = Checkpoint::read(&path)?.ok_or_else(|| {
            Failure::work(format!("there is no `{}`", path.display()))
                .with_hint("name the folder of a run: `logitcask student` prints it")
        })?;
        let recipe = Recipe::load_with(&run.join(RECIPE), overrides, own)?;
        Ok(Self {
            preprocess: student_preprocess(&recipe)?,
            network: Network::of_checkpoint(&checkpoint, own.students, &Device::Cpu)?,
            epochs_done: checkpoint.position.epochs_done,
            recipe,
        })
    }

    /// Refuses images and classes that are not those of the student.
    pub fn check_fits(&self, split: &Split) -> Outcome {
        let shape = self.network.shape();
        let (student, data) = (shape.n_classes, split.dataset.n_classes());
        if student != data {
            return Err(Failure::from(StudentError::Classes {
                left_name: "the student".into(),
                left: student,
                right_name: "the dataset".into(),
                right: data,
            }));
        }
        let image = shape.image;
        let size = split.input_size(&self.preprocess)?;
        let found = (size.channels, size.height, size.width);
        if found != (image.channels, image.height, image.width) {
            return Err(Failure::work(format!(
                "the student was trained on images of {} x {} x {} (channels, height, width), these are {} x {} x {}",
                image.channels, image.height, image.width, found.0, found.1, found.2
            ))
            .with_hint("`--set views.clean=[...]` can resize and crop them"));
        }
        Ok(())
    }

    /// How many training images the run held out.
    pub fn n_held_out(&self) -> usize {
        self.recipe.train.as_ref().map_or(0, |train| train.held_out)
    }

    /// Fitted on the training images that the run held out.
    pub fn temperature(&self, watch: &Watch<'_>) -> Outcome<f64> {
        let split = Split::open_train_in_clean_view(&self.recipe, watch)?;
        let (_, samples) = hold_out(
            self.recipe.seed,
            &split.dataset.selected(),
            self.n_held_out(),
        );
        let found = self.logits(&split, &samples, None)?;
        Ok(fit_temperature(&found.logits, &found.labels)?)
    }

    /// The student's logits for the clean views of some samples, and the teacher's if there is one.
    pub fn logits(
        &self,
        split: &Split,
        samples: &[u32],
        teacher: Option<&dyn TeacherRows>,
    ) -> Outcome<Logits> {
        let evaluation = Evaluation {
            dataset: split.dataset.clone(),
            family: split.family.clone(),
            teacher: None,
        };
        let mut found = Logits::default();
        let mut keep = |pixels: &logitcask_dataset::PixelBatch, logits: &[f32]| {
            let label = |&(sample, _): &(u32, u32)| split.dataset.labels()[sample as usize];
            found.labels.extend(pixels.requests.iter().map(label));
            found.logits.extend_from_slice(logits);
            if let Some(teacher) = teacher {
                let mut rows = vec![0.0; logits.len()];
                teacher.rows(pixels, &mut rows, &mut vec![0; pixels.n])?;
                found.teacher.get_or_insert_default().extend(rows);
            }
            Ok(())
        };
        let device = Device::Cpu;
        predict(
            &self.network,
            &evaluation,
            samples,
            &self.preprocess,
            1,
            &device,
            &mut keep,
        )?;
        Ok(found)
    }
}

/// Rows of student and teacher, (B, C) each, and labels (B).
#[derive(Default)]
pub struct Logits {
    /// The student's, one row after the other.
    pub logits: Vec<f32>,
    /// One a row, as the dataset has them.
    pub labels: Vec<u32>,
    /// The teacher's, likewise, where there is one.
    pub teacher: Option<Vec<f32>>,
}

impl Logits {
    /// Figures at a temperature: only the student's logits are divided, the teacher is compared as it is.
    pub fn metrics(&self, temperature: f64) -> Metrics {
        let divided = |z: &f32| (f64::from(*z) / temperature) as f32;
        let divided: Vec<f32> = self.logits.iter().map(divided).collect();
        let mut tally = Tally::default();
        tally.add(&divided, &self.labels, self.teacher.as_deref());
        tally.metrics()
    }
}

/// Each teacher's cache of the evaluation split, where all of them were made. Without them there is no agreement, and that
/// is said.
///
/// # Errors
/// None but of a split that cannot be read.
pub fn eval_caches(
    recipe: &Recipe,
    split: &Split,
    cache_dir: &Path,
    run: &Path,
    watch: &Watch<'_>,
) -> Outcome<Vec<LogitCache>> {
    let no_agreement = |failure: Failure| {
        info(watch, format!("no agreement with the teacher: {failure}"));
        Ok(Vec::new())
    };
    let recipe = match recipe.clone().with_known_teachers(cache_dir, watch) {
        Ok(recipe) => recipe,
        Err(failure) => return no_agreement(failure),
    };
    let mut caches = Vec::new();
    for teacher in &recipe.teacher {
        let opened = CacheWant::of_split(teacher, split)
            .and_then(|want| want.open(cache_dir, &run.join(RECIPE), watch));
        match opened {
            Ok(cache) => caches.push(cache),
            Err(failure) => return no_agreement(failure),
        }
    }
    Ok(caches)
}
