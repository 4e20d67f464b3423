//! Archives and exports as Parquet (zstd): for keeping and for other tools, never for training.
//!
//! An *archive* holds what the cache holds, column by column, so that the cache comes back from it byte for byte. An
//! *export* is a folder in the style of Hugging Face datasets: decoded logits, and a card that says what they are.

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, RecordBatch,
    UInt32Array,
};
use arrow::buffer::{MutableBuffer, NullBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Schema, UInt8Type, UInt16Type,
    UInt32Type,
};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use half::{bf16, f16};
use logitcask_durable::{Claim, Watcher};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::arrow_ipc::{self, ChunkColumns};
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkPlace;
use crate::claims;
use crate::encodings::{Column, Element};
use crate::folder::{self, chunk_name, view_folder};
use crate::key::hex;
use crate::maker;
use crate::sealed::{self, FORMAT, VERSION};
use crate::view_file::ViewFile;
use crate::{
    CacheError, CacheKey, Encoding, Found, LogitCache, LogitWriter, Manifest, REST_TEMPERATURES,
    SampleStats, Stats, TopKRow,
};

/// The archive's `cache.json`, under another name, so that nothing takes an archive for a cache.
const ARCHIVE: &str = "archive.json";

/// What an export says about itself to people.
const CARD: &str = "README.md";

/// Digests of a view's Parquet files, sealed: they are compared before Parquet's decoder sees a byte.
const DIGESTS: &str = "parquet.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digests {
    format: String,
    version: u32,
    /// BLAKE3 of each file, in order, in hex.
    files: Vec<String>,
}

