use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use logitcask_cache::LogitCache;
use logitcask_dataset::Role;
use logitcask_losses::{Objective, Setup};
use logitcask_student::{
    Checkpoint, EpochRecord, Evaluation, Event, ImageShape, Job, Network, RunRecord, StudentSpec,
    TeacherRows, Times, TrainSpec, train,
};

use crate::args::Student;
use crate::commands::teacher_logits::teacher_seconds;
use crate::exit::{Failure, Outcome};
use crate::experiment::{Experiment, hex, student_preprocess};
use crate::progress::{Progress, duration, say};
use crate::recipe::Recipe;

pub(crate) fn run(args: &Student, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let (student, spec) = sections(&recipe)?;
    let device = device(&args.device)?;
    // Wrong names are refused before anything is read.
    let row = logitcask_student::find_model(&student.name)
        .map_err(|error| Failure::from(error).as_asked())?;

    let experiment = Experiment::open(recipe.clone())?;
    let n_classes = experiment.train.dataset.n_classes();
    let setup = Setup {
        n_classes,
        epochs: spec.epochs as u32,
        dtype: DType::F32,
        device: &device,
    };
    let objective =
        Objective::new(&recipe.loss, &setup).map_err(|error| Failure::from(error).as_asked())?;
    let caches = Caches::open(&experiment, args)?;
    let size = experiment.train.view_size()?;
    let image = ImageShape {
        channels: size.channels,
        height: size.height,
        width: size.width,
    };
    let network = Network::build(row.name, image, n_classes, recipe.seed, &device)?;

    let run = run_folder(args, &recipe)?;
    let run_digest = run_digest(&recipe, &experiment, &caches)?;
    prepare(&run, &recipe, args.fresh)?;
    if let Some(record) = finished(&run, &run_digest)? {
        say(format!(
            "{}: finished before; `--fresh` trains it again",
            run.display()
        ));
        return print(&record, &run, args.recipe.json);
    }

    let teacher = caches.train.as_ref().map(|cache| cache as &dyn TeacherRows);
    let evaluation = experiment.eval.as_ref().map(|split| Evaluation {
        dataset: split.dataset.clone(),
        family: split.family.clone(),
        teacher: caches.eval.as_ref().map(|cache| cache as &dyn TeacherRows),
    });
    let job = Job {
        seed: recipe.seed,
        spec,
        train: experiment.train.dataset.clone(),
        family: Arc::clone(&experiment.train.family),
        n_views: experiment.train.n_views,
        draw: recipe.views.draw,
        preprocess: student_preprocess(&recipe)?,
        teacher,
        evaluation,
        run_digest: run_digest.clone(),
        run: &run,
        loader_threads: 1,
        device,
    };
    let show = Show::new(&network, spec.epochs);
    let outcome = train(&job, &network, &objective, stop, &|event| show.event(event));
    show.bar.finish();
    let Some(mut record) = outcome? else {
        return Err(Failure::work("stopped before the last epoch")
            .hint("the same command continues after the last finished epoch"));
    };
    record.recorded = provenance(&recipe, &experiment, &caches, &run_digest);
    record.write(&run)?;
    print(&record, &run, args.recipe.json)
}

fn sections(recipe: &Recipe) -> Outcome<(&StudentSpec, &TrainSpec)> {
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

fn device(name: &str) -> Outcome<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        other => Err(
            Failure::asked(format!("no student can compute on `{other}` in this build"))
                .hint("use `--device cpu`"),
        ),
    }
}

/// The caches of the first teacher.
struct Caches {
    train: Option<LogitCache>,
    eval: Option<LogitCache>,
}

impl Caches {
    fn open(experiment: &Experiment, args: &Student) -> Outcome<Self> {
        let mut caches = Caches {
            train: None,
            eval: None,
        };
        let Some(teacher) = experiment.recipe.teacher.first() else {
            return Ok(caches);
        };
        for want in experiment.wants(teacher)? {
            let cache = want.open(&args.recipe.cache_dir, &args.recipe.recipe)?;
            say(format!("{}: cache {}", want.split.what(), short_id(&cache)));
            match want.split.role {
                Role::Train => caches.train = Some(cache),
                Role::Eval => caches.eval = Some(cache),
            }
        }
        if let (Some(expected), Some(cache)) = (&args.expect, &caches.train) {
            let id = hex(&cache.id());
            if !(expected.len() >= 8 && id.starts_with(expected.as_str())) {
                return Err(Failure::work(format!(
                    "the cache's id is {id}, expected {expected}"
                )));
            }
        }
        Ok(caches)
    }
}

