//! The loop, told in order.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use logitcask_dataset::{Loader, PixelLayout};
use logitcask_layers::Mode;
use logitcask_losses::{Objective, ObjectiveValue, bank};

use crate::batch::{READ_AHEAD, next_pixels};
use crate::evaluate::evaluate;
use crate::optim::Gradients;
use crate::plan::{Plan, epoch_plan, hold_out};
use crate::record::Clock;
use crate::state::TrainState;
use crate::tensorboard::TensorBoard;
use crate::{
    Checkpoint, EpochRecord, Job, Network, RunRecord, Shown, StudentError, Term, Times, TrainBatch,
};

/// What happens in a run, for whoever wants to show it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first step is about to be made.
    Started {
        /// Samples that are trained on, those held out not among them.
        n_train: usize,
        /// Steps of a whole epoch, one for each batch.
        steps_per_epoch: usize,
        /// Epochs that an earlier, interrupted run has done.
        epochs_done: usize,
        /// Steps of the next epoch that it has done too.
        steps_done: usize,
    },
    /// Parameters that the first step's gradient does not reach: they will stay as they are.
    Unreached(&'a [String]),
    /// A step is about to be made.
    Batch {
        /// The epoch that the step is of, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// The step's learning rate.
        lr: f64,
        /// What it trains on.
        batch: &'a TrainBatch,
    },
    /// A step was made.
    Step {
        /// The epoch that the step is of, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// Total loss of the step's batch, terms weighted.
        loss: f64,
        /// The loss's terms on that batch, in the recipe's order.
        terms: &'a [Term],
        /// Accuracy on the epoch's batches so far.
        top1: f64,
        /// Images in the batch.
        batch_size: usize,
        /// Where time went so far.
        times: &'a Times,
    },
    /// An epoch was trained, evaluated and saved.
    Epoch(&'a EpochRecord),
}

/// Trains `network` by `job`, picking up where an interrupted run stopped. Returns `None` if `stop` was raised: then the
/// step in work was finished and saved.
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
    let (samples, _) = hold_out(job.seed, &job.train.selected(), job.spec.held_out);
    let steps_per_epoch = job.check(samples.len())?;
    let mut state = TrainState::open(job, network, objective)?;
    let mut times = Times::read(job.run)?;
    let mut board = TensorBoard::open(job.run, &state.history)?;
    events(Event::Started {
        n_train: samples.len(),
        steps_per_epoch,
        epochs_done: state.position.epochs_done,
        steps_done: state.position.steps_done,
    });

    while state.position.epochs_done < job.spec.epochs && !stops_early(job, &state.history) {
        let mut clock = Clock::start();
        let trained = train_epoch(job, &mut state, &samples, &mut times, stop, events)?;
        clock.lap(&mut times.train_seconds);
        let Some(mut record) = trained else {
            job.still_ours()?;
            times.write(job.run)?;
            return Ok(None);
        };
        let epoch = state.position.epochs_done + 1;
        let is_due = epoch % job.spec.eval_every == 0 || epoch == job.spec.epochs;
        if let Some(evaluation) = job.evaluation.as_ref().filter(|_| is_due) {
            let work = || {
                evaluate(
                    network,
                    evaluation,
                    &job.preprocess,
                    job.loader_threads,
                    &job.device,
                )
            };
            record.eval = Some(match &state.ema {
                Some(ema) => ema.lend(network, work)?,
                None => work()?,
            });
            clock.lap(&mut times.eval_seconds);
        }
        state.history.push(record);
        state.position.epochs_done += 1;
        state.position.steps_done = 0;
        save_epoch(job, &state, &times)?;
        if let Some(record) = state.history.last() {
            board.add(record)?;
            events(Event::Epoch(record));
        }
    }

    let last = state.history.last().cloned().ok_or(StudentError::Setting {
        setting: "train.epochs",
        problem: "is 0, so there is nothing to train".into(),
    })?;
    Ok(Some(RunRecord {
        student: network.name().to_owned(),
        n_parameters: network.n_parameters(),
        n_train: samples.len(),
        best: best_of(&state.history).clone(),
        last,
        times,
        recorded: Default::default(),
    }))
}

