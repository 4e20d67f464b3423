//! The name that was meant: one measure for everything that people misspell, so that keys, losses, students, formats and
//! augmentations are all answered alike.

/// The known name most like `name`, the first of several; `None` where more than half of the letters would have to be
/// inserted, deleted, replaced or swapped with a neighbour (Damerau and Levenshtein's distance, over the longer length).
///
/// ```
/// use logitcask_suggest::nearest;
/// assert_eq!(nearest("epoch", ["batch_size", "epochs"]), Some("epochs"));
/// assert_eq!(nearest("mlcd", ["mcld", "mlkd"]), Some("mcld")); // a swap is one slip
/// assert_eq!(nearest("zebra", ["batch_size", "epochs"]), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for known in known {
        let likeness = strsim::normalized_damerau_levenshtein(name, known);
        if likeness >= 0.5 && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, known));
        }
    }
    best.map(|(_, known)| known)
}
