//! What rows of an output look like: probabilities, values that never leave a range, the same row again and again; and which
//! class one of them is for.
//!
//! What judges an output takes whole rows, before any class was left out. One row can look like something by chance; a few
//! cannot.

use crate::spec::OutputIs;

/// How far a row sum may be from 1, or its log-sum-exp from 0, to count as normalised: f16 outputs of a thousand
/// classes are off by about a thousandth.
const NORMALISED: f32 = 5e-3;

/// What rows of an output hold, judged by their values. Probabilities lie in 0..=1 and sum to 1; log-probabilities are
/// never positive and their exponentials sum to 1; everything else counts as logits.
pub(crate) fn judge(rows: &[f32], width: usize) -> OutputIs {
    let every =
        |test: &dyn Fn(&[f32]) -> bool| rows.len() >= width && rows.chunks_exact(width).all(test);
    let sums_to_one = |sum: f32| (sum - 1.0).abs() < NORMALISED;
    if width < 2 {
        return OutputIs::Logits;
    }
    if every(&|row| {
        row.iter().all(|p| (0.0..=1.0 + NORMALISED).contains(p)) && sums_to_one(row.iter().sum())
    }) {
        return OutputIs::Probabilities;
    }
    if every(&|row| {
        row.iter().all(|p| *p <= NORMALISED) && sums_to_one(row.iter().map(|p| p.exp()).sum())
    }) {
        return OutputIs::LogProbabilities;
    }
    OutputIs::Logits
}

/// What else is remarkable about some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    /// The largest |z| among all rows.
    pub(crate) largest: f32,
    /// Every row is the first one.
    pub(crate) all_same: bool,
    /// Rows whose classes all have one value.
    pub(crate) n_flat: usize,
    /// No value is negative.
    pub(crate) positive: bool,
    /// What every row sums to, where that is one number and not 0: a network that was trained with weight decay keeps its
    /// rows near 0 by itself.
    pub(crate) total: Option<f32>,
    /// The narrower of 0..1 and -1..1 that holds every value.
    pub(crate) within: Option<(f32, f32)>,
}

/// Looks at rows of `width` values.
pub(crate) fn look(rows: &[f32], width: usize) -> Look {
    let largest = rows.iter().fold(0f32, |largest, z| largest.max(z.abs()));
    let rows: Vec<&[f32]> = rows.chunks_exact(width.max(1)).collect();
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-6 * largest;
    let Some(first) = rows.first().filter(|_| width > 1) else {
        return Look::default();
    };
    let is_flat = |row: &&&[f32]| row.iter().all(|z| near(*z, row[0]));
    let is_first = |row: &&[f32]| row.iter().zip(*first).all(|(a, b)| near(*a, *b));
    let positive = rows.iter().copied().flatten().all(|z| *z >= 0.0);
    let sums: Vec<f32> = rows.iter().map(|row| row.iter().sum()).collect();
    // Of positive values nothing cancels, so the sum may be off by what f16 rounds.
    let allowed = if positive {
        NORMALISED * sums[0].abs()
    } else {
        1e-5 * largest
    };
    let is_one = sums.iter().all(|sum| (sum - sums[0]).abs() <= allowed);
    Look {
        largest,
        all_same: rows.len() > 1 && rows.iter().all(is_first),
        n_flat: rows.iter().filter(is_flat).count(),
        positive,
        total: (rows.len() > 2 && is_one && sums[0].abs() > 1e-2 * largest).then(|| sums[0]),
        within: bounds(&rows, largest),
    }
}

/// The narrower of 0..1 and -1..1 that holds every value of `rows`, of which `largest` is the largest |z|.
fn bounds(rows: &[&[f32]], largest: f32) -> Option<(f32, f32)> {
    let holds = |low: f32| {
        rows.iter()
            .copied()
            .flatten()
            .all(|z| (low..=1.0).contains(z))
    };
    // Logits of a teacher that is not sure of anything stay within -1..1 too, but far from the bounds.
    let reaches = largest > 0.9;
    if holds(0.0) {
        Some((0.0, 1.0))
    } else {
        (holds(-1.0) && reaches).then_some((-1.0, 1.0))
    }
}

/// The first of the largest values, as numpy and torch have it.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// The largest difference between two lists of values; infinite where one of them is NaN and the other is not.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let difference = |(a, b): (&f32, &f32)| match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (false, false) if a == b => 0.0,
        (false, false) => (a - b).abs(),
        _ => f32::INFINITY,
    };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_judged_by_their_values() {
        let softmax = |row: [f32; 3]| {
            let sum: f32 = row.iter().map(|z| z.exp()).sum();
            row.map(|z| z.exp() / sum)
        };
        let logits = [[1.0, -2.0, 0.5], [0.1, 0.2, 0.7]];
        let probabilities = logits.map(softmax);
        assert_eq!(judge(logits.as_flattened(), 3), OutputIs::Logits);
        assert_eq!(
            judge(probabilities.as_flattened(), 3),
            OutputIs::Probabilities
        );
        assert_eq!(
            judge(probabilities.map(|row| row.map(f32::ln)).as_flattened(), 3),
            OutputIs::LogProbabilities
        );
        assert_eq!(judge(&[0.0; 6], 3), OutputIs::Logits);
        assert_eq!(judge(&[], 3), OutputIs::Logits);
    }

    #[test]
    fn remarkable_rows_are_seen() {
        let logits = [3.0, -1.0, 0.5, -2.0, 4.0, 1.0, 0.0, -3.0, 2.5];
        let plain = look(&logits, 3);
        assert_eq!(
            (plain.all_same, plain.n_flat, plain.total, plain.within),
            (false, 0, None, None)
        );
        assert!(look(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 2).all_same);
        assert_eq!(look(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0], 3).n_flat, 1);
        let percent = [20.0, 80.0, 55.0, 45.0, 99.0, 1.0];
        assert_eq!(look(&percent, 2).total, Some(100.0));
        assert_eq!(
            look(&percent.map(|p| p / 100.0), 2).within,
            Some((0.0, 1.0))
        );
        assert_eq!(
            look(&percent.map(|p| p / 50.0 - 1.0), 2).within,
            Some((-1.0, 1.0))
        );
        // Centred rows are what weight decay leaves.
        assert_eq!(look(&[1.0, -1.0, 2.0, -2.0, 0.5, -0.5], 2).total, None);
    }
}
