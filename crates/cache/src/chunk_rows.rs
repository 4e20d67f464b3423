//! The rows of a chunk as a caller hands them over.

/// The label of a sample that has none.
pub const NO_LABEL: u32 = u32::MAX;

/// The rows of one chunk, in the order of their samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkRows<'a> {
    /// One label a row; [`NO_LABEL`] where the sample has none.
    pub labels: &'a [u32],
    /// (rows, classes), before any softmax or temperature; all finite in rows that are there.
    pub logits: &'a [f32],
    /// Which rows are there; empty where all are. What stands in the logits of a missing row means nothing.
    pub valid: &'a [bool],
    /// (rows, `feature_len`); empty where the manifest has no features.
    pub features: &'a [f32],
}
