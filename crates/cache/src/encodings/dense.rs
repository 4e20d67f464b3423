//! One float per class: f32 as it is, f16 and bf16 rounded to nearest even.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::{Codec, Column, Element};

/// 32-bit floats.
pub(super) struct F32 {
    pub(super) n_classes: usize,
}

/// Half precision.
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
        for (z, bytes) in logits.iter_mut().zip(columns[0].as_chunks().0) {
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
        match bytemuck::try_cast_slice::<u8, u16>(columns[0]) {
            // The processor's own conversion, eight at a time, where it has one.
            Ok(bits) if cfg!(target_endian = "little") => {
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(logits);
            }
            // Only a file that somebody else aligned otherwise comes here.
            _ => {
                for (z, bytes) in logits.iter_mut().zip(columns[0].as_chunks().0) {
                    *z = f16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }
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
        for (z, bytes) in logits.iter_mut().zip(columns[0].as_chunks().0) {
            *z = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}
