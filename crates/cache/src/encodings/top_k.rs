//! The k largest logits, and what is left of the others: their log-sum-exp at three temperatures.
//!
//! Distillation on such a row is exact over the k classes and one further box that holds the rest. Mean and deviation
//! over all classes keep standardising losses possible, and the label's logit keeps cross-entropy of the teacher exact.
//! This pays from some ten thousand classes, or for hundreds of views; at a hundred classes `u8` is smaller and closer.

use half::f16;

use super::codec::{Codec, Column, Element};
use super::top_k_row::{REST_TEMPERATURES, TopKRow};
use crate::gather::ABREAST;

pub(super) struct TopK {
    pub(super) k: usize,
    pub(super) n_classes: usize,
}

impl TopK {
    fn class_bytes(&self) -> usize {
        if self.n_classes <= 1 << 16 { 2 } else { 4 }
    }

    fn row(&self, columns: &[&[u8]]) -> TopKRow {
        let class = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |class, &byte| class << 8 | u32::from(byte))
        };
        let float = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        let mut rest = [f32::NAN; 3];
        for (rest, bytes) in rest.iter_mut().zip(columns[5].chunks_exact(4)) {
            *rest = float(bytes);
        }
        TopKRow {
            classes: columns[0]
                .chunks_exact(self.class_bytes())
                .map(class)
                .collect(),
            logits: columns[1]
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            mean: float(columns[2]),
            deviation: float(columns[3]),
            label_logit: float(columns[4]),
            rest,
        }
    }
}

impl Codec for TopK {
    fn columns(&self) -> Vec<Column> {
        let class = if self.class_bytes() == 2 {
            Element::U16
        } else {
            Element::U32
        };
        let float = |name| Column {
            name,
            element: Element::F32,
            list: None,
        };
        vec![
            Column {
                name: "classes",
                element: class,
                list: Some(self.k),
            },
            Column {
                name: "logits",
                element: Element::F16,
                list: Some(self.k),
            },
            float("mean"),
            float("deviation"),
            float("label_logit"),
            Column {
                name: "rest",
                element: Element::F32,
                list: Some(REST_TEMPERATURES.len()),
            },
        ]
    }

    fn encode(&self, logits: &[f32], label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        // Equal logits keep the order of their classes, so that the same row always gives the same bytes.
        order.sort_by(|&a, &b| {
            logits[b as usize]
                .total_cmp(&logits[a as usize])
                .then(a.cmp(&b))
        });
        let (listed, others) = order.split_at(self.k.min(order.len()));
        for (&class, bytes) in listed
            .iter()
            .zip(columns[0].chunks_exact_mut(self.class_bytes()))
        {
            bytes.copy_from_slice(&class.to_le_bytes()[..self.class_bytes()]);
        }
        for (&class, bytes) in listed.iter().zip(columns[1].as_chunks_mut().0) {
            let rounded = f16::from_f32(logits[class as usize]);
            if !rounded.is_finite() {
                return Err(class as usize);
            }
            *bytes = rounded.to_le_bytes();
        }
        let (mean, deviation) = moments(logits);
        let label_logit = logits.get(label as usize).copied().unwrap_or(f32::NAN);
        for (value, bytes) in [mean, deviation, label_logit]
            .iter()
            .zip(&mut columns[2..5])
        {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        for (temperature, bytes) in REST_TEMPERATURES.iter().zip(columns[5].chunks_exact_mut(4)) {
            let scaled = others
                .iter()
                .map(|&class| f64::from(logits[class as usize]) / f64::from(*temperature));
            bytes.copy_from_slice(&(log_sum_exp(scaled) as f32).to_le_bytes());
        }
        Ok(())
    }

    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]) {
        let row = self.row(columns);
        logits.fill(f32::NEG_INFINITY);
        for (class, z) in row.classes.iter().zip(&row.logits) {
            // The check vouches for the bytes, not for whoever wrote them.
            if let Some(logit) = logits.get_mut(*class as usize) {
                *logit = *z;
            }
        }
    }

    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]) {
        for (row, logits) in logits.chunks_exact_mut(self.n_classes).enumerate() {
            let own: Vec<&[u8]> = columns.iter().map(|column| column[row]).collect();
            self.decode(&own, logits);
        }
    }

    fn decode_top_k(&self, columns: &[&[u8]]) -> Option<TopKRow> {
        Some(self.row(columns))
    }
}

fn moments(logits: &[f32]) -> (f32, f32) {
    let n = logits.len() as f64;
    let mean = logits.iter().map(|&z| f64::from(z)).sum::<f64>() / n;
    let squares: f64 = logits.iter().map(|&z| (f64::from(z) - mean).powi(2)).sum();
    (mean as f32, (squares / (n - 1.0).max(1.0)).sqrt() as f32)
}

/// Minus infinity for nothing.
fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + values.map(|z| (z - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_and_the_rest_make_up_the_whole() {
        let logits: Vec<f32> = (0..50)
            .map(|class| ((class * 37) % 50) as f32 / 8.0 - 2.0)
            .collect();
        let codec = TopK {
            k: 5,
            n_classes: 50,
        };
        let mut columns: Vec<Vec<u8>> = codec
            .columns()
            .iter()
            .map(|column| vec![0; column.row_bytes()])
            .collect();
        let mut slices: Vec<&mut [u8]> = columns.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&logits, 3, &mut slices).unwrap();
        let slices: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
        let row = codec.decode_top_k(&slices).unwrap();

        assert_eq!(row.logits, [4.125, 4.0, 3.875, 3.75, 3.625]);
        assert!(
            row.classes
                .iter()
                .zip(&row.logits)
                .all(|(&class, z)| logits[class as usize] == *z)
        );
        assert_eq!(row.label_logit, logits[3]);
        for (temperature, rest) in REST_TEMPERATURES.iter().zip(row.rest) {
            let softened = |z: &f32| f64::from(z / temperature);
            let whole = log_sum_exp(logits.iter().map(softened));
            let parts = log_sum_exp(row.logits.iter().map(softened).chain([f64::from(rest)]));
            assert!(
                (whole - parts).abs() < 1e-6,
                "T = {temperature}: {whole} {parts}"
            );
        }
    }
}
