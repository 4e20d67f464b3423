//! The caches of a recipe's teachers, opened, and read as one teacher.

use std::iter::repeat;
use std::path::Path;

use logitcask_cache::{LogitCache, OpenOptions};
use logitcask_dataset::Role;
use logitcask_student::{Ensemble, EnsembleSpec, TeacherRows, teacher_accuracy};

use crate::event::{self, Watch};
use crate::experiment::Experiment;
use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;
use crate::want::{encoding_of, hex, teacher_seconds};

/// A cache per teacher for each of the views that are wanted; empty where there is no teacher, or no such split.
#[derive(Default)]
pub struct Teachers {
    /// Of the training split's views.
    pub train: Vec<LogitCache>,
    /// Of its strong views.
    pub strong: Vec<LogitCache>,
    /// Of the evaluation split.
    pub eval: Vec<LogitCache>,
}

/// One teacher's cache, or several that answer as one.
pub enum Rows<'a> {
    /// The cache of the only teacher.
    One(&'a LogitCache),
    /// The caches of several, combined as the recipe's ensemble says.
    Many(Ensemble<'a>),
}

impl Rows<'_> {
    /// As what a student is trained against.
    pub fn as_teacher(&self) -> &dyn TeacherRows {
        match self {
            Rows::One(cache) => *cache,
            Rows::Many(ensemble) => ensemble,
        }
    }
}

impl Teachers {
    /// Opens what the recipe's teachers said of every view that is wanted.
    ///
    /// # Errors
    /// If a cache is not there, damaged, or of other images; if several teachers are named and nothing says how they are combined.
    pub fn open(
        experiment: &Experiment,
        cache_dir: &Path,
        recipe: &Path,
        options: OpenOptions,
        watch: &Watch<'_>,
    ) -> Outcome<Self> {
        check(&experiment.recipe)?;
        check_mixing(experiment)?;
        let mut teachers = Teachers::default();
        let n_teachers = experiment.recipe.teacher.len();
        for teacher in &experiment.recipe.teacher {
            for want in experiment.wants(teacher)? {
                let cache = want.open_by(cache_dir, recipe, options, watch)?;
                let whose = match n_teachers {
                    1 => String::new(),
                    _ => format!("`{}`, ", teacher.title()),
                };
                let told = format!(
                    "{whose}{}: cache {} ({})",
                    want.split.what(),
                    &hex(&cache.id_below(want.split.n_views))[..16],
                    encoding_of(&cache)
                );
                event::info(watch, told);
                match want.split.role {
                    Role::Train if want.split.is_strong => teachers.strong.push(cache),
                    Role::Train => teachers.train.push(cache),
                    Role::Eval => teachers.eval.push(cache),
                }
            }
        }
        Ok(teachers)
    }

    /// The ids of the rows that are read, in an order that the recipe alone decides.
    pub fn ids(&self, experiment: &Experiment) -> Vec<[u8; 32]> {
        let n_strong = experiment.strong.as_ref().map_or(0, |split| split.n_views);
        let train = self.train.iter().zip(repeat(experiment.taught.n_views));
        train
            .chain(self.strong.iter().zip(repeat(n_strong)))
            .chain(self.eval.iter().zip(repeat(1)))
            .map(|(cache, n_views)| cache.id_below(n_views))
            .collect()
    }

    /// What is trained on.
    pub fn captured(&self) -> impl Iterator<Item = &LogitCache> {
        self.train.iter().chain(&self.strong)
    }

    /// What the teacher, or all of them together, are worth on the evaluation split, as a sentence; and the caches.
    pub fn described(&self, experiment: &Experiment) -> Outcome<Option<(String, String)>> {
        let recipe = &experiment.recipe;
        let titles: Vec<String> = recipe
            .teacher
            .iter()
            .map(|teacher| teacher.title())
            .collect();
        if self.train.is_empty() {
            return Ok(None);
        }
        let accuracy = match (&self.eval[..], &experiment.eval) {
            ([cache], _) if cache.accuracy().is_some() => cache.accuracy(),
            ([], _) | (_, None) => None,
            (several, Some(split)) => {
                match rows(several, &without_dropout(recipe.ensemble.as_ref()), 0)? {
                    Some(rows) => Some(teacher_accuracy(rows.as_teacher(), &split.dataset)?),
                    None => None,
                }
            }
        };
        let accuracy = accuracy.map_or(String::new(), |top1| {
            format!(", top-1 {:.2} % on the evaluation split", 100.0 * top1)
        });
        let how = match &recipe.ensemble {
            Some(spec) => format!(" combined ({})", how(spec)),
            None => String::new(),
        };
        let one = |cache: &LogitCache| {
            let n_views = experiment.taught.n_views;
            format!(
                "{} ({n_views} view{}, {})",
                hex(&cache.id_below(n_views)),
                if n_views == 1 { "" } else { "s" },
                encoding_of(cache)
            )
        };
        let caches: Vec<String> = self.train.iter().map(one).collect();
        let plural = if self.train.len() == 1 { "" } else { "s" };
        Ok(Some((
            format!("Teacher{plural}: {}{how}{accuracy}.", titles.join(" + ")),
            format!("Cache{plural}: {}.", caches.join(", ")),
        )))
    }

