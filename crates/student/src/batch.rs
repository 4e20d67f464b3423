use candle_core::{Device, Tensor};
use logitcask_cache::LogitCache;
use logitcask_dataset::{Dataset, PixelBatch, PixelLayout};
use logitcask_losses::{LogitBatch, MixedLabels};

use crate::StudentError;

/// Where the teacher's rows of a batch come from.
///
/// In training that is the cache, and only the cache. The trait exists so that a test can put the teacher itself in its
/// place, run on the very pixels of the batch, and show that nothing changes.
pub trait TeacherRows: Sync {
    /// Classes of a row.
    fn n_classes(&self) -> usize;

    /// Writes the logits (B, C) of the batch's (sample, view) pairs into `logits`, row by row, and the labels that the
    /// teacher's side holds for them into `labels`.
    ///
    /// # Errors
    /// If a row is absent or damaged.
    fn rows(
        &self,
        pixels: &PixelBatch,
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError>;
}

impl TeacherRows for LogitCache {
    fn n_classes(&self) -> usize {
        LogitCache::n_classes(self)
    }

    fn rows(
        &self,
        pixels: &PixelBatch,
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        Ok(LogitCache::rows(self, &pixels.requests, logits, labels)?)
    }
}

/// Pixels, labels and the teacher's rows of the same (sample, view) pairs.
pub struct TrainBatch {
    /// (B, height, width, channels), normalised.
    pub pixels: Tensor,
    /// (B), class indices.
    pub labels: Tensor,
    /// (B, C), raw; absent where no loss asks for a teacher.
    pub teacher_logits: Option<Tensor>,
    /// (B) labels of the partners and (B) shares of the samples themselves, where views are mixed.
    pub mixed: Option<(Tensor, Tensor)>,
    /// The labels again, on the host.
    pub host_labels: Vec<u32>,
}

impl TrainBatch {
    /// Joins by (sample, view): never by position in an order.
    ///
    /// # Errors
    /// If a row is absent or damaged, or its label is not the dataset's.
    pub fn join(
        pixels: &PixelBatch,
        dataset: &Dataset,
        teacher: Option<&dyn TeacherRows>,
        device: &Device,
    ) -> Result<Self, StudentError> {
        let host_labels: Vec<u32> = pixels
            .requests
            .iter()
            .map(|&(sample, _)| dataset.labels()[sample as usize])
            .collect();
        let teacher_logits = match teacher {
            None => None,
            Some(teacher) => {
                let n_classes = teacher.n_classes();
                let mut logits = vec![0.0; pixels.n * n_classes];
                let mut labels = vec![0; pixels.n];
                teacher.rows(pixels, &mut logits, &mut labels)?;
                check_labels(pixels, &host_labels, &labels)?;
                Some(Tensor::from_vec(logits, (pixels.n, n_classes), device)?)
            }
        };
        let mixed = match pixels.mixed.is_empty() {
            true => None,
            false => {
                let partners: Vec<u32> = pixels
                    .mixed
                    .iter()
                    .map(|mixed| mixed.partner_label)
                    .collect();
                let lambdas: Vec<f32> = pixels.mixed.iter().map(|mixed| mixed.lambda).collect();
                Some((
                    Tensor::new(partners, device)?,
                    Tensor::new(lambdas, device)?,
                ))
            }
        };
        Ok(Self {
            mixed,
            pixels: pixel_tensor(pixels, device)?,
            labels: Tensor::from_slice(&host_labels, host_labels.len(), device)?,
            teacher_logits,
            host_labels,
        })
    }
}

impl TrainBatch {
    /// The batch as losses see it, with the student's answer (B, C).
    pub fn losses_see<'a>(&'a self, student_logits: &'a Tensor) -> LogitBatch<'a> {
        LogitBatch {
            mixed: self
                .mixed
                .as_ref()
                .map(|(partner, lambda)| MixedLabels { partner, lambda }),
            ..LogitBatch::new(student_logits, self.teacher_logits.as_ref(), &self.labels)
        }
    }
}

/// The pixels as the student wants them.
pub(crate) fn pixel_tensor(batch: &PixelBatch, device: &Device) -> Result<Tensor, StudentError> {
    debug_assert_eq!(batch.layout, PixelLayout::Nhwc);
    let shape = (batch.n, batch.height, batch.width, batch.channels);
    Ok(Tensor::from_slice(&batch.pixels, shape, device)?)
}

fn check_labels(pixels: &PixelBatch, dataset: &[u32], cache: &[u32]) -> Result<(), StudentError> {
    let differing = dataset.iter().zip(cache).position(|(a, b)| a != b);
    match differing {
        None => Ok(()),
        Some(row) => Err(StudentError::Label {
            sample: pixels.requests[row].0,
            dataset: dataset[row],
            cache: cache[row],
        }),
    }
}
