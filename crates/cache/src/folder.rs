//! The names inside a cache's folder, and what is there under them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::CacheError;

pub(crate) const MANIFEST: &str = "cache.json";
pub(crate) const VIEW_MANIFEST: &str = "view.json";

/// `view=0007`: the Hive style of naming, which makes the view a column for readers that know it.
pub(crate) fn view_folder(cache: &Path, view: u32) -> PathBuf {
    cache.join(format!("view={view:04}"))
}

/// `part-00012.arrow`, the name of chunk 12 in its view's folder.
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
