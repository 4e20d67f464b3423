//! The file that says what a view holds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::folder::{VIEW_MANIFEST, chunk_name, view_folder};
use crate::key::hex_digest;
use crate::manifest::too_long;
use crate::sealed::{self, FORMAT, VERSION};
use crate::{CacheError, Manifest};

/// `view.json`: the chunks of one view. Written last; a view without it does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewFile {
    format: String,
    version: u32,
    /// The key's digest, so that a folder moved under another cache is refused.
    #[serde(with = "hex_digest")]
    key: [u8; 32],
    view: u32,
    /// The chunks in order.
    pub chunks: Vec<ChunkEntry>,
    /// Samples that could not be decoded, and therefore have a null row.
    pub null_samples: Vec<u32>,
    /// Under which circumstances the view was captured.
    pub recorded: BTreeMap<String, String>,
}

/// What `view.json` says about one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntry {
    /// The file's bare name.
    pub file: String,
    /// How many rows it has, null rows included.
    pub n_rows: u32,
    /// In how many rows the largest logit is the label's.
    pub n_correct: u32,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    #[serde(with = "hex_digest")]
    pub blake3: [u8; 32],
}

impl ViewFile {
    pub(crate) fn new(
        manifest: &Manifest,
        view: u32,
        chunks: Vec<ChunkEntry>,
        null_samples: Vec<u32>,
        recorded: BTreeMap<String, String>,
    ) -> ViewFile {
        let (format, version, key) = (FORMAT.to_owned(), VERSION, manifest.key.digest());
        ViewFile {
            format,
            version,
            key,
            view,
            chunks,
            null_samples,
            recorded,
        }
    }

    /// BLAKE3 over the view's number and its chunks' digests.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.view.to_le_bytes());
        for chunk in &self.chunks {
            hasher.update(&chunk.blake3);
        }
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), CacheError> {
        sealed::write(path, self)
    }

    /// The `view.json` of a view of the cache at `cache`.
    pub(crate) fn of_cache(
        cache: &Path,
        manifest: &Manifest,
        view: u32,
    ) -> Result<ViewFile, CacheError> {
        let path = view_folder(cache, view).join(VIEW_MANIFEST);
        ViewFile::read(&path, manifest, view)
    }

    /// Reads a `view.json` and checks it against the manifest.
    fn read(path: &Path, manifest: &Manifest, view: u32) -> Result<ViewFile, CacheError> {
        let damaged = |problem: String| Err(CacheError::damaged(path, problem));
        let found: ViewFile = sealed::read(path)?;
        if found.key != manifest.key.digest() {
            return damaged("it belongs to a cache with another key".to_owned());
        }
        if found.view != view {
            return damaged(format!(
                "it is of view {}, its folder of view {view}",
                found.view
            ));
        }
        if found.chunks.len() as u64 != u64::from(manifest.n_chunks()) {
            return damaged(format!(
                "it lists {} chunks, expected {}",
                found.chunks.len(),
                manifest.n_chunks()
            ));
        }
        for (chunk, entry) in (0..).zip(&found.chunks) {
            let range = manifest.chunk_range(chunk)?;
            // This also keeps a hostile name from leading out of the folder.
            if entry.file != chunk_name(chunk) {
                return damaged(format!(
                    "chunk {chunk} is named `{}`, expected `{}`",
                    entry.file,
                    chunk_name(chunk)
                ));
            }
            if entry.n_correct > entry.n_rows {
                return damaged(format!(
                    "chunk {chunk} has {} right rows of {}",
                    entry.n_correct, entry.n_rows
                ));
            }
            if entry.n_rows as usize != range.len() {
                return damaged(format!(
                    "chunk {chunk} has {} rows, expected {}",
                    entry.n_rows,
                    range.len()
                ));
            }
        }
        let nulls = &found.null_samples;
        let is_ascending = nulls.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_ascending || nulls.last().is_some_and(|last| *last >= manifest.n_samples) {
            return damaged(format!(
                "its `null_samples` are not ascending, or not below {}",
                manifest.n_samples
            ));
        }
        if let Some(n_bytes) = too_long(&found.recorded) {
            return damaged(format!(
                "it records a text of {n_bytes} bytes; at most 4096 are read of a name and 65536 of a text"
            ));
        }
        Ok(found)
    }
}
