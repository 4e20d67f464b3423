//! The shapes in which people have their data. A format is a file here and a row in [`FORMATS`].

use std::path::PathBuf;
use std::sync::Arc;

use crate::{DataSpec, DatasetError, Image, ImageError, ImageSize, SplitSpec};

mod cifar;
mod image_folder;
mod mnist;
mod parquet;
mod stl10;
mod synthetic;
mod webdataset;

/// Every format: what the recipe calls it, what it is, and how it is opened.
pub(crate) const FORMATS: &[FormatRow] = &[
    FormatRow {
        name: "cifar10",
        summary: "CIFAR-10 binary version: data_batch_*.bin, test_batch.bin",
        open: cifar::open_10,
    },
    FormatRow {
        name: "cifar100",
        summary: "CIFAR-100 binary version, fine labels: train.bin, test.bin",
        open: cifar::open_100,
    },
    FormatRow {
        name: "fashion_mnist",
        summary: "Fashion-MNIST idx files, plain or gzipped",
        open: mnist::open_fashion,
    },
    FormatRow {
        name: "image_folder",
        summary: "a folder per class, as ImageNet and Tiny-ImageNet have it: <split>/<class>/*.jpg",
        open: image_folder::open,
    },
    FormatRow {
        name: "mnist",
        summary: "MNIST idx files, plain or gzipped: train-images-idx3-ubyte, t10k-...",
        open: mnist::open_digits,
    },
    FormatRow {
        name: "parquet",
        summary: "Hugging Face image layout: train-*.parquet with image and label columns",
        open: parquet::open,
    },
    FormatRow {
        name: "stl10",
        summary: "STL-10 binary version: train_X.bin, train_y.bin, test_...",
        open: stl10::open,
    },
    FormatRow {
        name: "synthetic",
        summary: "noise around a pattern per class, for benchmarks and tests",
        open: synthetic::open,
    },
    FormatRow {
        name: "webdataset",
        summary: "tar shards of images with cls or json beside them: train-*.tar",
        open: webdataset::open,
    },
];

/// One format of the table.
pub struct FormatRow {
    /// What `data.format` calls it.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    pub(crate) open: fn(&DataSpec, &SplitSpec) -> Result<Opened, DatasetError>,
}

/// A split as its format found it: labels in memory, images still where they are.
pub(crate) struct Opened {
    pub(crate) source: Box<dyn Source>,
    pub(crate) labels: Vec<u32>,
    /// Empty where the format knows no names.
    pub(crate) class_names: Vec<String>,
    /// At least as many classes as names and labels need.
    pub(crate) n_classes: usize,
    /// Known where the format fixes it.
    pub(crate) uniform_size: Option<ImageSize>,
    /// The files that a remembered fingerprint depends on.
    pub(crate) files: Arc<[PathBuf]>,
}

/// What has been fetched for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// The pixels are in the image.
    Pixels,
    /// The encoded file is in `image.encoded`, still to be decoded.
    Encoded,
}

/// Where the images of a split come from.
pub(crate) trait Source: Send + Sync {
    /// Fetches sample `index`, which is in range.
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError>;
    /// Where sample `index` lies, for messages: `` `train.parquet` row 17``.
    fn place(&self, index: u32) -> String;
    /// The first sample of each file, ascending, where files hold many samples; nothing where each image is a file.
    fn file_starts(&self) -> Vec<u32> {
        Vec::new()
    }
}

/// The formats that can be named in `data.format`.
pub fn formats() -> &'static [FormatRow] {
    FORMATS
}

pub(crate) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let row = FORMATS.iter().find(|row| row.name == spec.format);
    let row = row.ok_or_else(|| DatasetError::UnknownFormat {
        name: spec.format.clone(),
    })?;
    (row.open)(spec, split)
}

pub(crate) fn hint(name: &str) -> String {
    nearest(name, FORMATS.iter().map(|row| row.name))
}

/// "did you mean `x`?", or all there are.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let best = known
        .clone()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min();
    match best {
        Some((distance, known)) if distance <= 2 => format!("did you mean `{known}`?"),
        _ => {
            let all: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            format!("known are {}", all.join(", "))
        }
    }
}

/// Labels checked against the class count: the greatest of what the recipe says, the names and, where neither is
/// there, the labels themselves.
pub(crate) fn count_classes(
    spec: &DataSpec,
    n_names: usize,
    labels: &[u32],
    place: impl Fn(u32) -> String,
) -> Result<usize, DatasetError> {
    let seen = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let n_classes = match (spec.n_classes, n_names) {
        (Some(n), names) => n.max(names),
        (None, 0) => seen,
        (None, names) => names,
    };
    match labels.iter().position(|&label| label as usize >= n_classes) {
        None => Ok(n_classes),
        Some(index) => Err(DatasetError::LabelRange {
            place: format!("sample {index} ({})", place(index as u32)),
            label: labels[index].into(),
            n_classes,
        }),
    }
}
