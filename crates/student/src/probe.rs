//! What a student's features are worth elsewhere: its backbone stays as it is, and a linear layer is trained on top.

use candle_core::{DType, Device, Tensor};
use logitcask_dataset::Preprocess;
use logitcask_layers::{Init, Linear, Mode, Params};
use logitcask_losses::{LogitBatch, LossSpec, Objective, Setup};
use logitcask_philox::{Purpose, Stream};

use crate::evaluate::{Evaluation, each_batch};
use crate::tally::{Metrics, Tally};
use crate::{Network, Optimizer, StudentError, TrainSpec};

/// A probe after an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeEpoch {
    /// The epoch that it follows, from 1.
    pub epoch: usize,
    /// Mean cross-entropy over the epoch's steps.
    pub loss: f64,
    /// On the evaluation split.
    pub eval: Metrics,
}

/// Trains the linear layer on the features of the training split's clean view, with running statistics, and evaluates it
/// after each epoch. A frozen backbone gives the same features in every epoch, so they are computed once.
///
/// Of `spec`, the epochs, the batch size, the optimiser and the schedule are obeyed; the same arguments give the same
/// numbers at any number of threads.
///
/// # Errors
/// If a sample cannot be read, the images are not the student's, or a setting does not fit a linear layer.
pub fn probe(
    network: &Network,
    preprocess: &Preprocess,
    train: &Evaluation,
    eval: &Evaluation,
    spec: &TrainSpec,
    seed: u64,
    epochs: &dyn Fn(ProbeEpoch),
) -> Result<Vec<ProbeEpoch>, StudentError> {
    let device = Device::Cpu;
    check(spec)?;
    let known = features(network, preprocess, train, &device)?;
    let asked = features(network, preprocess, eval, &device)?;
    let n_classes = train.dataset.n_classes();
    let params = Params::new(seed, DType::F32, &device)?;
    let linear = Linear::new(
        &params.root().enter("probe"),
        known.width,
        n_classes,
        Init::UniformFanIn,
    )?;
    let mut optimizer = Optimizer::new(params.parameters(), &spec.optimizer);
    let setup = Setup {
        n_classes,
        epochs: spec.epochs as u32,
        dtype: DType::F32,
        device: &device,
    };
    let ce = LossSpec {
        name: "ce".to_owned(),
        options: Default::default(),
    };
    let objective = Objective::new(&[ce], &setup)?;

    let mut history = Vec::with_capacity(spec.epochs);
    let mut order: Vec<usize> = (0..known.labels.len()).collect();
    for epoch in 0..spec.epochs {
        order.sort_unstable();
        Stream::new(seed, Purpose::Shuffle, [epoch as u64, 0, 0]).shuffle(&mut order);
        let batches: Vec<&[usize]> = order.chunks(spec.batch_size).collect();
        let mut sum = 0.0;
        for (step, batch) in batches.iter().enumerate() {
            let (pixels, labels) = known.batch(batch, &device)?;
            let logits = linear.forward(&pixels)?;
            let value =
                objective.forward(&LogitBatch::new(&logits, None, &labels), epoch as u32 + 1)?;
            let step_epochs = 1.0 / batches.len() as f64;
            let elapsed = epoch as f64 + step as f64 * step_epochs;
            let lr = spec.schedule.lr(
                spec.optimizer.lr(),
                elapsed,
                step_epochs,
                spec.epochs as f64,
            );
            optimizer.step(&value.total.backward()?, lr)?;
            sum += f64::from(value.total.to_scalar::<f32>()?);
        }
        let record = ProbeEpoch {
            epoch: epoch + 1,
            loss: sum / batches.len() as f64,
            eval: asked.metrics(&linear, &device)?,
        };
        epochs(record);
        history.push(record);
    }
    Ok(history)
}

fn check(spec: &TrainSpec) -> Result<(), StudentError> {
    let wrong = |setting, problem: &str| {
        Err(StudentError::Setting {
            setting,
            problem: problem.to_owned(),
        })
    };
    if spec.epochs == 0 || spec.batch_size == 0 {
        return wrong(
            "train",
            "has no epochs or an empty batch, so there is nothing to train",
        );
    }
    let does_more = spec.accumulate != 1
        || spec.clip_norm.is_some()
        || spec.ema.is_some()
        || spec.eval_every != 1
        || spec.early_stop.is_some()
        || spec.held_out != 0;
    match does_more {
        true => wrong(
            "train",
            "has more than a linear probe obeys: epochs, batch_size, optimizer, schedule",
        ),
        false => Ok(()),
    }
}

/// What the last layer would see: (N, width), row by row, and labels (N).
struct Features {
    rows: Vec<f32>,
    width: usize,
    labels: Vec<u32>,
}

fn features(
    network: &Network,
    preprocess: &Preprocess,
    split: &Evaluation,
    device: &Device,
) -> Result<Features, StudentError> {
    let mut found = Features {
        rows: Vec::new(),
        width: 0,
        labels: Vec::new(),
    };
    let samples = split.dataset.selected();
    each_batch(
        network,
        split,
        &samples,
        preprocess,
        1,
        device,
        &mut |pixels, tensor| {
            let features = network.features(tensor, Mode::Eval)?;
            found.width = features.dims2()?.1;
            found.rows.extend(features.flatten_all()?.to_vec1::<f32>()?);
            let label = |&(sample, _): &(u32, u32)| split.dataset.labels()[sample as usize];
            found.labels.extend(pixels.requests.iter().map(label));
            Ok(())
        },
    )?;
    Ok(found)
}

impl Features {
    fn batch(&self, samples: &[usize], device: &Device) -> Result<(Tensor, Tensor), StudentError> {
        let rows: Vec<f32> = samples
            .iter()
            .flat_map(|&sample| &self.rows[sample * self.width..][..self.width])
            .copied()
            .collect();
        let labels: Vec<u32> = samples.iter().map(|&sample| self.labels[sample]).collect();
        Ok((
            Tensor::from_vec(rows, (samples.len(), self.width), device)?,
            Tensor::new(labels, device)?,
        ))
    }

    fn metrics(&self, linear: &Linear, device: &Device) -> Result<Metrics, StudentError> {
        let mut tally = Tally::default();
        let samples: Vec<usize> = (0..self.labels.len()).collect();
        for batch in samples.chunks(1024) {
            let (rows, _) = self.batch(batch, device)?;
            let logits = linear
                .without_gradient(&rows)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            tally.add(&logits, &self.labels[batch[0]..][..batch.len()], None);
        }
        Ok(tally.metrics())
    }
}
