//! Where a split's fingerprint is remembered, and when what is remembered still holds.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::fingerprint::{DECODING, Fingerprint, VERSION};
use crate::{Dataset, DatasetError, files, formats};

/// When a fingerprint that is remembered may stand for looking at every image again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Where names, lengths and modification times are those of then.
    ModificationTimes,
    /// Where besides no file's status has changed since: an image that was edited and given its old time back has a newer
    /// status. Copies of a dataset have too, so they are looked at once more. (On systems without a time of status
    /// change, as [`Trust::ModificationTimes`].)
    StatusTimes,
    /// Never: every image is looked at again.
    Nothing,
}

/// A file of `.logitcask/` in the dataset's folder, named by the names, lengths and modification times of the split's
/// files.
pub(crate) struct Memory {
    path: PathBuf,
    /// The latest status change of any of the files, in nanoseconds since 1970 by the clock of whoever serves them.
    newest_status: i64,
    /// Of all files together.
    pub(crate) bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    /// [`Memory::newest_status`] when the images were looked at.
    newest_status: i64,
    fingerprint: Fingerprint,
}

impl Memory {
    /// None of a dataset that has no files. To be called before the images are read: what changes while they are is
    /// newer than what is remembered.
    pub(crate) fn of(dataset: &Dataset) -> Result<Option<Self>, DatasetError> {
        let files = &dataset.opened.files;
        if files.is_empty() {
            return Ok(None);
        }
        let root = &dataset.spec.root;
        let mut key = blake3::Hasher::new();
        key.update(VERSION.as_bytes())
            .update(&[dataset.channels.unwrap_or(0) as u8, DECODING]);
        if dataset.spec.exif {
            key.update(b"exif");
        }
        if formats::is_own(&dataset.spec.format) {
            key.update(dataset.spec.format.as_bytes());
        }
        let (mut newest_status, mut bytes) = (i64::MIN, 0);
        for path in files.iter() {
            let metadata = fs::metadata(path).and_then(|data| Ok((data.modified()?, data)));
            let (modified, metadata) = metadata.map_err(|source| DatasetError::Io {
                action: "look at",
                path: path.clone(),
                source,
            })?;
            // A time before 1970 is as good as any other that stays the same.
            let modified = modified
                .duration_since(UNIX_EPOCH)
                .unwrap_or_else(|before| before.duration());
            let name = path.strip_prefix(root).unwrap_or(path);
            key.update(name.as_os_str().as_encoded_bytes())
                .update(&[0])
                .update(&metadata.len().to_le_bytes())
                .update(&modified.as_nanos().to_le_bytes());
            newest_status = newest_status.max(status_time(&metadata));
            bytes += metadata.len();
        }
        let name = format!("fingerprint-{}.json", &key.finalize().to_hex()[..16]);
        Ok(Some(Self {
            path: root.join(".logitcask").join(name),
            newest_status,
            bytes,
        }))
    }

    /// What is remembered, if it may be trusted. What does not parse, or is not as it was written, is not remembered: the
    /// images are looked at again. Fingerprints of earlier versions carry no digest.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub(crate) fn recall(&self, trust: Trust) -> Result<Option<Fingerprint>, DatasetError> {
        if trust == Trust::Nothing {
            return Ok(None);
        }
        let Some(text) = files::read_bytes(&self.path)? else {
            return Ok(None);
        };
        let known = unsealed(&text).filter(|known| {
            trust == Trust::ModificationTimes || self.newest_status <= known.newest_status
        });
        Ok(known.map(|known| known.fingerprint))
    }

    /// A dataset on a read-only disk is no error; it only costs the pass again.
    pub(crate) fn keep(&self, fingerprint: &Fingerprint) {
        let known = Remembered {
            newest_status: self.newest_status,
            fingerprint: fingerprint.clone(),
        };
        let write = || {
            if let Some(folder) = self.path.parent() {
                logitcask_durable::create_dir_all(folder)?;
            }
            logitcask_durable::write_atomic(&self.path, |file| {
                let text = serde_json::to_string(&known)?;
                file.write_all(logitcask_durable::seal_json(&text).as_bytes())
            })
        };
        let _: std::io::Result<()> = write();
    }
}

/// What was written, if it is as it was written.
fn unsealed(text: &[u8]) -> Option<Remembered> {
    let text = std::str::from_utf8(text).ok()?;
    let unsealed = logitcask_durable::unseal_json(text).ok()?;
    serde_json::from_str(unsealed.as_deref().unwrap_or(text)).ok()
}

/// When anything about the file last changed: its bytes, its times, its name. No program can set it.
#[cfg(unix)]
fn status_time(metadata: &fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata
        .ctime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn status_time(_: &fs::Metadata) -> i64 {
    0
}
