//! A student's answers to the clean views of a split, and what they are worth.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use logitcask_dataset::{Dataset, Loader, PixelBatch, PixelLayout, Preprocess, ViewFamily};
use logitcask_layers::Mode;

use crate::batch::{READ_AHEAD, next_pixels, pixel_tensor};
use crate::{Metrics, Network, StudentError, Tally, TeacherRows};

/// A split to evaluate on.
#[derive(Clone)]
pub struct Evaluation<'a> {
    /// The split; its selected samples are asked.
    pub dataset: Arc<Dataset>,
    /// Its one view: the clean one.
    pub family: Arc<ViewFamily>,
    /// The teacher's rows of its clean view, for agreement.
    pub teacher: Option<&'a dyn TeacherRows>,
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
    let mut tally = Tally::default();
    let selected = evaluation.dataset.selected();
    let mut add = |pixels: &PixelBatch, logits: &[f32]| {
        let label = |&(sample, _): &(u32, u32)| evaluation.dataset.labels()[sample as usize];
        let labels: Vec<u32> = pixels.requests.iter().map(label).collect();
        let teacher_logits = match evaluation.teacher {
            None => None,
            Some(teacher) => {
                let mut teacher_logits = vec![0.0; logits.len()];
                teacher.rows(pixels, &mut teacher_logits, &mut vec![0; labels.len()])?;
                Some(teacher_logits)
            }
        };
        tally.add(logits, &labels, teacher_logits.as_deref());
        Ok(())
    };
    predict(
        network,
        evaluation,
        &selected,
        preprocess,
        loader_threads,
        device,
        &mut add,
    )?;
    Ok(tally.metrics())
}

/// What takes a batch and its logits (B, C), row by row.
pub type Sink<'a> = dyn FnMut(&PixelBatch, &[f32]) -> Result<(), StudentError> + 'a;

/// Hands over the student's logits (B, C), batch by batch, for the clean views of some samples.
///
/// # Errors
/// If a sample cannot be read, or what `sink` reports.
pub fn predict(
    network: &Network,
    evaluation: &Evaluation,
    samples: &[u32],
    preprocess: &Preprocess,
    loader_threads: usize,
    device: &Device,
    sink: &mut Sink,
) -> Result<(), StudentError> {
    each_batch(
        network,
        evaluation,
        samples,
        preprocess,
        loader_threads,
        device,
        &mut |pixels, tensor| {
            let logits = network.forward(tensor, Mode::Eval)?;
            sink(pixels, &logits.flatten_all()?.to_vec1::<f32>()?)
        },
    )
}

/// Shows the clean views of some samples, as many at a time as the network takes at once.
pub(crate) fn each_batch(
    network: &Network,
    evaluation: &Evaluation,
    samples: &[u32],
    preprocess: &Preprocess,
    loader_threads: usize,
    device: &Device,
    see: &mut dyn FnMut(&PixelBatch, &Tensor) -> Result<(), StudentError>,
) -> Result<(), StudentError> {
    let batches: Vec<Vec<(u32, u32)>> = samples
        .chunks(network.images_at_once()?)
        .map(|batch| batch.iter().map(|&sample| (sample, 0)).collect())
        .collect();
    let n_batches = batches.len();
    let mut loader = Loader::new(
        evaluation.dataset.clone(),
        evaluation.family.clone(),
        preprocess.clone(),
        PixelLayout::Nhwc,
        batches.into_iter(),
        loader_threads,
        READ_AHEAD,
    );
    for _ in 0..n_batches {
        let pixels = next_pixels(&mut loader)?;
        see(&pixels, &pixel_tensor(&pixels, device)?)?;
        loader.recycle(pixels);
    }
    Ok(())
}
