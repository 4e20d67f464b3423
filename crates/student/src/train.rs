//! The loop, told in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use logitcask_dataset::{
    Dataset, Draw, Loader, PixelBatch, PixelLayout, Preprocess, ViewFamily, epoch_view,
};
use logitcask_layers::Mode;
use logitcask_losses::Objective;
use logitcask_philox::{Purpose, Stream};
use serde::{Deserialize, Serialize};

use crate::batch::pixel_tensor;
use crate::checkpoint::Position;
use crate::{
    Checkpoint, EpochRecord, Metrics, Network, OptimizerSpec, RunRecord, ScheduleSpec, Sgd,
    StudentError, Tally, TeacherRows, Term, Times, TrainBatch,
};

/// `[train]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Passes over the selected samples.
    pub epochs: usize,
    /// Samples per step.
    pub batch_size: usize,
    /// The optimiser and its settings.
    pub optimizer: OptimizerSpec,
    /// How the learning rate moves; constant where absent.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Leave out the last, smaller batch of each epoch. Kept by default, as PyTorch does; a last batch of a single
    /// sample is always left out, because batch statistics of one sample say nothing.
    #[serde(default)]
    pub drop_last: bool,
}

/// Everything a run needs. What decides its outcome is in the recipe; the rest is where to read and where to write.
pub struct Job<'a> {
    /// The recipe's seed.
    pub seed: u64,
    /// `[train]`.
    pub spec: &'a TrainSpec,
    /// The training split.
    pub train: Arc<Dataset>,
    /// The views that student and teacher share.
    pub family: Arc<ViewFamily>,
    /// Captured views to draw from.
    pub n_views: u32,
    /// How they are drawn.
    pub draw: Draw,
    /// The student's normalisation.
    pub preprocess: Preprocess,
    /// The teacher's rows for the training split; `None` where no loss asks for them.
    pub teacher: Option<&'a dyn TeacherRows>,
    /// The evaluation split, if the recipe names one.
    pub evaluation: Option<Evaluation<'a>>,
    /// BLAKE3 of everything that decides the run, in hex: a checkpoint of another run is refused.
    pub run_digest: String,
    /// The run's folder; it exists.
    pub run: &'a Path,
    /// Threads that prepare pixels.
    pub loader_threads: usize,
    /// Where the student computes.
    pub device: Device,
}

/// A split to evaluate on.
#[derive(Clone)]
pub struct Evaluation<'a> {
    /// The split.
    pub dataset: Arc<Dataset>,
    /// Its one view: the clean one.
    pub family: Arc<ViewFamily>,
    /// The teacher's rows of its clean view, for agreement.
    pub teacher: Option<&'a dyn TeacherRows>,
}

/// What happens in a run, for whoever wants to show it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first step is about to be made.
    Started {
        /// Samples per epoch.
        n_train: usize,
        /// Steps per epoch.
        steps_per_epoch: usize,
        /// Epochs that an earlier, interrupted run has done.
        epochs_done: usize,
    },
    /// A step was made.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// Total loss.
        loss: f64,
        /// The loss's terms.
        terms: &'a [Term],
        /// Samples in the batch.
        batch_size: usize,
    },
    /// An epoch was trained, evaluated and saved.
    Epoch(&'a EpochRecord),
}

