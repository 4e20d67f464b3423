//! Reading: chunks mapped once, rows gathered by (sample, view) into a caller's buffer, each checked on its way.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::chunk::{Chunk, ChunkPlace, Located, Row};
use crate::encodings::Codec;
use crate::folder::{self, view_folder};
use crate::gather::ABREAST;
use crate::row_check::row_checks;
use crate::source::Io;
use crate::view_file::ViewFile;
use crate::{CacheError, Encoding, Manifest, Statistic, TopKRow};

/// Logits in a batch from which on several threads gather it; below, waking them costs more than it saves.
const PARALLEL_FROM: usize = 1 << 18;

/// Rows that the memory is asked for before the first of them is used. More of them push each other out: 32 rows ahead take a
/// fifth longer than 8 at 100 classes of 8 or 16 bits.
const AHEAD: usize = 2 * ABREAST;

/// Rows that are found before the first of them is read.
const BLOCK: usize = 256;

/// How a cache is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Mapped, or read by position.
    pub io: Io,
}

/// A cache, open for reading. Rows are addressed by (sample, view), and every row is checked whenever it is read.
///
/// Opening reads the manifests and the frame of each chunk file; the rows stay on the disk. Nothing is ever written.
pub struct LogitCache {
    path: PathBuf,
    manifest: Manifest,
    views: Vec<u32>,
    view_files: Vec<ViewFile>,
    /// The chunks of each view, in the order of `views`.
    chunks: Vec<Vec<Chunk>>,
    null_samples: Vec<u32>,
    codec: Box<dyn Codec>,
    n_columns: usize,
    /// By sample, what is answered in place of the labels that stand in the rows.
    relabelled: Option<Vec<u32>>,
}

impl LogitCache {
    /// Opens the cache in the folder `path` with all views that are whole.
    ///
    /// # Errors
    /// If it is no cache, or a manifest or a chunk's frame is damaged.
    pub fn open(path: &Path, options: OpenOptions) -> Result<LogitCache, CacheError> {
        let manifest = Manifest::read(path)?;
        let codec = manifest.encoding.codec(manifest.n_classes);
        let n_columns = manifest.columns().len();
        let views = folder::views_of(path)?;
        let mut view_files = Vec::with_capacity(views.len());
        let mut chunks = Vec::with_capacity(views.len());
        for &view in &views {
            let file = ViewFile::of_cache(path, &manifest, view)?;
            let opened = (0..).zip(&file.chunks).map(|(chunk, entry)| {
                let place = ChunkPlace::new(&manifest, view, chunk)?;
                let path = view_folder(path, view).join(&entry.file);
                let chunk = Chunk::open(&path, &manifest, place, options.io)?;
                chunk.check_file_len(entry.bytes)?;
                Ok(chunk)
            });
            chunks.push(opened.collect::<Result<Vec<_>, _>>()?);
            view_files.push(file);
        }
        let mut null_samples: Vec<u32> = view_files
            .iter()
            .flat_map(|file| file.null_samples.iter().copied())
            .collect();
        null_samples.sort_unstable();
        null_samples.dedup();
        Ok(LogitCache {
            path: path.to_path_buf(),
            manifest,
            views,
            view_files,
            chunks,
            null_samples,
            n_columns,
            codec,
            relabelled: None,
        })
    }

    /// From now on [`rows`](Self::rows) and [`top_k_rows`](Self::top_k_rows) answer with these labels, one for each sample
    /// of the split, in place of those that the cache was made with. The rows' checks go on covering the latter.
    ///
    /// # Errors
    /// If there are more or fewer labels than samples.
    pub fn relabel(&mut self, labels: &[u32]) -> Result<(), CacheError> {
        check_length("labels", labels.len(), self.manifest.n_samples as usize)?;
        self.relabelled = Some(labels.to_vec());
        Ok(())
    }

    /// The folder that was opened, which holds `cache.json`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `cache.json` said when the cache was opened.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The views that are whole, in order.
    pub fn views(&self) -> &[u32] {
        &self.views
    }

    /// What each view's `view.json` says, in the order of [`views`](Self::views).
    pub fn view_files(&self) -> &[ViewFile] {
        &self.view_files
    }

    /// The same of the views below `n_views` only: what a run that uses so many of them reads.
    pub fn view_files_below(&self, n_views: u32) -> &[ViewFile] {
        &self.view_files[..self.views.partition_point(|&view| view < n_views)]
    }

