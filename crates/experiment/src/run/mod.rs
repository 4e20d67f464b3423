//! Stage two: a student, trained on what the caches of its teachers hold.

mod folder;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use logitcask_cache::{Encoding, LogitCache};
use logitcask_dataset::Trust;
use logitcask_durable::ClaimError;
use logitcask_losses::{Objective, Setup, Supply};
use logitcask_student::{
    Checkpoint, CleanRows, EpochRecord, Evaluation, ImageShape, Job, ModelRow, Network, Patient,
    RunRecord, Shown, StudentError, StudentSpec, Symptom, TeacherRows, TrainSpec, diagnose,
    untrained,
};

use logitcask_teacher::TeacherSpec;

use crate::device::{describe_device, open_device};
use crate::event::{Event, Watch, info, note};
use crate::experiment::{Experiment, student_preprocess};
use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;
use crate::teachers::{Rows, Teachers, rows, without_dropout};
use crate::want::hex;
pub use folder::{LAST_WORDS, RECIPE};
use folder::{finished, last_words, prepare, run_digest, run_folder};
pub use training::Training;

/// A run that has come to its end, now or before.
pub struct Run {
    /// The folder of its records and checkpoints.
    pub folder: PathBuf,
    /// What it came to.
    pub record: RunRecord,
}

/// Trains a recipe's student. A run that was interrupted continues after its last step; one that was finished before is
/// given back as it is.
///
/// # Errors
/// If the recipe has no student, loss or training, or they do not fit each other, the data or the caches; if a cache is not
/// there; if the folder holds another run; if the loss becomes no number; if it was stopped.
pub fn train(recipe: Recipe, how: &Training<'_>, watch: &Watch<'_>) -> Outcome<Run> {
    let recipe = recipe.with_known_teachers(how.cache_dir, watch)?;
    let (student, spec) = sections(&recipe)?;
    let device = open_device(how.device, how.tf32)?;
    compute_on(how.threads)?;
    // Wrong names are refused before anything is read.
    let row = logitcask_student::find_model(&student.name, recipe.own.students)?;
    let sources = Sources::open(&recipe, how, watch)?;
    let network = sources.network(row, student, &device, watch)?;
    let taught = Taught::of(&sources)?;

    let folder = run_folder(how, &recipe)?;
    let run_digest = run_digest(&recipe, &sources.experiment, &sources.caches)?;
    let claim = prepare(&folder, &recipe, &run_digest, how, watch)?;
    if let Some(record) = finished(&folder, &run_digest)? {
        let told = format!(
            "{}: finished before; `--fresh` trains it again",
            folder.display()
        );
        info(watch, told);
        return Ok(Run { folder, record });
    }

    let described = sources.caches.described(&sources.experiment)?;
    if let Some((told, _)) = described.as_ref().filter(|_| recipe.ensemble.is_some()) {
        info(watch, told);
    }
    let clean_rows = as_teacher(&taught.train).map(CleanRows);
    let job = Job {
        seed: recipe.seed,
        spec,
        train: sources.experiment.train.dataset.clone(),
        views: sources.views(match &clean_rows {
            Some(rows) if recipe.views.inconsistent => Some(rows),
            _ => as_teacher(&taught.train),
        }),
        views_per_step: recipe.views.views_per_step,
        strong: sources.strong_views(&taught),
        preprocess: student_preprocess(&recipe)?,
        evaluation: sources.evaluation(&taught),
        run_digest: run_digest.clone(),
        run: &folder,
        claim: Some(&claim),
        loader_threads: 1,
        device,
    };
    let outcome =
        logitcask_student::train(&job, &network, &sources.objective, how.stop, &|event| {
            watch(Event::Training {
                network: &network,
                epochs: spec.epochs,
                event,
            });
        });
    watch(Event::Ended);
    if let Err(lost @ ClaimError::Lost { .. }) = claim.check() {
        // Whoever took the run over while this process was paused may have finished it.
        let record = finished(&folder, &run_digest)?.ok_or(lost)?;
        let told = format!(
            "{}: another process has finished it meanwhile",
            folder.display()
        );
        info(watch, told);
        return Ok(Run { folder, record });
    }
    if let Err(error @ StudentError::NonFinite { .. }) = &outcome {
        last_words(&folder, error)?;
    }
    let Some(mut record) = outcome? else {
        return Err(Failure::work("stopped before the last epoch")
            .with_hint("what is done is saved; the same command continues after the last step"));
    };
    for symptom in symptoms(&folder, &recipe, sources.is_constant)? {
        note(watch, format!("{symptom}\n  hint: {}", symptom.remedy()));
    }
    record.recorded = sources.provenance(described);
    let mut put = |key: &str, value: String| record.recorded.insert(key.to_owned(), value);
    put("run_digest", run_digest);
    put("device", describe_device(&job.device, how.tf32));
    record.write(&folder)?;
    Ok(Run { folder, record })
}

