//! The numerics that methods share: rows of logits in, rows of gradients out.

pub(crate) mod gram;
pub(crate) mod product;
pub(crate) mod real;
pub(crate) mod rows;
pub(crate) mod similarity;
pub(crate) mod softmax;
pub(crate) mod standardize;
pub(crate) mod unit;

/// The index of the largest entry, the first of equal ones.
pub(crate) fn first_largest<F: real::Real>(row: &[F]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}