fn short_id(cache: &LogitCache) -> String {
    hex(&cache.id())[..16].to_owned()
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

/// BLAKE3 over what decides a run's outcome: the recipe, the images and labels, and the caches.
fn run_digest(recipe: &Recipe, experiment: &Experiment, caches: &Caches) -> Outcome<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(recipe.to_toml()?.as_bytes());
    let splits = [Some(&experiment.train), experiment.eval.as_ref()];
    for split in splits.into_iter().flatten() {
        hasher.update(&split.fingerprint.images);
        hasher.update(&split.fingerprint.labels);
    }
    for cache in [&caches.train, &caches.eval].into_iter().flatten() {
        hasher.update(&cache.manifest().key.digest());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn prepare(run: &Path, recipe: &Recipe, fresh: bool) -> Outcome {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::work(format!("cannot write `{}`: {error}", path.display()))
    };
    logitcask_durable::create_dir_all(run).map_err(|error| cannot(run, error))?;
    if fresh {
        for name in [
            RunRecord::FILE,
            EpochRecord::FILE,
            Times::FILE,
            Checkpoint::LAST,
            Checkpoint::BEST,
        ] {
            match std::fs::remove_file(run.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(cannot(&run.join(name), error));
                }
                _ => {}
            }
        }
    }
    let path = run.join("recipe.toml");
    let text = recipe.to_toml()?;
    logitcask_durable::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))
        .map_err(|error| cannot(&path, error))
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

fn provenance(
    recipe: &Recipe,
    experiment: &Experiment,
    caches: &Caches,
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
    if let (Some(teacher), Some(cache)) = (recipe.teacher.first(), &caches.train) {
        let accuracy = caches.eval.as_ref().and_then(LogitCache::accuracy);
        let accuracy = accuracy.map_or(String::new(), |top1| {
            format!(", top-1 {:.2} % on the evaluation split", 100.0 * top1)
        });
        recorded.insert(
            "teacher".to_owned(),
            format!("Teacher: {}{accuracy}.", teacher.title()),
        );
        recorded.insert(
            "cache".to_owned(),
            format!(
                "Cache: {} ({} views, {}).",
                hex(&cache.id()),
                experiment.train.n_views,
                cache.manifest().encoding
            ),
        );
        recorded.insert(
            "teacher_seconds".to_owned(),
            teacher_seconds(cache).to_string(),
        );
    }
    recorded
}

/// Turns events into a bar, and a line per epoch.
struct Show {
    bar: Progress,
    epochs: usize,
    steps_per_epoch: std::cell::Cell<usize>,
}

impl Show {
    fn new(network: &Network, epochs: usize) -> Self {
        let what = format!("{} ({} parameters)", network.name(), network.n_parameters());
        Self {
            bar: Progress::new(what, 0, "steps"),
            epochs,
            steps_per_epoch: Default::default(),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Started {
                n_train,
                steps_per_epoch,
                epochs_done,
            } => {
                self.steps_per_epoch.set(steps_per_epoch);
                self.bar.set_total((self.epochs * steps_per_epoch) as u64);
                self.bar.resume_at((epochs_done * steps_per_epoch) as u64);
                let again = if epochs_done > 0 {
                    format!(", continuing after epoch {epochs_done}")
                } else {
                    String::new()
                };
                self.bar.line(format!(
                    "training on {n_train} samples, {steps_per_epoch} steps per epoch{again}"
                ));
            }
            Event::Step {
                epoch, step, loss, ..
            } => {
                let position = (epoch - 1) * self.steps_per_epoch.get() + step;
                self.bar.set(
                    position as u64,
                    format!("epoch {epoch}/{} loss {loss:.3}", self.epochs),
                );
            }
            Event::Epoch(record) => self.bar.line(self.epoch_line(record)),
        }
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
    if let Some(eval) = record.last.eval {
        let best = record.best.eval.unwrap_or(eval);
        say(format!(
            "top-1 {:.2} % after the last epoch, {:.2} % at best (epoch {}); trained for {}",
            100.0 * eval.top1,
            100.0 * best.top1,
            record.best.epoch,
            duration(record.times.train_seconds)
        ));
    }
    println!("{}", run.display());
    Ok(())
}
