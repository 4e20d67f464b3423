//! What can go wrong with a cache, in the words of whoever runs into it, and what to type next.

use std::io;
use std::path::{Path, PathBuf};

use logitcask_durable::ClaimError;

/// Everything that can be wrong with a cache, or with what somebody asks of it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `write`.
        action: &'static str,
        /// The file or folder that it was tried on.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// The folder holds no `cache.json`.
    #[error("`{}` is not a cache: it holds no `cache.json`", path.display())]
    NotACache {
        /// The folder that was taken for a cache.
        path: PathBuf,
    },
    /// The cache was written in a format that this program does not know.
    #[error("`{}` is of format version {found}, this program reads version {supported}", path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// The version that the file states.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// A file of the cache is not what the format says it must be.
    #[error("`{}` is damaged: {problem}", path.display())]
    Damaged {
        /// The damaged file: a chunk, an archive of chunks, or a JSON file of the cache.
        path: PathBuf,
        /// What is wrong, expected and found.
        problem: String,
    },
    /// A row's checksum disagrees with its bytes.
    #[error("the row of sample {sample}, view {view} in `{}` is damaged: its check is {found:08x}, its bytes give {computed:08x}", path.display())]
    DamagedRow {
        /// The chunk file that holds the row.
        path: PathBuf,
        /// Index of the row's sample in the split, from 0.
        sample: u32,
        /// The row's view, from 0.
        view: u32,
        /// The check that stands in the file.
        found: u32,
        /// The check that the bytes give.
        computed: u32,
    },
    /// A row was asked for whose sample could not be decoded when the teacher ran.
    #[error(
        "sample {sample} has no row in view {view}: it could not be decoded when the teacher ran"
    )]
    NullRow {
        /// Index of the undecoded sample in the split, from 0.
        sample: u32,
        /// The view that was asked for, from 0.
        view: u32,
    },
    /// A sample index beyond the split.
    #[error("sample {sample} was asked for, the cache was made for {n_samples} samples")]
    NoSuchSample {
        /// The index that was asked for.
        sample: u32,
        /// How many samples the cache covers.
        n_samples: u32,
    },
    /// A view that has not been captured.
    #[error("view {view} was asked for, the cache holds {n_views} views")]
    NoSuchView {
        /// The view that was asked for.
        view: u32,
        /// How many views the cache holds.
        n_views: usize,
    },
    /// A chunk that the cache does not have.
    #[error("chunk {chunk} was named, the cache has {n_chunks} chunks in a view")]
    NoSuchChunk {
        /// The chunk that was named.
        chunk: u32,
        /// How many there are.
        n_chunks: u32,
    },
    /// A slice handed in has the wrong length.
    #[error("`{what}` has {found} elements, expected {expected}")]
    Length {
        /// The argument's name: `labels`, `logits`, `features`, `valid`.
        what: &'static str,
        /// How many elements it must have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// The teacher answered with something that is not a number.
    #[error("the teacher's logit for class {class} of sample {sample}, view {view} is {value}")]
    NonFinite {
        /// Index in the split of the sample that was being written, from 0.
        sample: u32,
        /// The view of it that the teacher saw, from 0.
        view: u32,
        /// The first class of the row whose logit is no number, from 0.
        class: usize,
        /// NaN or an infinity, as the teacher gave it.
        value: f32,
    },
    /// A feature cannot be stored.
    #[error(
        "the teacher's feature {index} of sample {sample}, view {view} is {value}, beyond what the cache can hold"
    )]
    Feature {
        /// Index in the split of the sample that was being written, from 0.
        sample: u32,
        /// The view of it that the teacher saw, from 0.
        view: u32,
        /// The position in the row of features.
        index: usize,
        /// The feature: NaN, an infinity, or too large a number.
        value: f32,
    },
    /// A logit is too large for the encoding.
    #[error(
        "the teacher's logit for class {class} of sample {sample}, view {view} is {value}, beyond what `{encoding}` can hold"
    )]
    OutOfRange {
        /// Index in the split of the sample that was being written, from 0.
        sample: u32,
        /// The view of it that the teacher saw, from 0.
        view: u32,
        /// The first class of the row whose logit does not fit, from 0.
        class: usize,
        /// That class's logit, a finite number.
        value: f32,
        /// The encoding that cannot hold it, as a recipe calls it.
        encoding: String,
    },
    /// Outliers leave the other logits of a row on one level of the encoding.
    #[error(
        "the teacher's logits of sample {sample}, view {view} have outliers: `{encoding}` would store them in steps of {step}, and all others, which differ by {spread}, would become one"
    )]
    Drowned {
        /// Index in the split of the sample that was being written, from 0.
        sample: u32,
        /// The view of it that the teacher saw, from 0.
        view: u32,
        /// Distance between two neighbouring levels of the encoding, in logits.
        step: f32,
        /// Of the logits without the outliers.
        spread: f32,
        /// The encoding whose levels are too far apart, as a recipe calls it.
        encoding: String,
    },
    /// A label that no class has.
    #[error("sample {sample} has label {label}, the cache has {n_classes} classes")]
    Label {
        /// Index of the sample in the split, from 0.
        sample: u32,
        /// The label that was handed over, not below `n_classes`.
        label: u32,
        /// How many classes there are.
        n_classes: usize,
    },
    /// An encoding that does not exist.
    #[error("there is no encoding `{name}`")]
    UnknownEncoding {
        /// What was asked for.
        name: String,
    },
    /// The encoding does not hold what was asked for.
    #[error("a cache encoded as `{encoding}` does not hold {wanted}")]
    NotHeld {
        /// The name of the encoding in which the cache's rows are stored.
        encoding: String,
        /// What was asked for.
        wanted: String,
    },
    /// A manifest that no cache can have.
    #[error("a cache cannot be made with {field} = {value}: {problem}")]
    Manifest {
        /// The manifest's field that is refused, or the argument.
        field: &'static str,
        /// What the field held, or its size where it is long.
        value: String,
        /// Why no cache can have it, or what was expected.
        problem: &'static str,
    },
    /// A cache with this key is there, but it disagrees in something that the key does not hold.
    #[error("cache `{}` has the same key but another {field}: `{cached}` there, `{wanted}` here", path.display())]
    Disagrees {
        /// The folder of the cache that is there.
        path: PathBuf,
        /// In what the two differ: a field of the manifest, an ingredient of the key, or where the rows are from.
        field: &'static str,
        /// What the cache says.
        cached: String,
        /// What the caller's manifest says, or the source that rows were to come from.
        wanted: String,
    },
    /// Rows that the teacher gives do not go among rows that were transcoded.
    #[error("cache `{}` was transcoded from `{from}`: the teacher's own rows cannot be added to it", path.display())]
    Transcoded {
        /// The folder of the transcoded cache.
        path: PathBuf,
        /// The encodings that its rows went through.
        from: String,
    },
    /// Two caches whose rows are not of the same pixels, or not over the same classes.
    #[error("the caches cannot be compared: their {field} differ, `{first}` and `{second}`")]
    NotComparable {
        /// In what they differ.
        field: &'static str,
        /// What the first says.
        first: String,
        /// What the second says.
        second: String,
    },
    /// The disk cannot hold what is about to be written.
    #[error("`{}` has {available} bytes free, {needed} are needed", path.display())]
    DiskFull {
        /// The folder that was to be written to; its disk is the one that was asked.
        path: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// Another process is writing this cache, or it cannot be claimed.
    #[error("cache `{}` cannot be claimed for writing", path.display())]
    Claim {
        /// The folder in which the claim was to be made: a cache's, or an archive's.
        path: PathBuf,
        /// Who holds it, or what else kept the claim from being made.
        #[source]
        source: ClaimError,
    },
    /// A chunk that this writer must not write.
    #[error(
        "chunk {chunk} of view {view} is not to be written here: it is of another part, or the view is finished"
    )]
    NotOurs {
        /// The view that was to be written to, from 0.
        view: u32,
        /// The chunk that was refused, from 0 in its view.
        chunk: u32,
    },
    /// The view still lacks chunks.
    #[error("view {view} cannot be finished: {missing} of {n_chunks} chunks are missing")]
    Unfinished {
        /// The view that was to be finished, from 0.
        view: u32,
        /// How many chunks are missing.
        missing: usize,
        /// The chunks that every view of this cache has.
        n_chunks: u32,
    },
    /// The Arrow library could not write.
    #[error("cannot encode `{}`", path.display())]
    Arrow {
        /// The file to be.
        path: PathBuf,
        /// What Arrow or Parquet objected to.
        #[source]
        source: arrow::error::ArrowError,
    },
}