/// What a run reads, opened and found to fit.
struct Sources {
    experiment: Experiment,
    objective: Objective,
    caches: Teachers,
    /// Sentences for the record: what is served although it is not as it should be.
    notes: Vec<String>,
    /// Whether the teacher says the same of all images.
    is_constant: bool,
}

impl Sources {
    fn open(recipe: &Recipe, how: &Training<'_>, watch: &Watch<'_>) -> Outcome<Self> {
        let trust = match how.verify_data {
            true => Trust::Nothing,
            false => Trust::ModificationTimes,
        };
        let experiment = Experiment::open_trusting(recipe.clone(), trust, watch)?;
        let objective = objective(recipe, experiment.train.dataset.n_classes())?;
        let caches = open_caches(&experiment, how, watch)?;
        let notes = notes(&objective, &experiment, &caches, watch)?;
        let is_constant = caches.say_nothing()?;
        if is_constant {
            let symptom = Symptom::TeacherConstant;
            watch(Event::Warning {
                what: symptom.to_string(),
                hint: symptom.remedy().to_owned(),
            });
        }
        Ok(Self {
            experiment,
            objective,
            caches,
            notes,
            is_constant,
        })
    }

    /// The student with the weights that it starts from.
    fn network(
        &self,
        row: &ModelRow,
        student: &StudentSpec,
        device: &Device,
        watch: &Watch<'_>,
    ) -> Outcome<Network> {
        let size = self.experiment.student_size()?;
        let image = ImageShape {
            channels: size.channels,
            height: size.height,
            width: size.width,
        };
        let n_classes = self.experiment.train.dataset.n_classes();
        let seed = self.experiment.recipe.seed;
        let network = Network::of_row(row, image, n_classes, seed, device)?;
        if let Some(path) = &student.init_from {
            let fresh = network.init_from(path)?;
            if !fresh.is_empty() {
                let anew = fresh.join(" and ");
                let path = path.display();
                note(
                    watch,
                    format!("{anew} start anew, because `{path}` has another number of classes"),
                );
            }
        }
        Ok(network)
    }

    fn views<'a>(&self, teacher: Option<&'a dyn TeacherRows>) -> Shown<'a> {
        let train = &self.experiment.train;
        Shown {
            family: Arc::clone(&train.family),
            n_views: train.n_views,
            draw: self.experiment.recipe.views.draw,
            teacher,
        }
    }

    /// The strong views, where a loss compares with them.
    fn strong_views<'a>(&self, taught: &'a Taught<'_>) -> Option<Shown<'a>> {
        let split = self.experiment.strong.as_ref();
        let split = split.filter(|_| self.objective.needs().strong_view)?;
        Some(Shown {
            family: Arc::clone(&split.family),
            n_views: split.n_views,
            draw: self.experiment.recipe.views.draw,
            teacher: as_teacher(&taught.strong),
        })
    }

    fn evaluation<'a>(&self, taught: &'a Taught<'_>) -> Option<Evaluation<'a>> {
        let split = self.experiment.eval.as_ref()?;
        Some(Evaluation {
            dataset: split.dataset.clone(),
            family: split.family.clone(),
            teacher: as_teacher(&taught.eval),
        })
    }

    /// What a record says of recipe, data, teachers and caches; `described` is [`Teachers::described`].
    fn provenance(&self, described: Option<(String, String)>) -> BTreeMap<String, String> {
        let mut recorded = provenance(&self.experiment);
        let mut put = |key: &str, value: String| recorded.insert(key.to_owned(), value);
        if let Some((taught, cached)) = described {
            put("teacher", taught);
            put("cache", cached);
            put("cache_keys", self.caches.keys());
            put(
                "teacher_seconds",
                self.caches.seconds(&self.experiment).to_string(),
            );
        }
        if !self.notes.is_empty() {
            put("notes", self.notes.join(" "));
        }
        if self.experiment.recipe.views.inconsistent && !self.caches.train.is_empty() {
            put("inconsistent", "true".to_owned());
        }
        recorded
    }
}

