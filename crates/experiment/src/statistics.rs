//! What a handful of runs says: means, spreads, and intervals that know how few they are.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Several values of one quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many values there are.
    pub n: usize,
    /// The arithmetic mean of the values.
    pub mean: f64,
    /// Standard deviation of the values (divided by n - 1); absent for a single one.
    pub sd: Option<f64>,
}

/// A mean with its 95 % confidence interval, by Student's t with n - 1 degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Of how many values.
    pub n: usize,
    /// The arithmetic mean of the values.
    pub mean: f64,
    /// The lower end; absent for a single value, which says nothing about spread.
    pub low: Option<f64>,
    /// The upper end, likewise.
    pub high: Option<f64>,
}

impl Summary {
    /// `None` of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (n > 0).then(|| Self {
            n,
            mean,
            sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()),
        })
    }
}

impl Interval {
    /// `None` of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let Summary { n, mean, sd } = Summary::of(values)?;
        let half = sd.and_then(|sd| {
            let t = StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()?;
            Some(t.inverse_cdf(0.975) * sd / (n as f64).sqrt())
        });
        Some(Self {
            n,
            mean,
            low: half.map(|half| mean - half),
            high: half.map(|half| mean + half),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_divided_by_n_minus_one() {
        let summary = Summary::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(summary.mean, 2.5);
        assert!((summary.sd.unwrap() - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[7.0]).unwrap().sd, None);
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        // Two-sided 95 % quantiles of Student's t: 12.706, 4.303, 3.182, 2.093 for 1, 2, 3, 19 degrees of freedom
        // (NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2, column 0.975).
        for (degrees, quantile) in [(1, 12.706), (2, 4.303), (3, 3.182), (19, 2.093)] {
            let n = degrees + 1;
            // Values with mean 0: n/2 pairs of +1 and -1, and a 0 where n is odd.
            let values: Vec<f64> = (0..n)
                .map(|index| match index {
                    0 if n % 2 == 1 => 0.0,
                    index if index % 2 == 1 => 1.0,
                    _ => -1.0,
                })
                .collect();
            let sd = Summary::of(&values).unwrap().sd.unwrap();
            let interval = Interval::of(&values).unwrap();
            let expected = quantile * sd / (n as f64).sqrt();
            assert!(
                (interval.high.unwrap() - expected).abs() < 5e-4 * expected,
                "{degrees}"
            );
            assert_eq!(interval.low.unwrap(), -interval.high.unwrap());
        }
    }

    #[test]
    fn a_single_difference_has_no_interval() {
        let interval = Interval::of(&[0.25]).unwrap();
        assert_eq!((interval.mean, interval.low), (0.25, None));
    }
}