/// Writes the cache in the folder `path` as a Parquet archive `<root>/<cache's name>.parquet/`, and returns that folder.
/// Half-precision columns become f32, which every reader knows, unless `keep_f16`; the archive comes back exactly either
/// way.
///
/// # Errors
/// If a chunk is damaged, or the file system says no.
pub fn pack(
    path: &Path,
    root: &Path,
    keep_f16: bool,
    progress: &dyn Fn(u64, u64),
) -> Result<PathBuf, CacheError> {
    let manifest = Manifest::read(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let archive = root.join(format!("{name}.parquet"));
    logitcask_durable::create_dir_all(&archive).map_err(CacheError::io("create", &archive))?;
    let _claim = claim_and_clean(&archive.join(".pack"), &folders_of(&archive)?, |_| true)?;
    let views = folder::views_of(path)?;
    let total = views.len() as u64 * u64::from(manifest.n_chunks());
    let mut done = 0;
    for &view in &views {
        let file = ViewFile::of_cache(path, &manifest, view)?;
        let mut digests = Vec::with_capacity(file.chunks.len());
        let target = view_folder(&archive, view);
        logitcask_durable::create_dir_all(&target).map_err(CacheError::io("create", &target))?;
        for (chunk, entry) in (0..).zip(&file.chunks) {
            let source = view_folder(path, view).join(&entry.file);
            let bytes =
                logitcask_durable::read(&source).map_err(CacheError::io("read", &source))?;
            // What has the digest was written by us, and Arrow's own reader may be let at it.
            if *blake3::hash(&bytes).as_bytes() != entry.blake3 {
                return Err(CacheError::damaged(
                    &source,
                    "it has another digest than `view.json` says",
                ));
            }
            let batch = to_archive(&bytes, keep_f16, manifest.encoding).map_err(|error| {
                CacheError::Arrow {
                    path: source.clone(),
                    source: error,
                }
            })?;
            let written = target.join(parquet_name(chunk));
            write_parquet(&written, &batch, Vec::new())?;
            digests.push(digest_of(&written)?);
            done += 1;
            progress(done, total);
        }
        let digests = Digests {
            format: FORMAT.to_owned(),
            version: VERSION,
            files: digests,
        };
        sealed::write(&target.join(DIGESTS), &digests)?;
        copy(
            &view_folder(path, view).join(folder::VIEW_MANIFEST),
            &target.join(folder::VIEW_MANIFEST),
        )?;
    }
    for maker in maker::read_all(path, &manifest)? {
        maker.write(&archive)?;
    }
    copy(&path.join(folder::MANIFEST), &archive.join(ARCHIVE))?;
    Ok(archive)
}

/// The archive under `root` of the cache with this key, or else of one that was transcoded into its encoding.
///
/// # Errors
/// If a folder or an archive's manifest cannot be read, or if the one archive of the cache with this key is damaged.
pub fn find_archive(root: &Path, key: &CacheKey) -> Result<Option<Found>, CacheError> {
    let suffix = format!("-{}.parquet", key.key12());
    let mut transcoded = None;
    for path in folder::folders_with(root, ARCHIVE)? {
        let manifest = match Manifest::read_file(&path.join(ARCHIVE)) {
            Ok(manifest) => manifest,
            Err(error @ CacheError::Io { .. }) => return Err(error),
            Err(error) if path.to_string_lossy().ends_with(&suffix) => return Err(error),
            // Another cache's, and damaged.
            Err(_) => continue,
        };
        if manifest.key == *key {
            return Ok(Some(Found::Hit(path)));
        }
        if manifest.key.direct() == *key {
            transcoded.get_or_insert(path);
        }
    }
    Ok(transcoded.map(Found::Transcoded))
}

/// Makes the cache under `root` that an archive was packed from, and returns its folder. Every row's check is computed.
/// Interrupted, it resumes.
///
/// # Errors
/// If the archive is damaged, or the file system says no.
pub fn unpack(
    archive: &Path,
    root: &Path,
    progress: &dyn Fn(u64, u64),
) -> Result<PathBuf, CacheError> {
    let manifest = Manifest::read_file(&archive.join(ARCHIVE))?;
    let writer = LogitWriter::open(root, &manifest)?;
    writer.sign_for(archive, &manifest, 0..manifest.n_chunks())?;
    let views = folder::views_of(archive)?;
    let total = views.len() as u64 * u64::from(manifest.n_chunks());
    let mut done = 0;
    for view in views {
        let file = ViewFile::of_cache(archive, &manifest, view)?;
        let digests: Digests = sealed::read(&view_folder(archive, view).join(DIGESTS))?;
        for chunk in writer.missing_chunks(view)? {
            let source = view_folder(archive, view).join(parquet_name(chunk));
            if digests.files.get(chunk as usize) != Some(&digest_of(&source)?) {
                return Err(CacheError::damaged(
                    &source,
                    format!("it has another digest than `{DIGESTS}` says"),
                ));
            }
            let place = ChunkPlace::new(&manifest, view, chunk)?;
            let bytes = from_archive(&source, &manifest, &place)?;
            writer.put(view, chunk, &bytes)?;
            done += 1;
            progress(done, total);
        }
        writer.finish_view_as(view, file.recorded)?;
    }
    Ok(writer.path().to_path_buf())
}

/// Writes the decoded rows of a cache as a folder in the style of Hugging Face datasets: `data/train-*.parquet` with
/// `sample`, `view`, `label` and `logits` as f32 (from a top-k cache what its rows hold, see `docs/format.md`), the
/// cache's own `cache.json`, and a card.
///
/// # Errors
/// If a row is damaged, or the file system says no.
pub fn export(
    cache: &LogitCache,
    folder: &Path,
    progress: &dyn Fn(u64, u64),
) -> Result<(), CacheError> {
    let manifest = cache.manifest();
    let data = folder.join("data");
    logitcask_durable::create_dir_all(&data).map_err(CacheError::io("create", &data))?;
    let total = cache.views().len() as u64 * u64::from(manifest.n_chunks());
    let is_ours =
        |name: &str| name.starts_with("train-") || [folder::MANIFEST, CARD].contains(&name);
    let folders = [folder.to_path_buf(), data.clone()];
    let _claim = claim_and_clean(&folder.join(".export"), &folders, is_ours)?;
    forget_smaller_export(&data, total)?;
    export_rows(cache, &data, total, progress)?;
    copy(
        &cache.path().join(folder::MANIFEST),
        &folder.join(folder::MANIFEST),
    )?;
    let card = folder.join(CARD);
    logitcask_durable::write_atomic(&card, |file| file.write_all(card_text(cache).as_bytes()))
        .map_err(CacheError::io("write", &card))
}

/// An export that was killed before views were added has files of another total, which readers would take in as well.
fn forget_smaller_export(data: &Path, total: u64) -> Result<(), CacheError> {
    let total = format!("-of-{total:05}.parquet");
    for path in folder::entries(data)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.starts_with("train-") && name.contains("-of-");
        if is_ours && name.ends_with(".parquet") && !name.ends_with(&total) {
            logitcask_durable::remove_file(&path).map_err(CacheError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Writes a file for each of the `total` chunks of all views.
fn export_rows(
    cache: &LogitCache,
    data: &Path,
    total: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<(), CacheError> {
    let manifest = cache.manifest();
    let metadata = vec![
        KeyValue::new("logitcask.id".to_owned(), hex(&cache.id())),
        KeyValue::new(
            "logitcask.classes".to_owned(),
            serde_json::json!(manifest.class_names).to_string(),
        ),
    ];
    let mut done = 0;
    for &view in cache.views() {
        for chunk in 0..manifest.n_chunks() {
            let path = data.join(format!("train-{done:05}-of-{total:05}.parquet"));
            let samples = manifest.chunk_range(chunk)?;
            let batch = match manifest.encoding {
                Encoding::TopK(k) => decoded_top_k(cache, k as usize, view, samples)?,
                _ => decoded(cache, view, samples)?,
            };
            let batch = batch.map_err(|source| CacheError::Arrow {
                path: path.clone(),
                source,
            })?;
            write_parquet(&path, &batch, metadata.clone())?;
            done += 1;
            progress(done, total);
        }
    }
    Ok(())
}

fn card_text(cache: &LogitCache) -> String {
    let manifest = cache.manifest();
    let n_rows = u64::from(manifest.n_samples) * cache.views().len() as u64;
    let ingredients: String = manifest
        .key
        .fields()
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("| {name} | `{}` |\n", plain(value)))
        .collect();
    let recorded: String = manifest
        .recorded
        .iter()
        .map(|(name, value)| format!("| {} | `{}` |\n", plain(name), plain(value)))
        .collect();
    let accuracy = cache
        .accuracy()
        .map_or("unknown".to_owned(), |accuracy| format!("{accuracy:.4}"));
    format!(
        "---\ntags:\n- knowledge-distillation\n- logits\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n\
         # Logits of {teacher}\n\n\
         {n_rows} rows: {n_samples} samples in {n_views} views, {n_classes} classes. {kind}, at temperature 1, stored as \
         `{encoding}`. The teacher's largest logit is the label's in a share of {accuracy} of the rows. Samples that could \
         not be decoded have null logits.\n\n\
         Cache id: `{id}`\n\n\
         ```python\nfrom datasets import load_dataset\nrows = load_dataset(\"path/to/this/folder\", split=\"train\")\n```\n\n\
         ## What the logits are made of\n| ingredient | value |\n|---|---|\n{ingredients}\n\
         ## Recorded\n| | |\n|---|---|\n{recorded}",
        teacher = plain(&manifest.teacher),
        n_samples = manifest.n_samples,
        n_views = cache.views().len(),
        n_classes = manifest.n_classes,
        encoding = manifest.encoding,
        kind = row_contents(manifest.encoding),
        id = hex(&cache.id()),
    )
}

/// What a card says that the rows are.
fn row_contents(encoding: Encoding) -> &'static str {
    match encoding.is_dense() {
        true => "Raw logits",
        false => {
            "The largest raw logits with their `classes`, mean and deviation over all classes, the label's logit, and \
             in `rest` the log of the sum of exp(logit / T) over the other classes at T = 1, 2, 4"
        }
    }
}

/// A text that means nothing to Markdown or HTML, in one line.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' => plain.push_str("\\|"),
            '`' => plain.push('\''),
            '<' => plain.push_str("&lt;"),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

/// Writes what a teacher says about each sample, over its views, as Parquet: a column for each member of
/// [`SampleStats`](crate::SampleStats), and `contradicts`.
///
/// # Errors
/// If the file system says no.
pub fn write_samples(stats: &Stats, path: &Path) -> Result<(), CacheError> {
    if let Some(folder) = path.parent() {
        logitcask_durable::create_dir_all(folder).map_err(CacheError::io("create", folder))?;
    }
    let numbers = |f: fn(&SampleStats) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(stats.samples.iter().map(f)))
    };
    let shares = |f: fn(&SampleStats) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(stats.samples.iter().map(f)))
    };
    let contradicts = stats
        .samples
        .iter()
        .map(|sample| Some(sample.contradicts()));
    let batch = RecordBatch::try_from_iter([
        ("sample", numbers(|sample| sample.sample)),
        ("label", numbers(|sample| sample.label)),
        ("predicted", numbers(|sample| sample.predicted)),
        ("confidence", shares(|sample| sample.confidence)),
        (
            "label_probability",
            shares(|sample| sample.label_probability),
        ),
        ("agreement", shares(|sample| sample.agreement)),
        (
            "contradicts",
            Arc::new(contradicts.collect::<BooleanArray>()),
        ),
    ]);
    let batch = batch.map_err(|source| CacheError::Arrow {
        path: path.to_path_buf(),
        source,
    })?;
    write_parquet(path, &batch, Vec::new())
}

