//! A whole cache read again: every file's digest, every row's check, every sample's number, every row without an image.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::chunk::ChunkPlace;
use crate::folder::{self, view_folder};
use crate::view_file::ViewFile;
use crate::writer::summarise;
use crate::{CacheError, Manifest, maker};

/// How much [`verify`] looked at, and what was wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Views that were looked at.
    pub n_views: usize,
    /// Chunks that were read.
    pub n_chunks: usize,
    /// Rows whose check was computed.
    pub n_rows: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Everything that is wrong, in order.
    pub damages: Vec<Damage>,
}

/// One thing that is wrong with a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The view that is damaged, from 0.
    pub view: u32,
    /// The chunk; `None` if it is the view's own file.
    pub chunk: Option<u32>,
    /// What is wrong, with the file's path, in one line.
    pub problem: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty()
    }
}

/// Reads the whole cache in the folder `path`: every file's digest, every row's check, every sample number, every null
/// row. `progress` is told bytes read and bytes to read, from several threads.
///
/// Damage is no error here but part of the report, and one damaged chunk does not keep the others from being read.
///
/// # Errors
/// If the folder is no cache, its `cache.json` or the record of a maker is damaged, or the file system says no.
pub fn verify(
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VerifyReport, CacheError> {
    let manifest = Manifest::read(path)?;
    maker::read_all(path, &manifest)?;
    let views = folder::views_of(path)?;
    let mut report = VerifyReport {
        n_views: views.len(),
        n_chunks: 0,
        n_rows: 0,
        bytes: 0,
        damages: Vec::new(),
    };
    let mut work = Vec::new();
    for view in views {
        match ViewFile::of_cache(path, &manifest, view) {
            Ok(file) => work.extend((0..).zip(file.chunks.clone()).map(|(chunk, entry)| {
                let range = manifest.chunk_range(chunk);
                // They are ascending.
                let place = |sample: u32| file.null_samples.partition_point(|null| *null < sample);
                let nulls = range.map_or(0..0, |range| place(range.start)..place(range.end));
                (view, chunk, entry, file.null_samples[nulls].to_vec())
            })),
            Err(error) => report.damages.push(Damage {
                view,
                chunk: None,
                problem: error.to_string(),
            }),
        }
    }
    let bytes = work.iter().map(|(_, _, entry, _)| entry.bytes);
    let total = bytes.fold(0, u64::saturating_add);
    let done = AtomicU64::new(0);
    let damages: Vec<Option<Damage>> = work
        .par_iter()
        .map(|(view, chunk, entry, nulls)| {
            let file = view_folder(path, *view).join(&entry.file);
            let place = ChunkPlace::new(&manifest, *view, *chunk)?;
            let problem = match summarise(&file, &manifest, place, entry.file.clone()) {
                Ok(found) if found.entry.blake3 != entry.blake3 => Some(format!(
                    "`{}` has another digest than `view.json` says",
                    file.display()
                )),
                Ok(found) if found.entry != *entry || found.null_samples != *nulls => Some(
                    format!("`view.json` does not describe `{}`", file.display()),
                ),
                Ok(_) => None,
                Err(error) => Some(describe(&error)),
            };
            let before = done.fetch_add(entry.bytes, Ordering::Relaxed);
            progress(before.saturating_add(entry.bytes), total);
            Ok(problem.map(|problem| Damage {
                view: *view,
                chunk: Some(*chunk),
                problem,
            }))
        })
        .collect::<Result<_, CacheError>>()?;
    report.n_chunks = work.len();
    report.n_rows = work
        .iter()
        .map(|(_, _, entry, _)| u64::from(entry.n_rows))
        .sum();
    report.bytes = total;
    report.damages.extend(damages.into_iter().flatten());
    report
        .damages
        .sort_by_key(|damage| (damage.view, damage.chunk));
    Ok(report)
}

/// An error and its cause in one line, for a report that holds many.
fn describe(error: &CacheError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
