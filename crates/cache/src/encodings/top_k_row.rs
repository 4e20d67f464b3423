//! A row of the k largest logits, as it is handed out.

/// The temperatures at which the rest is kept. Another one cannot be had from a stored row.
pub const REST_TEMPERATURES: [f32; 3] = [1.0, 2.0, 4.0];

/// One top-k row, decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopKRow {
    /// The classes with the largest logits, largest first.
    pub classes: Vec<u32>,
    /// The logits of `classes`, in the same order.
    pub logits: Vec<f32>,
    /// Mean over all classes.
    pub mean: f32,
    /// Unbiased standard deviation over all classes.
    pub deviation: f32,
    /// The label's logit; NaN where the sample has no label.
    pub label_logit: f32,
    /// Log of the sum of `exp(z / T)` over the classes that are not listed, at each of [`REST_TEMPERATURES`].
    pub rest: [f32; 3],
}