/// The rest of an epoch; `None` if `stop` was raised.
fn train_epoch(
    job: &Job,
    state: &mut TrainState,
    samples: &[u32],
    times: &mut Times,
    stop: &AtomicBool,
    events: &dyn Fn(Event),
) -> Result<Option<EpochRecord>, StudentError> {
    let epoch = state.position.epochs_done;
    let mut source = Source::new(job, samples, epoch, state.position.steps_done);
    let n_steps = source.n_steps;
    let n_bank = state.objective.needs().bank;
    let mut sums = state.position.sums.take().unwrap_or_default();
    let mut gradients = Gradients::default();
    let mut terms = Vec::new();
    let mut clock = Clock::start();
    for step in state.position.steps_done..n_steps {
        let batch = source.next(job, samples, n_bank, (epoch * n_steps + step) as u64)?;
        let lr = learning_rate(job, epoch, step, n_steps);
        events(Event::Batch {
            epoch: epoch + 1,
            step: step + 1,
            lr,
            batch: &batch,
        });
        clock.lap(&mut times.data_seconds);

        let answers = Answers::to(&batch, state.network)?;
        if let Some(value) = answers.host.iter().find(|z| !z.is_finite()) {
            let what = "a logit of the student";
            return Err(non_finite(epoch, step, what, f64::from(*value), &terms));
        }
        clock.lap(&mut times.forward_seconds);

        let seen = batch.losses_see(&answers.logits, answers.strong.as_ref());
        let value = state.objective.forward(&seen, epoch as u32 + 1)?;
        let loss = scalar(&value.total)?;
        terms = terms_of(&value)?;
        if !loss.is_finite() {
            return Err(non_finite(epoch, step, "the loss", loss, &terms));
        }
        clock.lap(&mut times.loss_seconds);

        gradients.add(value.total.backward()?, &state.parameters)?;
        clock.lap(&mut times.backward_seconds);

        if epoch + step == 0 {
            report_unreached(&gradients, state, events);
        }
        let is_whole = (step + 1) % job.spec.accumulate == 0 || step + 1 == n_steps;
        if is_whole && let Some(mean) = gradients.take(&state.parameters, job.spec.clip_norm)? {
            state.step(&mean, lr)?;
        }
        clock.lap(&mut times.step_seconds);

        sums.add(loss, &terms, &answers.host, &batch.host_labels, lr);
        let top1 = sums.top1();
        events(Event::Step {
            epoch: epoch + 1,
            step: step + 1,
            loss,
            terms: &terms,
            top1,
            batch_size: batch.host_labels.len(),
            times,
        });
        clock.lap(&mut times.metrics_seconds);

        let stops = stop.load(Ordering::Relaxed);
        let is_due = |every: usize| (step + 1).is_multiple_of(every);
        // Not between the batches of one step: a checkpoint holds no gradients.
        if is_whole && (stops || job.spec.checkpoint_steps.is_some_and(is_due)) {
            state.position.steps_done = step + 1;
            state.position.sums = Some(sums.clone());
            state.save(job)?;
            if stops {
                return Ok(None);
            }
            clock = Clock::start();
        }
    }
    state.position.sums = None;
    Ok(Some(sums.into_record(epoch + 1)))
}

/// A student's answers to a batch.
struct Answers {
    /// (B, C), to be walked back from.
    logits: Tensor,
    /// The same of the strong views, where there are any.
    strong: Option<Tensor>,
    /// The logits once more, as numbers.
    host: Vec<f32>,
}

impl Answers {
    fn to(batch: &TrainBatch, network: &Network) -> Result<Self, StudentError> {
        let logits = network.forward(&batch.pixels, Mode::Train)?;
        let strong = match &batch.strong {
            Some((pixels, _)) => Some(network.forward(pixels, Mode::Train)?),
            None => None,
        };
        Ok(Self {
            host: logits.flatten_all()?.to_vec1()?,
            logits,
            strong,
        })
    }
}

/// The terms of a loss as numbers.
fn terms_of(value: &ObjectiveValue) -> Result<Vec<Term>, StudentError> {
    let number = |term: &logitcask_losses::Term| {
        Ok(Term {
            name: term.name.clone(),
            weight: term.weight,
            value: scalar(&term.value)?,
        })
    };
    value.terms.iter().map(number).collect()
}

/// Where an epoch's batches come from.
struct Source {
    n_steps: usize,
    views: Loader,
    strong: Option<Loader>,
}