/// What the teachers said, each as one: of the views, of the strong views, and of the evaluation split.
struct Taught<'a> {
    train: Option<Rows<'a>>,
    strong: Option<Rows<'a>>,
    eval: Option<Rows<'a>>,
}

impl<'a> Taught<'a> {
    fn of(sources: &'a Sources) -> Outcome<Self> {
        let recipe = &sources.experiment.recipe;
        let (ensemble, seed) = (&recipe.ensemble, recipe.seed);
        let all = without_dropout(ensemble.as_ref());
        Ok(Self {
            train: rows(&sources.caches.train, ensemble, seed)?,
            strong: rows(&sources.caches.strong, ensemble, seed)?,
            eval: rows(&sources.caches.eval, &all, seed)?,
        })
    }
}

fn as_teacher<'a>(rows: &'a Option<Rows<'_>>) -> Option<&'a dyn TeacherRows> {
    rows.as_ref().map(Rows::as_teacher)
}

/// The sections that a recipe must have to be trained.
///
/// # Errors
/// Which one is absent.
pub fn sections(recipe: &Recipe) -> Outcome<(&StudentSpec, &TrainSpec)> {
    let absent = |section: &str| {
        Failure::asked(format!(
            "the recipe has no `{section}` section, so there is nothing to train"
        ))
    };
    let student = recipe.student.as_ref().ok_or_else(|| absent("[student]"))?;
    let train = recipe.train.as_ref().ok_or_else(|| absent("[train]"))?;
    if recipe.loss.is_empty() {
        return Err(absent("[[loss]]"));
    }
    Ok((student, train))
}

/// The recipe's losses, for so many classes.
///
/// # Errors
/// If one has an unknown name, or an option that it does not take.
pub fn objective(recipe: &Recipe, n_classes: usize) -> Outcome<Objective> {
    let setup = Setup {
        n_classes,
        epochs: recipe.train.as_ref().map_or(1, |train| train.epochs as u32),
        dtype: DType::F32,
        device: &Device::Cpu, // where losses are computed
    };
    Ok(Objective::new_with(
        &recipe.loss,
        &setup,
        recipe.own.losses,
    )?)
}

/// Makes this thread one of the `threads` that compute: a parallel loop then starts at once, where from outside the pool
/// each of the hundreds in a step would wait for a thread to wake up. Threads that prepare pixels never enter the pool,
/// so none can wait for this one.
fn compute_on(threads: Option<usize>) -> Outcome {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    match (pool.use_current_thread().build_global(), threads) {
        (Ok(()), _) => Ok(()),
        // A program that has computed before has its threads already.
        (Err(_), None) => Ok(()),
        (Err(error), Some(_)) => Err(Failure::work(format!(
            "cannot start the compute threads: {error}"
        ))),
    }
}

fn open_caches(
    experiment: &Experiment,
    how: &Training<'_>,
    watch: &Watch<'_>,
) -> Outcome<Teachers> {
    let caches = Teachers::open(experiment, how.cache_dir, how.recipe, how.options, watch)?;
    let Some(expected) = how.expect else {
        return Ok(caches);
    };
    let n_read = experiment.taught.n_views;
    // An id of more views than are read names the rows that are read as well.
    let is_expected = |cache: &LogitCache| {
        let n_files = cache.view_files_below(n_read).len();
        let mut ids = cache.ids().skip(n_files);
        ids.any(|id| hex(&id).starts_with(expected))
    };
    if expected.len() >= 8 && caches.train.iter().all(is_expected) {
        return Ok(caches);
    }
    let read = |cache: &LogitCache| hex(&cache.id_below(n_read));
    let ids: Vec<String> = caches.train.iter().map(read).collect();
    Err(Failure::work(format!(
        "the cache of the {} has the id {}, expected {expected}",
        experiment.train.what(),
        ids.join(", ")
    ))
    .with_hint(
        "the id names the rows of the views that are read: this cache holds other ones; at least 8 digits of it are needed",
    ))
}

