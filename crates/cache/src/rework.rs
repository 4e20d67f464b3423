//! Caches made from caches: another encoding, or the union of partial captures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::chunk::ChunkPlace;
use crate::folder::{self, chunk_name, view_folder};
use crate::key::hex;
use crate::writer::summarise;
use crate::{CacheError, ChunkRows, Encoding, LogitCache, LogitWriter, Manifest, Statistic};

/// Writes the rows of `cache` in another encoding into a new cache under `root`, and returns its folder. The new one has
/// its own key, which holds both encodings, and records the id of the one it came from. Interrupted, it resumes, and views
/// that the source has gained are added.
///
/// # Errors
/// If the target could hold more than the source does: a row that was rounded once must never pass for an exact one. If the
/// target was begun from other rows.
pub fn transcode(
    cache: &LogitCache,
    root: &Path,
    encoding: Encoding,
    progress: &dyn Fn(u64, u64),
) -> Result<PathBuf, CacheError> {
    let source = cache.manifest();
    if !may_follow(source.encoding, encoding) {
        return Err(CacheError::NotHeld {
            encoding: source.encoding.to_string(),
            wanted: format!("what `{encoding}` promises"),
        });
    }
    cache.require(Statistic::Logits)?;
    let mut target = Manifest::new(
        &source.teacher,
        source.key.clone(),
        encoding,
        source.n_samples,
        source.n_classes,
    );
    if source.feature_len > 0 {
        target = target.with_features(source.feature_len);
    }
    let from = source.transcoded_from().map(|from| format!("{from}, "));
    target.key.transcoded = format!("{}{}", from.unwrap_or_default(), source.encoding);
    target.class_names.clone_from(&source.class_names);
    target.labels = source.labels;
    target.absolute = source.absolute;
    target.pixel_checks.clone_from(&source.pixel_checks);
    target.recorded.clone_from(&source.recorded);
    let id = hex(&cache.id());
    target.recorded.insert(ORIGIN.to_owned(), id.clone());
    target.recorded.insert(
        "transcoded_from_encoding".to_owned(),
        source.encoding.to_string(),
    );
    let writer = LogitWriter::open(root, &target)?;
    // Views may have been added to the source since; what was there then must still be what it was.
    let begun = writer.manifest().recorded.get(ORIGIN);
    if !cache.ids().any(|id| begun == Some(&hex(&id))) {
        return Err(CacheError::Disagrees {
            path: writer.path().to_path_buf(),
            field: "source of rows",
            cached: begun.cloned().unwrap_or_default(),
            wanted: id,
        });
    }
    writer.sign_for(cache.path(), source, 0..source.n_chunks())?;
    let n_chunks = writer.manifest().n_chunks();
    let (mut done, total) = (0, cache.views().len() as u64 * u64::from(n_chunks));
    for &view in cache.views() {
        let missing = writer.missing_chunks(view)?;
        done += u64::from(n_chunks) - missing.len() as u64;
        for chunk in missing {
            let rows = rows_of(cache, view, writer.chunk_range(chunk)?)?;
            let rows = ChunkRows {
                labels: &rows.labels,
                logits: &rows.logits,
                valid: &rows.valid,
                features: &rows.features,
            };
            writer.write_chunk(view, chunk, &rows)?;
            done += 1;
            progress(done, total);
        }
        writer.finish_view(view)?;
    }
    Ok(writer.path().to_path_buf())
}

/// Under this name a transcoded cache records the id of the one it came from.
const ORIGIN: &str = "transcoded_from";

/// Whether rows in `from` are exact enough to be encoded as `to`.
fn may_follow(from: Encoding, to: Encoding) -> bool {
    match from {
        Encoding::F32 => from != to,
        Encoding::F16 => matches!(to, Encoding::U8 | Encoding::TopK(_)),
        // Too coarse for anything finer than themselves, and nothing coarser is dense.
        Encoding::Bf16 | Encoding::U8 | Encoding::TopK(_) => false,
    }
}

struct Rows {
    labels: Vec<u32>,
    logits: Vec<f32>,
    valid: Vec<bool>,
    features: Vec<f32>,
}