impl Source {
    fn new(job: &Job, samples: &[u32], epoch: usize, steps_done: usize) -> Self {
        let (plan, strong) = epoch_plan(job, samples, epoch);
        let loader = |shown: &Shown, plan: Plan| {
            Loader::new(
                job.train.clone(),
                shown.family.clone(),
                job.preprocess.clone(),
                PixelLayout::Nhwc,
                plan.into_iter().skip(steps_done),
                job.loader_threads,
                READ_AHEAD,
            )
        };
        Self {
            n_steps: plan.len(),
            views: loader(&job.views, plan),
            strong: job
                .strong
                .as_ref()
                .zip(strong)
                .map(|(shown, plan)| loader(shown, plan)),
        }
    }

    /// The next step's batch. `step` counts over the whole run: it decides the bank, and who of an ensemble takes part.
    fn next(
        &mut self,
        job: &Job,
        samples: &[u32],
        n_bank: usize,
        step: u64,
    ) -> Result<TrainBatch, StudentError> {
        let strong_teacher = job.strong.as_ref().and_then(|shown| shown.teacher);
        for teacher in job.views.teacher.into_iter().chain(strong_teacher) {
            teacher.begin_step(step);
        }
        let pixels = next_pixels(&mut self.views)?;
        let mut batch = TrainBatch::join(&pixels, &job.train, job.views.teacher, &job.device)?;
        if let (Some(loader), Some(shown)) = (&mut self.strong, &job.strong)
            && let Some(teacher) = shown.teacher
        {
            let pixels = next_pixels(loader)?;
            batch = batch.with_strong(&pixels, &job.train, teacher, &job.device)?;
            loader.recycle(pixels);
        }
        if let Some(teacher) = job.views.teacher.filter(|_| n_bank > 0) {
            let own: Vec<u32> = pixels.requests.iter().map(|&(sample, _)| sample).collect();
            let n_views = teacher.captured_views(job.views.n_views);
            let pairs = bank::draw(job.seed, step, n_bank, samples, n_views, &own)?;
            batch = batch.with_bank(&pairs, &job.train, teacher)?;
        }
        self.views.recycle(pixels);
        Ok(batch)
    }
}

fn learning_rate(job: &Job, epoch: usize, step: usize, n_steps: usize) -> f64 {
    let step_epochs = 1.0 / n_steps as f64;
    let elapsed = epoch as f64 + step as f64 * step_epochs;
    let base = job.spec.optimizer.lr();
    let schedule = &job.spec.schedule;
    schedule.lr(base, elapsed, step_epochs, job.spec.epochs as f64)
}

fn report_unreached(gradients: &Gradients, state: &TrainState, events: &dyn Fn(Event)) {
    let unreached: Vec<String> = gradients
        .lacks(&state.parameters)
        .map(str::to_owned)
        .collect();
    if !unreached.is_empty() {
        events(Event::Unreached(&unreached));
    }
}

/// Metrics go before the checkpoint: a kill between the two repeats an epoch, and resuming cuts its line off again.
fn save_epoch(job: &Job, state: &TrainState, times: &Times) -> Result<(), StudentError> {
    let checkpoint = state.snapshot()?;
    job.still_ours()?;
    let epoch = state.history.len();
    if best_of(&state.history).epoch == epoch {
        checkpoint.write(&job.run.join(Checkpoint::BEST))?;
    }
    let keep = job.spec.keep_checkpoints;
    if keep > 0 {
        checkpoint.write(&job.run.join(Checkpoint::of_epoch(epoch)))?;
        // The one that falls out now, and one that a kill may have left.
        for old in epoch.saturating_sub(keep + 1)..=epoch.saturating_sub(keep) {
            let path = job.run.join(Checkpoint::of_epoch(old));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StudentError::io("remove", path)(error));
                }
                _ => {}
            }
        }
    }
    EpochRecord::write_all(&state.history, job.run)?;
    times.write(job.run)?;
    checkpoint.write(&job.run.join(Checkpoint::LAST))
}

/// Only an evaluation ends a run, so that the last epoch always has one.
fn stops_early(job: &Job, history: &[EpochRecord]) -> bool {
    let is_evaluated = history.last().is_some_and(|epoch| epoch.eval.is_some());
    let is_over = |patience: usize| history.len() - best_of(history).epoch >= patience;
    is_evaluated && job.spec.early_stop.is_some_and(is_over)
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
