//! What a step trains on: pixels, labels and the teacher's rows, joined by (sample, view) and never by position.

use candle_core::{DType, Device, Tensor};
use logitcask_cache::{Encoding, LogitCache, REST_TEMPERATURES};
use logitcask_dataset::{Dataset, Loader, PixelBatch, PixelLayout};
use logitcask_losses::{
    BankRows, LogitBatch, LossError, MixedLabels, Need, StrongView, TopKLogits,
};

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

    /// The same for any (sample, view) pairs, without their pixels: what a bank draws from.
    ///
    /// # Errors
    /// If a row is absent or damaged, or the teacher has only rows of batches.
    fn bank(
        &self,
        pairs: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        let _ = (logits, labels);
        Err(LossError::Unserved {
            loss: "bank".into(),
            needs: Need::Bank(pairs.len()),
            supplied: "the teacher answers for the batch at hand only",
        }
        .into())
    }

    /// What follows is asked for this step, counted over the whole run: an ensemble draws anew who takes part.
    fn begin_step(&self, step: u64) {
        let _ = step;
    }

    /// What there is of the rows of these (sample, view) pairs where only the k largest logits are kept, and their labels;
    /// `None` where every class's logit is, and [`rows`](Self::rows) answers.
    ///
    /// # Errors
    /// If a row is absent or damaged.
    fn top_k(&self, pairs: &[(u32, u32)]) -> Result<Option<(TopKLogits, Vec<u32>)>, StudentError> {
        let _ = pairs;
        Ok(None)
    }

    /// How many of a sample's `n_views` views have rows of their own.
    fn captured_views(&self, n_views: u32) -> u32 {
        n_views
    }
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
        self.bank(&pixels.requests, logits, labels)
    }

    fn bank(
        &self,
        pairs: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        Ok(LogitCache::rows(self, pairs, logits, labels)?)
    }

    fn top_k(&self, pairs: &[(u32, u32)]) -> Result<Option<(TopKLogits, Vec<u32>)>, StudentError> {
        top_k_of(self, pairs)
    }
}

fn top_k_of(
    cache: &LogitCache,
    pairs: &[(u32, u32)],
) -> Result<Option<(TopKLogits, Vec<u32>)>, StudentError> {
    let Encoding::TopK(k) = cache.encoding() else {
        return Ok(None);
    };
    let mut all = TopKLogits {
        k: k as usize,
        temperatures: REST_TEMPERATURES.to_vec(),
        ..TopKLogits::default()
    };
    let mut labels = Vec::with_capacity(pairs.len());
    for (label, row) in cache.top_k_rows(pairs)? {
        labels.push(label);
        all.classes.extend(row.classes);
        all.logits.extend(row.logits);
        all.rest.extend(row.rest);
    }
    Ok(Some((all, labels)))
}

/// `inconsistent = true`: whatever view the student sees, the teacher's row is that of the clean image.
pub struct CleanRows<'a>(
    /// What answers for the clean view, a cache or an ensemble.
    pub &'a dyn TeacherRows,
);

impl TeacherRows for CleanRows<'_> {
    fn n_classes(&self) -> usize {
        self.0.n_classes()
    }

    fn rows(
        &self,
        pixels: &PixelBatch,
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        self.bank(&pixels.requests, logits, labels)
    }

    fn bank(
        &self,
        pairs: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        let clean: Vec<(u32, u32)> = pairs.iter().map(|&(sample, _)| (sample, 0)).collect();
        self.0.bank(&clean, logits, labels)
    }

    fn begin_step(&self, step: u64) {
        self.0.begin_step(step);
    }

    fn top_k(&self, pairs: &[(u32, u32)]) -> Result<Option<(TopKLogits, Vec<u32>)>, StudentError> {
        let clean: Vec<(u32, u32)> = pairs.iter().map(|&(sample, _)| (sample, 0)).collect();
        self.0.top_k(&clean)
    }

    fn captured_views(&self, _: u32) -> u32 {
        1
    }
}