    /// Seconds that the teachers computed for the views that are trained on.
    pub fn seconds(&self, experiment: &Experiment) -> f64 {
        let n_strong = experiment.strong.as_ref().map_or(0, |split| split.n_views);
        let trained_on = self.train.iter().zip(repeat(experiment.taught.n_views));
        trained_on
            .chain(self.strong.iter().zip(repeat(n_strong)))
            .map(|(cache, n_views)| teacher_seconds(cache.view_files_below(n_views)))
            .sum()
    }

    /// Whether every cache that is trained on says the same of all images, or the same of all classes.
    pub fn say_nothing(&self) -> Outcome<bool> {
        let mut caches = self.captured().peekable();
        if caches.peek().is_none() {
            return Ok(false);
        }
        for cache in caches {
            if !says_nothing(cache)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What tells the caches that are trained on from others, however many of their views are read.
    pub fn keys(&self) -> String {
        let keys = self
            .captured()
            .map(|cache| hex(&cache.manifest().key.digest()));
        keys.collect::<Vec<_>>().join(" ")
    }
}

/// Looks at a few rows over all samples.
fn says_nothing(cache: &LogitCache) -> Outcome<bool> {
    const LOOKED_AT: u32 = 32;
    let Some(&view) = cache
        .views()
        .first()
        .filter(|_| cache.encoding().is_dense())
    else {
        return Ok(false);
    };
    let n_samples = cache.manifest().n_samples;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for sample in (0..n_samples).step_by(n_samples.div_ceil(LOOKED_AT).max(1) as usize) {
        let mut row = vec![0.0; cache.n_classes()];
        if cache.row_or_null(sample, view, &mut row)?.is_some() {
            rows.push(row);
        }
    }
    let same = rows.windows(2).all(|pair| pair[0] == pair[1]);
    let flat = rows.iter().all(|row| row.iter().all(|z| *z == row[0]));
    Ok(rows.len() > 1 && (same || flat))
}

/// Caches of the same views as one teacher; `None` where there is none.
pub fn rows<'a>(
    caches: &'a [LogitCache],
    spec: &Option<EnsembleSpec>,
    seed: u64,
) -> Outcome<Option<Rows<'a>>> {
    match (caches, spec) {
        ([], _) => Ok(None),
        ([cache], _) => Ok(Some(Rows::One(cache))),
        (several, Some(spec)) => {
            let members = several
                .iter()
                .map(|cache| cache as &dyn TeacherRows)
                .collect();
            Ok(Some(Rows::Many(Ensemble::new(members, spec, seed)?)))
        }
        (_, None) => Err(Failure::work(
            "several teachers and nothing that says how they are combined",
        )),
    }
}

/// In evaluation every teacher takes part.
pub fn without_dropout(spec: Option<&EnsembleSpec>) -> Option<EnsembleSpec> {
    spec.map(|spec| EnsembleSpec {
        dropout: 0.0,
        ..spec.clone()
    })
}

/// Refuses teachers that nothing combines, and a combination of none.
pub(crate) fn check(recipe: &Recipe) -> Outcome {
    match (recipe.teacher.len(), &recipe.ensemble) {
        (2.., None) => Err(Failure::asked(format!(
            "the recipe names {} teachers, and nothing says how they are combined",
            recipe.teacher.len()
        ))
        .with_hint("add `[ensemble]` with `combine = \"logits\"`, `\"probabilities\"` or `\"per_sample_best\"`")),
        (n @ 0..=1, Some(_)) => Err(Failure::asked(format!(
            "`[ensemble]` combines teachers, but the recipe names {n}"
        ))
        .with_hint("name several `[[teacher]]` sections, or leave `[ensemble]` out")),
        _ => Ok(()),
    }
}

/// Refuses to choose a teacher by a label where views have two.
pub(crate) fn check_mixing(experiment: &Experiment) -> Outcome {
    let chooses = |spec: &EnsembleSpec| spec.combine == logitcask_student::Combine::PerSampleBest;
    match experiment.recipe.ensemble.as_ref().is_some_and(chooses)
        && experiment.train.family.mixes()
    {
        true => Err(Failure::asked(
            "`per_sample_best` asks for one label per sample, but the views mix two samples",
        )
        .with_hint("combine by `logits`, or leave mixup and cutmix out")),
        false => Ok(()),
    }
}

fn how(spec: &EnsembleSpec) -> String {
    let name = match spec.combine {
        logitcask_student::Combine::Logits => "logits",
        logitcask_student::Combine::Probabilities => "probabilities",
        logitcask_student::Combine::PerSampleBest => "the best of each sample",
    };
    let weights = match spec.weights.is_empty() {
        true => String::new(),
        false => {
            let weights: Vec<String> = spec.weights.iter().map(f64::to_string).collect();
            format!(", weights {}", weights.join(" : "))
        }
    };
    let dropout = match spec.dropout == 0.0 {
        true => String::new(),
        false => format!(", dropout {}", spec.dropout),
    };
    format!("{name}{weights}{dropout}")
}