type Batch = Result<RecordBatch, ArrowError>;

/// The rows of a top-k cache, half precision widened.
fn decoded_top_k(
    cache: &LogitCache,
    k: usize,
    view: u32,
    samples: std::ops::Range<u32>,
) -> Result<Batch, CacheError> {
    let (mut labels, mut valid) = (Vec::new(), Vec::new());
    let mut rows = Vec::with_capacity(samples.len());
    let missing = TopKRow {
        classes: vec![0; k],
        logits: vec![0.0; k],
        ..TopKRow::default()
    };
    for sample in samples.clone() {
        let (label, row) = cache.top_k_row_or_null(sample, view)?;
        labels.push(label);
        valid.push(row.is_some());
        rows.push(row.unwrap_or_else(|| missing.clone()));
    }
    let nulls = NullBuffer::from(valid);
    let list = |n: usize, values: ArrayRef| -> Result<ArrayRef, ArrowError> {
        let item = Arc::new(Field::new("item", values.data_type().clone(), false));
        let nulls = Some(nulls.clone());
        Ok(Arc::new(FixedSizeListArray::try_new(
            item, n as i32, values, nulls,
        )?))
    };
    let each = |f: fn(&TopKRow) -> &[f32]| -> ArrayRef {
        let values = rows.iter().flat_map(|row| f(row).iter().copied());
        Arc::new(Float32Array::from_iter_values(values))
    };
    let one = |f: fn(&TopKRow) -> f32| -> ArrayRef {
        let values = rows.iter().map(f).collect::<Vec<f32>>();
        Arc::new(Float32Array::new(values.into(), Some(nulls.clone())))
    };
    let classes = rows.iter().flat_map(|row| row.classes.iter().copied());
    let classes: ArrayRef = Arc::new(UInt32Array::from_iter_values(classes));
    let build = || {
        RecordBatch::try_from_iter_with_nullable([
            (
                "sample",
                Arc::new(UInt32Array::from_iter_values(samples.clone())) as ArrayRef,
                false,
            ),
            (
                "view",
                Arc::new(UInt32Array::from(vec![view; samples.len()])),
                false,
            ),
            ("label", Arc::new(UInt32Array::from(labels)), false),
            ("classes", list(k, classes)?, true),
            ("logits", list(k, each(|row| &row.logits))?, true),
            ("mean", one(|row| row.mean), true),
            ("deviation", one(|row| row.deviation), true),
            ("label_logit", one(|row| row.label_logit), true),
            (
                "rest",
                list(REST_TEMPERATURES.len(), each(|row| &row.rest))?,
                true,
            ),
        ])
    };
    Ok(build())
}

