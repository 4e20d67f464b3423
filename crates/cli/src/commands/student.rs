mod dump;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use logitcask_durable::{Lock, LockError};
use logitcask_layers::{Precision, bf16_is_native};
use logitcask_losses::{Objective, Setup, Supply};
use logitcask_student::{
    Checkpoint, CleanRows, EpochRecord, Evaluation, Event, ImageShape, Job, Network, Patient,
    RunRecord, Shown, StudentError, StudentSpec, Symptom, TeacherRows, TensorBoard, Term, Times,
    TrainSpec, diagnose, train, untrained,
};

use crate::args::Student;
use crate::device;
use crate::exit::{Failure, Outcome};
use crate::experiment::{Experiment, hex, student_preprocess};
use crate::progress::{Progress, duration, say};
use crate::recipe::{Recipe, collect_leaves};
use crate::teachers::{Rows, Teachers, rows, without_dropout};
use dump::Dump;

pub(crate) fn run(args: &Student, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let (student, spec) = sections(&recipe)?;
    let device = device::open(&args.device, args.tf32)?;
    compute_on(args.threads)?;
    // Wrong names are refused before anything is read.
    let row = logitcask_student::find_model(&student.name)
        .map_err(|error| Failure::from(error).as_asked())?;

    let experiment = Experiment::open(recipe.clone())?;
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
    let preprocess = student_preprocess(&recipe)?;
    let size = preprocess.output_size(experiment.train.view_size()?)?;
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

    let run = run_folder(args, &recipe)?;
    let run_digest = run_digest(&recipe, &experiment, &caches)?;
    let _lock = prepare(&run, &recipe, &run_digest, args.fresh, stop)?;
    if let Some(record) = finished(&run, &run_digest)? {
        say(format!(
            "{}: finished before; `--fresh` trains it again",
            run.display()
        ));
        return print(&record, &run, args.recipe.json);
    }

    let seed = recipe.seed;
    let ensemble = &recipe.ensemble;
    let trained_on = rows(&caches.train, ensemble, seed)?;
    let strong_rows = rows(&caches.strong, ensemble, seed)?;
    let eval_rows = rows(&caches.eval, &without_dropout(ensemble.as_ref()), seed)?;
    fn as_teacher<'a>(rows: &'a Option<Rows>) -> Option<&'a dyn TeacherRows> {
        rows.as_ref().map(Rows::as_teacher)
    }
    let clean_rows = as_teacher(&trained_on).map(CleanRows);
    let evaluation = experiment.eval.as_ref().map(|split| Evaluation {
        dataset: split.dataset.clone(),
        family: split.family.clone(),
        teacher: as_teacher(&eval_rows),
    });
    let (taught, cached) = match caches.described(&experiment)? {
        Some((taught, cached)) => (Some(taught), Some(cached)),
        None => (None, None),
    };
    if let Some(taught) = taught.as_ref().filter(|_| ensemble.is_some()) {
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
    if let Err(error @ StudentError::NonFinite { .. }) = &outcome {
        last_words(&run, error)?;
    }
    let Some(mut record) = outcome.map_err(asked_or_failed)? else {
        return Err(Failure::work("stopped before the last epoch")
            .hint("what is done is saved; the same command continues after the last step"));
    };
    for symptom in symptoms(&run, recipe.seed)? {
        say(format!("note: {symptom}\n  hint: {}", symptom.remedy()));
    }
    let computed_on = device::describe(&job.device, args.tf32);
    record.recorded = provenance(&recipe, &experiment, &run_digest);
    if let (Some(taught), Some(cached)) = (taught, cached) {
        let seconds = caches.seconds().to_string();
        let of_teacher = [
            ("teacher", taught),
            ("cache", cached),
            ("teacher_seconds", seconds),
        ];
        let of_teacher = of_teacher.map(|(key, value)| (key.to_owned(), value));
        record.recorded.extend(of_teacher);
    }
    record.recorded.insert("device".to_owned(), computed_on);
    if !notes.is_empty() {
        record.recorded.insert("notes".to_owned(), notes.join(" "));
    }
    if recipe.views.inconsistent && !caches.train.is_empty() {
        record
            .recorded
            .insert("inconsistent".to_owned(), "true".to_owned());
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
    if threads == Some(0) {
        return Err(Failure::asked("`--threads 0` leaves nobody to compute"));
    }
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
    let ids: Vec<String> = caches.train.iter().map(|cache| hex(&cache.id())).collect();
    let is_it = |id: &String| expected.len() >= 8 && id.starts_with(expected.as_str());
    match ids.iter().all(is_it) {
        true => Ok(caches),
        false => Err(Failure::work(format!(
            "the cache of the {} has the id {}, expected {expected}",
            experiment.train.what(),
            ids.join(", ")
        ))
        .hint(
            "the id names the logits: this cache holds other ones, or other views; at least 8 digits of it are needed",
        )),
    }
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

/// The folder that was asked for, or one named after the recipe, its seed and its digest.
fn run_folder(args: &Student, recipe: &Recipe) -> Outcome<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    let stem = args
        .recipe
        .recipe
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = args
        .recipe
        .recipe
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let digest = blake3::hash(recipe.to_toml()?.as_bytes()).to_hex();
    Ok(Path::new("data/runs").join(format!("{parent}-{stem}-s{}-{}", recipe.seed, &digest[..6])))
}

/// BLAKE3 over what decides a run's outcome: the recipe, the weights it starts from, the images and labels, and the
/// caches.
fn run_digest(recipe: &Recipe, experiment: &Experiment, caches: &Teachers) -> Outcome<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(recipe.to_toml()?.as_bytes());
    if let Some(path) = recipe.student.as_ref().and_then(|s| s.init_from.as_ref()) {
        let cannot = |error| Failure::work(format!("cannot read `{}`: {error}", path.display()));
        hasher.update(&std::fs::read(path).map_err(cannot)?);
    }
    let splits = [Some(&experiment.train), experiment.eval.as_ref()];
    for split in splits.into_iter().flatten() {
        hasher.update(&split.fingerprint.images);
        hasher.update(&split.fingerprint.labels);
    }
    // `subset`, `exclude` and `sample_weights` may name files.
    for sample in experiment.train.dataset.selected() {
        hasher.update(&sample.to_le_bytes());
    }
    for weight in experiment
        .train
        .dataset
        .sample_weights()
        .into_iter()
        .flatten()
    {
        hasher.update(&weight.to_le_bytes());
    }
    for cache in caches.all() {
        hasher.update(&cache.manifest().key.digest());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Makes the folder this run's, and this process's as long as the lock lives: nothing is overwritten before it is clear
/// that what lies there is the same run's.
fn prepare(
    run: &Path,
    recipe: &Recipe,
    run_digest: &str,
    fresh: bool,
    stop: &AtomicBool,
) -> Outcome<Lock> {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::work(format!("cannot write `{}`: {error}", path.display()))
    };
    logitcask_durable::create_dir_all(run).map_err(|error| cannot(run, error))?;
    let lock = hold(run, stop)?;
    if fresh {
        forget(run).map_err(|error| cannot(run, error))?;
    }
    refuse_foreign(run, recipe, run_digest)?;
    // Half a checkpoint of a run that was killed while saving.
    logitcask_durable::remove_leftovers(run, |_| true).map_err(|error| cannot(run, error))?;
    match std::fs::remove_file(run.join(LAST_WORDS)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(cannot(&run.join(LAST_WORDS), error));
        }
        _ => {}
    }
    let path = run.join(RECIPE);
    let text = recipe.to_toml()?;
    logitcask_durable::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))
        .map_err(|error| cannot(&path, error))?;
    Ok(lock)
}

