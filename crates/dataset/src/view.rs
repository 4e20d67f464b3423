//! One view of one sample, drawn: what is done to its image, and what is mixed in.

use serde::{Deserialize, Serialize};

use crate::{Image, Step, pixels};

/// One view of one sample: the operations that make it, with every parameter decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// In the order in which they are applied.
    pub steps: Vec<Step>,
    /// What is mixed in after them.
    pub mix: Option<Mix>,
}

/// The second image of a mixed view: its own view of the same number, before mixing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Index of the partner in the split, from 0.
    pub partner: u32,
    /// The share of the sample itself in the label, 0 to 1.
    pub lambda: f32,
    /// How the two images become one.
    pub how: MixHow,
}

/// How two images become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixHow {
    /// Value by value: `share` 65536ths of the sample itself.
    Blend {
        /// The sample's own share, of 65536.
        share: u32,
    },
    /// A rectangle of the partner covers the sample.
    Paste {
        /// The rectangle's first row.
        top: u32,
        /// The rectangle's first column.
        left: u32,
        /// Rows that the rectangle covers.
        height: u32,
        /// Columns that the rectangle covers.
        width: u32,
    },
}

impl View {
    /// Applies the steps to `original` and leaves the result in `into`; what is mixed in is left out.
    pub fn apply_steps(&self, original: &Image, into: &mut Image) {
        pixels::apply_all(&self.steps, original, into, &mut pixels::Scratch::default());
    }
}
