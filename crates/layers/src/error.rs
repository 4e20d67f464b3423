//! What can be wrong in the world of someone who builds or loads a network.

/// Everything this crate reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer was given something of another shape than it was built for.
    #[error("`{layer}` expects {expected}, found {found}")]
    Shape {
        /// The full name of the layer, or of the function.
        layer: String,
        /// What it was built for.
        expected: String,
        /// The shape or layout that came.
        found: String,
    },
    /// A layer cannot be built as asked.
    #[error("`{layer}` cannot be built: {reason}")]
    Spec {
        /// The full name of the layer.
        layer: String,
        /// What does not fit together.
        reason: String,
    },
    /// The weights of another network were loaded.
    #[error("these weights do not fit the network: missing {missing:?}, unexpected {unexpected:?}")]
    Names {
        /// Parameters of the network that the weights lack.
        missing: Vec<String>,
        /// Names in the weights that the network lacks.
        unexpected: Vec<String>,
    },
    /// A weight has another shape than the parameter of its name.
    #[error("weight `{name}` has shape {found:?}, the network expects {expected:?}")]
    WeightShape {
        /// The parameter's full name, as the network has it.
        name: String,
        /// Its shape in PyTorch's layout.
        expected: Vec<usize>,
        /// The shape of the loaded weight.
        found: Vec<usize>,
    },
    /// Two layers were given the same name.
    #[error("there are two parameters named `{0}`")]
    Duplicate(String),
    /// A number format or a device that these layers cannot compute with.
    #[error("layers compute with {supported}, found {found}")]
    Unsupported {
        /// What they can do.
        supported: &'static str,
        /// What was asked for.
        found: String,
    },
    /// `backward` ran a second time over the same forward pass.
    #[error("what `{0}` kept for its gradient is gone: the way back can be walked once")]
    Spent(&'static str),
    /// Candle reported an error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Shape { .. } => {
                Some("feature maps are (batch, height, width, channels); pixels from NCHW sources need `permute((0, 2, 3, 1))`".into())
            }
            Self::Names { .. } | Self::WeightShape { .. } => {
                Some("check that the weights are of the same architecture, width and number of classes".into())
            }
            Self::Spent(_) => Some("run the forward pass again before each `backward`".into()),
            _ => None,
        }
    }
}

/// Candle's traits want Candle's error; the cause stays inside.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => Self::wrap(other),
        }
    }
}