/// Two processes in one folder would overwrite each other. One on this host may be about to end, the orphan of a sweep that
/// was killed, say: it is given a while.
fn hold(run: &Path, stop: &AtomicBool) -> Outcome<Lock> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let since = Instant::now();
    loop {
        let held = match Lock::acquire(&run.join("lock")) {
            Ok(lock) => return Ok(lock),
            Err(held) => held,
        };
        let may_end = matches!(
            &held,
            LockError::Held {
                same_host: true,
                ..
            }
        );
        if !may_end || since.elapsed() > PATIENCE || stop.load(Ordering::Relaxed) {
            return Err(Failure::work(held).hint(
                "if another process trains in this folder, wait for it or choose another folder with `--out`; if that \
                 process is gone, remove the file",
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The recipe as it was obeyed, in the run's folder.
pub(crate) const RECIPE: &str = "recipe.toml";

/// Why the run stopped, where its numbers left the finite ones: for `doctor`.
pub(crate) const LAST_WORDS: &str = "stopped.txt";

fn last_words(run: &Path, error: &StudentError) -> Outcome {
    let path = run.join(LAST_WORDS);
    let text = format!("{error}\n{}\n", error.hint().unwrap_or_default());
    logitcask_durable::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))
        .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))
}

/// What ails a run, as far as it has come.
pub(crate) fn symptoms(run: &Path, seed: u64) -> Outcome<Vec<Symptom>> {
    let Some(checkpoint) = Checkpoint::read(&run.join(Checkpoint::LAST))? else {
        return Ok(Vec::new());
    };
    Ok(diagnose(&Patient {
        history: &EpochRecord::read_all(run)?,
        n_classes: checkpoint.position.student.n_classes,
        untrained: &untrained(&checkpoint, seed)?,
    }))
}

