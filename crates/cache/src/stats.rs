//! How good the teacher is, from the cache alone.

use rayon::prelude::*;
use serde::Serialize;

use crate::chunk_rows::NO_LABEL;
use crate::{CacheError, LogitCache, Statistic, argmax};

/// Bins of confidence in a reliability plot, and of the histograms.
pub const N_BINS: usize = 15;

/// Teacher quality over all rows of a cache, at T = 1.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Rows that were read: (sample, view) pairs that are not null.
    pub n_rows: u64,
    /// Rows whose sample has a label; the figures about labels are over these.
    pub n_labelled: u64,
    /// The share of labelled rows whose largest logit is the label's.
    pub accuracy: f64,
    /// Mean of minus the logarithm of the label's probability.
    pub nll: f64,
    /// Expected calibration error: the mean over rows of |accuracy - confidence| of the row's bin.
    pub ece: f64,
    /// What the reliability plot shows, [`N_BINS`] bins of equal width between 0 and 1.
    pub reliability: Vec<ReliabilityBin>,
    /// Rows by entropy, in [`N_BINS`] bins of equal width between 0 and ln C.
    pub entropy: Vec<u64>,
    /// Rows by margin, the largest probability less the second largest, in [`N_BINS`] bins between 0 and 1.
    pub margin: Vec<u64>,
    /// One entry a class, in the order of the labels.
    pub classes: Vec<ClassStats>,
    /// The mean over samples of the share of views that predict the sample's most frequent class; `None` with one view.
    pub view_agreement: Option<f64>,
    /// One entry a sample that has at least one row.
    pub samples: Vec<SampleStats>,
}

/// Rows with a confidence in this bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Labelled rows whose largest probability falls into this bin.
    pub n_rows: u64,
    /// Their mean largest probability; 0 where there are none.
    pub confidence: f64,
    /// The share of them that is right; 0 where there are none.
    pub accuracy: f64,
}

/// Rows with this label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ClassStats {
    /// Rows of this class, over all views.
    pub n_rows: u64,
    /// The share of them that is right; 0 where there are none.
    pub accuracy: f64,
}

/// What the teacher says about one sample, over its views.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SampleStats {
    /// Index of the sample in the split, from 0.
    pub sample: u32,
    /// Its label; [`NO_LABEL`] where it has none.
    pub label: u32,
    /// The class with the largest mean probability.
    pub predicted: u32,
    /// The mean over the views of the probability of `predicted`.
    pub confidence: f32,
    /// The label's mean probability; NaN where there is no label.
    pub label_probability: f32,
    /// The share of views whose largest logit is in the most frequent class.
    pub agreement: f32,
}

impl SampleStats {
    /// Whether the teacher predicts another class than the label.
    pub fn contradicts(&self) -> bool {
        self.label != NO_LABEL && self.predicted != self.label
    }
}

impl Stats {
    /// The samples on which the teacher contradicts the label, most confident first.
    pub fn contradictions(&self) -> Vec<SampleStats> {
        let mut found: Vec<SampleStats> = self
            .samples
            .iter()
            .copied()
            .filter(SampleStats::contradicts)
            .collect();
        found.sort_by(|a, b| {
            b.confidence
                .total_cmp(&a.confidence)
                .then(a.sample.cmp(&b.sample))
        });
        found
    }
}