    /// Classes of a row.
    pub fn n_classes(&self) -> usize {
        self.manifest.n_classes
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.manifest.encoding
    }

    /// Samples that have a null row in at least one view, in order.
    pub fn null_samples(&self) -> &[u32] {
        &self.null_samples
    }

    /// The cache id: BLAKE3 over the key's digest, the digest of the labels and the digests of the views, in order. It
    /// names the logits themselves, so that two captures that agree to the byte have the same one, whenever and wherever
    /// they were made.
    pub fn id(&self) -> [u8; 32] {
        self.id_below(u32::MAX)
    }

    /// The id of the views below `n_views` alone: what names the rows that a run reads, however many views are added to
    /// the cache later. That of all views is [`id`](Self::id).
    pub fn id_below(&self, n_views: u32) -> [u8; 32] {
        let mut hasher = self.id_of_no_views();
        for file in self.view_files_below(n_views) {
            hasher.update(&file.digest());
        }
        *hasher.finalize().as_bytes()
    }

    /// The ids that this cache has had while it grew: of no views, of the first, of the first two, and so on.
    pub fn ids(&self) -> impl Iterator<Item = [u8; 32]> {
        let mut hasher = self.id_of_no_views();
        let none = *hasher.finalize().as_bytes();
        let grown = self.view_files.iter().map(move |file| {
            hasher.update(&file.digest());
            *hasher.finalize().as_bytes()
        });
        std::iter::once(none).chain(grown)
    }

