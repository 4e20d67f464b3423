//! How large a cache gets, and whether it fits.

use std::path::Path;

use serde::Serialize;

use crate::{CacheError, Encoding, Manifest, encodings};

/// Bytes of `sample`, `label` and `check` in a row.
const ADDRESS_BYTES: u64 = 16;

/// What one encoding would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanRow {
    /// One of [`encodings`](crate::encodings()) that fits the number of classes.
    pub encoding: Encoding,
    /// Bytes of one row on the disk.
    pub row_bytes: u64,
    /// Bytes of all rows of all views.
    pub bytes: u64,
}

/// What each encoding would take for this many samples, views and classes. Encodings that do not fit the number of
/// classes are left out.
pub fn plan(n_samples: u32, n_views: u32, n_classes: usize) -> Vec<PlanRow> {
    let fits = |encoding: &Encoding| match encoding {
        Encoding::TopK(k) => (*k as usize) < n_classes,
        _ => true,
    };
    let listed = encodings().iter().map(|row| row.encoding).filter(fits);
    listed
        .map(|encoding| {
            let row_bytes = row_bytes(encoding, n_classes);
            PlanRow {
                encoding,
                row_bytes,
                bytes: (row_bytes * u64::from(n_samples)).saturating_mul(u64::from(n_views)),
            }
        })
        .collect()
}

/// Bytes that are free for this user on the disk that holds `path`, or would hold it. `None` where the system does not
/// tell.
///
/// # Errors
/// If the disk cannot be asked.
pub fn available(path: &Path) -> Result<Option<u64>, CacheError> {
    let absolute = std::path::absolute(path).map_err(CacheError::io("find", path))?;
    for ancestor in absolute.ancestors() {
        if crate::folder::exists(ancestor)? {
            let asked = free_bytes(ancestor);
            return asked.map_err(CacheError::io("ask for the free space of", ancestor));
        }
    }
    Ok(None)
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> std::io::Result<Option<u64>> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_path: &Path) -> std::io::Result<Option<u64>> {
    Ok(None)
}

/// Refuses to start work that the disk under `path` cannot hold: `n_rows` further rows.
///
/// # Errors
/// [`CacheError::DiskFull`] naming what is needed and what is there.
pub fn check_space(path: &Path, manifest: &Manifest, n_rows: u64) -> Result<(), CacheError> {
    let row_bytes = manifest.row_bytes() as u64 + ADDRESS_BYTES;
    // Frames, manifests and a last chunk written beside the one that it replaces.
    let margin = row_bytes * u64::from(manifest.chunk_rows) + (1 << 20);
    let needed = row_bytes.saturating_mul(n_rows).saturating_add(margin);
    match available(path)? {
        Some(available) if available < needed => Err(CacheError::DiskFull {
            path: path.to_path_buf(),
            needed,
            available,
        }),
        _ => Ok(()),
    }
}

fn row_bytes(encoding: Encoding, n_classes: usize) -> u64 {
    encoding.row_bytes(n_classes) as u64 + ADDRESS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_arithmetic() {
        let rows = plan(50_000, 16, 100);
        let f16 = rows
            .iter()
            .find(|row| row.encoding == Encoding::F16)
            .unwrap();
        assert_eq!((f16.row_bytes, f16.bytes), (216, 216 * 50_000 * 16));
        assert!(
            plan(1, 1, 10).iter().all(|row| row.encoding.is_dense()),
            "32 of 10 classes do not exist"
        );
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new("t", crate::CacheKey::default(), Encoding::F16, 100, 10);
        check_space(&folder.path().join("not/yet/there"), &manifest, 100).unwrap();
        let error = check_space(folder.path(), &manifest, u64::MAX / 1000).unwrap_err();
        assert!(matches!(error, CacheError::DiskFull { .. }), "{error}");
    }
}