fn decoded(
    cache: &LogitCache,
    view: u32,
    samples: std::ops::Range<u32>,
) -> Result<Batch, CacheError> {
    let n_classes = cache.n_classes();
    let mut logits = vec![0.0; samples.len() * n_classes];
    let (mut labels, mut valid) = (Vec::new(), Vec::new());
    for (sample, row) in samples.clone().zip(logits.chunks_exact_mut(n_classes)) {
        labels.push(cache.label(sample, view)?);
        valid.push(cache.row_or_null(sample, view, row)?.is_some());
    }
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let list = |values| {
        FixedSizeListArray::try_new(
            item,
            n_classes as i32,
            values,
            Some(NullBuffer::from(valid)),
        )
    };
    let batch = list(Arc::new(Float32Array::from(logits))).and_then(|logits| {
        let views = UInt32Array::from(vec![view; samples.len()]);
        RecordBatch::try_from_iter_with_nullable([
            (
                "sample",
                Arc::new(UInt32Array::from_iter_values(samples)) as ArrayRef,
                false,
            ),
            ("view", Arc::new(views), false),
            ("label", Arc::new(UInt32Array::from(labels)), false),
            ("logits", Arc::new(logits), true),
        ])
    });
    Ok(batch)
}

/// The batch of a chunk file, with half precision widened.
fn to_archive(bytes: &[u8], keep_f16: bool, encoding: Encoding) -> Batch {
    let mut reader = FileReader::try_new(std::io::Cursor::new(bytes), None)?;
    let batch = reader
        .next()
        .ok_or_else(|| ArrowError::IpcError("no record batch".to_owned()))??;
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let widened = column
            .as_fixed_size_list_opt()
            .and_then(|list| Some((list, widened(list.values(), keep_f16, encoding)?)));
        let column: ArrayRef = match widened {
            None => column.clone(),
            Some((list, values)) => {
                let item = Arc::new(Field::new("item", values.data_type().clone(), false));
                Arc::new(FixedSizeListArray::try_new(
                    item,
                    list.value_length(),
                    values,
                    list.nulls().cloned(),
                )?)
            }
        };
        fields.push(Field::new(
            field.name(),
            column.data_type().clone(),
            field.is_nullable(),
        ));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Values of half precision as f32; `None` for others, which stay what they are.
fn widened(values: &ArrayRef, keep_f16: bool, encoding: Encoding) -> Option<ArrayRef> {
    match values.data_type() {
        DataType::Float16 if !keep_f16 => {
            let values = values.as_primitive::<Float16Type>();
            Some(Arc::new(values.unary::<_, Float32Type>(f16::to_f32)))
        }
        DataType::UInt16 if encoding == Encoding::Bf16 => {
            let values = values.as_primitive::<UInt16Type>();
            Some(Arc::new(values.unary::<_, Float32Type>(|bits| {
                bf16::from_bits(bits).to_f32()
            })))
        }
        _ => None,
    }
}

/// The bytes of the chunk file that an archived chunk was made from.
fn from_archive(
    path: &Path,
    manifest: &Manifest,
    place: &ChunkPlace,
) -> Result<Vec<u8>, CacheError> {
    let damaged = |problem: String| CacheError::damaged(path, problem);
    let broken = |error: ParquetError| damaged(format!("it is no whole Parquet file: {error}"));
    let file = logitcask_durable::open(path).map_err(CacheError::io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    let n_rows = place.samples.len();
    let n_found = reader.metadata().file_metadata().num_rows();
    if n_found != n_rows as i64 {
        return Err(damaged(format!("it has {n_found} rows, expected {n_rows}")));
    }
    let schema = reader.schema().clone();
    let reader = reader.with_batch_size(n_rows).build().map_err(broken)?;
    // The decoder asserts where a forged file contradicts itself. It owns all that it touches, so nothing of ours is left
    // half done.
    let decode = AssertUnwindSafe(|| reader.collect::<Result<Vec<RecordBatch>, _>>());
    let decoded = catch_unwind(decode).map_err(|_| damaged("it contradicts itself".to_owned()))?;
    let batches = decoded.map_err(|error| damaged(format!("it cannot be decoded: {error}")))?;
    let batch = concat_batches(&schema, &batches).map_err(|error| damaged(error.to_string()))?;
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| damaged(format!("it has no column `{name}`")))
    };
    let plain = |name: &str| -> Result<Vec<u32>, CacheError> {
        let column = column(name)?.as_primitive_opt::<UInt32Type>();
        let column = column.ok_or_else(|| damaged(format!("its column `{name}` is not u32")))?;
        Ok(column.values().to_vec())
    };
    // Of each pair the first is the check; the second repeats the label.
    let checks = column("check")?.as_fixed_size_list_opt();
    let checks = checks.filter(|list| list.value_length() == 2);
    let checks = checks.and_then(|list| list.values().as_primitive_opt::<UInt32Type>());
    let checks = checks.ok_or_else(|| damaged("its column `check` is not of pairs".to_owned()))?;
    let checks = checks.values().iter().step_by(2).copied().collect();
    let mut encoded = Vec::new();
    let mut valid = vec![true; n_rows];
    for wanted in manifest.columns() {
        let found = column(wanted.name)?;
        valid = (0..n_rows).map(|row| found.is_valid(row)).collect();
        let bytes = narrowed(found, &wanted, manifest.encoding, &valid).ok_or_else(|| {
            damaged(format!(
                "its column `{}` is not what the manifest says",
                wanted.name
            ))
        })?;
        encoded.push((wanted, bytes));
    }
    let columns = ChunkColumns {
        samples: plain("sample")?,
        labels: plain("label")?,
        checks,
        valid,
        encoded,
    };
    arrow_ipc::to_bytes(columns, place.metadata(manifest)).map_err(|source| CacheError::Arrow {
        path: path.to_path_buf(),
        source,
    })
}