/// Trains `network` by `job`, picking up where an interrupted run stopped. Returns `None` if `stop` was raised: then the
/// step in work was finished and the last completed epoch is on disk.
///
/// The same job gives the same weights, bit for bit, on one CPU feature level and at any number of threads.
///
/// # Errors
/// [`StudentError`], naming what is wrong and where.
pub fn train(
    job: &Job,
    network: &Network,
    objective: &Objective,
    stop: &AtomicBool,
    events: &dyn Fn(Event),
) -> Result<Option<RunRecord>, StudentError> {
    let selected = job.train.selected();
    let batches_per_epoch = check(job, selected.len())?;
    let mut parameters = network.params().parameters().to_vec();
    parameters.extend(objective.parameters());
    let mut optimizer = Sgd::new(parameters, &job.spec.optimizer);
    let mut position = resume(job, network, objective, &mut optimizer)?;
    let mut times = Times::read(job.run)?;
    let mut history = EpochRecord::read_all(job.run)?;
    history.truncate(position.epochs_done);
    events(Event::Started {
        n_train: selected.len(),
        steps_per_epoch: batches_per_epoch,
        epochs_done: position.epochs_done,
    });

    for epoch in position.epochs_done..job.spec.epochs {
        let started = Instant::now();
        let Some(mut record) = train_epoch(
            job,
            network,
            objective,
            &mut optimizer,
            &selected,
            epoch,
            stop,
            events,
        )?
        else {
            return Ok(None);
        };
        times.train_seconds += started.elapsed().as_secs_f64();

        if let Some(evaluation) = &job.evaluation {
            let started = Instant::now();
            record.eval = Some(evaluate(
                network,
                evaluation,
                &job.preprocess,
                job.loader_threads,
                &job.device,
            )?);
            times.eval_seconds += started.elapsed().as_secs_f64();
        }

        history.push(record);
        position.epochs_done = epoch + 1;
        let record = &history[epoch];
        let checkpoint = snapshot(network, objective, &optimizer, &position)?;
        if std::ptr::eq(best_of(&history), record) {
            checkpoint.write(&job.run.join(Checkpoint::BEST))?;
        }
        // Metrics before the checkpoint: a kill between the two repeats an epoch, and resuming cuts its line off again.
        EpochRecord::write_all(&history, job.run)?;
        times.write(job.run)?;
        checkpoint.write(&job.run.join(Checkpoint::LAST))?;
        events(Event::Epoch(record));
    }

    let last = history.last().cloned().ok_or(StudentError::Setting {
        setting: "train.epochs",
        problem: "is 0, so there is nothing to train".into(),
    })?;
    Ok(Some(RunRecord {
        student: network.name().to_owned(),
        n_parameters: network.n_parameters(),
        n_train: selected.len(),
        best: best_of(&history).clone(),
        last,
        times,
        recorded: Default::default(),
    }))
}

/// One pass over the selected samples; `None` if `stop` was raised.
#[expect(
    clippy::too_many_arguments,
    reason = "the loop's own state, named at its one call"
)]
fn train_epoch(
    job: &Job,
    network: &Network,
    objective: &Objective,
    optimizer: &mut Sgd,
    selected: &[u32],
    epoch: usize,
    stop: &AtomicBool,
    events: &dyn Fn(Event),
) -> Result<Option<EpochRecord>, StudentError> {
    let plan = epoch_plan(job, selected, epoch);
    let n_steps = plan.len();
    let mut loader = Loader::new(
        job.train.clone(),
        job.family.clone(),
        job.preprocess.clone(),
        PixelLayout::Nhwc,
        plan.into_iter(),
        job.loader_threads,
        READ_AHEAD,
    );
    let mut sums = EpochSums::default();
    let mut step = 0;
    while let Some(pixels) = loader.next() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut pixels = pixels?;
        refuse_bad(&mut pixels)?;
        let batch = TrainBatch::join(&pixels, &job.train, job.teacher, &job.device)?;
        loader.recycle(pixels);

        let logits = network.forward(&batch.pixels, Mode::Train)?;
        let host_logits = logits.flatten_all()?.to_vec1::<f32>()?;
        if let Some(value) = host_logits.iter().find(|z| !z.is_finite()) {
            return Err(non_finite(
                epoch,
                step,
                "a logit of the student",
                f64::from(*value),
                &[],
            ));
        }
        let value = objective.forward(&batch.losses_see(&logits), epoch as u32 + 1)?;
        let loss = scalar(&value.total)?;
        let terms = value
            .terms
            .iter()
            .map(|term| {
                Ok(Term {
                    name: term.name.clone(),
                    weight: term.weight,
                    value: scalar(&term.value)?,
                })
            })
            .collect::<Result<Vec<_>, StudentError>>()?;
        if !loss.is_finite() {
            return Err(non_finite(epoch, step, "the loss", loss, &terms));
        }

        let gradients = value.total.backward()?;
        let step_epochs = 1.0 / n_steps as f64;
        let elapsed = epoch as f64 + step as f64 * step_epochs;
        let total_epochs = job.spec.epochs as f64;
        let lr = job
            .spec
            .schedule
            .lr(job.spec.optimizer.lr(), elapsed, step_epochs, total_epochs);
        optimizer.step(&gradients, lr)?;

        step += 1;
        sums.add(loss, &terms, &host_logits, &batch.host_labels, lr);
        events(Event::Step {
            epoch: epoch + 1,
            step,
            loss,
            terms: &terms,
            batch_size: batch.host_labels.len(),
        });
    }
    Ok(Some(sums.into_record(epoch + 1)))
}