fn rows_of(
    cache: &LogitCache,
    view: u32,
    samples: std::ops::Range<u32>,
) -> Result<Rows, CacheError> {
    let (n_classes, feature_len) = (cache.n_classes(), cache.manifest().feature_len);
    let mut rows = Rows {
        labels: Vec::with_capacity(samples.len()),
        logits: vec![0.0; samples.len() * n_classes],
        valid: Vec::with_capacity(samples.len()),
        features: vec![0.0; samples.len() * feature_len],
    };
    for (index, sample) in samples.enumerate() {
        let logits = &mut rows.logits[index * n_classes..][..n_classes];
        let is_there = cache.row_or_null(sample, view, logits)?.is_some();
        if is_there && feature_len > 0 {
            let features = &mut rows.features[index * feature_len..][..feature_len];
            cache.features(&[(sample, view)], features)?;
        }
        rows.labels.push(cache.label(sample, view)?);
        rows.valid.push(is_there);
    }
    Ok(rows)
}

/// What [`merge`] copied, and what the cache has and lacks since.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MergeReport {
    /// The folder of the merged cache.
    pub path: PathBuf,
    /// Chunks that were copied.
    pub n_copied: usize,
    /// Views that are whole now.
    pub views: Vec<u32>,
    /// Views that still lack chunks, with how many.
    pub unfinished: BTreeMap<u32, usize>,
}

/// Copies the chunks of `sources`, whole or partial captures with one key, into the cache with that key under `root`.
/// Parts of a capture that ran on several machines, by samples or by views, become one cache that is identical to an
/// uninterrupted capture.
///
/// Every chunk is verified before it is copied. Where two sources hold a chunk, the first one's is taken.
///
/// # Errors
/// If the sources differ in key, labels, pixels or chunk size, or a file is damaged.
pub fn merge(
    sources: &[PathBuf],
    root: &Path,
    progress: &dyn Fn(u64, u64),
) -> Result<MergeReport, CacheError> {
    let manifests = sources
        .iter()
        .map(|path| Manifest::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = manifests.first() else {
        let (field, problem) = ("sources", "expected at least one");
        return Err(CacheError::Manifest {
            field,
            value: "none".to_owned(),
            problem,
        });
    };
    let writer = LogitWriter::open(root, first)?;
    let target = writer.manifest().clone();
    for (path, manifest) in sources.iter().zip(&manifests) {
        manifest.check_agrees(&target, path)?;
        if manifest.chunk_rows != target.chunk_rows {
            let (cached, wanted) = (
                manifest.chunk_rows.to_string(),
                target.chunk_rows.to_string(),
            );
            return Err(CacheError::Disagrees {
                path: path.clone(),
                field: "chunk_rows",
                cached,
                wanted,
            });
        }
    }
    let mut views = Vec::new();
    for (path, manifest) in sources.iter().zip(&manifests) {
        let own_views = folder::view_folders(path)?;
        let mut chunks = BTreeSet::new();
        for view in &own_views {
            chunks.extend(folder::chunks_there(path, *view)?);
        }
        if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
            writer.sign_for(path, manifest, *first..last.saturating_add(1))?;
        }
        views.extend(own_views);
    }
    views.sort_unstable();
    views.dedup();
    let mut report = MergeReport {
        path: writer.path().to_path_buf(),
        n_copied: 0,
        views: Vec::new(),
        unfinished: BTreeMap::new(),
    };
    let n_chunks = target.n_chunks();
    let total = views.len() as u64 * u64::from(n_chunks);
    for (done_views, &view) in (0..).zip(&views) {
        let mut places: BTreeMap<u32, &Path> = BTreeMap::new();
        for source in sources {
            // What lies there is walked, not what the manifest says there could be.
            let there = folder::chunks_there(source, view)?;
            for chunk in there.into_iter().filter(|chunk| *chunk < n_chunks) {
                places.entry(chunk).or_insert(source);
            }
        }
        if !writer.views()?.contains(&view) {
            for chunk in writer.missing_of(view, places.keys().copied())? {
                let file = view_folder(places[&chunk], view).join(chunk_name(chunk));
                let place = ChunkPlace::new(&target, view, chunk)?;
                summarise(&file, &target, place, chunk_name(chunk))?;
                writer.copy_chunk(view, chunk, &file)?;
                report.n_copied += 1;
                let done = done_views * u64::from(n_chunks) + u64::from(chunk) + 1;
                progress(done, total);
            }
        }
        match writer.finish_view(view) {
            Ok(()) => report.views.push(view),
            Err(CacheError::Unfinished { missing, .. }) => {
                report.unfinished.insert(view, missing);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}
