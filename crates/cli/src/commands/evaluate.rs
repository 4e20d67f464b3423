use std::path::{Path, PathBuf};

use candle_core::Device;
use logitcask_cache::LogitCache;
use logitcask_dataset::Preprocess;
use logitcask_student::{
    Checkpoint, Evaluation, Metrics, Network, StudentError, Tally, TeacherRows, fit_temperature,
    hold_out, predict,
};
use serde::Serialize;

use crate::args::{Evaluate, Which};
use crate::commands::student::RECIPE;
use crate::exit::{Failure, Outcome};
use crate::experiment::{CacheWant, Split, student_preprocess};
use crate::progress::say;
use crate::recipe::Recipe;
use crate::teachers::{Rows, rows, without_dropout};

pub(crate) fn run(args: &Evaluate) -> Outcome {
    let best = args.run.join(Which::Best.file());
    let has_best = logitcask_durable::exists(&best).map_err(Failure::io("look for", &best))?;
    let which = match args.checkpoint {
        Some(which) => vec![which],
        // Within its first epoch a run has no best one.
        None if !has_best => vec![Which::Last],
        None => vec![Which::Last, Which::Best],
    };
    let trained = which
        .iter()
        .map(|which| Trained::open(&args.run, *which, &args.overrides))
        .collect::<Outcome<Vec<_>>>()?;
    let recipe = elsewhere(&trained[0].recipe, args)?;
    let split = Split::open_eval(&recipe)?;
    let caches = eval_caches(&recipe, &split, &args.cache_dir, &args.run)?;
    let teacher = rows(&caches, &without_dropout(recipe.ensemble.as_ref()), 0)?;
    let teacher = teacher.as_ref().map(Rows::as_teacher);
    let pages = std::iter::zip(&which, &trained)
        .map(|(which, trained)| Page::of(args, *which, trained, &split, teacher))
        .collect::<Outcome<Vec<_>>>()?;
    if args.json {
        for page in &pages {
            println!("{}", serde_json::to_string(page).map_err(Failure::work)?);
        }
        return Ok(());
    }
    print(&pages);
    Ok(())
}

/// The recipe with the evaluation split that was asked for.
fn elsewhere(recipe: &Recipe, args: &Evaluate) -> Outcome<Recipe> {
    let mut recipe = recipe.clone();
    if let Some(root) = &args.dataset {
        recipe.data.root = root.clone();
    }
    if let Some(format) = &args.format {
        let taken = recipe.data.change_format(format)?;
        if !taken.is_empty() {
            let keys = taken.join("`, `");
            say(format!(
                "note: format `{format}` does not read `{keys}`: left out"
            ));
        }
    }
    if let Some(split) = &args.split {
        recipe.data.eval = Some(split.as_str().into());
    }
    Ok(recipe)
}

/// A student with the recipe that made it.
pub(crate) struct Trained {
    pub(crate) recipe: Recipe,
    pub(crate) network: Network,
    pub(crate) preprocess: Preprocess,
    pub(crate) epochs_done: usize,
}

impl Trained {
    pub(crate) fn open(run: &Path, which: Which, overrides: &[String]) -> Outcome<Self> {
        let path = run.join(which.file());
        let checkpoint = Checkpoint::read(&path)?.ok_or_else(|| {
            Failure::work(format!("there is no `{}`", path.display()))
                .hint("name the folder of a run: `logitcask student` prints it")
        })?;
        let recipe = Recipe::load(&run.join(RECIPE), overrides)?;
        Ok(Self {
            preprocess: student_preprocess(&recipe)?,
            network: Network::of_checkpoint(&checkpoint, &Device::Cpu)?,
            epochs_done: checkpoint.position.epochs_done,
            recipe,
        })
    }

