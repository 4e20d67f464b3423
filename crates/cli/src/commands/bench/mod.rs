//! Measuring this program on this machine.

mod capture;

use std::sync::atomic::AtomicBool;

use crate::args::Bench;
use crate::exit::Outcome;

pub(crate) fn run(args: &Bench, stop: &AtomicBool) -> Outcome {
    match args {
        Bench::Capture(args) => capture::run(args, stop),
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
