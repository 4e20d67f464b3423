//! What the end of a teacher's graph leaves of its logits, by name: the error that refuses it, the warning that doubts it and
//! the walk that finds it all speak of it.

/// What the last operation that counts has made of the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Probabilities that sum to one.
    Softmax,
    /// Logarithms of probabilities that sum to one.
    LogSoftmax,
    /// A probability for each class by itself.
    Sigmoid,
    /// Sorted values: which class each belongs to is lost.
    Sorted,
    /// Squeezed into -1..1, by a tanh, a softsign or an error function.
    Tanh,
    /// Cut off below zero, or at other bounds.
    Cut,
    /// Cosines between the image's features and each class.
    Cosine,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Softmax => "probabilities of a softmax",
            Self::LogSoftmax => "log-probabilities of a log-softmax",
            Self::Sigmoid => "probabilities of a sigmoid",
            Self::Sorted => "sorted values",
            Self::Tanh => "values that a tanh has squeezed",
            Self::Cut => "values that are cut off",
            Self::Cosine => "cosines",
        })
    }
}
