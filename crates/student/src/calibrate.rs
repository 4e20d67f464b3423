//! The temperature that makes confidences honest (Guo et al., arXiv:1706.04599): one number, fitted on images that
//! training did not see.

use crate::StudentError;

/// The temperature T that minimises the mean negative log-likelihood of `logits / T`; `logits` are (B, C) row by row.
///
/// In 1/T that loss is convex, so a golden-section search over the logarithm of T between 1/1000 and 1000 finds its only
/// minimum. Where every row is right the best temperature is 0, and where logits say nothing it is infinite: then the
/// nearer end is an error and no answer.
///
/// # Errors
/// [`StudentError::Calibration`] where there are no rows, or no temperature inside the range is best.
pub fn fit_temperature(logits: &[f32], labels: &[u32]) -> Result<f64, StudentError> {
    if labels.is_empty() {
        return Err(StudentError::Calibration("no training image was held out"));
    }
    let (low, high) = (-LARGEST.ln(), LARGEST.ln());
    let loss = |log_t: f64| nll(logits, labels, log_t.exp());
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (low, high);
    let (mut c, mut d) = (b - ratio * (b - a), a + ratio * (b - a));
    let (mut at_c, mut at_d) = (loss(c), loss(d));
    while b - a > 1e-7 {
        if at_c < at_d {
            (b, d, at_d) = (d, c, at_c);
            c = b - ratio * (b - a);
            at_c = loss(c);
        } else {
            (a, c, at_c) = (c, d, at_d);
            d = a + ratio * (b - a);
            at_d = loss(d);
        }
    }
    let best = (a + b) / 2.0;
    let at_best = loss(best);
    // An end that is as good as the minimum means a slope, or a plateau, that goes on beyond the range.
    match best {
        _ if loss(low) <= at_best => Err(StudentError::Calibration(
            "every held-out image is right, so confidence could grow without end",
        )),
        _ if loss(high) <= at_best => Err(StudentError::Calibration(
            "the logits of the held-out images say nothing about their labels",
        )),
        _ => Ok(best.exp()),
    }
}

const LARGEST: f64 = 1000.0;

fn nll(logits: &[f32], labels: &[u32], temperature: f64) -> f64 {
    let n_classes = logits.len() / labels.len();
    let mut sum = 0.0;
    // In f64: near its minimum the loss is so flat that f32 would decide by noise.
    for (row, &label) in logits.chunks_exact(n_classes).zip(labels) {
        let scaled = |z: &f32| f64::from(*z) / temperature;
        let max = row.iter().map(scaled).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|z| (scaled(z) - max).exp()).sum();
        sum += max + total.ln() - scaled(&row[label as usize]);
    }
    sum / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three of four rows are right, at logits (4, 0): the likelihood is largest where p = 3/4, that is at 4/T = ln 3.
    #[test]
    fn by_hand() {
        let logits = [4.0, 0.0, 4.0, 0.0, 4.0, 0.0, 4.0, 0.0];
        let t = fit_temperature(&logits, &[0, 0, 0, 1]).unwrap();
        assert!((t - 4.0 / 3f64.ln()).abs() < 1e-4, "{t}");
    }

    #[test]
    fn scaled_logits_scale_the_temperature() {
        let logits: Vec<f32> = (0..60)
            .map(|i| ((i * 37 % 23) as f32 - 11.0) / 3.0)
            .collect();
        let labels: Vec<u32> = (0..20).map(|i| i * 7 % 3).collect();
        if let Ok(t) = fit_temperature(&logits, &labels) {
            let tenfold: Vec<f32> = logits.iter().map(|z| 10.0 * z).collect();
            let t10 = fit_temperature(&tenfold, &labels).unwrap();
            assert!((t10 / t - 10.0).abs() < 1e-3);
        }
    }

    #[test]
    fn where_no_temperature_is_best_it_is_said() {
        assert!(fit_temperature(&[4.0, 0.0], &[0]).is_err(), "all right");
        assert!(fit_temperature(&[4.0, 0.0], &[1]).is_err(), "all wrong");
        assert!(fit_temperature(&[], &[]).is_err(), "nothing held out");
    }
}