/// Batches that the loader may prepare ahead of the step in work.
const READ_AHEAD: usize = 4;

/// The epoch's batches of (sample, view): a shuffle that only seed and epoch decide, and for each sample the view that
/// seed, sample and epoch decide.
fn epoch_plan(job: &Job, selected: &[u32], epoch: usize) -> Vec<Vec<(u32, u32)>> {
    let mut order = selected.to_vec();
    Stream::new(job.seed, Purpose::Shuffle, [epoch as u64, 0, 0]).shuffle(&mut order);
    order
        .chunks(job.spec.batch_size)
        .filter(|batch| {
            batch.len() == job.spec.batch_size || (batch.len() > 1 && !job.spec.drop_last)
        })
        .map(|batch| {
            let view = |&sample: &u32| {
                let view = epoch_view(job.seed, sample, epoch as u32, job.n_views, job.draw);
                (sample, view)
            };
            batch.iter().map(view).collect()
        })
        .collect()
}

/// Evaluates on the clean view with running statistics.
///
/// # Errors
/// If a sample cannot be read or a teacher's row is absent.
pub fn evaluate(
    network: &Network,
    evaluation: &Evaluation,
    preprocess: &Preprocess,
    loader_threads: usize,
    device: &Device,
) -> Result<Metrics, StudentError> {
    const BATCH_SIZE: usize = 256;
    let selected = evaluation.dataset.selected();
    let plan: Vec<Vec<(u32, u32)>> = selected
        .chunks(BATCH_SIZE)
        .map(|batch| batch.iter().map(|&sample| (sample, 0)).collect())
        .collect();
    let mut loader = Loader::new(
        evaluation.dataset.clone(),
        evaluation.family.clone(),
        preprocess.clone(),
        PixelLayout::Nhwc,
        plan.into_iter(),
        loader_threads,
        READ_AHEAD,
    );
    let mut tally = Tally::default();
    while let Some(pixels) = loader.next() {
        let mut pixels = pixels?;
        refuse_bad(&mut pixels)?;
        let logits = network.forward(&pixel_tensor(&pixels, device)?, Mode::Eval)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        let labels: Vec<u32> = pixels
            .requests
            .iter()
            .map(|&(sample, _)| evaluation.dataset.labels()[sample as usize])
            .collect();
        let mut teacher_logits = vec![0.0; logits.len()];
        if let Some(teacher) = evaluation.teacher {
            let mut teacher_labels = vec![0; labels.len()];
            teacher.rows(&pixels, &mut teacher_logits, &mut teacher_labels)?;
        }
        let teacher_logits = evaluation.teacher.map(|_| teacher_logits.as_slice());
        tally.add(&logits, &labels, teacher_logits);
        loader.recycle(pixels);
    }
    Ok(tally.metrics())
}

/// A bad sample that the fingerprint could not find (a lossy image that is damaged inside) has a null row in the cache
/// and no pixels: training on zeros in its place would be a silent fallback.
fn refuse_bad(pixels: &mut PixelBatch) -> Result<(), StudentError> {
    match pixels.bad.pop() {
        None => Ok(()),
        Some(bad) => Err(bad.error.into()),
    }
}

/// Refuses what cannot be trained; returns the number of steps in an epoch.
fn check(job: &Job, n_samples: usize) -> Result<usize, StudentError> {
    let batch_size = job.spec.batch_size;
    if batch_size < 2 {
        return Err(StudentError::Setting {
            setting: "train.batch_size",
            problem: format!("is {batch_size}, but batch statistics need at least 2 samples"),
        });
    }
    if job.spec.epochs == 0 {
        return Err(StudentError::Setting {
            setting: "train.epochs",
            problem: "is 0, so there is nothing to train".into(),
        });
    }
    let lr = job.spec.optimizer.lr();
    if !(lr.is_finite() && lr > 0.0) {
        return Err(StudentError::Setting {
            setting: "train.optimizer.lr",
            problem: format!("is {lr}, expected a number above 0"),
        });
    }
    if batch_size > n_samples {
        return Err(StudentError::TooFewSamples {
            n_samples,
            batch_size,
        });
    }
    let n_classes = job.train.n_classes();
    if let Some(teacher) = job
        .teacher
        .filter(|teacher| teacher.n_classes() != n_classes)
    {
        return Err(StudentError::Classes {
            left_name: "the dataset".into(),
            left: n_classes,
            right_name: "the teacher's cache".into(),
            right: teacher.n_classes(),
        });
    }
    let rest = n_samples % batch_size;
    Ok(n_samples / batch_size + usize::from(rest > 1 && !job.spec.drop_last))
}