    fn id_of_no_views(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.manifest.key.digest());
        hasher.update(&self.manifest.labels);
        hasher
    }

    /// The share of rows whose largest logit is the label's, over all views; `None` where no view is whole, and after
    /// [`relabel`](Self::relabel): it was counted in the capture.
    pub fn accuracy(&self) -> Option<f64> {
        if self.relabelled.is_some() {
            return None;
        }
        let chunks = self.view_files.iter().flat_map(|file| &file.chunks);
        let (n_rows, n_correct) = chunks.fold((0u64, 0u64), |(rows, correct), chunk| {
            (
                rows + u64::from(chunk.n_rows),
                correct + u64::from(chunk.n_correct),
            )
        });
        let n_null: usize = self
            .view_files
            .iter()
            .map(|file| file.null_samples.len())
            .sum();
        let n_rows = n_rows.saturating_sub(n_null as u64);
        (n_rows > 0).then(|| n_correct as f64 / n_rows as f64)
    }

    /// Gathers the rows of the `wanted` (sample, view) pairs: logits as (wanted, classes) in f32, and the labels that the
    /// cache holds. Every row's check is computed anew.
    ///
    /// # Errors
    /// A slice of a wrong length, a pair that the cache does not hold, a null row, or a damaged row: each names it. What
    /// stands in the slices then means nothing.
    pub fn rows(
        &self,
        wanted: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), CacheError> {
        let n_classes = self.manifest.n_classes;
        check_length("logits", logits.len(), wanted.len() * n_classes)?;
        check_length("labels", labels.len(), wanted.len())?;
        self.require(Statistic::Logits)?;
        if wanted.len() * n_classes < PARALLEL_FROM {
            self.gather(wanted, logits, labels)?;
        } else {
            let n_rows = (PARALLEL_FROM / 4).div_ceil(n_classes);
            let parts = wanted
                .par_chunks(n_rows)
                .zip(logits.par_chunks_mut(n_rows * n_classes));
            parts
                .zip(labels.par_chunks_mut(n_rows))
                .try_for_each(|((wanted, logits), labels)| self.gather(wanted, logits, labels))?;
        }
        if let Some(relabelled) = &self.relabelled {
            for (label, &(sample, _)) in labels.iter_mut().zip(wanted) {
                *label = relabelled[sample as usize];
            }
        }
        Ok(())
    }

    /// Gathers on this thread.
    fn gather(
        &self,
        wanted: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), CacheError> {
        // A dense encoding has one column or two, and features are one more.
        match self.n_columns {
            1 => self.gather_blocks::<1>(wanted, logits, labels),
            2 => self.gather_blocks::<2>(wanted, logits, labels),
            3 => self.gather_blocks::<3>(wanted, logits, labels),
            _ => self.gather_one_by_one(wanted, logits, labels),
        }
    }

    /// First the rows are found, which is arithmetic; then the memory is asked for each some time before it is checked and
    /// decoded, [`ABREAST`] rows side by side.
    fn gather_blocks<const COLUMNS: usize>(
        &self,
        wanted: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), CacheError> {
        let mut found: Vec<Located<'_, COLUMNS>> = Vec::with_capacity(BLOCK.min(wanted.len()));
        let blocks = wanted
            .chunks(BLOCK)
            .zip(logits.chunks_mut(BLOCK * self.manifest.n_classes))
            .zip(labels.chunks_mut(BLOCK));
        for ((wanted, logits), labels) in blocks {
            found.clear();
            for &(sample, view) in wanted {
                found.extend(self.chunk_of(sample, view)?.locate(sample));
            }
            if found.len() < wanted.len() {
                // Not mapped: read row by row.
                self.gather_one_by_one(wanted, logits, labels)?;
            } else if !self.gather_mapped(&found, logits, labels) {
                // Some row is damaged or null. Alone, each says so exactly.
                self.gather_one_by_one(wanted, logits, labels)?;
            }
        }
        Ok(())
    }

    /// False if a row is null or damaged.
    fn gather_mapped<const COLUMNS: usize>(
        &self,
        found: &[Located<'_, COLUMNS>],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> bool {
        let last = found.len() - 1;
        found.iter().take(AHEAD).for_each(Located::prefetch);
        let parts = logits.chunks_mut(ABREAST * self.manifest.n_classes);
        for ((start, logits), labels) in (0..)
            .step_by(ABREAST)
            .zip(parts)
            .zip(labels.chunks_mut(ABREAST))
        {
            let next = found.iter().skip(start + AHEAD).take(ABREAST);
            next.for_each(Located::prefetch);
            // What is left at the end is made up to a full measure with its last row.
            let rows: [&Located<'_, COLUMNS>; ABREAST] =
                std::array::from_fn(|row| &found[(start + row).min(last)]);
            let stored = rows.map(Located::check_and_label);
            let heads = std::array::from_fn(|row| rows[row].head(stored[row].1));
            let columns: [[&[u8]; ABREAST]; COLUMNS] =
                std::array::from_fn(|column| rows.map(|row| row.columns[column]));
            let are_right = row_checks(&heads, &columns) == stored.map(|(check, _)| check);
            if !are_right || !rows.iter().all(|row| row.is_there) {
                return false;
            }
            for (label, (_, stored)) in labels.iter_mut().zip(stored) {
                *label = stored;
            }
            self.codec.decode_abreast(&columns, logits);
        }
        true
    }

    fn gather_one_by_one(
        &self,
        wanted: &[(u32, u32)],
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), CacheError> {
        let rows = wanted.iter().zip(labels);
        let rows = rows.zip(logits.chunks_exact_mut(self.manifest.n_classes));
        for ((&(sample, view), label), logits) in rows {
            let chunk = self.chunk_of(sample, view)?;
            *label = match chunk.row(sample, self.codec.as_ref(), logits)? {
                Row::There(label, ()) => label,
                Row::Null(_) => return Err(CacheError::NullRow { sample, view }),
            };
        }
        Ok(())
    }

    /// Gathers rows of the k largest, from a cache encoded as `top<k>`, with the labels that the cache holds.
    ///
    /// # Errors
    /// If the cache is dense, or as [`rows`](Self::rows).
    pub fn top_k_rows(&self, wanted: &[(u32, u32)]) -> Result<Vec<(u32, TopKRow)>, CacheError> {
        let gather = |&(sample, view): &(u32, u32)| match self
            .chunk_of(sample, view)?
            .top_k_row(sample, self.codec.as_ref())?
        {
            Row::There(label, Some(row)) => {
                let relabelled = self.relabelled.as_ref();
                Ok((
                    relabelled.map_or(label, |labels| labels[sample as usize]),
                    row,
                ))
            }
            Row::There(_, None) => Err(self.not_held("rows of the largest logits".to_owned())),
            Row::Null(_) => Err(CacheError::NullRow { sample, view }),
        };
        wanted.iter().map(gather).collect()
    }

    /// Gathers the features beside the rows of the `wanted` (sample, view) pairs, as (wanted, `feature_len`) in f32.
    ///
    /// # Errors
    /// If the cache holds no features, or as [`rows`](Self::rows).
    pub fn features(&self, wanted: &[(u32, u32)], features: &mut [f32]) -> Result<(), CacheError> {
        let feature_len = self.manifest.feature_len;
        let codec = self
            .manifest
            .feature_codec()
            .ok_or_else(|| self.not_held("features of the teacher".to_owned()))?;
        check_length("features", features.len(), wanted.len() * feature_len)?;
        let rows = wanted.iter().zip(features.chunks_exact_mut(feature_len));
        for (&(sample, view), features) in rows {
            let chunk = self.chunk_of(sample, view)?;
            match chunk.features(sample, codec.as_ref(), features)? {
                Row::There(..) => {}
                Row::Null(_) => return Err(CacheError::NullRow { sample, view }),
            }
        }
        Ok(())
    }

    /// One checked row of the k largest, `None` where the sample could not be decoded, and its label.
    ///
    /// # Errors
    /// As [`top_k_rows`](Self::top_k_rows), but for null rows.
    pub fn top_k_row_or_null(
        &self,
        sample: u32,
        view: u32,
    ) -> Result<(u32, Option<TopKRow>), CacheError> {
        let chunk = self.chunk_of(sample, view)?;
        match chunk.top_k_row(sample, self.codec.as_ref())? {
            Row::There(label, Some(row)) => Ok((label, Some(row))),
            Row::There(_, None) => Err(self.not_held("rows of the largest logits".to_owned())),
            Row::Null(label) => Ok((label, None)),
        }
    }

    /// One checked row and its label; `None` where the sample could not be decoded.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), but for null rows.
    pub fn row_or_null(
        &self,
        sample: u32,
        view: u32,
        logits: &mut [f32],
    ) -> Result<Option<u32>, CacheError> {
        check_length("logits", logits.len(), self.manifest.n_classes)?;
        self.require(Statistic::Logits)?;
        Ok(
            match self
                .chunk_of(sample, view)?
                .row(sample, self.codec.as_ref(), logits)?
            {
                Row::There(label, ()) => Some(label),
                Row::Null(_) => None,
            },
        )
    }

    /// The label that the cache holds for a row, null or not.
    ///
    /// # Errors
    /// If the cache has no such row, or it is damaged.
    pub fn label(&self, sample: u32, view: u32) -> Result<u32, CacheError> {
        let mut logits = vec![0.0; self.manifest.n_classes];
        match self
            .chunk_of(sample, view)?
            .row(sample, self.codec.as_ref(), &mut logits)?
        {
            Row::There(label, ()) | Row::Null(label) => Ok(label),
        }
    }

    /// Refuses what a row in this encoding does not hold.
    ///
    /// # Errors
    /// [`CacheError::NotHeld`].
    pub fn require(&self, statistic: Statistic) -> Result<(), CacheError> {
        match self.manifest.encoding.holds(statistic) {
            true => Ok(()),
            false => Err(self.not_held(statistic.to_string())),
        }
    }

    /// Reads the whole cache and reports everything that is wrong; see [`verify`](crate::verify).
    ///
    /// # Errors
    /// If the file system says no.
    pub fn verify(
        &self,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<crate::VerifyReport, CacheError> {
        crate::verify(&self.path, progress)
    }

    fn not_held(&self, wanted: String) -> CacheError {
        CacheError::NotHeld {
            encoding: self.manifest.encoding.to_string(),
            wanted,
        }
    }

    fn chunk_of(&self, sample: u32, view: u32) -> Result<&Chunk, CacheError> {
        let n_samples = self.manifest.n_samples;
        if sample >= n_samples {
            return Err(CacheError::NoSuchSample { sample, n_samples });
        }
        // Nearly always all views are there, and each stands at its own number.
        let index = match self.views.get(view as usize) {
            Some(found) if *found == view => Ok(view as usize),
            _ => self.views.binary_search(&view),
        };
        let index = index.map_err(|_| CacheError::NoSuchView {
            view,
            n_views: self.views.len(),
        })?;
        Ok(&self.chunks[index][(sample / self.manifest.chunk_rows) as usize])
    }
}

fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), CacheError> {
    match found == expected {
        true => Ok(()),
        false => Err(CacheError::Length {
            what,
            expected,
            found,
        }),
    }
}
