//! What a student's logits are worth: counted row by row, told as a few figures.

use serde::{Deserialize, Serialize};

/// Figures of one evaluation; shares in [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Samples that were counted; shares are of these.
    pub n_samples: usize,
    /// Share whose largest logit is the label's.
    pub top1: f64,
    /// Share whose label is among the five largest logits (all of them where there are fewer classes).
    pub top5: f64,
    /// Mean negative log-likelihood of the label, in nats; no number where the student's logits are none.
    #[serde(deserialize_with = "null_is_no_number")]
    pub nll: f64,
    /// Expected calibration error over 15 equal-width bins of confidence; likewise.
    #[serde(deserialize_with = "null_is_no_number")]
    pub ece: f64,
    /// Share on which student and teacher name the same class, where there is a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean divergence KL(teacher || student) at temperature 1, in nats, where there is a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// The teacher's own `top1` on the same samples, where there is a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_top1: Option<f64>,
}

/// JSON has no word for what a diverged student's figures are: `null` is written.
fn null_is_no_number<'de, D: serde::Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::NAN))
}

const N_BINS: usize = 15;

/// Adds up rows of logits, batch by batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    n_samples: usize,
    top1: usize,
    top5: usize,
    nll: f64,
    bins: [Bin; N_BINS],
    agreed: usize,
    #[serde(default)]
    teacher_top1: usize,
    divergence: f64,
    compared: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bin {
    n: usize,
    confidence: f64,
    correct: usize,
}

impl Tally {
    /// Counts a batch: `logits` and `teacher_logits` are (B, C) row by row, `labels` has length B. Ties go to the lower
    /// class, as everywhere.
    pub fn add(&mut self, logits: &[f32], labels: &[u32], teacher_logits: Option<&[f32]>) {
        let n_classes = logits.len() / labels.len().max(1);
        for (row_index, (row, &label)) in logits.chunks_exact(n_classes).zip(labels).enumerate() {
            let label = label as usize;
            let predicted = argmax(row);
            // The label's rank: classes above it, and equal ones before it.
            let rank = row
                .iter()
                .enumerate()
                .filter(|&(class, &z)| z > row[label] || (z == row[label] && class < label))
                .count();
            let log_sum = log_sum_exp(row);
            let confidence = (f64::from(row[predicted]) - log_sum).exp();
            let correct = predicted == label;
            self.n_samples += 1;
            self.top1 += usize::from(correct);
            self.top5 += usize::from(rank < 5 && !row[label].is_nan());
            self.nll += log_sum - f64::from(row[label]);
            let bin = &mut self.bins[((confidence * N_BINS as f64) as usize).min(N_BINS - 1)];
            bin.n += 1;
            bin.confidence += confidence;
            bin.correct += usize::from(correct);
            if let Some(teacher) = teacher_logits {
                let teacher = &teacher[row_index * n_classes..][..n_classes];
                self.compared += 1;
                self.agreed += usize::from(argmax(teacher) == predicted);
                self.teacher_top1 += usize::from(argmax(teacher) == label);
                self.divergence += divergence(teacher, row);
            }
        }
    }

    /// Share of right answers so far.
    pub(crate) fn top1(&self) -> f64 {
        self.top1 as f64 / self.n_samples.max(1) as f64
    }

    /// The figures so far.
    pub fn metrics(&self) -> Metrics {
        let n = self.n_samples.max(1) as f64;
        let share = |n: usize| (self.compared > 0).then(|| n as f64 / self.compared as f64);
        let gap = |bin: &Bin| (bin.confidence - bin.correct as f64).abs();
        Metrics {
            n_samples: self.n_samples,
            top1: self.top1(),
            top5: self.top5 as f64 / n,
            nll: self.nll / n,
            ece: self.bins.iter().map(gap).sum::<f64>() / n,
            agreement: share(self.agreed),
            divergence: (self.compared > 0).then(|| self.divergence / self.compared as f64),
            teacher_top1: share(self.teacher_top1),
        }
    }
}

/// KL(teacher || student) of one row.
fn divergence(teacher: &[f32], student: &[f32]) -> f64 {
    let (teacher_sum, student_sum) = (log_sum_exp(teacher), log_sum_exp(student));
    let term = |(t, s): (&f32, &f32)| {
        let t = f64::from(*t) - teacher_sum;
        t.exp() * (t - (f64::from(*s) - student_sum))
    };
    teacher.iter().zip(student).map(term).sum()
}

pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, &z) in row.iter().enumerate() {
        if z > row[best] {
            best = class;
        }
    }
    best
}

pub(crate) fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&z| f64::from(z - max).exp()).sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        // Two samples, two classes: one right at p = 0.75, one wrong at p = 0.75.
        let z = 3f32.ln();
        let mut tally = Tally::default();
        tally.add(&[z, 0.0, z, 0.0], &[0, 1], Some(&[1.0, 0.0, 0.0, 1.0]));
        let metrics = tally.metrics();
        assert_eq!((metrics.top1, metrics.top5), (0.5, 1.0));
        let nll = -(0.75f64.ln() + 0.25f64.ln()) / 2.0;
        assert!((metrics.nll - nll).abs() < 1e-6);
        assert!((metrics.ece - 0.25).abs() < 1e-6);
        assert_eq!(metrics.agreement, Some(0.5));
        assert_eq!(metrics.teacher_top1, Some(1.0));
        // The teacher says p = (e, 1) / (e + 1) and (1, e) / (e + 1).
        let p = 1f64.exp() / (1f64.exp() + 1.0);
        let kl = |a: f64, b: f64| p * (p / a).ln() + (1.0 - p) * ((1.0 - p) / b).ln();
        let expected = (kl(0.75, 0.25) + kl(0.25, 0.75)) / 2.0;
        assert!((metrics.divergence.unwrap() - expected).abs() < 1e-6);
    }

    #[test]
    fn the_figures_of_a_diverged_student_are_written_and_read() {
        let mut tally = Tally::default();
        tally.add(&[f32::NAN; 20], &[3, 9], Some(&[0.5; 20]));
        let metrics = tally.metrics();
        assert_eq!((metrics.top1, metrics.top5), (0.0, 0.0));
        let json = serde_json::to_string(&metrics).unwrap();
        assert!(json.contains(r#""nll":null"#), "{json}");
        let read: Metrics = serde_json::from_str(&json).unwrap();
        assert!(read.nll.is_nan() && read.top1 == 0.0, "{read:?}");
        let absent = json.replace(r#""nll":null,"#, "");
        assert!(serde_json::from_str::<Metrics>(&absent).is_err());
    }

    #[test]
    fn huge_logits_stay_finite_and_ties_go_to_the_lower_class() {
        let mut tally = Tally::default();
        tally.add(&[1e4, -1e4, 1e4], &[2], None);
        let metrics = tally.metrics();
        assert_eq!(metrics.top1, 0.0);
        assert!((metrics.nll - 2f64.ln()).abs() < 1e-6);
    }
}
