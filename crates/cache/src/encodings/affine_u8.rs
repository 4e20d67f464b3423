//! 256 evenly spaced levels between a row's smallest and largest logit.
//!
//! Softmax sees only differences of logits, and a classifier's row spans some tens: the step is then a tenth or less.
//! At 100 classes this is smaller than the top 32 classes with their indices, and far closer.

use super::codec::{Codec, Column, Element};
use super::dense_rows::{Dense, decode_rows};
use crate::gather::ABREAST;

pub(super) struct AffineU8 {
    pub(super) n_classes: usize,
}

impl Codec for AffineU8 {
    fn columns(&self) -> Vec<Column> {
        vec![
            // One column, not two: each column that a row is spread over is one more place to fetch it from.
            Column {
                name: "affine",
                element: Element::F32,
                list: Some(2),
            },
            Column {
                name: "logits",
                element: Element::U8,
                list: Some(self.n_classes),
            },
        ]
    }

    fn encode(&self, logits: &[f32], _label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize> {
        let (mut minimum, mut maximum) = (f32::INFINITY, f32::NEG_INFINITY);
        for &z in logits {
            (minimum, maximum) = (minimum.min(z), maximum.max(z));
        }
        // In f64, where the difference of two f32 cannot overflow.
        let step = (f64::from(maximum) - f64::from(minimum)) / LEVELS;
        let mut scale = step as f32;
        // Decoding computes minimum + scale * code in f32. Rounding must not push the top level to infinity.
        while !(minimum + scale * 255.0).is_finite() {
            scale = scale.next_down();
        }
        columns[0][..4].copy_from_slice(&scale.to_le_bytes());
        columns[0][4..].copy_from_slice(&minimum.to_le_bytes());
        for (code, &z) in columns[1].iter_mut().zip(logits) {
            let level = (f64::from(z) - f64::from(minimum)) / f64::from(scale);
            // A row of equal logits has scale 0: 0/0 is NaN, and a cast makes it 0, which is right.
            *code = level.round_ties_even() as u8;
        }
        Ok(())
    }

    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]) {
        decode_rows::<Self, 1>([[columns[0]], [columns[1]]], self.n_classes, logits);
    }

    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]) {
        decode_rows::<Self, ABREAST>([columns[0], columns[1]], self.n_classes, logits);
    }
}

/// Steps between the smallest and the largest logit.
const LEVELS: f64 = 255.0;

/// Logits that differ by less are alike to any student.
const ALIKE: f64 = 0.1;

/// Whether outliers leave the other logits of a row on a single level: one class masked at -10,000 makes the step 39, and
/// all others decode alike. Returns the step and the spread of those others.
///
/// Gaps of an eighth of the range part the row. Where that leaves a few heaps, masks may have several values, and none is
/// wider than a step, the row says only which heap a class is in. Two classes that are nearly tied above many others are
/// not such a row.
pub(super) fn drowned(logits: &[f32]) -> Option<(f32, f32)> {
    const HEAPS: usize = 3;
    let mut sorted: Vec<f64> = logits.iter().map(|z| f64::from(*z)).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let range = sorted.last()? - sorted.first()?;
    let step = range / LEVELS;
    if step < ALIKE {
        return None;
    }
    let heaps: Vec<&[f64]> = sorted.chunk_by(|a, b| b - a < range / 8.0).collect();
    let spread = |heap: &&[f64]| heap[heap.len() - 1] - heap[0];
    let widest = heaps.iter().map(spread).fold(0.0, f64::max);
    let is_drowned = heaps.len() <= HEAPS && (ALIKE..step).contains(&widest);
    is_drowned.then_some((step as f32, widest as f32))
}

impl Dense for AffineU8 {
    #[inline(always)]
    fn row(affine: &[u8], codes: &[u8], logits: &mut [f32]) {
        let (scale, minimum) = (float(&affine[..4]), float(&affine[4..]));
        for (z, &code) in logits.iter_mut().zip(codes) {
            *z = minimum + scale * f32::from(code);
        }
    }
}

/// The layout gives exactly four bytes; anything else reads as a NaN, which no check lets pass.
#[inline(always)]
fn float(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f32::NAN, f32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::drowned;

    #[test]
    fn outliers_that_drown_the_other_logits_are_seen() {
        let logits = [3.0, -2.0, 0.5, 7.0, -4.0];
        assert_eq!(drowned(&logits), None);
        let masked = |mask: &[f32]| [mask, &logits].concat();
        let (step, spread) = drowned(&masked(&[-1e4])).unwrap();
        assert!(
            (step - 10007.0 / 255.0).abs() < 1e-3 && spread == 11.0,
            "{step} {spread}"
        );
        assert!(drowned(&masked(&[-1e4; 7])).is_some());
        assert!(drowned(&masked(&[-1e4, -2e4, -1e4])).is_some());
        assert!(drowned(&masked(&[1e4])).is_some());
        // A mask that leaves steps of 0.4 between logits that differ by 11.
        assert_eq!(drowned(&masked(&[-100.0])), None);
        // Two that are nearly tied, above others that are not.
        assert_eq!(drowned(&[30.0, 29.88, 3.0, -5.0, 12.0, 20.0, 7.5]), None);
        // A teacher that is sure: the others differ by less than anybody could tell.
        assert_eq!(drowned(&[30.0, 0.01, 0.02, 0.05, 0.0]), None);
        assert_eq!(drowned(&[0.0; 4]), None);
        assert_eq!(drowned(&[1.0]), None);
        assert_eq!(drowned(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn rows_of_a_plain_spread_are_kept(row in proptest::collection::vec(-30.0f32..30.0, 3..100)) {
            // The step is at most 60 / 255 here; refused is only what lies closer together than that.
            if let Some((step, spread)) = drowned(&row) {
                proptest::prop_assert!(spread < step && step < 0.25);
            }
        }
    }
}
