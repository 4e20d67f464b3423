//! `[data]`: every key of it, and the limits that hold where a recipe names none.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::DatasetError;

/// The `[data]` section of a recipe: where the samples are, and which of them are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// One of [`formats`](crate::formats()), or a program's own.
    pub format: String,
    /// The dataset's folder. `synthetic` has none.
    #[serde(default, skip_serializing_if = "no_path")]
    pub root: PathBuf,
    /// The split that is trained on.
    #[serde(default = "train_split")]
    pub train: SplitSpec,
    /// The split that is evaluated on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<SplitSpec>,
    /// Train on the first so many samples of the selection only. The order is the dataset's own: in an image folder that
    /// is class by class, where `subset` serves better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Train on these samples only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Selection>,
    /// Do not train on these samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Selection>,
    /// How much each training sample counts in losses that are a mean over samples; 1 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_weights: Option<SampleWeights>,
    /// What to do about a sample whose image cannot be decoded. A file that cannot be read is no bad sample: it stops the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_bad: OnBad,
    /// Decode every image once and keep the pixels beside the dataset, in as many bytes as they take: see
    /// [`Dataset::store_pixels`](crate::Dataset::store_pixels).
    #[serde(default, skip_serializing_if = "is_default")]
    pub store_pixels: bool,
    /// The labels were corrected after the capture: caches of these images are taken whatever labels they were made with,
    /// and the labels are the dataset's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub relabelled: bool,
    /// The number of classes, where the format does not say it or where it is to be larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_classes: Option<usize>,
    /// 1 or 3. Without it the format decides; of encoded images the first one does. Grey images become colour ones by
    /// repeating the channel; colour images never become grey in silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Turn images upright as their EXIF orientation says, as PIL's `ImageOps.exif_transpose` does. Off, as in PIL's
    /// `Image.open` and torchvision, they are taken as they are stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exif: bool,
    /// Parquet: the column of images, bytes or struct<bytes, path>, where it is not called `image` or `img`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// The labels that are meant. Parquet: a column, where it is not called `label` or `fine_label`. WebDataset: a field of
    /// the json members, where it is not called `label` or `cls`. CIFAR-100: `fine_label`, as without it, or `coarse_label`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// The images of `format = "synthetic"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticSpec>,
    /// Take a split although files of its numbered set are missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_missing_shards: bool,
    /// EMNIST: set its images upright, which lie transposed in their files. torchvision leaves them
    /// so, and so do we where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transpose: Option<bool>,
    /// The most pixels that an image may claim, [`MAX_IMAGE_PIXELS`] where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_image_pixels: Option<u64>,
    /// The most bytes that what is held in memory at once may claim: a set of idx files, the labels of a synthetic set, one
    /// encoded image. [`MAX_BYTES`] where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// The limit at which PIL speaks of a decompression bomb.
pub const MAX_IMAGE_PIXELS: u64 = 178_956_970;
/// The limit where `data.max_bytes` says nothing: four GiB.
pub const MAX_BYTES: u64 = 4 << 30;

impl DataSpec {
    /// A dataset of `format` in `root`, everything else as it is by default.
    pub fn new(format: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        Self {
            format: format.into(),
            root: root.into(),
            train: train_split(),
            eval: None,
            limit: None,
            subset: None,
            exclude: None,
            sample_weights: None,
            on_bad: OnBad::Error,
            store_pixels: false,
            relabelled: false,
            n_classes: None,
            channels: None,
            exif: false,
            image_column: None,
            label_column: None,
            synthetic: None,
            allow_missing_shards: false,
            transpose: None,
            max_image_pixels: None,
            max_bytes: None,
        }
    }

    pub(crate) fn max_image_pixels(&self) -> u64 {
        self.max_image_pixels.unwrap_or(MAX_IMAGE_PIXELS)
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(MAX_BYTES)
    }

    /// Refuses what would take more than [`max_bytes`](Self::max_bytes).
    pub(crate) fn check_bytes(
        &self,
        what: impl FnOnce() -> String,
        bytes: u128,
    ) -> Result<(), DatasetError> {
        let limit = self.max_bytes();
        if bytes <= u128::from(limit) {
            return Ok(());
        }
        Err(DatasetError::AboveLimit {
            what: what(),
            bytes,
            limit,
        })
    }
}

/// The images of `format = "synthetic"`: noise around a pattern per class, for benchmarks and tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticSpec {
    /// Samples in the train split.
    pub n_train: u32,
    /// Samples in any other split.
    pub n_eval: u32,
    /// Rows of pixels in every image.
    pub height: usize,
    /// Columns of pixels in every image.
    pub width: usize,
    /// What the images are drawn from.
    pub seed: u64,
}

impl Default for SyntheticSpec {
    fn default() -> Self {
        Self {
            n_train: 1024,
            n_eval: 256,
            height: 32,
            width: 32,
            seed: 1,
        }
    }
}

/// A split is a name (`"train"`) or the files that make it up (`["data_batch_1.bin", ...]`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SplitSpec {
    /// A name that the format knows how to find files for.
    Name(String),
    /// Files under the dataset's folder, in this order.
    Files(Vec<String>),
}

impl From<&str> for SplitSpec {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl fmt::Display for SplitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Files(files) => f.write_str(&files.join(", ")),
        }
    }
}

/// Sample indices: in the recipe itself, or in a text file of one index per line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Selection {
    /// Indices of samples in the split, from 0.
    Indices(Vec<u32>),
    /// A file with one index per line; empty lines and what follows `#` are skipped.
    File(PathBuf),
}

/// Weights of samples, each 0 or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleWeights {
    /// A file with an index and a weight on each line; empty lines and what follows `#` are skipped.
    File(PathBuf),
    /// One weight for all samples of a list, such as that of doubtful labels.
    Listed {
        /// The samples that have it.
        list: Selection,
        /// Their weight, 0 or more; every other sample has 1.
        weight: f32,
    },
}

/// Which of a recipe's two splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The split that is trained on; `limit`, `subset` and `exclude` select from it.
    Train,
    /// The split that is evaluated on, always whole.
    Eval,
}

/// What to do about a sample whose image cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// Stop with an error that names it.
    #[default]
    Error,
    /// Leave it out. It keeps its index, and is listed.
    Skip,
}

fn train_split() -> SplitSpec {
    "train".into()
}

fn no_path(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
