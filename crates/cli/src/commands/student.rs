mod dump;
mod folder;
mod show;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use logitcask_cache::LogitCache;
use logitcask_dataset::Trust;
use logitcask_durable::ClaimError;
use logitcask_layers::{Precision, bf16_is_native};
use logitcask_losses::{Objective, Setup, Supply};
use logitcask_student::{
    Checkpoint, CleanRows, EpochRecord, Evaluation, ImageShape, Job, Network, Patient, Shown,
    StudentError, StudentSpec, Symptom, TeacherRows, TrainSpec, diagnose, train, untrained,
};

use crate::args::Student;
use crate::device;
use crate::exit::{Failure, Outcome};
use crate::experiment::{Experiment, hex, student_preprocess};
use crate::progress::say;
use crate::recipe::Recipe;
use crate::teachers::{Rows, Teachers, rows, without_dropout};
use dump::Dump;
pub(crate) use folder::{LAST_WORDS, RECIPE};
use folder::{finished, last_words, prepare, run_digest, run_folder};
use show::{Show, print};

pub(crate) fn run(args: &Student, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let (student, spec) = sections(&recipe)?;
    let device = device::open(&args.device, args.tf32)?;
    compute_on(args.threads)?;
    // Wrong names are refused before anything is read.
    let row = logitcask_student::find_model(&student.name)
        .map_err(|error| Failure::from(error).as_asked())?;

    let trust = match args.verify_data {
        true => Trust::Nothing,
        false => Trust::ModificationTimes,
    };
    let experiment = Experiment::open_trusting(recipe.clone(), trust)?;
    let n_classes = experiment.train.dataset.n_classes();
    let setup = Setup {
        n_classes,
        epochs: spec.epochs as u32,
        dtype: DType::F32,
        device: &Device::Cpu, // where losses are computed
    };
    let objective =
        Objective::new(&recipe.loss, &setup).map_err(|error| Failure::from(error).as_asked())?;
    let caches = open_caches(&experiment, args)?;
    let notes = notes(&objective, &experiment, &caches)?;
    let constant = caches.say_nothing()?;
    if constant {
        let symptom = Symptom::TeacherConstant;
        say(format!("warning: {symptom}\n  hint: {}", symptom.remedy()));
    }
    let preprocess = student_preprocess(&recipe)?;
    let size = experiment.student_size()?;
    let image = ImageShape {
        channels: size.channels,
        height: size.height,
        width: size.width,
    };
    let network = Network::build(row.name, image, n_classes, recipe.seed, &device)?
        .with_precision(student.precision)
        .map_err(|error| Failure::from(error).as_asked())?;
    if uses_bf16(&recipe) && !bf16_is_native() {
        say(
            "note: this processor has no AVX512-BF16; bf16 is imitated in f32, which is slower than \
             `precision = \"f32\"`",
        );
    }

    if let Some(path) = &student.init_from {
        let fresh = network.init_from(path)?;
        if !fresh.is_empty() {
            say(format!(
                "note: {} start anew, because `{}` has another number of classes",
                fresh.join(" and "),
                path.display()
            ));
        }
    }

    let seed = recipe.seed;
    let ensemble = &recipe.ensemble;
    let trained_on = rows(&caches.train, ensemble, seed)?;
    let strong_rows = rows(&caches.strong, ensemble, seed)?;
    let eval_rows = rows(&caches.eval, &without_dropout(ensemble.as_ref()), seed)?;

    let run = run_folder(args, &recipe)?;
    let run_digest = run_digest(&recipe, &experiment, &caches)?;
    let claim = prepare(&run, &recipe, &run_digest, args.fresh, stop)?;
    if let Some(record) = finished(&run, &run_digest)? {
        say(format!(
            "{}: finished before; `--fresh` trains it again",
            run.display()
        ));
        return print(&record, &run, args.recipe.json);
    }

    fn as_teacher<'a>(rows: &'a Option<Rows>) -> Option<&'a dyn TeacherRows> {
        rows.as_ref().map(Rows::as_teacher)
    }
    let clean_rows = as_teacher(&trained_on).map(CleanRows);
    let evaluation = experiment.eval.as_ref().map(|split| Evaluation {
        dataset: split.dataset.clone(),
        family: split.family.clone(),
        teacher: as_teacher(&eval_rows),
    });
    let described = caches.described(&experiment)?;
    if let Some((taught, _)) = described.as_ref().filter(|_| ensemble.is_some()) {
        say(taught);
    }
    let views = &recipe.views;
    let job = Job {
        seed: recipe.seed,
        spec,
        train: experiment.train.dataset.clone(),
        views: Shown {
            family: Arc::clone(&experiment.train.family),
            n_views: experiment.train.n_views,
            draw: views.draw,
            teacher: match views.inconsistent {
                true => clean_rows.as_ref().map(|rows| rows as &dyn TeacherRows),
                false => as_teacher(&trained_on),
            },
        },
        views_per_step: views.views_per_step,
        strong: match (&experiment.strong, &views.strong) {
            (Some(split), Some(views)) if objective.needs().strong_view => Some(Shown {
                family: Arc::clone(&split.family),
                n_views: split.n_views,
                draw: views.draw,
                teacher: as_teacher(&strong_rows),
            }),
            _ => None,
        },
        preprocess,
        evaluation,
        run_digest: run_digest.clone(),
        run: &run,
        claim: Some(&claim),
        loader_threads: 1,
        device,
    };
    let show = Show::new(&network, spec.epochs);
    let dump = match &args.dump_batches {
        Some(folder) => Some(Dump::new(folder, args.dump_steps, &network)?),
        None => None,
    };
    let outcome = train(&job, &network, &objective, stop, &|event| {
        if let Some(dump) = &dump {
            dump.event(&event);
        }
        show.event(event);
    });
    show.bar.finish();
    if let Some(dump) = dump {
        dump.finish()?;
    }
    if let Err(lost @ ClaimError::Lost { .. }) = claim.check() {
        // Whoever took the run over while this process was paused may have finished it.
        let record = finished(&run, &run_digest)?.ok_or(lost)?;
        say(format!(
            "{}: another process has finished it meanwhile",
            run.display()
        ));
        return print(&record, &run, args.recipe.json);
    }
    if let Err(error @ StudentError::NonFinite { .. }) = &outcome {
        last_words(&run, error)?;
    }
    let Some(mut record) = outcome.map_err(asked_or_failed)? else {
        return Err(Failure::work("stopped before the last epoch")
            .hint("what is done is saved; the same command continues after the last step"));
    };
    for symptom in symptoms(&run, recipe.seed, constant)? {
        say(format!("note: {symptom}\n  hint: {}", symptom.remedy()));
    }
    record.recorded = provenance(&recipe, &experiment);
    let mut note = |key: &str, value: String| record.recorded.insert(key.to_owned(), value);
    note("run_digest", run_digest);
    note("device", device::describe(&job.device, args.tf32));
    if let Some((taught, cached)) = described {
        note("teacher", taught);
        note("cache", cached);
        note("cache_keys", caches.keys());
        note("teacher_seconds", caches.seconds(&experiment).to_string());
    }
    if !notes.is_empty() {
        note("notes", notes.join(" "));
    }
    if recipe.views.inconsistent && !caches.train.is_empty() {
        note("inconsistent", "true".to_owned());
    }
    record.write(&run)?;
    print(&record, &run, args.recipe.json)
}

