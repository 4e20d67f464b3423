use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use logitcask_durable::Lock;

use crate::chunk::{self, Chunk, ChunkPlace, ChunkRows, NO_LABEL, Row};
use crate::folder::{self, chunk_name, view_folder};
use crate::source::Io;
use crate::view_file::{ChunkEntry, ViewFile};
use crate::{CacheError, Encoding, Manifest};

/// A cache being written.
///
/// The unit of work is a chunk: it appears whole or not at all. A view exists once [`finish_view`](Self::finish_view)
/// has written its `view.json`; until then its chunks are work that a later capture takes up where this one stopped.
/// One process writes a cache at a time; within it, chunks may be written from many threads.
pub struct LogitWriter {
    path: PathBuf,
    manifest: Manifest,
    /// Circumstances of this run, which go into the views that it finishes.
    recorded: Mutex<BTreeMap<String, String>>,
    /// Chunks of unfinished views that are known to be whole.
    whole: Mutex<BTreeMap<u32, BTreeMap<u32, WholeChunk>>>,
    _lock: Lock,
}

/// A chunk that has been written or verified, and what `view.json` will say about it.
#[derive(Clone)]
pub(crate) struct WholeChunk {
    pub(crate) entry: ChunkEntry,
    pub(crate) null_samples: Vec<u32>,
}

impl LogitWriter {
    /// Makes the cache `root/<teacher>-<key12>/`, or takes up the one that is there.
    ///
    /// An existing cache keeps its manifest, chunk size included; what `manifest` records goes into the views that this
    /// writer finishes.
    ///
    /// # Errors
    /// If the manifest is impossible, another process holds the lock, the folder cannot be written, or a cache with the
    /// same key disagrees in its labels, its pixels or its shape.
    pub fn open(root: &Path, manifest: &Manifest) -> Result<LogitWriter, CacheError> {
        manifest.check()?;
        let path = match folder::find(root, &manifest.key)? {
            folder::Found::Hit(path) => path,
            folder::Found::Miss { .. } => root.join(manifest.folder_name()),
        };
        logitcask_durable::create_dir_all(&path).map_err(CacheError::io("create", &path))?;
        let lock = Lock::acquire(&path.join(folder::LOCK)).map_err(|source| CacheError::Lock {
            path: path.clone(),
            source,
        })?;
        remove_leftovers(&path)?;
        let existing = match Manifest::read(&path) {
            Ok(existing) => {
                existing.check_agrees(manifest, &path)?;
                existing
            }
            Err(CacheError::NotACache { .. }) => {
                manifest.write(&path)?;
                manifest.clone()
            }
            Err(error) => return Err(error),
        };
        Ok(LogitWriter {
            path,
            manifest: existing,
            recorded: Mutex::new(manifest.recorded.clone()),
            whole: Mutex::default(),
            _lock: lock,
        })
    }

