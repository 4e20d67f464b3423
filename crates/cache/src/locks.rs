//! Who may write what: one lock for each run of chunks that a process writes, and a door that all pass one at a time.
//!
//! `.lock-00008-00016` is held by the process that writes chunks 8 to 15, for as long as it runs. `.lock` is the door: it
//! is held for the moments in which `cache.json` or a `view.json` is written, or a lock on chunks is taken.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logitcask_durable::{Lock, LockError};

use crate::CacheError;
use crate::folder::LOCK;

/// How long the door may be closed. Hundreds of parts that start at once pass it one after the other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes the door of the cache at `cache`, waiting for those before us.
///
/// # Errors
/// If somebody stands in it who is not on this host or does not move on, or the file system says no.
pub(crate) fn door(cache: &Path) -> Result<Lock, CacheError> {
    let path = cache.join(LOCK);
    let started = Instant::now();
    loop {
        match Lock::acquire(&path) {
            Ok(lock) => return Ok(lock),
            // Between finding a lock and reading its owner it may have been given back: then it is unreadable.
            Err(LockError::Held { .. } | LockError::Unreadable { .. })
                if started.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(source) => return Err(refused(cache, source)),
        }
    }
}

/// Takes the lock on `chunks`; nothing where there are none. The caller holds the door.
///
/// # Errors
/// If a living process, or one on another host, holds one of them.
pub(crate) fn lock_chunks(cache: &Path, chunks: &Range<u32>) -> Result<Option<Lock>, CacheError> {
    if chunks.is_empty() {
        return Ok(None);
    }
    for (held, path) in held(cache)? {
        if held.start < chunks.end && chunks.start < held.end {
            clear(cache, &path)?;
        }
    }
    let name = format!("{LOCK}-{:05}-{:05}", chunks.start, chunks.end);
    Lock::acquire(&cache.join(name))
        .map(Some)
        .map_err(|source| refused(cache, source))
}

/// Refuses if anybody writes any chunk. The caller holds the door.
///
/// # Errors
/// As [`lock_chunks`].
pub(crate) fn nobody_writes(cache: &Path) -> Result<(), CacheError> {
    held(cache)?
        .iter()
        .try_for_each(|(_, path)| clear(cache, path))
}

/// Removes a lock whose process is gone. Taking it is how one learns that.
fn clear(cache: &Path, lock: &Path) -> Result<(), CacheError> {
    Lock::acquire(lock)
        .map(drop)
        .map_err(|source| refused(cache, source))
}

/// The locks on chunks that are there, whoever holds them.
fn held(cache: &Path) -> Result<Vec<(Range<u32>, PathBuf)>, CacheError> {
    let unreadable = CacheError::io("read the folder", cache);
    let entries = std::fs::read_dir(cache).map_err(unreadable)?;
    let mut held = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let range = name.to_str().and_then(|name| {
            let (start, end) = name
                .strip_prefix(LOCK)?
                .strip_prefix('-')?
                .split_once('-')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        });
        held.extend(range.map(|range| (range, entry.path())));
    }
    Ok(held)
}

fn refused(cache: &Path, source: LockError) -> CacheError {
    CacheError::Lock {
        path: cache.to_path_buf(),
        source,
    }
}