pub(crate) fn sections(recipe: &Recipe) -> Outcome<(&StudentSpec, &TrainSpec)> {
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

/// A setting that cannot be obeyed is a wrong request; everything else is work that failed.
fn asked_or_failed(error: StudentError) -> Failure {
    let is_asked = matches!(
        error,
        StudentError::Setting { .. } | StudentError::TooFewSamples { .. }
    );
    match is_asked {
        true => Failure::from(error).as_asked(),
        false => Failure::from(error),
    }
}

/// Makes this thread one of the `threads` that compute: a parallel loop then starts at once, where from outside the pool
/// each of the hundreds in a step would wait for a thread to wake up. Threads that prepare pixels never enter the pool,
/// so none can wait for this one.
fn compute_on(threads: Option<usize>) -> Outcome {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    let made = pool.use_current_thread().build_global();
    made.map_err(|error| Failure::work(format!("cannot start the compute threads: {error}")))
}

fn open_caches(experiment: &Experiment, args: &Student) -> Outcome<Teachers> {
    let recipe = &args.recipe;
    let options = args.io.options();
    let caches = Teachers::open(experiment, &recipe.cache_dir, &recipe.recipe, options)?;
    let Some(expected) = &args.expect else {
        return Ok(caches);
    };
    let n_read = experiment.taught.n_views;
    // An id of more views than are read names the rows that are read as well.
    let is_expected = |cache: &LogitCache| {
        let n_files = cache.view_files_below(n_read).len();
        let mut ids = cache.ids().skip(n_files);
        ids.any(|id| hex(&id).starts_with(expected.as_str()))
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
    .hint(
        "the id names the rows of the views that are read: this cache holds other ones; at least 8 digits of it are needed",
    ))
}

/// Refuses losses that caches and views cannot serve. What is served all the same, because the recipe insists, is a
/// sentence for the record.
fn notes(
    objective: &Objective,
    experiment: &Experiment,
    caches: &Teachers,
) -> Outcome<Vec<String>> {
    let views = &experiment.recipe.views;
    let ensemble = experiment.recipe.ensemble.as_ref();
    let stay_absolute = ensemble.is_none_or(|spec| spec.combine.keeps_absolute_logits());
    let supply = Supply {
        teacher: !caches.train.is_empty(),
        dense: caches
            .captured()
            .all(|cache| cache.manifest().encoding.is_dense()),
        // Rows of several teachers are combined class by class.
        rest_temperatures: match caches.train.len() {
            1 => &logitcask_cache::REST_TEMPERATURES,
            _ => &[],
        },
        absolute_logits: stay_absolute && caches.captured().all(|cache| cache.manifest().absolute),
        mixed_labels: experiment.train.family.mixes(),
        strong_view: experiment.strong.is_some(),
        sample_weights: experiment.train.dataset.sample_weights().is_some(),
    };
    let mut notes = objective.check(&supply)?;
    if views.inconsistent && !caches.train.is_empty() {
        notes.push(
            "Inconsistent views: the student saw augmented pixels beside the teacher's logits of the clean image."
                .to_owned(),
        );
    }
    for note in &notes {
        say(format!("note: {note}"));
    }
    Ok(notes)
}

/// What ails a run, as far as it has come; `constant` where its teacher's rows are known to say nothing.
pub(crate) fn symptoms(run: &Path, seed: u64, constant: bool) -> Outcome<Vec<Symptom>> {
    let Some(checkpoint) = Checkpoint::read(&run.join(Checkpoint::LAST))? else {
        return Ok(Vec::new());
    };
    Ok(diagnose(&Patient {
        history: &EpochRecord::read_all(run)?,
        n_classes: checkpoint.position.student.n_classes,
        untrained: &untrained(&checkpoint, seed)?,
        teacher_is_constant: constant,
    }))
}

fn uses_bf16(recipe: &Recipe) -> bool {
    let student = recipe.student.as_ref();
    student.is_some_and(|student| student.precision == Precision::Bf16)
}

/// What a record says of the recipe and the data.
fn provenance(recipe: &Recipe, experiment: &Experiment) -> BTreeMap<String, String> {
    let losses: Vec<&str> = recipe.loss.iter().map(|loss| loss.name.as_str()).collect();
    let mut recorded = BTreeMap::from([
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
    ]);
    if uses_bf16(recipe) {
        let by = match bf16_is_native() {
            true => "by AVX512-BF16",
            false => "imitated in f32",
        };
        recorded.insert(
            "arithmetic".to_owned(),
            format!("Arithmetic: bf16 factors in training, {by}; evaluation in f32."),
        );
    }
    recorded
}
