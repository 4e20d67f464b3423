//! Writing: missing chunks are claimed, encoded and made to appear whole; the last one of a view makes the view exist.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use logitcask_durable::{Claim, Holder};

use crate::chunk::{self, Chunk, ChunkPlace, Row};
use crate::chunk_rows::{ChunkRows, NO_LABEL};
use crate::claims;
use crate::folder::{self, chunk_name, view_folder};
use crate::maker::{self, Maker};
use crate::search::{Found, find};
use crate::source::Io;
use crate::view_file::{ChunkEntry, ViewFile};
use crate::{CacheError, Encoding, Manifest};

/// A cache being written, or some of its chunks.
///
/// The unit of work is a chunk: it appears whole or not at all. A view exists once [`finish_view`](Self::finish_view)
/// has written its `view.json`; until then its chunks are work that a later capture takes up where this one stopped.
/// A chunk is written by one process at a time, and never again once it is whole; several processes, on one host or
/// many, may write different chunks at once. Within a process, chunks may be written from many threads.
pub struct LogitWriter {
    path: PathBuf,
    manifest: Manifest,
    /// Circumstances of this run, which go into the views that it finishes.
    recorded: BTreeMap<String, String>,
    /// The chunks that this writer may write, in every view.
    chunks: Range<u32>,
    /// What this run must say of itself before its first chunk; `None` once it has, or where `cache.json` says it.
    maker: Mutex<Option<Maker>>,
    /// Chunks of unfinished views that are known to be whole.
    whole: Mutex<BTreeMap<u32, BTreeMap<u32, WholeChunk>>>,
    /// `None` where there are no chunks to write.
    claim: Option<Claim>,
}

/// A chunk that has been written or verified, and what `view.json` will say about it.
#[derive(Clone)]
pub(crate) struct WholeChunk {
    pub(crate) entry: ChunkEntry,
    pub(crate) null_samples: Vec<u32>,
}

impl LogitWriter {
    /// Makes the cache `root/<teacher>-<key12>/`, or takes up the one that is there, to write any of its chunks.
    ///
    /// An existing cache keeps its manifest, chunk size included; what `manifest` records goes into the views that this
    /// writer finishes.
    ///
    /// # Errors
    /// If the manifest is impossible, another process is writing chunks of this cache, the folder cannot be written, or
    /// a cache with the same key disagrees in its labels, its pixels or its shape, or was transcoded.
    pub fn open(root: &Path, manifest: &Manifest) -> Result<LogitWriter, CacheError> {
        LogitWriter::open_part(root, manifest, |n_chunks| 0..n_chunks)
    }

    /// The same, to write only the chunks that `part` picks, told how many there are. Other processes may hold other
    /// parts at the same time.
    ///
    /// # Errors
    /// As [`open`](Self::open), where only a process that writes one of the same chunks is in the way.
    pub fn open_part(
        root: &Path,
        manifest: &Manifest,
        part: impl FnOnce(u32) -> Range<u32>,
    ) -> Result<LogitWriter, CacheError> {
        LogitWriter::open_part_waiting(root, manifest, part, &mut claims::until_known)
    }

    /// The same; `wait` is asked again and again, while somebody else holds the chunks, whether to go on waiting. The
    /// others wait until it is known whether that process lives, at most 90 s, and no longer.
    ///
    /// # Errors
    /// As [`open_part`](Self::open_part).
    pub fn open_part_waiting(
        root: &Path,
        manifest: &Manifest,
        part: impl FnOnce(u32) -> Range<u32>,
        wait: &mut dyn FnMut(&Holder) -> bool,
    ) -> Result<LogitWriter, CacheError> {
        manifest.check()?;
        let path = match find(root, &manifest.key)? {
            Found::Hit(path) => path,
            _ => root.join(manifest.folder_name()),
        };
        logitcask_durable::create_dir_all(&path).map_err(CacheError::io("create", &path))?;
        let existing = claims::behind_the_door(&path, wait, |_, door| {
            existing_or_written(&path, manifest, door)
        })?;
        let n_chunks = existing.n_chunks();
        let chunks = part(n_chunks);
        let chunks = chunks.start.min(n_chunks)..chunks.end.min(n_chunks);
        let claim = claims::behind_the_door(&path, wait, |watcher, door| {
            let claim = claims::claim_chunks(watcher, &path, &chunks)?;
            // Whoever took the door over meanwhile may have claimed the same chunks under another name.
            claims::still_ours(&path, door)?;
            remove_leftovers(&path, &existing, &chunks)?;
            Ok(claim)
        })?;
        let samples = samples_of(&existing, &chunks);
        let maker = Maker::beside(&existing, samples, &manifest.recorded);
        Ok(LogitWriter {
            path,
            maker: Mutex::new(maker),
            manifest: existing,
            recorded: manifest.recorded.clone(),
            chunks,
            whole: Mutex::default(),
            claim,
        })
    }