/// Pixels, labels and the teacher's rows of the same (sample, view) pairs. Pixels go to the student's device; the rest
/// stays on the host, where losses are computed.
#[derive(Debug)]
pub struct TrainBatch {
    /// (B, height, width, channels), normalised.
    pub pixels: Tensor,
    /// (B), class indices from 0, as the dataset has them.
    pub labels: Tensor,
    /// (B, C), raw; absent where no loss asks for a teacher.
    pub teacher_logits: Option<Tensor>,
    /// What there is in its place where the cache keeps the k largest.
    pub top_k: Option<TopKLogits>,
    /// (B) labels of the partners and (B) shares of the samples themselves, where views are mixed.
    pub mixed: Option<(Tensor, Tensor)>,
    /// The strong views of the same samples: (B, height, width, channels) and (B, C).
    pub strong: Option<(Tensor, Tensor)>,
    /// Further rows of the teacher, (K, C), and their labels, (K).
    pub bank: Option<(Tensor, Tensor)>,
    /// (B), how much each sample counts, where the recipe weighs them.
    pub sample_weights: Option<Tensor>,
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
        let host_labels = labels_of(&pixels.requests, dataset);
        let (mut teacher_logits, mut top_k) = (None, None);
        if let Some(teacher) = teacher {
            match teacher.top_k(&pixels.requests)? {
                None => {
                    teacher_logits = Some(self::teacher_logits(pixels, dataset, teacher)?);
                }
                Some((rows, labels)) => {
                    check_labels(&pixels.requests, &host_labels, &labels)?;
                    top_k = Some(rows);
                }
            }
        }
        let mixed = match pixels.mixed.is_empty() {
            true => None,
            false => {
                let mixed = || pixels.mixed.iter();
                let partners: Vec<u32> = mixed().map(|mixed| mixed.partner_label).collect();
                let lambdas: Vec<f32> = mixed().map(|mixed| mixed.lambda).collect();
                Some((
                    Tensor::new(partners, &Device::Cpu)?,
                    Tensor::new(lambdas, &Device::Cpu)?,
                ))
            }
        };
        let sample_weights = match dataset.sample_weights() {
            Some(weights) => {
                let samples = pixels.requests.iter().map(|&(sample, _)| sample as usize);
                let weights: Vec<f32> = samples.map(|sample| weights[sample]).collect();
                Some(Tensor::new(weights, &Device::Cpu)?)
            }
            None => None,
        };
        Ok(Self {
            mixed,
            sample_weights,
            pixels: pixel_tensor(pixels, device)?,
            labels: Tensor::from_slice(&host_labels, host_labels.len(), &Device::Cpu)?,
            teacher_logits,
            top_k,
            strong: None,
            bank: None,
            host_labels,
        })
    }

    /// With the strong views of the same samples, in the same order.
    ///
    /// # Errors
    /// As [`TrainBatch::join`].
    pub fn with_strong(
        self,
        pixels: &PixelBatch,
        dataset: &Dataset,
        teacher: &dyn TeacherRows,
        device: &Device,
    ) -> Result<Self, StudentError> {
        let logits = teacher_logits(pixels, dataset, teacher)?;
        Ok(Self {
            strong: Some((pixel_tensor(pixels, device)?, logits)),
            ..self
        })
    }

    /// With the teacher's rows of further (sample, view) pairs.
    ///
    /// # Errors
    /// As [`TrainBatch::join`].
    pub fn with_bank(
        self,
        pairs: &[(u32, u32)],
        dataset: &Dataset,
        teacher: &dyn TeacherRows,
    ) -> Result<Self, StudentError> {
        let gather = |logits: &mut [f32], labels: &mut [u32]| teacher.bank(pairs, logits, labels);
        let logits = gathered(pairs, dataset, teacher.n_classes(), gather)?;
        let labels = Tensor::new(labels_of(pairs, dataset), &Device::Cpu)?;
        Ok(Self {
            bank: Some((logits, labels)),
            ..self
        })
    }

    /// The batch as a safetensors file: `pixels` (B, height, width, channels), `labels` (B) as i64, and what else it has
    /// under the names of its fields.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, StudentError> {
        let mut tensors = vec![
            ("pixels", self.pixels.clone()),
            ("labels", self.labels.to_dtype(DType::I64)?),
        ];
        tensors.extend(self.teacher_logits.clone().map(|z| ("teacher_logits", z)));
        if let Some((partners, lambdas)) = &self.mixed {
            tensors.push(("partner_labels", partners.to_dtype(DType::I64)?));
            tensors.push(("lambdas", lambdas.clone()));
        }
        if let Some((pixels, logits)) = &self.strong {
            tensors.push(("strong_pixels", pixels.clone()));
            tensors.push(("strong_teacher_logits", logits.clone()));
        }
        if let Some(weights) = &self.sample_weights {
            tensors.push(("sample_weights", weights.clone()));
        }
        if let Some((logits, labels)) = &self.bank {
            tensors.push(("bank_teacher_logits", logits.clone()));
            tensors.push(("bank_labels", labels.to_dtype(DType::I64)?));
        }
        let written = safetensors::serialize(tensors, None);
        Ok(written.map_err(candle_core::Error::from)?)
    }

    /// The batch as losses see it, with the student's answers (B, C) to the views, and to the strong views if there are
    /// any.
    pub fn losses_see<'a>(
        &'a self,
        student_logits: &'a Tensor,
        strong_logits: Option<&'a Tensor>,
    ) -> LogitBatch<'a> {
        let mixed = self.mixed.as_ref();
        let bank = self.bank.as_ref();
        let strong = strong_logits.zip(self.strong.as_ref());
        LogitBatch {
            mixed: mixed.map(|(partner, lambda)| MixedLabels { partner, lambda }),
            strong: strong.map(|(student_logits, (_, teacher_logits))| StrongView {
                student_logits,
                teacher_logits,
            }),
            bank: bank.map(|(teacher_logits, labels)| BankRows {
                teacher_logits,
                labels,
            }),
            top_k: self.top_k.as_ref(),
            sample_weights: self.sample_weights.as_ref(),
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

/// Batches that the loader may prepare ahead of the step in work.
pub(crate) const READ_AHEAD: usize = 4;

/// A bad sample that the fingerprint could not find (a lossy image that is damaged inside) has a null row in the cache
/// and no pixels: training on zeros in its place would be a silent fallback.
pub(crate) fn next_pixels(loader: &mut Loader) -> Result<PixelBatch, StudentError> {
    let mut pixels = loader.next().ok_or(StudentError::LoaderEnded)??;
    match pixels.bad.pop() {
        None => Ok(pixels),
        Some(bad) => Err(bad.error.into()),
    }
}

fn labels_of(pairs: &[(u32, u32)], dataset: &Dataset) -> Vec<u32> {
    let label = |&(sample, _): &(u32, u32)| dataset.labels()[sample as usize];
    pairs.iter().map(label).collect()
}

fn teacher_logits(
    pixels: &PixelBatch,
    dataset: &Dataset,
    teacher: &dyn TeacherRows,
) -> Result<Tensor, StudentError> {
    let n_classes = teacher.n_classes();
    let gather = |logits: &mut [f32], labels: &mut [u32]| teacher.rows(pixels, logits, labels);
    gathered(&pixels.requests, dataset, n_classes, gather)
}

/// (rows, C) of what `gather` writes, once its labels have turned out to be the dataset's.
fn gathered(
    pairs: &[(u32, u32)],
    dataset: &Dataset,
    n_classes: usize,
    gather: impl FnOnce(&mut [f32], &mut [u32]) -> Result<(), StudentError>,
) -> Result<Tensor, StudentError> {
    let mut logits = vec![0.0; pairs.len() * n_classes];
    let mut labels = vec![0; pairs.len()];
    gather(&mut logits, &mut labels)?;
    check_labels(pairs, &labels_of(pairs, dataset), &labels)?;
    Ok(Tensor::from_vec(
        logits,
        (pairs.len(), n_classes),
        &Device::Cpu,
    )?)
}

/// Refuses rows whose labels are not the dataset's.
fn check_labels(pairs: &[(u32, u32)], expected: &[u32], found: &[u32]) -> Result<(), StudentError> {
    match expected.iter().zip(found).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(row) => Err(StudentError::Label {
            sample: pairs[row].0,
            dataset: expected[row],
            cache: found[row],
        }),
    }
}