    /// Refuses images and classes that are not those of the student.
    pub(crate) fn check_fits(&self, split: &Split) -> Outcome {
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
            .hint("`--set views.clean=[...]` can resize and crop them"));
        }
        Ok(())
    }

    fn n_held_out(&self) -> usize {
        self.recipe.train.as_ref().map_or(0, |train| train.held_out)
    }

    /// Fitted on the training images that the run held out.
    pub(crate) fn temperature(&self) -> Outcome<f64> {
        let split = Split::open_train_in_clean_view(&self.recipe)?;
        let (_, samples) = hold_out(
            self.recipe.seed,
            &split.dataset.selected(),
            self.n_held_out(),
        );
        let found = self.logits(&split, &samples, None)?;
        Ok(fit_temperature(&found.logits, &found.labels)?)
    }

    /// The student's logits for the clean views of some samples, and the teacher's if there is one.
    pub(crate) fn logits(
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
pub(crate) struct Logits {
    pub(crate) logits: Vec<f32>,
    pub(crate) labels: Vec<u32>,
    pub(crate) teacher: Option<Vec<f32>>,
}

impl Logits {
    /// The teacher is compared as it is; only the student's logits are divided.
    fn metrics(&self, temperature: f64) -> Metrics {
        let divided = |z: &f32| (f64::from(*z) / temperature) as f32;
        let divided: Vec<f32> = self.logits.iter().map(divided).collect();
        let mut tally = Tally::default();
        tally.add(&divided, &self.labels, self.teacher.as_deref());
        tally.metrics()
    }

    fn classes(&self, names: &[String]) -> Vec<ClassRow> {
        let n_classes = self.logits.len() / self.labels.len().max(1);
        let row = |class: usize| {
            let mut tally = Tally::default();
            let rows = self.logits.chunks_exact(n_classes).zip(&self.labels);
            for (row, label) in rows.filter(|(_, label)| **label as usize == class) {
                tally.add(row, &[*label], None);
            }
            let Metrics {
                n_samples,
                top1,
                nll,
                ..
            } = tally.metrics();
            ClassRow {
                class,
                name: names.get(class).cloned().unwrap_or_default(),
                n_samples,
                top1,
                nll,
            }
        };
        (0..n_classes).map(row).collect()
    }
}

/// Each teacher's cache of the evaluation split, where all of them were made. Without them there is no agreement, and that
/// is said.
pub(crate) fn eval_caches(
    recipe: &Recipe,
    split: &Split,
    cache_dir: &Path,
    run: &Path,
) -> Outcome<Vec<LogitCache>> {
    let mut caches = Vec::new();
    for teacher in &recipe.teacher {
        let opened = CacheWant::of_split(teacher, split)
            .and_then(|want| want.open(cache_dir, &run.join(RECIPE)));
        match opened {
            Ok(cache) => caches.push(cache),
            Err(failure) => {
                say(format!("no agreement with the teacher: {failure}"));
                return Ok(Vec::new());
            }
        }
    }
    Ok(caches)
}

/// What one checkpoint is worth.
#[derive(Serialize)]
struct Page {
    run: PathBuf,
    checkpoint: &'static str,
    epoch: usize,
    dataset: String,
    metrics: Metrics,
    temperature: Option<f64>,
    calibrated: Option<Metrics>,
    classes: Vec<ClassRow>,
}

#[derive(Serialize)]
struct ClassRow {
    class: usize,
    name: String,
    n_samples: usize,
    top1: f64,
    nll: f64,
}

impl Page {
    fn of(
        args: &Evaluate,
        which: Which,
        trained: &Trained,
        split: &Split,
        teacher: Option<&dyn TeacherRows>,
    ) -> Outcome<Self> {
        trained.check_fits(split)?;
        let found = trained.logits(split, &split.dataset.selected(), teacher)?;
        let temperature = match trained.n_held_out() {
            0 => None,
            _ => Some(trained.temperature()?),
        };
        let data = split.dataset.spec();
        let name = data.eval.as_ref().map(ToString::to_string);
        Ok(Self {
            run: args.run.clone(),
            checkpoint: which.file(),
            epoch: trained.epochs_done,
            dataset: format!(
                "{} `{}` {}",
                data.format,
                data.root.display(),
                name.unwrap_or_default()
            ),
            metrics: found.metrics(1.0),
            temperature,
            calibrated: temperature.map(|temperature| found.metrics(temperature)),
            classes: found.classes(split.dataset.class_names()),
        })
    }
}

/// The checkpoints side by side, then the classes.
fn print(pages: &[Page]) {
    let first = &pages[0];
    println!(
        "{}: {} images of {}",
        first.run.display(),
        first.metrics.n_samples,
        first.dataset
    );
    let row = |name: &str, cell: &dyn Fn(&Page) -> Option<String>, what: &str| {
        let cells: Option<Vec<String>> = pages.iter().map(cell).collect();
        if let Some(cells) = cells {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>10}")).collect();
            let line = format!("  {name:<16}{}  {what}", cells.join("  "));
            println!("{}", line.trim_end());
        }
    };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let nats = |x: f64| format!("{x:.4}");
    row(
        "checkpoint",
        &|p| p.checkpoint.split('.').next().map(str::to_owned),
        "",
    );
    row("epoch", &|p| Some(p.epoch.to_string()), "");
    row("top-1", &|p| Some(percent(p.metrics.top1)), "");
    row("top-5", &|p| Some(percent(p.metrics.top5)), "");
    row("NLL", &|p| Some(nats(p.metrics.nll)), "nats");
    row("ECE", &|p| Some(percent(p.metrics.ece)), "");
    let teacher = |p: &Page| p.metrics.teacher_top1.map(percent);
    row("teacher top-1", &teacher, "on the same images");
    row(
        "agreement",
        &|p| p.metrics.agreement.map(percent),
        "fidelity: the teacher's class is named",
    );
    row(
        "divergence",
        &|p| p.metrics.divergence.map(nats),
        "fidelity: KL(teacher || student), nats",
    );
    if pages.iter().all(|page| page.calibrated.is_some()) {
        println!("  divided by a temperature that was fitted on held-out training images:");
        row("temperature", &|p| p.temperature.map(nats), "");
        row("NLL", &|p| p.calibrated.map(|m| nats(m.nll)), "nats");
        row("ECE", &|p| p.calibrated.map(|m| percent(m.ece)), "");
    } else {
        say("no temperature was fitted: the run held no training images out (`train.held_out`)");
    }
    let heads: String = pages
        .iter()
        .map(|page| page.checkpoint.trim_end_matches(".safetensors"))
        .map(|name| format!("  {:>10}  {:>8}", format!("{name} top-1"), "NLL"))
        .collect();
    println!("  class  images{heads}  name");
    for class in 0..first.classes.len() {
        let cells: String = pages
            .iter()
            .map(|page| &page.classes[class])
            .map(|row| match row.n_samples {
                0 => format!("  {:>10}  {:>8}", "-", "-"),
                _ => format!("  {:>10}  {:>8.4}", percent(row.top1), row.nll),
            })
            .collect();
        let ClassRow {
            class,
            name,
            n_samples,
            ..
        } = &first.classes[class];
        println!(
            "{}",
            format!("  {class:>5}  {n_samples:>6}{cells}  {name}").trim_end()
        );
    }
}