fn resume(
    job: &Job,
    network: &Network,
    objective: &Objective,
    optimizer: &mut Sgd,
) -> Result<Position, StudentError> {
    let path = job.run.join(Checkpoint::LAST);
    let Some(Checkpoint { position, tensors }) = Checkpoint::read(&path)? else {
        return Ok(Position {
            epochs_done: 0,
            run_digest: job.run_digest.clone(),
        });
    };
    if position.run_digest != job.run_digest {
        return Err(StudentError::Checkpoint {
            path,
            problem: "belongs to another recipe, dataset or cache".into(),
        });
    }
    let part = |prefix: &str| {
        tensors
            .iter()
            .filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
            })
            .collect::<std::collections::HashMap<_, _>>()
    };
    network.load(&part(STUDENT))?;
    let of_losses = part(LOSS);
    for (name, var) in objective.parameters() {
        let saved = of_losses
            .get(&name)
            .ok_or_else(|| StudentError::Checkpoint {
                path: path.clone(),
                problem: format!("lacks the loss parameter `{name}`"),
            })?;
        var.set(&saved.to_device(var.device())?)?;
    }
    optimizer.load(&part(VELOCITY))?;
    Ok(position)
}

const STUDENT: &str = "student.";
const LOSS: &str = "loss.";
const VELOCITY: &str = "velocity.";

fn snapshot(
    network: &Network,
    objective: &Objective,
    optimizer: &Sgd,
    position: &Position,
) -> Result<Checkpoint, StudentError> {
    let mut tensors = std::collections::HashMap::new();
    for (name, tensor) in network.state()? {
        tensors.insert(format!("{STUDENT}{name}"), tensor);
    }
    for (name, var) in objective.parameters() {
        tensors.insert(format!("{LOSS}{name}"), var.as_tensor().clone());
    }
    for (name, tensor) in optimizer.to_tensors()? {
        tensors.insert(format!("{VELOCITY}{name}"), tensor);
    }
    Ok(Checkpoint {
        position: position.clone(),
        tensors,
    })
}

fn best_of(history: &[EpochRecord]) -> &EpochRecord {
    let top1 = |record: &EpochRecord| record.eval.map_or(f64::NEG_INFINITY, |eval| eval.top1);
    let evaluated = history.iter().any(|record| record.eval.is_some());
    let last = &history[history.len() - 1];
    let better = |best: &'_ EpochRecord, record: &'_ EpochRecord| top1(record) > top1(best);
    if !evaluated {
        return last;
    }
    let mut best = &history[0];
    for record in history {
        if better(best, record) {
            best = record;
        }
    }
    best
}

/// Sums over an epoch's steps.
#[derive(Default)]
struct EpochSums {
    n_steps: usize,
    loss: f64,
    terms: Vec<Term>,
    tally: Tally,
    lr: f64,
}

impl EpochSums {
    fn add(&mut self, loss: f64, terms: &[Term], logits: &[f32], labels: &[u32], lr: f64) {
        self.n_steps += 1;
        self.loss += loss;
        self.lr = lr;
        if self.terms.is_empty() {
            self.terms = terms.to_vec();
        } else {
            for (sum, term) in self.terms.iter_mut().zip(terms) {
                sum.value += term.value;
            }
        }
        self.tally.add(logits, labels, None);
    }

    fn into_record(mut self, epoch: usize) -> EpochRecord {
        let n_steps = self.n_steps.max(1) as f64;
        for term in &mut self.terms {
            term.value /= n_steps;
        }
        EpochRecord {
            epoch,
            lr: self.lr,
            loss: self.loss / n_steps,
            terms: self.terms,
            train_top1: self.tally.metrics().top1,
            eval: None,
        }
    }
}

fn non_finite(
    epoch: usize,
    step: usize,
    what: &'static str,
    value: f64,
    terms: &[Term],
) -> StudentError {
    let terms = terms
        .iter()
        .map(|term| format!("{} = {}", term.name, term.value));
    StudentError::NonFinite {
        epoch: epoch + 1,
        step: step + 1,
        what,
        value,
        terms: terms.collect::<Vec<_>>().join(", "),
    }
}

fn scalar(tensor: &Tensor) -> Result<f64, StudentError> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}