/// The bytes of a column as the chunk file holds it; zeros where a row is null. `None` if it is of another type.
fn narrowed(
    found: &ArrayRef,
    wanted: &Column,
    encoding: Encoding,
    valid: &[bool],
) -> Option<MutableBuffer> {
    let values = match wanted.list {
        None => found,
        Some(n) => {
            let list = found
                .as_fixed_size_list_opt()
                .filter(|list| usize::try_from(list.value_length()) == Ok(n))?;
            list.values()
        }
    };
    let mut bytes = bytes_as(wanted.element, encoding, values)?;
    let row_bytes = wanted.row_bytes();
    if bytes.len() != valid.len() * row_bytes {
        return None;
    }
    let rows = bytes.chunks_exact_mut(row_bytes).zip(valid);
    rows.filter(|(_, valid)| !**valid)
        .for_each(|(row, _)| row.fill(0));
    let mut buffer = MutableBuffer::new(bytes.len());
    buffer.extend_from_slice(&bytes);
    Some(buffer)
}

/// The values' bytes as `element`, f32 narrowed where that is half precision. `None` if they are of another type.
fn bytes_as(element: Element, encoding: Encoding, values: &ArrayRef) -> Option<Vec<u8>> {
    Some(match (element, values.data_type()) {
        (Element::F16, DataType::Float32) => {
            let values = values.as_primitive::<Float32Type>().values();
            values
                .iter()
                .flat_map(|z| f16::from_f32(*z).to_le_bytes())
                .collect()
        }
        (Element::U16, DataType::Float32) if encoding == Encoding::Bf16 => {
            let values = values.as_primitive::<Float32Type>().values();
            values
                .iter()
                .flat_map(|z| bf16::from_f32(*z).to_le_bytes())
                .collect()
        }
        (Element::U8, DataType::UInt8) => raw::<UInt8Type>(values),
        (Element::U16, DataType::UInt16) => raw::<UInt16Type>(values),
        (Element::U32, DataType::UInt32) => raw::<UInt32Type>(values),
        (Element::F16, DataType::Float16) => raw::<Float16Type>(values),
        (Element::F32, DataType::Float32) => raw::<Float32Type>(values),
        _ => return None,
    })
}

