use std::path::{Path, PathBuf};

use candle_core::Device;
use logitcask_cache::LogitCache;
use logitcask_dataset::{Preprocess, Role};
use logitcask_student::{
    Checkpoint, Evaluation, Metrics, Network, StudentError, Tally, TeacherRows, fit_temperature,
    hold_out, predict,
};
use serde::Serialize;

use crate::args::{Evaluate, Which};
use crate::commands::student::RECIPE;
use crate::exit::{Failure, Outcome};
use crate::experiment::{Experiment, Split, student_preprocess};
use crate::progress::say;
use crate::recipe::Recipe;

pub(crate) fn run(args: &Evaluate) -> Outcome {
    let trained = Trained::open(&args.run, args.checkpoint, &args.overrides)?;
    let experiment = Experiment::open(trained.recipe.clone())?;
    let split = experiment.eval.as_ref().ok_or_else(|| {
        Failure::asked("the recipe names no evaluation split")
            .hint("name one, `--set data.eval=test` say")
    })?;
    trained.check_classes(split)?;
    let cache = teacher_rows(&experiment, &args.cache_dir, &args.run)?;
    let found = trained.logits(split, &split.dataset.selected(), cache.as_ref())?;
    let temperature = match trained.n_held_out() {
        0 => None,
        _ => Some(trained.temperature(&experiment)?),
    };
    let page = Page {
        run: args.run.clone(),
        checkpoint: args.checkpoint.file(),
        epoch: trained.epochs_done,
        metrics: found.metrics(1.0),
        temperature,
        calibrated: temperature.map(|temperature| found.metrics(temperature)),
        classes: found.classes(split.dataset.class_names()),
    };
    page.print(args.json)
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

    pub(crate) fn check_classes(&self, split: &Split) -> Outcome {
        let (student, data) = (self.network.shape().n_classes, split.dataset.n_classes());
        match student == data {
            true => Ok(()),
            false => Err(Failure::from(StudentError::Classes {
                left_name: "the student".into(),
                left: student,
                right_name: "the dataset".into(),
                right: data,
            })),
        }
    }

    fn n_held_out(&self) -> usize {
        self.recipe.train.as_ref().map_or(0, |train| train.held_out)
    }

    /// Fitted on the training images that the run held out.
    pub(crate) fn temperature(&self, experiment: &Experiment) -> Outcome<f64> {
        let split = experiment.train_in_clean_view()?;
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
        cache: Option<&LogitCache>,
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
            if let Some(cache) = cache {
                let mut rows = vec![0.0; logits.len()];
                TeacherRows::rows(cache, pixels, &mut rows, &mut vec![0; pixels.n])?;
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
    teacher: Option<Vec<f32>>,
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

/// The cache of the evaluation split, where it was made. Without it there is no agreement, and that is said.
fn teacher_rows(
    experiment: &Experiment,
    cache_dir: &Path,
    run: &Path,
) -> Outcome<Option<LogitCache>> {
    let Some(teacher) = experiment.recipe.teacher.first() else {
        return Ok(None);
    };
    let wants = experiment.wants(teacher)?;
    let Some(want) = wants.iter().find(|want| want.split.role == Role::Eval) else {
        return Ok(None);
    };
    match want.open(cache_dir, &run.join(RECIPE)) {
        Ok(cache) => Ok(Some(cache)),
        Err(failure) => {
            say(format!("no agreement with the teacher: {failure}"));
            Ok(None)
        }
    }
}

#[derive(Serialize)]
struct Page {
    run: PathBuf,
    checkpoint: &'static str,
    epoch: usize,
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
    fn print(&self, json: bool) -> Outcome {
        if json {
            println!("{}", serde_json::to_string(self).map_err(Failure::work)?);
            return Ok(());
        }
        let m = &self.metrics;
        println!(
            "{} after epoch {}, {} images",
            self.run.display(),
            self.epoch,
            m.n_samples
        );
        println!("  top-1       {:.2} %", 100.0 * m.top1);
        println!("  top-5       {:.2} %", 100.0 * m.top5);
        if let (Some(agreement), Some(divergence)) = (m.agreement, m.divergence) {
            println!("  agreement   {:.2} % with the teacher", 100.0 * agreement);
            println!("  divergence  {divergence:.4} nats from the teacher");
        }
        println!("  NLL         {:.4} nats", m.nll);
        println!("  ECE         {:.2} %", 100.0 * m.ece);
        match (self.temperature, &self.calibrated) {
            (Some(temperature), Some(m)) => {
                println!("at temperature {temperature:.4}, fitted on held-out training images");
                println!("  NLL         {:.4} nats", m.nll);
                println!("  ECE         {:.2} %", 100.0 * m.ece);
            }
            _ => say(
                "no temperature was fitted: the run held no training images out (`train.held_out`)",
            ),
        }
        println!("  class  images   top-1       NLL  name");
        for row in &self.classes {
            println!(
                "  {:>5}  {:>6}  {:>6.2} %  {:>7.4}  {}",
                row.class,
                row.n_samples,
                100.0 * row.top1,
                row.nll,
                row.name
            );
        }
        Ok(())
    }
}
