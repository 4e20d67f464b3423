//! Which caches may be deleted to make room, oldest first, and how a cache is removed so that nothing passes for one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::search::{Summary, list};
use crate::{CacheError, claims, folder, maker};

/// Which caches may go: those that either limit names. With neither, none goes.
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
    /// The cache as [`list`] shows it.
    pub cache: Summary,
    /// Seconds since something was last written to it.
    pub age_s: u64,
}

/// Which caches under `root` would go. Nothing is removed: that is [`remove`]'s.
///
/// # Errors
/// If a folder or a file's time cannot be read.
pub fn gc_plan(
    root: &Path,
    policy: GcPolicy,
    now: SystemTime,
) -> Result<Vec<GcCandidate>, CacheError> {
    let mut caches: Vec<GcCandidate> = list(root)?
        .into_iter()
        .map(|cache| {
            let written = last_written(&cache.path)?;
            // A time to come is that of another clock.
            let age = now.duration_since(written).unwrap_or_default();
            let age_s = age.as_secs();
            Ok(GcCandidate { cache, age_s })
        })
        .collect::<Result<_, CacheError>>()?;
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

/// Removes the cache in the folder `path`. Killed half-way, it leaves a cache with fewer views: the last view goes first, and
/// of each its `view.json`; `cache.json`, which says whose rows these are, goes when no row is left.
///
/// # Errors
/// If it is no cache, somebody is writing it, or the file system says no.
pub fn remove(path: &Path) -> Result<(), CacheError> {
    let manifest = path.join(folder::MANIFEST);
    if !folder::exists(&manifest)? {
        return Err(CacheError::NotACache {
            path: path.to_path_buf(),
        });
    }
    claims::behind_the_door(path, &mut claims::until_known, |watcher, _| {
        claims::nobody_writes(watcher, path)?;
        for view in folder::view_folders(path)?.into_iter().rev() {
            let view = folder::view_folder(path, view);
            remove_file(&view.join(folder::VIEW_MANIFEST))?;
            fs::remove_dir_all(&view).map_err(CacheError::io("remove", &view))?;
        }
        // What a killed writer of the manifest left.
        let is_ours = |name: &str| name == folder::MANIFEST || maker::samples_of(name).is_some();
        logitcask_durable::remove_leftovers(path, is_ours)
            .map_err(CacheError::io("clean", path))?;
        for maker in maker::files(path)? {
            remove_file(&maker)?;
        }
        remove_file(&manifest)
    })?;
    remove_empty(path)
}

/// Removes what killed [`remove`]s have left under `root`: folders with nothing in them but claims of the dead.
///
/// # Errors
/// If a folder cannot be read, or the file system says no.
pub fn remove_shells(root: &Path) -> Result<(), CacheError> {
    for path in folder::entries(root)? {
        let is_folder =
            logitcask_durable::is_folder(&path).map_err(CacheError::io("look at", &path))?;
        if is_folder && claims::are_all_there_is(&path)? {
            // Whoever is alive there is about to make a cache.
            if claims::cleared(&path)? {
                remove_empty(&path)?;
            }
        }
    }
    Ok(())
}

/// Files that are not ours stay, and then the folder does.
fn remove_empty(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.map_err(CacheError::io("remove", path)),
    }
}

fn remove_file(path: &Path) -> Result<(), CacheError> {
    logitcask_durable::remove_file(path).map_err(CacheError::io("remove", path))
}

/// The newest of the cache's manifests, and of the folders of views that are still being captured.
fn last_written(cache: &Path) -> Result<SystemTime, CacheError> {
    let mut newest = modified(&cache.join(folder::MANIFEST))?;
    for view in folder::view_folders(cache)? {
        let folder = folder::view_folder(cache, view);
        let time = match modified(&folder.join(folder::VIEW_MANIFEST))? {
            None => modified(&folder)?,
            written => written,
        };
        newest = newest.max(time);
    }
    Ok(newest.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// `None` where there is nothing.
fn modified(path: &Path) -> Result<Option<SystemTime>, CacheError> {
    let time = logitcask_durable::metadata(path)
        .and_then(|found| found.map(|it| it.modified()).transpose());
    time.map_err(CacheError::io("look at", path))
}
