//! What can be wrong with a `[[loss]]` entry or with the batch it is asked to judge.

use std::fmt;

/// An error of this crate; [`hint`](LossError::hint) says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// No method has this name.
    #[error("no loss is called `{name}`")]
    UnknownLoss {
        /// The name asked for.
        name: String,
        /// The nearest known name, if one is near.
        nearest: Option<&'static str>,
    },
    /// A recipe entry holds a key that the method does not know.
    #[error("loss `{loss}` has no option `{key}`")]
    UnknownOption {
        /// The method whose entry holds the key.
        loss: String,
        /// The key, with the component's name before it where it stood in a component's table.
        key: String,
        /// The nearest known key, if one is near.
        nearest: Option<String>,
        /// All keys that the method reads.
        known: Vec<String>,
    },
    /// An option has the wrong type or is out of range.
    #[error("loss `{loss}`: `{key}` must be {expected}, found {found}")]
    BadOption {
        /// The method whose option it is.
        loss: String,
        /// The option's key, with its table before it where it stands in one.
        key: String,
        /// What the option may be.
        expected: String,
        /// The value that was given, as JSON.
        found: String,
    },
    /// A tensor of the batch has the wrong shape.
    #[error("{what} must have shape {expected}, found {found}")]
    Shape {
        /// What the tensor is to the batch: `teacher logits`, `lambda`, `sample weights`.
        what: &'static str,
        /// The shape that the batch calls for.
        expected: String,
        /// The shape it has, or how many numbers or classes there are.
        found: String,
    },
    /// A logit is NaN or infinite.
    #[error("{what} of row {row} in the batch are not finite")]
    NotFinite {
        /// Whose logits: `student logits`, `teacher logits of the bank`.
        what: &'static str,
        /// The first such row.
        row: usize,
    },
    /// A label names no class.
    #[error("{what} {label} of row {row} in the batch is not below the {n_classes} classes")]
    Label {
        /// Which label: `label`, `partner label`, `bank label`, `class of the top k`.
        what: &'static str,
        /// The label that was found.
        label: u32,
        /// Its row among labels of its kind, from 0.
        row: usize,
        /// The number of classes.
        n_classes: usize,
    },
    /// A row of the top k lists a class more than once.
    #[error("row {row} of the top k lists class {class} twice")]
    ClassTwice {
        /// The class.
        class: u32,
        /// The row in the batch, from 0.
        row: usize,
    },
    /// A loss needs what the cache, the views or the batch do not give.
    #[error("loss `{loss}` needs {needs}, but {supplied}")]
    Unserved {
        /// The method (or its component).
        loss: String,
        /// What it asks for and does not get.
        needs: Need,
        /// What there is instead.
        supplied: &'static str,
    },
    /// The bank asks for more rows than the cache can give.
    #[error(
        "a bank of {bank} rows was asked for, but only {eligible} (sample, view) pairs lie outside the batch"
    )]
    BankTooLarge {
        /// The rows asked for.
        bank: usize,
        /// How many there are.
        eligible: u64,
    },
    /// An objective without a single loss.
    #[error("the recipe has no `[[loss]]`")]
    NoLoss,
    /// The tensor library failed.
    #[error("the tensor library failed in a loss")]
    Tensor(#[from] candle_core::Error),
}

/// Something that a loss needs and may not get.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Need {
    /// Logits of a teacher, in any form.
    Teacher,
    /// The teacher's logit of every class.
    DenseLogits,
    /// The log-sum-exp of the classes that are not listed, at this temperature.
    RestAt(f64),
    /// Logits as the network gave them, not up to an added constant.
    AbsoluteLogits,
    /// One label per sample.
    SingleLabel,
    /// A strong view of every sample, with its own teacher rows.
    StrongView,
    /// Rows drawn from the whole cache.
    Bank(usize),
    /// A loss per sample.
    PerSample,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Teacher => f.write_str("teacher logits"),
            Need::DenseLogits => f.write_str("the teacher's logit of every class"),
            Need::RestAt(temperature) => write!(
                f,
                "what the unlisted classes add up to at temperature {temperature}"
            ),
            Need::AbsoluteLogits => {
                f.write_str("absolute logits (it is not invariant to adding a constant)")
            }
            Need::SingleLabel => f.write_str("a single label per sample"),
            Need::StrongView => f.write_str("a strong view of every sample"),
            Need::Bank(rows) => write!(f, "a bank of {rows} teacher rows"),
            Need::PerSample => f.write_str("a loss per sample"),
        }
    }
}

impl LossError {
    /// Whether it was asked wrongly, by a name or a setting, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Self::UnknownLoss { .. }
            | Self::UnknownOption { .. }
            | Self::BadOption { .. }
            | Self::Unserved { .. }
            | Self::BankTooLarge { .. }
            | Self::NoLoss => true,
            Self::Shape { .. }
            | Self::NotFinite { .. }
            | Self::Label { .. }
            | Self::ClassTwice { .. }
            | Self::Tensor(_) => false,
        }
    }

    /// The remedy: what to type or change next.
    pub fn hint(&self) -> Option<String> {
        match self {
            LossError::UnknownLoss { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            LossError::UnknownLoss { nearest: None, .. } => {
                Some("`logitcask list losses` names them all".to_owned())
            }
            LossError::UnknownOption { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            LossError::UnknownOption { known, .. } => Some(format!("it has {}", known.join(", "))),
            LossError::NotFinite { what, .. } if what.starts_with("student") => {
                Some("the student has diverged: lower the learning rate, or warm it up".to_owned())
            }
            LossError::NotFinite { .. } => Some("run `logitcask cache verify`".to_owned()),
            LossError::Unserved { needs, .. } => Some(
                match needs {
                    Need::Teacher => "name a [[teacher]] in the recipe",
                    Need::DenseLogits => "capture with a dense encoding (f16, f32)",
                    Need::RestAt(_) => "set the loss's `temperature` to 1, 2 or 4, or capture with a dense encoding (f16, u8)",
                    Need::AbsoluteLogits => "use a teacher that gives logits, or set `accept_shift = true` on the loss",
                    Need::SingleLabel => "leave mixup and cutmix out of [views], or choose a loss that mixes or ignores labels",
                    Need::StrongView => "add [views.strong] to the recipe and capture it",
                    Need::Bank(_) => "draw the bank with `bank::draw` and put its rows into the batch",
                    Need::PerSample => "set `sample_weight` and `trim` only on components that have a loss per sample",
                }
                .to_owned(),
            ),
            LossError::BankTooLarge { eligible, .. } => Some(format!("set `bank` to at most {eligible}, or capture more views")),
            LossError::NoLoss => Some("add `[[loss]]` with `name = \"kd\"`".to_owned()),
            _ => None,
        }
    }
}
