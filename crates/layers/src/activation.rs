//! What follows a layer.

/// What follows a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Values go on as they are.
    None,
    /// `max(x, 0)`.
    Relu,
}