    /// The cache's folder, under the root that was given.
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

    /// What the manifest handed to [`open`](Self::open) recorded: the circumstances of this run.
    pub fn recorded(&self) -> &BTreeMap<String, String> {
        &self.recorded
    }

    /// The chunks that this writer may write, in every view.
    pub fn chunks(&self) -> Range<u32> {
        self.chunks.clone()
    }

    /// Those of this writer's chunks of `view` that are still to be written, in order. Whole chunks that a killed run
    /// left behind are verified, row by row, and kept; damaged ones count as missing.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub fn missing_chunks(&self, view: u32) -> Result<Vec<u32>, CacheError> {
        if self.views()?.contains(&view) {
            return Ok(Vec::new());
        }
        self.missing_of(view, self.chunks())
    }

    /// Of these chunks, those that are still to be written.
    pub(crate) fn missing_of(
        &self,
        view: u32,
        chunks: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<u32>, CacheError> {
        let mut known = self.whole_of(view);
        let mut missing = Vec::new();
        for chunk in chunks {
            if known.contains_key(&chunk) {
                continue;
            }
            match self.take_up(view, chunk)? {
                Some(whole) => drop(known.insert(chunk, whole)),
                None => missing.push(chunk),
            }
        }
        self.lock_whole().entry(view).or_default().extend(known);
        Ok(missing)
    }

    /// Refuses work that the disk cannot hold: this writer's missing chunks of `views`.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`] naming what is needed and what is there.
    pub fn check_space(&self, views: &[u32]) -> Result<(), CacheError> {
        let mut n_rows = 0;
        for &view in views {
            for chunk in self.missing_chunks(view)? {
                n_rows += self.chunk_range(chunk)?.len() as u64;
            }
        }
        crate::check_space(&self.path, &self.manifest, n_rows)
    }

    /// The samples that `chunk` covers.
    ///
    /// # Errors
    /// If there is no such chunk.
    pub fn chunk_range(&self, chunk: u32) -> Result<Range<u32>, CacheError> {
        self.manifest.chunk_range(chunk)
    }

    /// Writes one of this writer's chunks. It is on the disk, whole, when this returns. Returns how many of its rows, as
    /// they are read back, have their largest logit at the label.
    ///
    /// # Errors
    /// A chunk of another part, or of a view that is finished; rows that do not fit the manifest, logits that are not finite or too large for the encoding (each names the
    /// sample), or what the file system reports.
    pub fn write_chunk(
        &self,
        view: u32,
        chunk: u32,
        rows: &ChunkRows<'_>,
    ) -> Result<u32, CacheError> {
        let place = ChunkPlace::new(&self.manifest, view, chunk)?;
        let path = view_folder(&self.path, view).join(chunk_name(chunk));
        let bytes = chunk::encode(&self.manifest, &place, rows, &path)?;
        self.put(view, chunk, &bytes)
    }

    /// Copies a verified chunk file of another cache with the same key.
    pub(crate) fn copy_chunk(&self, view: u32, chunk: u32, file: &Path) -> Result<(), CacheError> {
        let bytes = logitcask_durable::read(file).map_err(CacheError::io("read", file))?;
        self.put(view, chunk, &bytes).map(drop)
    }

    pub(crate) fn put(&self, view: u32, chunk: u32, bytes: &[u8]) -> Result<u32, CacheError> {
        let folder = view_folder(&self.path, view);
        let path = folder.join(chunk_name(chunk));
        if !self.chunks.contains(&chunk) {
            return Err(CacheError::NotOurs { view, chunk });
        }
        if let Err(error) = self.write_if_ours(view, chunk, bytes) {
            let lost = self.still_ours().err();
            // Whoever took over while this process was paused may have done this chunk: then it is done.
            if lost.is_some() && self.missing_of(view, chunk..chunk + 1)?.is_empty() {
                let whole = self.whole_of(view);
                return Ok(whole.get(&chunk).map_or(0, |chunk| chunk.entry.n_correct));
            }
            return Err(lost.unwrap_or(error));
        }
        // What counts is what a reader will see, so the file is opened again instead of trusting what was handed over.
        let whole = self.take_up(view, chunk)?.ok_or_else(|| {
            CacheError::damaged(
                &path,
                "it does not read back as it was written; is the disk or the memory failing?",
            )
        })?;
        let n_correct = whole.entry.n_correct;
        self.lock_whole()
            .entry(view)
            .or_default()
            .insert(chunk, whole);
        Ok(n_correct)
    }

    /// What `view.json` vouches for stays as it is, and so does what somebody else has claimed meanwhile.
    fn write_if_ours(&self, view: u32, chunk: u32, bytes: &[u8]) -> Result<(), CacheError> {
        let folder = view_folder(&self.path, view);
        let path = folder.join(chunk_name(chunk));
        if folder::exists(&folder.join(folder::VIEW_MANIFEST))? {
            return Err(CacheError::NotOurs { view, chunk });
        }
        self.sign()?;
        logitcask_durable::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        logitcask_durable::write_atomic(&path, |file| {
            file.write_all(bytes)?;
            // Now that there is a file to be renamed: whoever takes over later finds and removes it.
            self.still_ours().map_err(std::io::Error::other)
        })
        .map_err(CacheError::io("write", &path))
    }

    /// Says whose work the chunks to come are, unless `cache.json` does.
    fn sign(&self) -> Result<(), CacheError> {
        let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(maker) = &*maker {
            maker.write(&self.path)?;
        }
        *maker = None;
        Ok(())
    }

    /// Hands on who made the rows of these chunks of `source`, a cache or an archive with this manifest, whose rows are
    /// written into this one.
    pub(crate) fn sign_for(
        &self,
        source: &Path,
        manifest: &Manifest,
        chunks: Range<u32>,
    ) -> Result<(), CacheError> {
        *self.maker.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let others = maker::read_all(source, manifest)?;
        let others = others
            .iter()
            .map(|maker| (maker.samples(), &maker.recorded));
        let own = (samples_of(manifest, &chunks), &manifest.recorded);
        for (samples, recorded) in others
            .chain([own])
            .filter(|(samples, _)| !samples.is_empty())
        {
            if let Some(maker) = Maker::beside(&self.manifest, samples, recorded) {
                maker.write(&self.path)?;
            }
        }
        Ok(())
    }

    /// An error if somebody took the claim over while this process was paused.
    fn still_ours(&self) -> Result<(), CacheError> {
        let claim = self.claim.as_ref();
        claim.map_or(Ok(()), |claim| claims::still_ours(&self.path, claim))
    }

    /// Writes `view.json`, with what the manifest handed to [`open`](Self::open) recorded: from here on the view exists.
    /// One that is finished already is left as it is.
    ///
    /// # Errors
    /// [`CacheError::Unfinished`] while chunks are missing, this writer's or another part's; or what the file system
    /// reports.
    pub fn finish_view(&self, view: u32) -> Result<(), CacheError> {
        self.finish_view_as(view, self.recorded.clone())
    }

    /// The same with the circumstances under which this view's rows were made.
    ///
    /// # Errors
    /// As [`finish_view`](Self::finish_view).
    pub fn finish_view_as(
        &self,
        view: u32,
        recorded: BTreeMap<String, String>,
    ) -> Result<(), CacheError> {
        if self.views()?.contains(&view) {
            return Ok(());
        }
        // Chunks of other parts are verified here, once: what `view.json` vouches for, this process has read.
        let n_chunks = self.manifest.n_chunks();
        let mut missing = self.absent_chunks(view)?;
        if missing == 0 {
            missing = self.missing_of(view, 0..n_chunks)?.len();
        }
        if missing > 0 {
            return Err(CacheError::Unfinished {
                view,
                missing,
                n_chunks,
            });
        }
        let whole = self.whole_of(view);
        let null_samples = whole
            .values()
            .flat_map(|chunk| chunk.null_samples.iter().copied())
            .collect();
        let chunks = whole.into_values().map(|chunk| chunk.entry).collect();
        let file = ViewFile::new(&self.manifest, view, chunks, null_samples, recorded);
        // Two parts can find the view whole at the same moment; the first one's file stays.
        claims::behind_the_door(&self.path, &mut claims::until_known, |_, door| {
            if self.views()?.contains(&view) {
                return Ok(());
            }
            claims::still_ours(&self.path, door)?;
            file.write(&view_folder(&self.path, view).join(folder::VIEW_MANIFEST))
        })?;
        self.lock_whole().remove(&view);
        Ok(())
    }

    /// How many chunks of `view` have no file yet, by the folder's names alone. Listing the folder, unlike asking for
    /// each name, makes a network file system look again.
    fn absent_chunks(&self, view: u32) -> Result<usize, CacheError> {
        let there = folder::chunks_there(&self.path, view)?;
        let n_chunks = self.manifest.n_chunks();
        Ok(n_chunks as usize - there.range(..n_chunks).count())
    }

    /// Verifies a chunk file that is there; `None` where there is none, or where it is not whole.
    fn take_up(&self, view: u32, chunk: u32) -> Result<Option<WholeChunk>, CacheError> {
        let file = chunk_name(chunk);
        let path = view_folder(&self.path, view).join(&file);
        if !folder::exists(&path)? {
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

/// The cache's own manifest, which has to agree with ours; ours, once it is written, where there is none.
fn existing_or_written(path: &Path, ours: &Manifest, door: &Claim) -> Result<Manifest, CacheError> {
    match Manifest::read(path) {
        Ok(existing) => {
            existing.check_agrees(ours, path)?;
            Ok(existing)
        }
        Err(CacheError::NotACache { .. }) => {
            refuse_rows_of_nobody(path)?;
            claims::still_ours(path, door)?;
            ours.write(path)?;
            Ok(ours.clone())
        }
        Err(error) => Err(error),
    }
}

/// Rows without a `cache.json` may have other labels than the one that would be written: it is never made up for them.
fn refuse_rows_of_nobody(path: &Path) -> Result<(), CacheError> {
    match folder::view_folders(path)?.len() {
        0 => Ok(()),
        n => {
            let problem = format!("it is not there, and {n} views are, of which nothing is known");
            Err(CacheError::damaged(&path.join(folder::MANIFEST), problem))
        }
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
        let (stored, stored_label) = chunk.stored_columns(sample).map_err(unreadable)?;
        let damaged = |what, found: u32, expected: u32| {
            let problem = format!("a row says {what} {found} where {expected} belongs");
            Err(CacheError::damaged(path, problem))
        };
        if stored != sample {
            return damaged("sample", stored, sample);
        }
        let label = match chunk.row(sample, codec.as_ref(), &mut logits)? {
            Row::Null(label) => {
                null_samples.push(sample);
                label
            }
            Row::There(label, ()) => {
                let is_right = label != NO_LABEL && crate::argmax(&logits) == label as usize;
                n_correct += u32::from(is_right);
                label
            }
        };
        if stored_label != label {
            return damaged("label", stored_label, label);
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

/// The samples that a run of chunks covers.
fn samples_of(manifest: &Manifest, chunks: &Range<u32>) -> Range<u32> {
    let first = |chunk: u32| {
        chunk
            .saturating_mul(manifest.chunk_rows)
            .min(manifest.n_samples)
    };
    first(chunks.start)..first(chunks.end)
}

/// Removes the temporary files of killed writers: of manifests, which are written behind the door that we hold, and of the
/// chunks that are ours. A writer who was only paused finds his gone, and cannot rename it over what is done since.
fn remove_leftovers(
    cache: &Path,
    manifest: &Manifest,
    chunks: &Range<u32>,
) -> Result<(), CacheError> {
    let samples = samples_of(manifest, chunks);
    let is_ours = |name: &str| {
        let chunk = folder::chunk_of(name);
        let maker = maker::samples_of(name);
        chunk.is_none_or(|chunk| chunks.contains(&chunk))
            && maker.is_none_or(|of| samples.start <= of.start && of.end <= samples.end)
    };
    let clean = |folder: &Path| {
        logitcask_durable::remove_leftovers(folder, is_ours)
            .map(drop)
            .map_err(CacheError::io("clean", folder))
    };
    clean(cache)?;
    for view in folder::view_folders(cache)? {
        clean(&view_folder(cache, view))?;
    }
    Ok(())
}
