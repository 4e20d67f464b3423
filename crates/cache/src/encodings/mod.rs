//! How a row of logits becomes bytes and comes back.
//!
//! To add an encoding, write a [`Codec`] in a file here, give it a variant of [`Encoding`] and a row in [`encodings`].

mod affine_u8;
mod codec;
mod dense;
mod dense_rows;
mod top_k;
mod top_k_row;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::CacheError;
use crate::chunk_rows::NO_LABEL;

pub(crate) use codec::{Codec, Column, Element};
pub use top_k_row::{REST_TEMPERATURES, TopKRow};

/// The encodings that there are, in the order in which they are listed.
pub fn encodings() -> &'static [EncodingRow] {
    ENCODINGS
}

const ENCODINGS: &[EncodingRow] = &[
    EncodingRow {
        name: "f32",
        about: "the teacher's own numbers; 4 bytes a class",
        error_bound: "none",
        encoding: Encoding::F32,
    },
    EncodingRow {
        name: "f16",
        about: "half precision; 2 bytes a class, and what most recipes want",
        error_bound: "|error| <= max(|z| * 2^-11, 2^-25); |z| < 65520",
        encoding: Encoding::F16,
    },
    EncodingRow {
        name: "bf16",
        about: "the upper half of an f32; 2 bytes a class, any range",
        error_bound: "|error| <= |z| * 2^-8",
        encoding: Encoding::Bf16,
    },
    EncodingRow {
        name: "u8",
        about: "256 levels between a row's smallest and largest logit; 1 byte a class and 8 a row",
        error_bound: "|error| <= (max - min) / 510 + 2^-22 * max|z|",
        encoding: Encoding::U8,
    },
    EncodingRow {
        name: "top32",
        about: "the 32 largest logits (`top<k>` for another number), moments, and the rest's log-sum-exp at T = 1, 2, 4",
        error_bound: "as f16 for the listed classes; the others are known only together",
        encoding: Encoding::TopK(32),
    },
];

/// One encoding in the list of them.
#[derive(Clone, Copy, Debug)]
pub struct EncodingRow {
    /// What a recipe calls it.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// How far a decoded logit can be from the teacher's `z`.
    pub error_bound: &'static str,
    /// What [`Encoding::parse`] makes of `name`.
    pub encoding: Encoding,
}

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 32-bit floats, which lose nothing.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper 16 bits of an f32, rounded to nearest even.
    Bf16,
    /// 8-bit codes with a scale and a minimum per row.
    U8,
    /// The so many largest logits, and what distillation needs of the rest.
    TopK(u32),
}

/// What a loss may want to know of a teacher's row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// The logit of every class, which only dense encodings hold.
    Logits,
    /// Mean and unbiased standard deviation over the classes.
    Moments,
    /// The logit of the sample's label.
    LabelLogit,
    /// The so many largest logits with their classes.
    Largest(u32),
    /// The softened probability of all classes that are not listed, taken together, at this temperature.
    Rest {
        /// T; a top-k row holds it only at one of [`REST_TEMPERATURES`].
        temperature: f32,
    },
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statistic::Logits => f.write_str("every class's logit"),
            Statistic::Moments => f.write_str("mean and deviation of the logits"),
            Statistic::LabelLogit => f.write_str("the label's logit"),
            Statistic::Largest(k) => write!(f, "the {k} largest logits"),
            Statistic::Rest { temperature } => {
                write!(f, "the rest's probability at T = {temperature}")
            }
        }
    }
}

impl Encoding {
    /// The encoding that a recipe calls `name`.
    ///
    /// # Errors
    /// [`CacheError::UnknownEncoding`].
    pub fn parse(name: &str) -> Result<Encoding, CacheError> {
        let row = ENCODINGS.iter().find(|row| row.name == name);
        let top_k = || {
            let digits = name.strip_prefix("top")?;
            let k = digits.parse().ok().filter(|&k| k > 0)?;
            // One spelling each: `top032` would be another key for the same rows.
            (!digits.starts_with(['0', '+'])).then_some(Encoding::TopK(k))
        };
        row.map(|row| row.encoding)
            .or_else(top_k)
            .ok_or_else(|| CacheError::UnknownEncoding {
                name: name.to_owned(),
            })
    }

    /// Bytes of logits in one row, without `sample`, `label` and `check` (16 bytes more).
    pub fn row_bytes(self, n_classes: usize) -> usize {
        self.codec(n_classes)
            .columns()
            .iter()
            .map(Column::row_bytes)
            .sum()
    }

    /// Whether every class's logit comes back.
    pub fn is_dense(self) -> bool {
        !matches!(self, Encoding::TopK(_))
    }

    /// Whether a row of logits, however near each decoded one lies, loses what it says: the step between two levels, and
    /// the spread of the logits that fall between them. `None` where it is kept.
    pub fn drowns(self, logits: &[f32]) -> Option<(f32, f32)> {
        match self {
            Encoding::U8 => affine_u8::drowned(logits),
            _ => None,
        }
    }

