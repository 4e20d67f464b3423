use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::{CacheError, Summary, claims, folder};

/// What may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcPolicy {
    /// Caches to which nothing has been written for longer than this.
    pub older_than: Option<Duration>,
    /// As many caches, oldest first, as it takes for the others to fit into this many bytes.
    pub max_bytes: Option<u64>,
}

/// A cache that would go.
#[derive(Clone, Debug, Serialize)]
pub struct GcCandidate {
    /// The cache.
    pub cache: Summary,
    /// Seconds since something was last written to it.
    pub age_s: u64,
}

/// Which caches under `root` would go. Nothing is removed: that is [`remove`]'s.
///
/// # Errors
/// If the folder cannot be read.
pub fn gc_plan(
    root: &Path,
    policy: GcPolicy,
    now: SystemTime,
) -> Result<Vec<GcCandidate>, CacheError> {
    let mut caches: Vec<GcCandidate> = folder::list(root)?
        .into_iter()
        .map(|cache| {
            let age = now
                .duration_since(last_written(&cache.path))
                .unwrap_or_default();
            GcCandidate {
                cache,
                age_s: age.as_secs(),
            }
        })
        .collect();
    caches.sort_by(|a, b| b.age_s.cmp(&a.age_s).then(a.cache.name.cmp(&b.cache.name)));
    let mut kept_bytes: u64 = caches.iter().map(|candidate| candidate.cache.bytes).sum();
    caches.retain(|candidate| {
        let is_old = policy
            .older_than
            .is_some_and(|limit| Duration::from_secs(candidate.age_s) > limit);
        let is_too_much = policy.max_bytes.is_some_and(|limit| kept_bytes > limit);
        let goes = is_old || is_too_much;
        if goes {
            kept_bytes -= candidate.cache.bytes;
        }
        goes
    });
    Ok(caches)
}

/// Removes the cache in the folder `path`. Killed half-way, it leaves nothing that would be taken for a cache.
///
/// # Errors
/// If it is no cache, somebody is writing it, or the file system says no.
pub fn remove(path: &Path) -> Result<(), CacheError> {
    let manifest = path.join(folder::MANIFEST);
    if !manifest.exists() {
        return Err(CacheError::NotACache {
            path: path.to_path_buf(),
        });
    }
    claims::behind_the_door(path, &mut claims::until_known, |watcher, _| {
        claims::nobody_writes(watcher, path)?;
        // Without its manifest a folder is no cache, whatever else is still in it.
        fs::remove_file(&manifest).map_err(CacheError::io("remove", &manifest))?;
        for view in folder::view_folders(path)? {
            let view = folder::view_folder(path, view);
            fs::remove_dir_all(&view).map_err(CacheError::io("remove", &view))?;
        }
        Ok(())
    })?;
    // Files that are not ours stay, and then the folder does.
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.map_err(CacheError::io("remove", path)),
    }
}

/// The newest of the cache's manifests, and of the folders of views that are still being captured.
fn last_written(cache: &Path) -> SystemTime {
    let views = folder::view_folders(cache).unwrap_or_default();
    let of_view = |view| {
        let folder = folder::view_folder(cache, view);
        let manifest = folder.join(folder::VIEW_MANIFEST);
        if manifest.exists() { manifest } else { folder }
    };
    let files = views
        .into_iter()
        .map(of_view)
        .chain([cache.join(folder::MANIFEST)]);
    let times = files.filter_map(|path: PathBuf| fs::metadata(path).ok()?.modified().ok());
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
