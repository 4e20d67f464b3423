//! Two caches of the same images compared row by row: what another teacher, precision or encoding changed.

use rayon::prelude::*;
use serde::Serialize;

use crate::distance::{DistanceSummary, Distances, RowDistance};
use crate::{CacheError, Difference, LogitCache, Statistic};

/// Two caches of the same images, held against each other.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// The ingredients in which their keys differ: `cached` is the first, `wanted` the second.
    pub differences: Vec<Difference>,
    /// The views that both hold, all of which were compared.
    pub views: Vec<u32>,
    /// How far the second's rows lie from the first's; `None` where no row is in both.
    pub distance: Option<DistanceSummary>,
}

/// Compares every row that both caches hold: two teachers, two precisions or two encodings on the same pixels.
/// `progress` is told rows done and rows to do, from several threads.
///
/// # Errors
/// If the caches are not of the same images, views and classes, if one is not dense, or a row is damaged.
pub fn diff(
    first: &LogitCache,
    second: &LogitCache,
    n_worst: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<DiffReport, CacheError> {
    let (a, b) = (first.manifest(), second.manifest());
    let sizes = [a, b].map(|manifest| format!("{} x {}", manifest.n_samples, manifest.n_classes));
    for (field, left, right) in [
        ("images", &a.key.images, &b.key.images),
        ("views", &a.key.views, &b.key.views),
        ("samples x classes", &sizes[0], &sizes[1]),
    ] {
        if left != right {
            return Err(CacheError::NotComparable {
                field,
                first: left.clone(),
                second: right.clone(),
            });
        }
    }
    first.require(Statistic::Logits)?;
    second.require(Statistic::Logits)?;
    let views: Vec<u32> = first
        .views()
        .iter()
        .copied()
        .filter(|view| second.views().contains(view))
        .collect();
    let work: Vec<(u32, u32)> = views
        .iter()
        .flat_map(|&view| (0..a.n_chunks()).map(move |chunk| (view, chunk)))
        .collect();
    let total = views.len() as u64 * u64::from(a.n_samples);
    let done = std::sync::atomic::AtomicU64::new(0);
    let parts: Vec<Distances> = work
        .par_iter()
        .map(|&(view, chunk)| {
            let mut distances = Distances::default();
            let range = a.chunk_range(chunk)?;
            let (mut left, mut right) = (vec![0.0; a.n_classes], vec![0.0; a.n_classes]);
            for sample in range.clone() {
                let there = first.row_or_null(sample, view, &mut left)?.is_some();
                if there && second.row_or_null(sample, view, &mut right)?.is_some() {
                    distances.push(sample, view, RowDistance::between(&left, &right));
                }
            }
            let n = range.len() as u64;
            progress(
                done.fetch_add(n, std::sync::atomic::Ordering::Relaxed) + n,
                total,
            );
            Ok(distances)
        })
        .collect::<Result<_, CacheError>>()?;
    let mut distances = Distances::default();
    parts.into_iter().for_each(|part| distances.extend(part));
    Ok(DiffReport {
        differences: b.key.differences(&a.key),
        views,
        distance: distances.summary(n_worst),
    })
}