fn raw<T: ArrowPrimitiveType>(values: &ArrayRef) -> Vec<u8> {
    values
        .as_primitive::<T>()
        .values()
        .inner()
        .as_slice()
        .to_vec()
}

fn write_parquet(
    path: &Path,
    batch: &RecordBatch,
    metadata: Vec<KeyValue>,
) -> Result<(), CacheError> {
    // Level 3 is what zstd itself takes; more costs minutes for a percent.
    let compression = Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(metadata).filter(|metadata| !metadata.is_empty()))
        .build();
    let fill = |file: &mut std::io::BufWriter<fs::File>| -> Result<(), ParquetError> {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
        writer.write(batch)?;
        writer.close().map(drop)
    };
    logitcask_durable::write_atomic(path, |file| fill(file).map_err(std::io::Error::other))
        .map_err(CacheError::io("write", path))
}

fn digest_of(path: &Path) -> Result<String, CacheError> {
    let bytes = logitcask_durable::read(path).map_err(CacheError::io("read", path))?;
    Ok(hex(blake3::hash(&bytes).as_bytes()))
}

fn parquet_name(chunk: u32) -> String {
    chunk_name(chunk).replace(".arrow", ".parquet")
}

/// Claims `what`, a name in a folder that exists, and removes what killed writers of files like `is_ours` left in `folders`.
/// A file of another kind is not looked at: its writer may live.
fn claim_and_clean(
    what: &Path,
    folders: &[PathBuf],
    is_ours: impl Fn(&str) -> bool,
) -> Result<Claim, CacheError> {
    let claim = Watcher::default().claim(what, claims::until_known);
    let claim = claim.map_err(|source| CacheError::Claim {
        path: what.parent().unwrap_or(what).to_path_buf(),
        source,
    })?;
    for folder in folders {
        logitcask_durable::remove_leftovers(folder, &is_ours)
            .map_err(CacheError::io("clean", folder))?;
    }
    Ok(claim)
}

/// The folders of all views, and the one above them.
fn folders_of(archive: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let views = folder::view_folders(archive)?.into_iter();
    let views = views.map(|view| view_folder(archive, view));
    Ok(views.chain([archive.to_path_buf()]).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), CacheError> {
    let bytes = logitcask_durable::read(from).map_err(CacheError::io("read", from))?;
    logitcask_durable::write_atomic(to, |file| file.write_all(&bytes))
        .map_err(CacheError::io("write", to))
}
