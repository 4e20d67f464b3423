//! One float per class: f32 as it is, f16 and bf16 rounded to nearest even.

use half::{bf16, f16};

use super::codec::{Codec, Column, Element};
use super::dense_rows::{Dense, decode_rows};
use crate::gather::ABREAST;

/// Four bytes a class, little-endian: the teacher's own numbers.
pub(super) struct F32 {
    pub(super) n_classes: usize,
}

/// Two bytes a class; refuses a logit that rounds to an infinity, from 65520 on.
pub(super) struct F16 {
    pub(super) n_classes: usize,
}

/// The upper half of an f32. Arrow has no such type: the column holds the bits as u16.
pub(super) struct Bf16 {
    pub(super) n_classes: usize,
}

fn logits(element: Element, n_classes: usize) -> Vec<Column> {
    vec![Column {
        name: "logits",
        element,
        list: Some(n_classes),
    }]
}

impl Codec for F32 {
    fn columns(&self) -> Vec<Column> {
        logits(Element::F32, self.n_classes)
    }

    fn encode(&self, logits: &[f32], _label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize> {
        for (bytes, z) in columns[0].as_chunks_mut().0.iter_mut().zip(logits) {
            *bytes = z.to_le_bytes();
        }
        Ok(())
    }

    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]) {
        decode_rows::<Self, 1>([[columns[0]]; 2], self.n_classes, logits);
    }

    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]) {
        decode_rows::<Self, ABREAST>([columns[0]; 2], self.n_classes, logits);
    }
}

impl Dense for F32 {
    #[inline(always)]
    fn row(stored: &[u8], _: &[u8], logits: &mut [f32]) {
        for (z, bytes) in logits.iter_mut().zip(stored.as_chunks().0) {
            *z = f32::from_le_bytes(*bytes);
        }
    }
}

impl Codec for F16 {
    fn columns(&self) -> Vec<Column> {
        logits(Element::F16, self.n_classes)
    }

    fn encode(&self, logits: &[f32], _label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize> {
        for (class, (bytes, &z)) in columns[0]
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(logits)
            .enumerate()
        {
            let rounded = f16::from_f32(z);
            if !rounded.is_finite() {
                return Err(class);
            }
            *bytes = rounded.to_le_bytes();
        }
        Ok(())
    }

    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]) {
        decode_rows::<Self, 1>([[columns[0]]; 2], self.n_classes, logits);
    }

    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]) {
        decode_rows::<Self, ABREAST>([columns[0]; 2], self.n_classes, logits);
    }
}

impl Dense for F16 {
    #[inline(always)]
    fn row(stored: &[u8], _: &[u8], logits: &mut [f32]) {
        for (z, bytes) in logits.iter_mut().zip(stored.as_chunks().0) {
            *z = widen(u16::from_le_bytes(*bytes));
        }
    }
}

/// The f32 that equals a finite half-precision number.
///
/// The processor has an instruction for this, but reaching it takes unsafe code; this the compiler turns into eight or
/// sixteen numbers at a time by itself. Exponent and mantissa are moved into an f32's place, and a multiplication by
/// 2^112 makes up for the different bias, subnormal numbers included. Infinities and NaN would come out wrong: no such
/// number is ever written, and a row's check has vouched for its bytes.
#[inline(always)]
fn widen(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

impl Codec for Bf16 {
    fn columns(&self) -> Vec<Column> {
        logits(Element::U16, self.n_classes)
    }

    fn encode(&self, logits: &[f32], _label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize> {
        for (class, (bytes, &z)) in columns[0]
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(logits)
            .enumerate()
        {
            let rounded = bf16::from_f32(z);
            if !rounded.is_finite() {
                return Err(class);
            }
            *bytes = rounded.to_le_bytes();
        }
        Ok(())
    }

    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]) {
        decode_rows::<Self, 1>([[columns[0]]; 2], self.n_classes, logits);
    }

    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]) {
        decode_rows::<Self, ABREAST>([columns[0]; 2], self.n_classes, logits);
    }
}

impl Dense for Bf16 {
    #[inline(always)]
    fn row(stored: &[u8], _: &[u8], logits: &mut [f32]) {
        for (z, bytes) in logits.iter_mut().zip(stored.as_chunks().0) {
            *z = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(widen(bits).to_bits(), half.to_f32().to_bits(), "{bits:04x}");
            }
        }
    }
}
