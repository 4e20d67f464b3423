//! Whether a model's numbers are of 0..1 or of 0..255: a preprocessing obeys it, and the error that refuses one tells it.

use serde::{Deserialize, Serialize};

/// The range of the values that mean and std speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// 0..1: bytes are divided by 255.
    #[default]
    Unit,
    /// 0..255: bytes as they are.
    Byte,
}

impl Scale {
    /// As it is written in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Byte => "byte",
        }
    }

    /// The range in which pixels lie, as messages write it.
    pub(crate) fn range(self) -> &'static str {
        match self {
            Self::Unit => "0..1",
            Self::Byte => "0..255",
        }
    }
}
