//! How far two sets of rows lie apart: what `verify --recompute`, `diff` and the table of encodings measure.

use serde::Serialize;

/// The temperatures at which divergences are reported.
pub const TEMPERATURES: [f64; 2] = [1.0, 4.0];

/// How far one row lies from another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RowDistance {
    /// The largest difference between two logits of one class.
    pub max_abs: f32,
    /// Kullback-Leibler divergence of the softened rows, from reference to other, at each of [`TEMPERATURES`]; without the
    /// factor `T^2` that losses put before it.
    pub kl: [f64; 2],
    /// Whether the largest logit is in another class.
    pub is_flipped: bool,
}

impl RowDistance {
    /// The distance from `reference` to `other`, two rows over the same classes.
    pub fn between(reference: &[f32], other: &[f32]) -> RowDistance {
        let max_abs = reference
            .iter()
            .zip(other)
            .fold(0f32, |max, (a, b)| match (a - b).abs() {
                // `max` would pass over a NaN, and call it agreement.
                difference if difference.is_nan() => f32::INFINITY,
                difference => max.max(difference),
            });
        let is_flipped = crate::argmax(reference) != crate::argmax(other);
        RowDistance {
            max_abs,
            kl: TEMPERATURES.map(|t| kl(reference, other, t)),
            is_flipped,
        }
    }
}

/// Distances of many rows, gathered one by one.
#[derive(Clone, Debug, Default)]
pub struct Distances {
    rows: Vec<(u32, u32, RowDistance)>,
}

/// What is told about many distances.
#[derive(Clone, Debug, Serialize)]
pub struct DistanceSummary {
    /// How many rows were compared.
    pub n_rows: usize,
    /// The largest difference between two logits.
    pub max_abs: f32,
    /// The median over rows of the row's largest difference.
    pub median_abs: f32,
    /// Rows whose largest logit is in another class.
    pub n_flipped: usize,
    /// The divergences at each of [`TEMPERATURES`].
    pub kl: [Quantiles; 2],
    /// The rows with the largest divergence at T = 1, worst first, as (sample, view, distance).
    pub worst: Vec<(u32, u32, RowDistance)>,
}

/// What one measure of distance comes to over all rows; each quantile is a value that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The arithmetic mean over the rows.
    pub mean: f64,
    /// Half of the values are at most this.
    pub median: f64,
    /// 99 of 100 values are at most this.
    pub p99: f64,
    /// The largest of the values.
    pub max: f64,
}

impl Distances {
    /// Adds the row of (`sample`, `view`).
    pub fn push(&mut self, sample: u32, view: u32, distance: RowDistance) {
        self.rows.push((sample, view, distance));
    }

    /// Adds all rows of `other`.
    pub fn extend(&mut self, other: Distances) {
        self.rows.extend(other.rows);
    }

    /// The figures, with the `n_worst` rows that are furthest apart; `None` where nothing was compared.
    pub fn summary(&self, n_worst: usize) -> Option<DistanceSummary> {
        let n_rows = self.rows.len();
        if n_rows == 0 {
            return None;
        }
        let errors = self
            .rows
            .iter()
            .map(|(_, _, row)| f64::from(row.max_abs))
            .collect();
        let errors = Quantiles::of(errors);
        let mut worst = self.rows.clone();
        worst.sort_by(|a, b| {
            b.2.kl[0]
                .total_cmp(&a.2.kl[0])
                .then((a.0, a.1).cmp(&(b.0, b.1)))
        });
        worst.truncate(n_worst);
        Some(DistanceSummary {
            n_rows,
            max_abs: errors.max as f32,
            median_abs: errors.median as f32,
            n_flipped: self
                .rows
                .iter()
                .filter(|(_, _, row)| row.is_flipped)
                .count(),
            kl: [0, 1]
                .map(|t| Quantiles::of(self.rows.iter().map(|(_, _, row)| row.kl[t]).collect())),
            worst,
        })
    }
}

impl DistanceSummary {
    /// The share of rows whose largest logit is in the same class.
    pub fn top1_agreement(&self) -> f64 {
        1.0 - self.n_flipped as f64 / self.n_rows as f64
    }
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Quantiles {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * values.len() as f64).ceil() as usize;
            values
                .get(index.saturating_sub(1))
                .copied()
                .unwrap_or(f64::NAN)
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Quantiles {
            mean,
            median: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

fn kl(reference: &[f32], other: &[f32], temperature: f64) -> f64 {
    let soften = move |z: &f32| f64::from(*z) / temperature;
    let log_sum = |row: &[f32]| {
        let max = row.iter().map(soften).fold(f64::NEG_INFINITY, f64::max);
        max + row
            .iter()
            .map(|z| (soften(z) - max).exp())
            .sum::<f64>()
            .ln()
    };
    let (log_reference, log_other) = (log_sum(reference), log_sum(other));
    let terms = reference.iter().zip(other).map(|(a, b)| {
        let (p, q) = (soften(a) - log_reference, soften(b) - log_other);
        p.exp() * (p - q)
    });
    // The sum is never negative but for rounding.
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KL = ln 2 - ln 3 / 2.
        let distance = RowDistance::between(&[0.0, 0.0], &[3f32.ln(), 0.0]);
        assert!((distance.kl[0] - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-7);
        assert!(!distance.is_flipped);
        assert_eq!(RowDistance::between(&[1.0, 2.0], &[1.0, 2.0]).kl, [0.0; 2]);
        // A constant added to a row changes no probability.
        assert!(RowDistance::between(&[1.0, 2.0], &[101.0, 102.0]).kl[0] < 1e-12);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let q = Quantiles::of((1..=100).map(f64::from).collect());
        assert_eq!((q.mean, q.median, q.p99, q.max), (50.5, 50.0, 99.0, 100.0));
    }
}