    /// A row as a reader will see it; one that holds less than every class is returned as it is, and so is one that the
    /// encoding refuses.
    pub fn read_back(self, logits: &[f32]) -> Vec<f32> {
        let mut row = logits.to_vec();
        if self == Encoding::F32 || !self.is_dense() {
            return row;
        }
        let codec = self.codec(logits.len());
        let columns = codec.columns();
        let mut stored: Vec<Vec<u8>> = columns
            .iter()
            .map(|column| vec![0; column.row_bytes()])
            .collect();
        let mut into: Vec<&mut [u8]> = stored.iter_mut().map(Vec::as_mut_slice).collect();
        if codec.encode(logits, NO_LABEL, &mut into).is_ok() {
            let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
            codec.decode(&stored, &mut row);
        }
        row
    }

    /// Whether `statistic` can be had from a row in this encoding, within the encoding's error bound.
    pub fn holds(self, statistic: Statistic) -> bool {
        let Encoding::TopK(k) = self else { return true };
        match statistic {
            Statistic::Logits => false,
            Statistic::Moments | Statistic::LabelLogit => true,
            Statistic::Largest(wanted) => wanted <= k,
            Statistic::Rest { temperature } => REST_TEMPERATURES.contains(&temperature),
        }
    }

    /// What writes and reads rows of `n_classes` in this encoding.
    pub(crate) fn codec(self, n_classes: usize) -> Box<dyn Codec> {
        match self {
            Encoding::F32 => Box::new(dense::F32 { n_classes }),
            Encoding::F16 => Box::new(dense::F16 { n_classes }),
            Encoding::Bf16 => Box::new(dense::Bf16 { n_classes }),
            Encoding::U8 => Box::new(affine_u8::AffineU8 { n_classes }),
            Encoding::TopK(k) => Box::new(top_k::TopK {
                k: k as usize,
                n_classes,
            }),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Encoding::F32 => f.write_str("f32"),
            Encoding::F16 => f.write_str("f16"),
            Encoding::Bf16 => f.write_str("bf16"),
            Encoding::U8 => f.write_str("u8"),
            Encoding::TopK(k) => write!(f, "top{k}"),
        }
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Encoding::parse(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gather::MAX_COLUMNS;

    /// Encodes and decodes one row.
    pub(crate) fn round_trip(encoding: Encoding, logits: &[f32]) -> Result<Vec<f32>, usize> {
        let codec = encoding.codec(logits.len());
        let mut columns: Vec<Vec<u8>> = codec
            .columns()
            .iter()
            .map(|column| vec![0; column.row_bytes()])
            .collect();
        let mut slices: Vec<&mut [u8]> = columns.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(logits, 0, &mut slices)?;
        let slices: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
        let mut decoded = vec![f32::NAN; logits.len()];
        codec.decode(&slices, &mut decoded);
        Ok(decoded)
    }

    fn bound(encoding: Encoding, z: f32, row: &[f32]) -> f32 {
        let (min, max) = row.iter().fold((f32::MAX, f32::MIN), |(min, max), &z| {
            (min.min(z), max.max(z))
        });
        match encoding {
            Encoding::F32 => 0.0,
            Encoding::F16 => (z.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
            Encoding::Bf16 => z.abs() * 2f32.powi(-8) + f32::from_bits(0x8000),
            Encoding::TopK(_) => f32::INFINITY,
            Encoding::U8 => {
                (max / 510.0 - min / 510.0) * (1.0 + 1e-6)
                    + 2f32.powi(-22) * max.abs().max(min.abs())
            }
        }
    }

    proptest! {
        #[test]
        fn every_encoding_comes_back_within_its_bound(
            row in prop::collection::vec(-60000f32..60000.0, 1..70),
            shrink in -30i32..1,
        ) {
            let row: Vec<f32> = row.iter().map(|z| z * 2f32.powi(shrink)).collect();
            for listed in encodings().iter().filter(|row| row.encoding.is_dense()) {
                let decoded = round_trip(listed.encoding, &row).unwrap();
                for (z, d) in row.iter().zip(&decoded) {
                    let bound = bound(listed.encoding, *z, &row);
                    prop_assert!((z - d).abs() <= bound, "{}: {z} came back as {d}, bound {bound}", listed.name);
                }
            }
        }

        #[test]
        fn no_finite_logit_comes_back_as_something_else(row in prop::collection::vec(any::<f32>(), 1..40)) {
            let row: Vec<f32> = row.into_iter().map(|z| if z.is_finite() { z } else { 0.0 }).collect();
            for listed in encodings().iter().filter(|row| row.encoding.is_dense()) {
                if let Ok(decoded) = round_trip(listed.encoding, &row) {
                    prop_assert!(decoded.iter().all(|d| d.is_finite()), "{}: {row:?} {decoded:?}", listed.name);
                }
            }
        }
    }

    #[test]
    fn names_go_both_ways() {
        for row in encodings() {
            assert_eq!(Encoding::parse(row.name).unwrap(), row.encoding);
            assert_eq!(row.encoding.to_string(), row.name);
            assert!(row.encoding.codec(10).columns().len() <= MAX_COLUMNS);
        }
        assert!(matches!(
            Encoding::parse("f8"),
            Err(CacheError::UnknownEncoding { .. })
        ));
    }
}
