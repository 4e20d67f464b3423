//! The search for a cache, and the list of those that are there.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::folder::{MANIFEST, bytes_of, folders_with, views_of};
use crate::key::Difference;
use crate::{CacheError, CacheKey, Encoding, Manifest};

/// Whether [`find`] found a cache, and if not, which one comes closest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A cache with exactly this key; it may still lack views.
    Hit(PathBuf),
    /// None has it, but this one holds the same rows in the same encoding, transcoded from a finer one. It may lack views,
    /// and a capture cannot add them.
    Transcoded(PathBuf),
    /// No cache has this key, nor the same rows transcoded.
    Miss {
        /// The cache with the fewest differing ingredients, and those; `None` where there is no cache that shares the
        /// teacher or the images.
        nearest: Option<(PathBuf, Vec<Difference>)>,
    },
}

/// One cache in a listing.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The name of the cache's folder, without the folders above it.
    pub name: String,
    /// The cache's folder, under the root that was listed.
    pub path: PathBuf,
    /// What people call the teacher; empty where the cache cannot be read.
    pub teacher: String,
    /// Format and split, as recorded: `cifar10, train split`.
    pub dataset: String,
    /// Samples of the split.
    pub n_samples: u32,
    /// Classes of a row.
    pub n_classes: usize,
    /// Views that are whole.
    pub n_views: usize,
    /// How rows are stored.
    pub encoding: Encoding,
    /// Bytes of all files.
    pub bytes: u64,
    /// What is wrong with it, if it cannot be read.
    pub problem: Option<String>,
}

/// Looks for the cache with this key under `root`, then for the one that was transcoded into its encoding by the fewest steps.
/// A `root` that does not exist holds no caches.
///
/// # Errors
/// If a folder or a manifest cannot be read, or if the one cache with this key is damaged. Other damaged caches are passed
/// over.
pub fn find(root: &Path, key: &CacheKey) -> Result<Found, CacheError> {
    let suffix = format!("-{}", key.key12());
    let mut transcoded: Option<(usize, PathBuf)> = None;
    let mut nearest: Option<(PathBuf, Vec<Difference>)> = None;
    for path in folders_with(root, MANIFEST)? {
        let is_ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().ends_with(&suffix));
        let manifest = match Manifest::read(&path) {
            Ok(manifest) => manifest,
            // What cannot be read might be the one.
            Err(error) if is_ours || matches!(error, CacheError::Io { .. }) => return Err(error),
            Err(_) => continue,
        };
        let differences = key.differences(&manifest.key);
        if differences.is_empty() {
            return Ok(Found::Hit(path));
        }
        if manifest.key.direct() == *key {
            let n_steps = manifest.key.transcoded.split(',').count();
            if transcoded.as_ref().is_none_or(|(best, _)| n_steps < *best) {
                transcoded = Some((n_steps, path));
            }
            continue;
        }
        let is_related = manifest.key.teacher == key.teacher || manifest.key.images == key.images;
        let is_nearer = nearest
            .as_ref()
            .is_none_or(|(_, best)| differences.len() < best.len());
        if is_related && is_nearer {
            nearest = Some((path, differences));
        }
    }
    Ok(match transcoded {
        Some((_, path)) => Found::Transcoded(path),
        None => Found::Miss { nearest },
    })
}

/// The manifests of all caches under `root`, by name. Damaged ones are left out.
///
/// # Errors
/// If a folder or a file cannot be read.
pub fn manifests(root: &Path) -> Result<Vec<(PathBuf, Manifest)>, CacheError> {
    let mut found = Vec::new();
    for path in folders_with(root, MANIFEST)? {
        match Manifest::read(&path) {
            Ok(manifest) => found.push((path, manifest)),
            Err(error @ CacheError::Io { .. }) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// All caches under `root`, by name. Damaged ones are listed with their problem.
///
/// # Errors
/// If a folder cannot be read.
pub fn list(root: &Path) -> Result<Vec<Summary>, CacheError> {
    let summaries = folders_with(root, MANIFEST)?.into_iter().map(|path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = bytes_of(&path)?;
        let summary = match Manifest::read(&path)
            .and_then(|manifest| Ok((views_of(&path)?.len(), manifest)))
        {
            Ok((n_views, manifest)) => Summary {
                name,
                dataset: dataset_of(&manifest),
                teacher: manifest.teacher,
                n_samples: manifest.n_samples,
                n_classes: manifest.n_classes,
                n_views,
                encoding: manifest.encoding,
                bytes,
                path,
                problem: None,
            },
            Err(error) => Summary {
                name,
                teacher: String::new(),
                dataset: String::new(),
                n_samples: 0,
                n_classes: 0,
                n_views: 0,
                encoding: Encoding::F32,
                bytes,
                path,
                problem: Some(error.to_string()),
            },
        };
        Ok(summary)
    });
    summaries.collect()
}

fn dataset_of(manifest: &Manifest) -> String {
    let recorded = |name: &str| manifest.recorded.get(name).map_or("", String::as_str);
    // The number of views that follows the split's name is that of the first capture.
    let split = recorded("split").split(',').next().unwrap_or_default();
    let both = [recorded("dataset"), split].map(str::trim);
    let both = both.into_iter().filter(|text| !text.is_empty());
    both.collect::<Vec<_>>().join(", ")
}