    /// The cache's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the cache's `cache.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.manifest.encoding
    }

    /// The views that are finished, in order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn views(&self) -> Result<Vec<u32>, CacheError> {
        folder::views_of(&self.path)
    }

    /// The chunks of `view` that are still to be written, in order. Whole chunks that a killed run left behind are
    /// verified, row by row, and kept; damaged ones count as missing.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub fn missing_chunks(&self, view: u32) -> Result<Vec<u32>, CacheError> {
        if self.views()?.contains(&view) {
            return Ok(Vec::new());
        }
        let mut known = self.whole_of(view);
        for chunk in 0..self.manifest.n_chunks() {
            if known.contains_key(&chunk) {
                continue;
            }
            if let Some(whole) = self.take_up(view, chunk)? {
                known.insert(chunk, whole);
            }
        }
        let missing = (0..self.manifest.n_chunks())
            .filter(|chunk| !known.contains_key(chunk))
            .collect();
        self.lock_whole().insert(view, known);
        Ok(missing)
    }

    /// The samples that `chunk` covers.
    ///
    /// # Errors
    /// If there is no such chunk.
    pub fn chunk_range(&self, chunk: u32) -> Result<Range<u32>, CacheError> {
        self.manifest.chunk_range(chunk)
    }

    /// Writes one chunk. It is on the disk, whole, when this returns.
    ///
    /// # Errors
    /// Rows that do not fit the manifest, logits that are not finite or too large for the encoding (each names the
    /// sample), or what the file system reports.
    pub fn write_chunk(
        &self,
        view: u32,
        chunk: u32,
        rows: &ChunkRows<'_>,
    ) -> Result<(), CacheError> {
        let place = ChunkPlace::new(&self.manifest, view, chunk)?;
        let path = view_folder(&self.path, view).join(chunk_name(chunk));
        let bytes = chunk::encode(&self.manifest, &place, rows, &path)?;
        self.put(view, chunk, &bytes)
    }

    /// Copies a verified chunk file of another cache with the same key.
    pub(crate) fn copy_chunk(&self, view: u32, chunk: u32, file: &Path) -> Result<(), CacheError> {
        let bytes = std::fs::read(file).map_err(CacheError::io("read", file))?;
        self.put(view, chunk, &bytes)
    }

    pub(crate) fn put(&self, view: u32, chunk: u32, bytes: &[u8]) -> Result<(), CacheError> {
        let folder = view_folder(&self.path, view);
        let path = folder.join(chunk_name(chunk));
        logitcask_durable::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        logitcask_durable::write_atomic(&path, |file| file.write_all(bytes))
            .map_err(CacheError::io("write", &path))?;
        // What counts is what a reader will see, so the file is opened again instead of trusting what was handed over.
        let whole = self.take_up(view, chunk)?.ok_or_else(|| {
            CacheError::damaged(
                &path,
                "it does not read back as it was written; is the disk or the memory failing?",
            )
        })?;
        self.lock_whole()
            .entry(view)
            .or_default()
            .insert(chunk, whole);
        Ok(())
    }

    /// Notes a circumstance in the views finished from here on: what the teacher's time was, say.
    pub fn record(&self, name: &str, value: impl Into<String>) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.insert(name.to_owned(), value.into());
    }

    /// Writes `view.json`: from here on the view exists.
    ///
    /// # Errors
    /// If chunks are missing, or what the file system reports.
    pub fn finish_view(&self, view: u32) -> Result<(), CacheError> {
        let recorded = self
            .recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.finish_view_as(view, recorded)
    }

    /// The same with other circumstances than this run's: those under which the rows were made.
    pub(crate) fn finish_view_as(
        &self,
        view: u32,
        recorded: BTreeMap<String, String>,
    ) -> Result<(), CacheError> {
        if self.views()?.contains(&view) {
            return Ok(());
        }
        let whole = self.whole_of(view);
        let n_chunks = self.manifest.n_chunks();
        if whole.len() != n_chunks as usize {
            let missing = n_chunks as usize - whole.len();
            return Err(CacheError::Unfinished {
                view,
                missing,
                n_chunks,
            });
        }
        let null_samples = whole
            .values()
            .flat_map(|chunk| chunk.null_samples.iter().copied())
            .collect();
        let chunks = whole.into_values().map(|chunk| chunk.entry).collect();
        let file = ViewFile::new(&self.manifest, view, chunks, null_samples, recorded);
        file.write(&view_folder(&self.path, view).join(folder::VIEW_MANIFEST))?;
        self.lock_whole().remove(&view);
        Ok(())
    }

    /// Verifies a chunk file that is there; `None` where there is none, or where it is not whole.
    fn take_up(&self, view: u32, chunk: u32) -> Result<Option<WholeChunk>, CacheError> {
        let file = chunk_name(chunk);
        let path = view_folder(&self.path, view).join(&file);
        if !path.exists() {
            return Ok(None);
        }
        let place = ChunkPlace::new(&self.manifest, view, chunk)?;
        match summarise(&path, &self.manifest, place, file) {
            Ok(whole) => Ok(Some(whole)),
            Err(CacheError::Damaged { .. } | CacheError::DamagedRow { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn whole_of(&self, view: u32) -> BTreeMap<u32, WholeChunk> {
        self.lock_whole().get(&view).cloned().unwrap_or_default()
    }

    fn lock_whole(&self) -> MutexGuard<'_, BTreeMap<u32, BTreeMap<u32, WholeChunk>>> {
        // A panic in another thread leaves at worst a chunk unlisted, and then it is verified again.
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a chunk from end to end, checking every row.
pub(crate) fn summarise(
    path: &Path,
    manifest: &Manifest,
    place: ChunkPlace,
    file: String,
) -> Result<WholeChunk, CacheError> {
    let codec = manifest.encoding.codec(manifest.n_classes);
    let chunk = Chunk::open(path, manifest, place, Io::Map)?;
    let unreadable = |error| CacheError::io("read", path)(error);
    let mut logits = vec![0.0; manifest.n_classes];
    let (mut n_correct, mut null_samples) = (0, Vec::new());
    for sample in chunk.samples() {
        let stored = chunk.stored_sample(sample).map_err(unreadable)?;
        if stored != sample {
            return Err(CacheError::damaged(
                path,
                format!("a row says sample {stored} where {sample} belongs"),
            ));
        }
        match chunk.row(sample, codec.as_ref(), &mut logits)? {
            Row::Null(_) => null_samples.push(sample),
            Row::There(label, ()) => {
                n_correct +=
                    u32::from(label != NO_LABEL && crate::argmax(&logits) == label as usize)
            }
        }
    }
    let bytes = chunk.file_bytes().map_err(unreadable)?;
    let entry = ChunkEntry {
        file,
        n_rows: chunk.samples().len() as u32,
        n_correct,
        bytes: bytes.len() as u64,
        blake3: *blake3::hash(&bytes).as_bytes(),
    };
    Ok(WholeChunk {
        entry,
        null_samples,
    })
}

/// Removes the temporary files of killed writers. The lock is ours, so no living writer's file is among them.
fn remove_leftovers(cache: &Path) -> Result<(), CacheError> {
    let clean = |folder: &Path| {
        logitcask_durable::remove_leftovers(folder)
            .map(drop)
            .map_err(CacheError::io("clean", folder))
    };
    clean(cache)?;
    let entries = std::fs::read_dir(cache).map_err(CacheError::io("read the folder", cache))?;
    let folders: BTreeSet<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.iter().try_for_each(|folder| clean(folder))
}
