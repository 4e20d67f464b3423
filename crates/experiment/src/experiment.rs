//! What a recipe names, opened: its datasets, in the views that teacher and student see.

use logitcask_dataset::{ImageSize, Interpolation, Pillow, Preprocess, Role, Scale, Trust};
use logitcask_teacher::TeacherSpec;

use crate::event::Watch;
use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;
use crate::split::Split;
use crate::want::{CacheWant, read_file};

/// A recipe with its datasets open.
pub struct Experiment {
    /// The recipe, overrides merged in.
    pub recipe: Recipe,
    /// The training split, in the views that the student is trained on.
    pub train: Split,
    /// The same in the views that the teacher sees: other ones only where `views.inconsistent` says so.
    pub taught: Split,
    /// The training split in the views of `[views.strong]`.
    pub strong: Option<Split>,
    /// The evaluation split in its clean view, if the recipe names one.
    pub eval: Option<Split>,
}

impl Experiment {
    /// Opens the datasets and settles the views. The first time a dataset is met its images are digested.
    ///
    /// # Errors
    /// If a dataset cannot be read or the views do not fit its images.
    pub fn open(recipe: Recipe, watch: &Watch<'_>) -> Outcome<Self> {
        Self::open_trusting(recipe, Trust::ModificationTimes, watch)
    }

    /// The same, with a say in when digests of an earlier time will do.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_trusting(recipe: Recipe, trust: Trust, watch: &Watch<'_>) -> Outcome<Self> {
        let train = Split::open(&recipe, Role::Train, trust, watch)?;
        let eval = match recipe.data.eval {
            Some(_) => Some(Split::open(&recipe, Role::Eval, trust, watch)?),
            None => None,
        };
        if let Some(eval) = eval
            .as_ref()
            .filter(|eval| eval.dataset.n_classes() != train.dataset.n_classes())
        {
            return Err(Failure::work(format!(
                "the training split has {} classes, the evaluation split {}",
                train.dataset.n_classes(),
                eval.dataset.n_classes()
            ))
            .with_hint(
                "set `data.n_classes` where labels of the last classes are absent from one of them",
            ));
        }
        let taught = match recipe.views.inconsistent {
            true => train.in_clean_view(&recipe)?,
            false => train.clone(),
        };
        let strong = match &recipe.views.strong {
            Some(views) => Some(train.in_strong_views(views, recipe.own.augmentations)?),
            None => None,
        };
        Ok(Self {
            recipe,
            train,
            taught,
            strong,
            eval,
        })
    }

    /// The caches that a teacher's logits belong into: the evaluation split's clean view first, because it also gates the
    /// long work, then the training split's views, then its strong views.
    ///
    /// # Errors
    /// If the teacher's file cannot be read or its encoding is unknown.
    pub fn wants<'a>(&'a self, teacher: &'a TeacherSpec) -> Outcome<Vec<CacheWant<'a>>> {
        let file = read_file(teacher)?;
        let splits = self.eval.iter().chain([&self.taught]).chain(&self.strong);
        splits
            .map(|split| CacheWant::new(teacher, file.as_ref(), split))
            .collect()
    }

    /// Refuses views that leave images of different sizes, for each model that is going to see them.
    ///
    /// # Errors
    /// Which views they are, and two samples.
    pub fn check_sizes(&self) -> Outcome {
        for teacher in &self.recipe.teacher {
            let preprocess = Preprocess::new(&teacher.preprocess)?;
            for split in self.eval.iter().chain([&self.taught]).chain(&self.strong) {
                split.input_size(&preprocess)?;
            }
        }
        match &self.recipe.student {
            Some(_) => self.student_size().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The size of the images that the student is shown, in training and in evaluation.
    ///
    /// # Errors
    /// As [`check_sizes`](Self::check_sizes); if training and evaluation show different ones.
    pub fn student_size(&self) -> Outcome<ImageSize> {
        let preprocess = student_preprocess(&self.recipe)?;
        let size = self.train.input_size(&preprocess)?;
        for split in self.strong.iter().chain(&self.eval) {
            let found = split.input_size(&preprocess)?;
            if found != size {
                return Err(Failure::asked(format!(
                    "`{}` shows the student {found}, `{}` {size}",
                    split.views, self.train.views
                ))
                .with_hint(format!(
                    "bring them to one size; `{}` can end with `{{ name = \"center_crop\", size = {} }}`",
                    split.views, size.height
                )));
            }
        }
        Ok(size)
    }

    /// The training split as evaluation would show it.
    ///
    /// # Errors
    /// If `views.clean` does not fit the images.
    pub fn train_in_clean_view(&self) -> Outcome<Split> {
        self.train.in_clean_view(&self.recipe)
    }
}

/// The student's normalisation: its own, or the first teacher's.
///
/// # Errors
/// If mean and standard deviation do not go together.
pub fn student_preprocess(recipe: &Recipe) -> Outcome<Preprocess> {
    let student = recipe.student.as_ref();
    let teacher = recipe.teacher.first().map(|teacher| &teacher.preprocess);
    let mut spec = teacher.cloned().unwrap_or_default();
    // The teacher's resolution is its own affair.
    spec.size = None;
    spec.interpolation = Interpolation::default();
    spec.pillow = Pillow::default();
    if let Some(mean) = student.and_then(|student| student.mean.clone()) {
        // A teacher may take bytes; numbers below 1 say that this student does not.
        if mean.iter().any(|mean| *mean != 0.0 && mean.abs() <= 1.0) {
            spec.scale = Scale::Unit;
        }
        spec.mean = mean;
    }
    if let Some(std) = student.and_then(|student| student.std.clone()) {
        spec.std = std;
    }
    Ok(Preprocess::new(&spec)?)
}