/// Refuses losses that caches and views cannot serve. What is served all the same, because the recipe insists, is a
/// sentence for the record.
fn notes(
    objective: &Objective,
    experiment: &Experiment,
    caches: &Teachers,
    watch: &Watch<'_>,
) -> Outcome<Vec<String>> {
    let views = &experiment.recipe.views;
    let mut notes = objective.check(&supply(experiment)?)?;
    if views.inconsistent && !caches.train.is_empty() {
        notes.push(
            "Inconsistent views: the student saw augmented pixels beside the teacher's logits of the clean image."
                .to_owned(),
        );
    }
    for text in &notes {
        note(watch, text);
    }
    Ok(notes)
}

/// What caches, views and labels of a recipe give to its losses.
///
/// # Errors
/// If a teacher's encoding is unknown.
pub(crate) fn supply(experiment: &Experiment) -> Outcome<Supply> {
    let recipe = &experiment.recipe;
    let mut dense = true;
    for teacher in &recipe.teacher {
        dense &= Encoding::parse(&teacher.encoding)?.is_dense();
    }
    let combined = recipe.ensemble.as_ref();
    let stay_absolute = combined.is_none_or(|spec| spec.combine.keeps_absolute_logits());
    let is_absolute = |teacher: &TeacherSpec| teacher.output_is.is_absolute();
    Ok(Supply {
        teacher: !recipe.teacher.is_empty(),
        dense,
        // Rows of several teachers are combined class by class.
        rest_temperatures: match recipe.teacher.len() {
            1 => &logitcask_cache::REST_TEMPERATURES,
            _ => &[],
        },
        absolute_logits: stay_absolute && recipe.teacher.iter().all(is_absolute),
        mixed_labels: experiment.train.family.mixes(),
        strong_view: experiment.strong.is_some(),
        sample_weights: experiment.train.dataset.sample_weights().is_some(),
    })
}

/// What ails a run, as far as it has come; `constant` where its teacher's rows are known to say nothing.
///
/// # Errors
/// If its files cannot be read.
pub fn symptoms(run: &Path, recipe: &Recipe, constant: bool) -> Outcome<Vec<Symptom>> {
    let Some(checkpoint) = Checkpoint::read(&run.join(Checkpoint::LAST))? else {
        return Ok(Vec::new());
    };
    let untrained = match untrained(&checkpoint, recipe.own.students, recipe.seed) {
        // A program's own network, which is not this one: its parameters cannot be told from its statistics.
        Err(StudentError::UnknownStudent { .. }) => Vec::new(),
        found => found?,
    };
    Ok(diagnose(&Patient {
        history: &EpochRecord::read_all(run)?,
        n_classes: checkpoint.position.student.n_classes,
        untrained: &untrained,
        teacher_is_constant: constant,
    }))
}

/// What a record says of the recipe and the data.
fn provenance(experiment: &Experiment) -> BTreeMap<String, String> {
    let recipe = &experiment.recipe;
    let losses: Vec<&str> = recipe.loss.iter().map(|loss| loss.name.as_str()).collect();
    BTreeMap::from([
        ("tool".to_owned(), crate::VERSION.to_owned()),
        ("losses".to_owned(), losses.join(" + ")),
        ("seed".to_owned(), recipe.seed.to_string()),
        (
            "data".to_owned(),
            format!(
                "Data: {} `{}`, {} training samples selected of {}.",
                recipe.data.format,
                recipe.data.root.display(),
                experiment.train.dataset.selected().len(),
                experiment.train.dataset.len()
            ),
        ),
    ])
}
