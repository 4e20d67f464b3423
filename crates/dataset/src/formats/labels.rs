//! Every label is of a class: whether that is so, and how many classes there are.

use super::opened::Opened;
use crate::{DataSpec, DatasetError, SplitSpec};

/// Labels checked against the class count: the greatest of what the recipe says, the names and, where neither is
/// there, the labels themselves.
pub(super) fn count_classes(
    spec: &DataSpec,
    n_names: usize,
    labels: &[u32],
    place: impl Fn(u32) -> String,
) -> Result<usize, DatasetError> {
    let seen = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let n_classes = match (spec.n_classes, n_names) {
        (Some(n), names) => n.max(names),
        (None, 0) => seen,
        (None, names) => names,
    };
    match labels.iter().position(|&label| label as usize >= n_classes) {
        None => Ok(n_classes),
        Some(index) => Err(DatasetError::LabelRange {
            place: format!("sample {index} ({})", place(index as u32)),
            label: labels[index].into(),
            n_classes,
        }),
    }
}

/// What our own formats look at while they read, of a split of a program's own: that there are labels, and each is of a class.
pub(super) fn check_labels(
    opened: &Opened,
    spec: &DataSpec,
    split: &SplitSpec,
) -> Result<(), DatasetError> {
    if opened.labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: spec.root.clone(),
        });
    }
    let is_out = |label: &u32| *label as usize >= opened.n_classes;
    match opened.labels.iter().position(is_out) {
        None => Ok(()),
        Some(index) => Err(DatasetError::LabelRange {
            place: format!("sample {index} ({})", opened.source.place(index as u32)),
            label: opened.labels[index].into(),
            n_classes: opened.n_classes,
        }),
    }
}
