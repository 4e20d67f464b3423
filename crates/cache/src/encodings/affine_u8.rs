//! 256 evenly spaced levels between a row's smallest and largest logit.
//!
//! Softmax sees only differences of logits, and a classifier's row spans some tens: the step is then a tenth or less.
//! At 100 classes this is smaller than the top 32 classes with their indices, and far closer.

use super::{Codec, Column, Dense, Element, decode_rows};
use crate::row_check::ABREAST;

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
        let step = (f64::from(maximum) - f64::from(minimum)) / 255.0;
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
