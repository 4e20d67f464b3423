//! Who may write what: one claim for each run of chunks that a process writes, and a door that all pass one at a time.
//!
//! `.chunks-00008-00016` is claimed by the process that writes chunks 8 to 15, for as long as it runs. `.door` is claimed
//! for the moments in which `cache.json` or a `view.json` is written, or chunks are claimed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logitcask_durable::{Claim, ClaimError, Holder, Watcher};

use crate::CacheError;
use crate::folder::entries;

/// How long the door may be closed by the living: longer than anybody may be silent. Hundreds of parts that start at once
/// pass it one after the other.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for those of whom nobody knows whether they live, until that is known, and for nobody else.
pub(crate) fn until_known(holder: &Holder) -> bool {
    !holder.is_alive
}

/// Passes the door of the cache at `cache`, waiting for those before us.
///
/// # Errors
/// If somebody stands in it who does not move on, or the file system says no.
fn door(cache: &Path) -> Result<Claim, CacheError> {
    let started = Instant::now();
    let wait = |holder: &Holder| !holder.is_alive || started.elapsed() < PATIENCE;
    let claimed = Watcher::default().claim(&cache.join(".door"), wait);
    claimed.map_err(|source| refused(cache, source))
}

/// Passes the door and does `step` behind it, which is handed the door's claim. Where it meets somebody's chunks, the door is
/// given back and all is tried again, as long as `wait` says so; where it finds the door taken over, in any case.
///
/// # Errors
/// As [`door`], and what `step` reports.
pub(crate) fn behind_the_door<T>(
    cache: &Path,
    wait: &mut dyn FnMut(&Holder) -> bool,
    mut step: impl FnMut(&mut Watcher, &Claim) -> Result<T, CacheError>,
) -> Result<T, CacheError> {
    let mut watcher = Watcher::default();
    loop {
        let door = door(cache)?;
        let error = match step(&mut watcher, &door) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // A successor removes what was half written, and then it cannot be renamed: that is no failure of the disk.
        let is_lost = matches!(door.check(), Err(ClaimError::Lost { .. }));
        drop(door);
        match error {
            CacheError::Claim {
                source: ClaimError::Held(holder),
                ..
            } if wait(&holder) => std::thread::sleep(Duration::from_millis(250)),
            _ if is_lost => {}
            error => return Err(error),
        }
    }
}

/// To be asked before what is decided behind the door is done.
///
/// # Errors
/// If somebody took the claim over while this process was paused.
pub(crate) fn still_ours(cache: &Path, claim: &Claim) -> Result<(), CacheError> {
    claim.check().map_err(|lost| refused(cache, lost))
}

/// Claims `chunks`; nothing where there are none. The caller holds the door.
///
/// # Errors
/// If somebody else writes one of them.
pub(crate) fn claim_chunks(
    watcher: &mut Watcher,
    cache: &Path,
    chunks: &Range<u32>,
) -> Result<Option<Claim>, CacheError> {
    if chunks.is_empty() {
        return Ok(None);
    }
    for held in claimed(cache)? {
        if held.start < chunks.end && chunks.start < held.end {
            clear(watcher, cache, &held)?;
        }
    }
    let claim = watcher.try_claim(&cache.join(name(chunks)));
    claim.map(Some).map_err(|source| refused(cache, source))
}

/// Refuses if anybody writes any chunk. The caller holds the door.
///
/// # Errors
/// As [`claim_chunks`].
pub(crate) fn nobody_writes(watcher: &mut Watcher, cache: &Path) -> Result<(), CacheError> {
    let mut all = claimed(cache)?.into_iter();
    all.try_for_each(|held| clear(watcher, cache, &held))
}

/// Removes the claims of writers that died after their last work, so that nothing stays of them in a cache that is whole.
/// Those of the living, and of whom nobody knows yet, stay.
///
/// # Errors
/// If the folder cannot be read or written.
pub fn clear_stale_claims(cache: &Path) -> Result<(), CacheError> {
    let mut watcher = Watcher::default();
    for held in claimed(cache)? {
        match clear(&mut watcher, cache, &held) {
            Ok(()) => {}
            Err(CacheError::Claim {
                source: ClaimError::Held(_),
                ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    let is_of_the_door = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(".door.claim-"))
    };
    match entries(cache)?.iter().any(is_of_the_door) {
        true => cleared(cache).map(drop),
        false => Ok(()),
    }
}

/// Whether there are claims in a folder, and nothing else.
pub(crate) fn are_all_there_is(folder: &Path) -> Result<bool, CacheError> {
    let found = entries(folder)?;
    let is_claim = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            [".door.", "..door."]
                .iter()
                .any(|ours| name.starts_with(ours))
        })
    };
    Ok(!found.is_empty() && found.iter().all(is_claim))
}

/// Removes stale claims on the door; false where somebody who lives stands in it.
pub(crate) fn cleared(cache: &Path) -> Result<bool, CacheError> {
    match Watcher::default().try_claim(&cache.join(".door")) {
        Ok(_) => Ok(true),
        Err(ClaimError::Held(_)) => Ok(false),
        Err(source) => Err(refused(cache, source)),
    }
}

/// Removes claims that are stale. Taking over is how one learns that.
fn clear(watcher: &mut Watcher, cache: &Path, chunks: &Range<u32>) -> Result<(), CacheError> {
    let claim = watcher.try_claim(&cache.join(name(chunks)));
    claim.map(drop).map_err(|source| refused(cache, source))
}

/// The runs of chunks on which there is a claim, whoever's it is.
fn claimed(cache: &Path) -> Result<Vec<Range<u32>>, CacheError> {
    let mut claimed = BTreeSet::new();
    for path in entries(cache)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let range = name.and_then(|name| {
            let range = name.strip_prefix(".chunks-")?.split_once(".claim-")?.0;
            let (start, end) = range.split_once('-')?;
            Some((start.parse().ok()?, end.parse().ok()?))
        });
        claimed.extend(range);
    }
    Ok(claimed.into_iter().map(|(start, end)| start..end).collect())
}

fn name(chunks: &Range<u32>) -> String {
    format!(".chunks-{:05}-{:05}", chunks.start, chunks.end)
}

fn refused(cache: &Path, source: ClaimError) -> CacheError {
    CacheError::Claim {
        path: cache.to_path_buf(),
        source,
    }
}