impl CacheError {
    /// Whether it was asked wrongly, by a name or a setting, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Self::UnknownEncoding { .. } | Self::Manifest { .. } => true,
            Self::Io { .. }
            | Self::NotACache { .. }
            | Self::Version { .. }
            | Self::Damaged { .. }
            | Self::DamagedRow { .. }
            | Self::NullRow { .. }
            | Self::NoSuchSample { .. }
            | Self::NoSuchView { .. }
            | Self::NoSuchChunk { .. }
            | Self::Length { .. }
            | Self::NonFinite { .. }
            | Self::Feature { .. }
            | Self::OutOfRange { .. }
            | Self::Drowned { .. }
            | Self::Label { .. }
            | Self::NotHeld { .. }
            | Self::Disagrees { .. }
            | Self::Transcoded { .. }
            | Self::NotComparable { .. }
            | Self::DiskFull { .. }
            | Self::Claim { .. }
            | Self::NotOurs { .. }
            | Self::Unfinished { .. }
            | Self::Arrow { .. } => false,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            CacheError::NotACache { .. } => {
                "`logitcask cache ls` shows the caches; `logitcask teacher-logits RECIPE` makes one".to_owned()
            }
            CacheError::Version { found, supported, .. } if found > supported => {
                "read it with the version of logitcask that wrote it, or a newer one".to_owned()
            }
            CacheError::Damaged { path, .. } | CacheError::DamagedRow { path, .. } => damaged_hint(path),
            CacheError::NullRow { .. } => {
                "exclude the sample with `data.exclude`, or repair its file and capture again into a fresh cache".to_owned()
            }
            CacheError::NoSuchView { .. } => "capture more views with `logitcask teacher-logits RECIPE`".to_owned(),
            CacheError::NoSuchSample { .. } => {
                "the dataset has grown since; run `logitcask teacher-logits RECIPE` for the new one".to_owned()
            }
            CacheError::NonFinite { .. } => {
                "the teacher is broken or its input is wrongly scaled; check `mean`, `std` and `scale`, and try \
                 `precision = \"f32\"`"
                    .to_owned()
            }
            CacheError::Feature { value, .. } if value.is_finite() => {
                "features are f16 unless `encoding = \"f32\"`".to_owned()
            }
            CacheError::Drowned { .. } => {
                "use `encoding = \"f16\"`; or leave the masked classes out with `classes = [...]`".to_owned()
            }
            CacheError::OutOfRange { .. } => "use `encoding = \"f32\"`".to_owned(),
            CacheError::DiskFull { .. } => {
                "free some space, take a smaller encoding or fewer views; `logitcask cache plan` shows what each takes"
                    .to_owned()
            }
            CacheError::UnknownEncoding { .. } => "`logitcask list encodings` shows all".to_owned(),
            CacheError::NotHeld { .. } => {
                "capture with a dense encoding (`f16`, `u8`), which every loss can read".to_owned()
            }
            CacheError::Disagrees { .. } => {
                "the images are the same but something around them changed; use a fresh cache folder with `--cache-dir`"
                    .to_owned()
            }
            CacheError::Transcoded { path, from } => {
                let first = from.split(',').next().unwrap_or_default();
                format!(
                    "capture the missing views as `{first}`, with `--set teacher.0.encoding={first}`, and transcode again; or \
                     remove `{}`, and the teacher's rows are captured as the recipe says",
                    path.display()
                )
            }
            CacheError::Claim { source, .. } => return source.hint(),
            CacheError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "make the folder writable, or name another one with `--cache-dir`".to_owned()
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space and run the same command again: it resumes".to_owned()
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(hint)
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
        let path = path.to_path_buf();
        move |source| CacheError::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> CacheError {
        CacheError::Damaged {
            path: path.to_path_buf(),
            problem: problem.into(),
        }
    }
}

/// A damaged chunk can be captured again; a damaged `cache.json` takes the folder with it.
fn damaged_hint(path: &Path) -> String {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("cache.json") => {
            "restore the file from a copy, or remove the cache's folder and capture again"
                .to_owned()
        }
        _ => format!(
            "restore the file from a copy, or remove the folder `{}` and capture that view again",
            path.parent().unwrap_or(path).display()
        ),
    }
}