fn forget(run: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(run)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ours = [
            RunRecord::FILE,
            EpochRecord::FILE,
            Times::FILE,
            TensorBoard::FILE,
            LAST_WORDS,
        ];
        if ours.contains(&name.as_str()) || name.ends_with(".safetensors") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A checkpoint or record of another run is refused, and what differs is named.
fn refuse_foreign(run: &Path, recipe: &Recipe, run_digest: &str) -> Outcome {
    let checkpoint = Checkpoint::read(&run.join(Checkpoint::LAST))?;
    let is_foreign = |checkpoint: &Checkpoint| checkpoint.position.run_digest != run_digest;
    if !checkpoint.as_ref().is_some_and(is_foreign) {
        return Ok(());
    }
    let differences = match std::fs::read_to_string(run.join(RECIPE)) {
        Ok(text) => differences(&text, &recipe.to_toml()?),
        Err(_) => Vec::new(),
    };
    let what = match differences.is_empty() {
        true => "the recipe is the same, so the images, the labels or the caches differ".to_owned(),
        false => differences.join(", "),
    };
    Err(
        Failure::work(format!("`{}` holds another run: {what}", run.display()))
            .hint("choose another folder with `--out`, or pass `--fresh` to replace it"),
    )
}

/// `train.epochs is 3 there, 4 here` for each value that differs between two recipes.
fn differences(there: &str, here: &str) -> Vec<String> {
    let leaves = |text: &str| {
        let mut found = BTreeMap::new();
        if let Ok(recipe) = toml::from_str::<toml::Value>(text) {
            collect_leaves(&recipe, String::new(), &mut found);
        }
        found
    };
    let (there, here) = (leaves(there), leaves(here));
    let keys: std::collections::BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let value = |side: &BTreeMap<String, String>, key: &String| {
        side.get(key)
            .cloned()
            .unwrap_or_else(|| "absent".to_owned())
    };
    keys.into_iter()
        .filter(|key| there.get(*key) != here.get(*key))
        .map(|key| {
            format!(
                "`{key}` is {} there, {} here",
                value(&there, key),
                value(&here, key)
            )
        })
        .collect()
}

/// The record of this very run, if it was finished before.
fn finished(run: &Path, run_digest: &str) -> Outcome<Option<RunRecord>> {
    let record = RunRecord::read(run)?;
    let same = |record: &RunRecord| {
        record
            .recorded
            .get("run_digest")
            .is_some_and(|digest| digest == run_digest)
    };
    match record {
        Some(record) if !same(&record) => Err(Failure::work(format!(
            "`{}` holds a finished run of another recipe, dataset or cache",
            run.display()
        ))
        .hint("choose another folder with `--out`, or pass `--fresh` to replace it")),
        other => Ok(other),
    }
}

fn uses_bf16(recipe: &Recipe) -> bool {
    let student = recipe.student.as_ref();
    student.is_some_and(|student| student.precision == Precision::Bf16)
}

fn provenance(
    recipe: &Recipe,
    experiment: &Experiment,
    run_digest: &str,
) -> BTreeMap<String, String> {
    let losses: Vec<&str> = recipe.loss.iter().map(|loss| loss.name.as_str()).collect();
    let mut recorded = BTreeMap::from([
        ("run_digest".to_owned(), run_digest.to_owned()),
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

/// Turns events into a bar, and a line per epoch.
struct Show {
    bar: Progress,
    epochs: usize,
    steps_per_epoch: Cell<usize>,
    n_images: Cell<usize>,
    started: Instant,
}

/// `data 2 %, forward 38 %, loss 1 %, backward 55 %, step 4 %`
fn shares(times: &Times) -> String {
    let parts = [
        ("data", times.data_seconds),
        ("forward", times.forward_seconds),
        ("loss", times.loss_seconds),
        ("backward", times.backward_seconds),
        ("step", times.step_seconds),
    ];
    let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let share = |(name, seconds): &(&str, f64)| format!("{name} {:.0} %", 100.0 * seconds / total);
    parts.iter().map(share).collect::<Vec<_>>().join(", ")
}

impl Show {
    fn new(network: &Network, epochs: usize) -> Self {
        let what = format!("{} ({} parameters)", network.name(), network.n_parameters());
        Self {
            bar: Progress::tall(what, 0, "steps"),
            epochs,
            steps_per_epoch: Cell::default(),
            n_images: Cell::default(),
            started: Instant::now(),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Started {
                n_train,
                steps_per_epoch,
                epochs_done,
                steps_done,
            } => {
                self.steps_per_epoch.set(steps_per_epoch);
                let done = epochs_done * steps_per_epoch + steps_done;
                self.bar.set_total((self.epochs * steps_per_epoch) as u64);
                self.bar.resume_at(done as u64);
                let again = match (epochs_done, steps_done) {
                    (0, 0) => String::new(),
                    (_, 0) => format!(", continuing after epoch {epochs_done}"),
                    _ => format!(
                        ", continuing after step {steps_done} of epoch {}",
                        epochs_done + 1
                    ),
                };
                self.bar.line(format!(
                    "training on {n_train} samples, {steps_per_epoch} steps per epoch{again}"
                ));
            }
            Event::Unreached(names) => self.bar.line(match names {
                [name] => format!("note: no gradient reaches `{name}`: it stays as it starts"),
                [first, others @ ..] => format!(
                    "note: no gradient reaches `{first}` and {} more parameters: they stay as they start",
                    others.len()
                ),
                [] => return,
            }),
            Event::Batch { .. } => {}
            Event::Step {
                epoch,
                step,
                loss,
                terms,
                top1,
                batch_size,
                times,
            } => {
                let position = (epoch - 1) * self.steps_per_epoch.get() + step;
                self.n_images.set(self.n_images.get() + batch_size);
                self.bar.set_with(position as u64, || {
                    self.step_line(epoch, loss, terms, top1, times)
                });
            }
            Event::Epoch(record) => self.bar.line(self.epoch_line(record)),
        }
    }

    /// Loss and terms, accuracy, images per second, and where the time of a step goes.
    fn step_line(
        &self,
        epoch: usize,
        loss: f64,
        terms: &[Term],
        top1: f64,
        times: &Times,
    ) -> String {
        let mut line = format!("epoch {epoch}/{}  loss {loss:.3}", self.epochs);
        if terms.len() > 1 {
            let terms = terms
                .iter()
                .map(|term| format!("{} {:.3}", term.name, term.value));
            line += &format!(" ({})", terms.collect::<Vec<_>>().join(", "));
        }
        let rate = self.n_images.get() as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let top1 = 100.0 * top1;
        format!(
            "{line}  train {top1:.1} %  {rate:.0} img/s\n{}",
            shares(times)
        )
    }

    fn epoch_line(&self, record: &EpochRecord) -> String {
        let terms: Vec<String> = record
            .terms
            .iter()
            .map(|term| format!("{} {:.3}", term.name, term.value))
            .collect();
        let eval = record.eval.map_or(String::new(), |eval| {
            format!("  eval {:.2} %", 100.0 * eval.top1)
        });
        format!(
            "epoch {:>3}/{}  loss {:.3} ({})  train {:.2} %{eval}",
            record.epoch,
            self.epochs,
            record.loss,
            terms.join(", "),
            100.0 * record.train_top1
        )
    }
}

fn print(record: &RunRecord, run: &Path, json: bool) -> Outcome {
    if json {
        let mut line = serde_json::to_value(record).map_err(Failure::work)?;
        line["run"] = run.display().to_string().into();
        println!("{line}");
        return Ok(());
    }
    if let Some(notes) = record.recorded.get("notes") {
        say(format!("note: {notes}"));
    }
    if let Some(eval) = record.last.eval {
        let best = record.best.eval.unwrap_or(eval);
        say(format!(
            "top-1 {:.2} % after the last epoch, {:.2} % at best (epoch {}); trained for {} ({})",
            100.0 * eval.top1,
            100.0 * best.top1,
            record.best.epoch,
            duration(record.times.train_seconds),
            shares(&record.times)
        ));
    }
    println!("{}", run.display());
    Ok(())
}
