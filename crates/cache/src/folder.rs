//! The names inside a cache's folder, and the search for one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::key::Difference;
use crate::view_file::ViewFile;
use crate::{CacheError, CacheKey, Encoding, Manifest};

pub(crate) const MANIFEST: &str = "cache.json";
pub(crate) const VIEW_MANIFEST: &str = "view.json";

/// `view=0007`: the Hive style of naming, which makes the view a column for readers that know it.
pub(crate) fn view_folder(cache: &Path, view: u32) -> PathBuf {
    cache.join(format!("view={view:04}"))
}

/// `part-00012.arrow`.
pub(crate) fn chunk_name(chunk: u32) -> String {
    format!("part-{chunk:05}.arrow")
}

/// The chunk of which [`chunk_name`] gives this name.
pub(crate) fn chunk_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("part-")?.strip_suffix(".arrow")?;
    let chunk = number.parse().ok()?;
    (chunk_name(chunk) == name).then_some(chunk)
}

/// The chunks of a view that have a file. Of a view without a folder there are none.
pub(crate) fn chunks_there(cache: &Path, view: u32) -> Result<BTreeSet<u32>, CacheError> {
    let files = entries(&view_folder(cache, view))?;
    let names = files.iter().filter_map(|path| path.file_name()?.to_str());
    Ok(names.filter_map(chunk_of).collect())
}

/// What [`find`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A cache with exactly this key; it may still lack views.
    Hit(PathBuf),
    /// None has it, but this one holds the same rows in the same encoding, transcoded from a finer one. It may lack views,
    /// and a capture cannot add them.
    Transcoded(PathBuf),
    /// None has it.
    Miss {
        /// The cache with the fewest differing ingredients, and those; `None` where there is no cache that shares the
        /// teacher or the images.
        nearest: Option<(PathBuf, Vec<Difference>)>,
    },
}

/// One cache in a listing.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The folder's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The teacher's name.
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

/// The numbers of the views that are whole, in order: those whose folder holds a `view.json`.
pub(crate) fn views_of(cache: &Path) -> Result<Vec<u32>, CacheError> {
    let mut views = Vec::new();
    for view in view_folders(cache)? {
        if exists(&view_folder(cache, view).join(VIEW_MANIFEST))? {
            views.push(view);
        }
    }
    Ok(views)
}

/// The numbers of all views that have a folder, whole or not, in order.
pub(crate) fn view_folders(cache: &Path) -> Result<Vec<u32>, CacheError> {
    let mut views = Vec::new();
    for path in entries(cache)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("view="));
        let number = number.and_then(|number| number.parse().ok());
        // Only the canonical spelling counts, or `view=1` and `view=0001` would be two folders of one view.
        views.extend(number.filter(|&view| path == view_folder(cache, view)));
    }
    views.sort_unstable();
    Ok(views)
}

/// Reads the `view.json` of a view.
pub(crate) fn read_view(
    cache: &Path,
    manifest: &Manifest,
    view: u32,
) -> Result<ViewFile, CacheError> {
    ViewFile::read(
        &view_folder(cache, view).join(VIEW_MANIFEST),
        manifest,
        view,
    )
}

/// What lies below `root` and holds a file of this name, by name. A `root` that does not exist holds nothing.
///
/// # Errors
/// If that cannot be told. A folder that is closed to us and is not called like a cache, as `lost+found` at the top of a
/// disk, is passed over.
pub(crate) fn folders_with(root: &Path, file: &str) -> Result<Vec<PathBuf>, CacheError> {
    let mut folders = Vec::new();
    for path in entries(root)? {
        match exists(&path.join(file)) {
            Ok(true) => folders.push(path),
            Ok(false) => {}
            Err(CacheError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied
                    && !is_called_like_a_cache(&path) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(folders)
}

/// `<teacher>-<12 hex digits>`, or the archive of one.
fn is_called_like_a_cache(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.map(|name| name.strip_suffix(".parquet").unwrap_or(name));
    let key = name.and_then(|name| name.rsplit_once('-'));
    key.is_some_and(|(_, key)| key.len() == 12 && key.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether anything of this name is there; a question that has no answer is an error.
pub(crate) fn exists(path: &Path) -> Result<bool, CacheError> {
    logitcask_durable::exists(path).map_err(CacheError::io("look for", path))
}

/// What is in a folder, by name; nothing where there is none.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    logitcask_durable::entries(folder).map_err(CacheError::io("read the folder", folder))
}

fn dataset_of(manifest: &Manifest) -> String {
    let recorded = |name: &str| manifest.recorded.get(name).map_or("", String::as_str);
    // The number of views that follows the split's name is that of the first capture.
    let split = recorded("split").split(',').next().unwrap_or_default();
    let both = [recorded("dataset"), split].map(str::trim);
    let both = both.into_iter().filter(|text| !text.is_empty());
    both.collect::<Vec<_>>().join(", ")
}

/// Bytes of all files below a folder; none where there is no such folder. What somebody removes meanwhile is not counted.
///
/// # Errors
/// If a folder or a file's size cannot be read.
pub fn bytes_of(folder: &Path) -> Result<u64, CacheError> {
    let mut sum = 0;
    for path in entries(folder)? {
        let found = logitcask_durable::absent_is_none(path.symlink_metadata())
            .map_err(CacheError::io("look at", &path))?;
        sum += match found {
            Some(found) if found.is_dir() => bytes_of(&path)?,
            Some(found) => found.len(),
            None => 0,
        };
    }
    Ok(sum)
}
