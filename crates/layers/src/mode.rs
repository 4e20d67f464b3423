//! Training or evaluation.

/// Whether batch norm uses, and updates from, the batch, or relies on its running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics move towards them.
    Train,
    /// Running statistics, which stay as they are.
    Eval,
}
