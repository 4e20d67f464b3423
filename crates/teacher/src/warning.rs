//! What is doubtful about a teacher and may be meant all the same.

use crate::figures::{percent, rounded};
use crate::head_shape::Shape;

/// Something that a person should know before the long work; [`Warning::hint`] says what to do about it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Warning {
    /// The output's nodes leave something else than logits.
    Head {
        output: String,
        shape: Shape,
        node: String,
        before: Option<String>,
    },
    /// No value left this range.
    Within { output: String, low: f32, high: f32 },
    /// Every row has this sum.
    ConstantSum { output: String, sum: f32 },
    /// So many rows have one value for every class.
    FlatRows { output: String, n_flat: usize },
    /// A node draws random numbers, which no answer has shown.
    Chance { node: String },
    /// The teacher is right no more often than guessing.
    Guesses { n_samples: usize, accuracy: f64 },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head {
                output,
                shape,
                node,
                ..
            } => {
                write!(
                    f,
                    "the output `{output}` holds {shape}, made by the node {node}"
                )
            }
            Self::Within { output, low, high } => {
                write!(
                    f,
                    "every value of the output `{output}` lies within {low}..{high}, where logits seldom stay: a sigmoid, a tanh or cosines?"
                )
            }
            Self::ConstantSum { output, sum } => {
                write!(
                    f,
                    "every row of the output `{output}` has the sum {}, which logits seldom have",
                    rounded(*sum)
                )
            }
            Self::FlatRows { output, n_flat } => {
                write!(
                    f,
                    "the output `{output}` gives {n_flat} of the first images one value for every class, which says nothing about them"
                )
            }
            Self::Chance { node } => {
                write!(
                    f,
                    "the node {node} draws random numbers, although no answer has shown it yet"
                )
            }
            Self::Guesses {
                accuracy,
                n_samples,
            } => {
                write!(
                    f,
                    "the teacher is right on {} of {n_samples} images, which is what guessing gives",
                    percent(*accuracy)
                )
            }
        }
    }
}

impl Warning {
    /// What to do if it is not meant so.
    pub fn hint(&self) -> String {
        match self {
            Self::Head { shape: Shape::Cosine, .. } => {
                "cosines differ by at most 2: losses want them times the scale that the teacher was trained with; export it with that, or \
                 lower the losses' `temperature` accordingly"
                    .into()
            }
            Self::Head { before: Some(before), .. } => {
                format!("if these are no logits, write `output = \"{before}\"`: it holds the values before that node")
            }
            Self::Head { .. } | Self::Within { .. } | Self::ConstantSum { .. } => {
                "if these are no logits, name the tensor that holds them with `output = \"...\"`; any tensor of the graph will do".into()
            }
            Self::FlatRows { .. } => "look at the last layers: units that are dead, or a cut at zero".into(),
            Self::Chance { .. } => "export the teacher without it".into(),
            Self::Guesses { .. } => "check mean, std, scale, channel_order, size and the order of the classes; `min_accuracy` refuses such a teacher".into(),
        }
    }
}