/// Reads every row once. `progress` is told samples done and samples to do, from several threads.
///
/// # Errors
/// If the cache is not dense, holds no view, or a row is damaged.
pub fn stats(
    cache: &LogitCache,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Stats, CacheError> {
    cache.require(Statistic::Logits)?;
    if cache.views().is_empty() {
        return Err(CacheError::NoSuchView {
            view: 0,
            n_views: 0,
        });
    }
    let manifest = cache.manifest();
    let done = std::sync::atomic::AtomicU64::new(0);
    let parts: Vec<Tally> = (0..manifest.n_chunks())
        .into_par_iter()
        .map(|chunk| {
            let mut tally = Tally::new(manifest.n_classes);
            let range = manifest.chunk_range(chunk)?;
            for sample in range.clone() {
                tally.add_sample(cache, sample)?;
            }
            let n = range.len() as u64;
            let total = u64::from(manifest.n_samples);
            progress(
                done.fetch_add(n, std::sync::atomic::Ordering::Relaxed) + n,
                total,
            );
            Ok(tally)
        })
        .collect::<Result<_, CacheError>>()?;
    let mut whole = Tally::new(manifest.n_classes);
    parts.into_iter().for_each(|part| whole.merge(part));
    Ok(whole.finish(cache.views().len()))
}

/// Sums over the rows of a part of the samples.
struct Tally {
    n_rows: u64,
    n_labelled: u64,
    nll: f64,
    /// Rows, sum of confidences, and hits, by bin of confidence.
    bins: [(u64, f64, u64); N_BINS],
    entropy: Vec<u64>,
    margin: Vec<u64>,
    /// Rows and hits by label.
    classes: Vec<(u64, u64)>,
    samples: Vec<SampleStats>,
    probabilities: Vec<f64>,
    mean: Vec<f64>,
    votes: Vec<u32>,
    logits: Vec<f32>,
}

impl Tally {
    fn new(n_classes: usize) -> Tally {
        Tally {
            n_rows: 0,
            n_labelled: 0,
            nll: 0.0,
            bins: [(0, 0.0, 0); N_BINS],
            entropy: vec![0; N_BINS],
            margin: vec![0; N_BINS],
            classes: vec![(0, 0); n_classes],
            samples: Vec::new(),
            probabilities: vec![0.0; n_classes],
            mean: vec![0.0; n_classes],
            votes: vec![0; n_classes],
            logits: vec![0.0; n_classes],
        }
    }

    fn add_sample(&mut self, cache: &LogitCache, sample: u32) -> Result<(), CacheError> {
        self.mean.fill(0.0);
        self.votes.fill(0);
        let (mut n_views, mut label) = (0u32, NO_LABEL);
        for &view in cache.views() {
            if let Some(found) = cache.row_or_null(sample, view, &mut self.logits)? {
                label = found;
                self.add_row(label);
                n_views += 1;
            }
        }
        if n_views == 0 {
            return Ok(());
        }
        let n = f64::from(n_views);
        // The first of the largest, as everywhere.
        let predicted = (0..self.mean.len())
            .rev()
            .max_by(|&a, &b| self.mean[a].total_cmp(&self.mean[b]))
            .unwrap_or(0);
        let most = self.votes.iter().copied().max().unwrap_or(0);
        self.samples.push(SampleStats {
            sample,
            label,
            predicted: predicted as u32,
            confidence: (self.mean[predicted] / n) as f32,
            label_probability: self
                .mean
                .get(label as usize)
                .map_or(f32::NAN, |sum| (sum / n) as f32),
            agreement: (f64::from(most) / n) as f32,
        });
        Ok(())
    }

    /// Adds the row that stands in `logits`.
    fn add_row(&mut self, label: u32) {
        let max = self
            .logits
            .iter()
            .fold(f32::NEG_INFINITY, |max, &z| max.max(z));
        let shifted = |z: f32| f64::from(z) - f64::from(max);
        let log_sum = self
            .logits
            .iter()
            .map(|&z| shifted(z).exp())
            .sum::<f64>()
            .ln();
        let (mut entropy, mut first, mut second) = (0.0, 0.0, 0.0);
        for ((p, mean), &z) in self
            .probabilities
            .iter_mut()
            .zip(&mut self.mean)
            .zip(&self.logits)
        {
            let log_p = shifted(z) - log_sum;
            *p = log_p.exp();
            *mean += *p;
            entropy -= *p * log_p;
            if *p > first {
                (first, second) = (*p, first);
            } else if *p > second {
                second = *p;
            }
        }
        let predicted = argmax(&self.logits);
        self.n_rows += 1;
        self.votes[predicted] += 1;
        self.entropy[bin(entropy / (self.logits.len() as f64).ln())] += 1;
        self.margin[bin(first - second)] += 1;
        if let Some(&z) = self.logits.get(label as usize) {
            let is_right = u64::from(predicted == label as usize);
            self.n_labelled += 1;
            self.nll -= shifted(z) - log_sum;
            let (rows, hits) = &mut self.classes[label as usize];
            (*rows, *hits) = (*rows + 1, *hits + is_right);
            let (rows, confidence, hits) = &mut self.bins[bin(first)];
            (*rows, *confidence, *hits) = (*rows + 1, *confidence + first, *hits + is_right);
        }
    }

    fn merge(&mut self, other: Tally) {
        self.n_rows += other.n_rows;
        self.n_labelled += other.n_labelled;
        self.nll += other.nll;
        for (a, b) in self.bins.iter_mut().zip(other.bins) {
            *a = (a.0 + b.0, a.1 + b.1, a.2 + b.2);
        }
        for (a, b) in self.classes.iter_mut().zip(other.classes) {
            *a = (a.0 + b.0, a.1 + b.1);
        }
        for (mine, theirs) in [
            (&mut self.entropy, other.entropy),
            (&mut self.margin, other.margin),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
        self.samples.extend(other.samples);
    }

    fn finish(self, n_views: usize) -> Stats {
        let n_labelled = self.n_labelled.max(1) as f64;
        let reliability = self.bins.map(reliability_bin);
        let gaps = reliability
            .iter()
            .map(|bin| bin.n_rows as f64 * (bin.accuracy - bin.confidence).abs());
        let agreement: f64 = self
            .samples
            .iter()
            .map(|sample| f64::from(sample.agreement))
            .sum();
        let n_samples = self.samples.len().max(1) as f64;
        Stats {
            n_rows: self.n_rows,
            n_labelled: self.n_labelled,
            accuracy: share(self.bins.iter().map(|bin| bin.2).sum(), self.n_labelled),
            nll: self.nll / n_labelled,
            ece: gaps.sum::<f64>() / n_labelled,
            reliability: reliability.to_vec(),
            entropy: self.entropy,
            margin: self.margin,
            classes: self
                .classes
                .into_iter()
                .map(|(n_rows, hits)| ClassStats {
                    n_rows,
                    accuracy: share(hits, n_rows),
                })
                .collect(),
            view_agreement: (n_views > 1).then(|| agreement / n_samples),
            samples: self.samples,
        }
    }
}

/// The means of a bin, from its rows, the sum of their confidences and its hits.
fn reliability_bin((n_rows, confidence, hits): (u64, f64, u64)) -> ReliabilityBin {
    ReliabilityBin {
        n_rows,
        confidence: if n_rows == 0 {
            0.0
        } else {
            confidence / n_rows as f64
        },
        accuracy: share(hits, n_rows),
    }
}

/// `part / whole`, and 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The bin of a share; a NaN (the entropy of one class) falls into the first.
fn bin(share: f64) -> usize {
    ((share * N_BINS as f64) as usize).min(N_BINS - 1)
}
