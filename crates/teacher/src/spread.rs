//! Which samples stand for all of them.

/// Evenly spread samples: a folder is sorted by class, so its first thousand would be of one.
pub fn spread(selected: &[u32], wanted: usize) -> Vec<u32> {
    let n = selected.len();
    if n <= wanted {
        return selected.to_vec();
    }
    (0..wanted)
        .map(|index| selected[index * n / wanted])
        .collect()
}
