//! The shapes in which people have their data. A format is a file here and a row in [`FORMATS`].

use std::path::PathBuf;

use self::labels::check_labels;
use crate::files;
use crate::{DataSpec, DatasetError, Role, SplitSpec};

mod cifar;
mod classes;
mod emnist;
mod image_folder;
mod labels;
mod mnist;
mod opened;
mod parquet;
mod stl10;
mod synthetic;
mod webdataset;

pub use opened::{FetchError, Fetched, Opened, Source};

/// Every format: what the recipe calls it, what it is, which keys it reads, and how it is opened.
pub(crate) const FORMATS: &[FormatRow] = &[
    FormatRow {
        name: "cifar10",
        summary: "CIFAR-10 binary version: data_batch_*.bin, test_batch.bin",
        reads: &["root", "store_pixels", "allow_missing_shards"],
        open: cifar::open_10,
        shows_classes: false,
        class_names: cifar::class_names_10,
    },
    FormatRow {
        name: "cifar100",
        summary: "CIFAR-100 binary version, fine or coarse labels: train.bin, test.bin",
        reads: &["root", "store_pixels", "label_column"],
        open: cifar::open_100,
        shows_classes: false,
        class_names: cifar::class_names_100,
    },
    FormatRow {
        name: "emnist",
        summary: "EMNIST idx files, plain or gzipped: emnist-balanced-train-images-idx3-ubyte, ...",
        reads: &["root", "store_pixels", "channels", "transpose", "max_bytes"],
        open: emnist::open,
        shows_classes: false,
        class_names: emnist::class_names,
    },
    FormatRow {
        name: "fashion_mnist",
        summary: "Fashion-MNIST idx files, plain or gzipped",
        reads: IDX_KEYS,
        open: mnist::open_fashion,
        shows_classes: false,
        class_names: mnist::fashion_names,
    },
    FormatRow {
        name: "image_folder",
        summary: "a folder per class, as ImageNet and Tiny-ImageNet have it: <split>/<class>/*.jpg",
        reads: &[
            "root",
            "store_pixels",
            "channels",
            "exif",
            "max_image_pixels",
            "max_bytes",
        ],
        open: image_folder::open,
        shows_classes: true,
        class_names: image_folder::class_names,
    },
    FormatRow {
        name: "kmnist",
        summary: "KMNIST idx files, plain or gzipped",
        reads: IDX_KEYS,
        open: mnist::open_kuzushiji,
        shows_classes: false,
        class_names: mnist::kuzushiji_names,
    },
    FormatRow {
        name: "mnist",
        summary: "MNIST idx files, plain or gzipped: train-images-idx3-ubyte, t10k-...",
        reads: IDX_KEYS,
        open: mnist::open_digits,
        shows_classes: false,
        class_names: mnist::digit_names,
    },
    FormatRow {
        name: "parquet",
        summary: "Hugging Face image layout: train-*.parquet with image and label columns",
        reads: &[
            "root",
            "store_pixels",
            "channels",
            "exif",
            "image_column",
            "label_column",
            "allow_missing_shards",
            "max_image_pixels",
        ],
        open: parquet::open,
        shows_classes: false,
        class_names: parquet::class_names,
    },
    FormatRow {
        name: "stl10",
        summary: "STL-10 binary version: train_X.bin, train_y.bin, test_...",
        reads: &["root", "store_pixels"],
        open: stl10::open,
        shows_classes: false,
        class_names: stl10::class_names,
    },
    FormatRow {
        name: "synthetic",
        summary: "noise around a pattern per class, for benchmarks and tests",
        reads: &["channels", "synthetic", "max_image_pixels", "max_bytes"],
        open: synthetic::open,
        shows_classes: false,
        class_names: |_, _| Ok(Vec::new()),
    },
    FormatRow {
        name: "webdataset",
        summary: "tar shards of images with cls or json beside them: train-*.tar",
        reads: &[
            "root",
            "store_pixels",
            "channels",
            "exif",
            "label_column",
            "allow_missing_shards",
            "max_image_pixels",
            "max_bytes",
        ],
        open: webdataset::open,
        shows_classes: true,
        class_names: webdataset::class_names,
    },
];

const IDX_KEYS: &[&str] = &["root", "store_pixels", "channels", "max_bytes"];

/// A key of `[data]` that only some formats read. All others are read by every format, or by
/// [`Dataset`](crate::Dataset) for them.
struct Key {
    name: &'static str,
    is_given: fn(&DataSpec) -> bool,
    clear: fn(&mut DataSpec),
}

const FORMAT_KEYS: &[Key] = &[
    Key {
        name: "root",
        is_given: |spec| !spec.root.as_os_str().is_empty(),
        clear: |spec| spec.root = PathBuf::new(),
    },
    Key {
        name: "channels",
        is_given: |spec| spec.channels.is_some(),
        clear: |spec| spec.channels = None,
    },
    Key {
        name: "exif",
        is_given: |spec| spec.exif,
        clear: |spec| spec.exif = false,
    },
    Key {
        name: "image_column",
        is_given: |spec| spec.image_column.is_some(),
        clear: |spec| spec.image_column = None,
    },
    Key {
        name: "label_column",
        is_given: |spec| spec.label_column.is_some(),
        clear: |spec| spec.label_column = None,
    },
    Key {
        name: "synthetic",
        is_given: |spec| spec.synthetic.is_some(),
        clear: |spec| spec.synthetic = None,
    },
    Key {
        name: "store_pixels",
        is_given: |spec| spec.store_pixels,
        clear: |spec| spec.store_pixels = false,
    },
    Key {
        name: "allow_missing_shards",
        is_given: |spec| spec.allow_missing_shards,
        clear: |spec| spec.allow_missing_shards = false,
    },
    Key {
        name: "transpose",
        is_given: |spec| spec.transpose.is_some(),
        clear: |spec| spec.transpose = None,
    },
    Key {
        name: "max_image_pixels",
        is_given: |spec| spec.max_image_pixels.is_some(),
        clear: |spec| spec.max_image_pixels = None,
    },
    Key {
        name: "max_bytes",
        is_given: |spec| spec.max_bytes.is_some(),
        clear: |spec| spec.max_bytes = None,
    },
];

/// As many as a cache can hold.
const MAX_CLASSES: usize = 1 << 20;

/// One format of the table, or a program's own.
#[derive(Clone, Copy, Debug)]
pub struct FormatRow {
    /// What `data.format` calls it.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Which of [`format_keys`] it reads; the others are refused.
    pub reads: &'static [&'static str],
    /// Finds a split's samples and reads their labels.
    pub open: fn(&DataSpec, &SplitSpec) -> Result<Opened, DatasetError>,
    /// Its class names are those that the samples show, so that an evaluation split may have fewer of them.
    pub shows_classes: bool,
    /// The names of a split's classes, without its samples; none where nobody tells them.
    pub class_names: fn(&DataSpec, &SplitSpec) -> Result<Vec<String>, DatasetError>,
}

/// The formats that can be named in `data.format`.
pub fn formats() -> &'static [FormatRow] {
    FORMATS
}

/// The keys of `[data]` that only some formats read.
pub fn format_keys() -> impl Iterator<Item = &'static str> {
    FORMAT_KEYS.iter().map(|key| key.name)
}

/// Opens the split that `role` names. Of an evaluation split the classes are those of the train split.
pub(crate) fn open(
    spec: &DataSpec,
    split: &SplitSpec,
    role: Role,
    own: &'static [FormatRow],
) -> Result<Opened, DatasetError> {
    let row = row_of(spec, own)?;
    check_keys(spec, row)?;
    let mut opened = (row.open)(spec, split).map_err(|error| with_what_is_there(error, split))?;
    if is_own(row.name) {
        check_labels(&opened, spec, split)?;
    }
    if let (Some(n), Some(name)) = (
        spec.n_classes,
        spec.n_classes.and_then(|n| opened.class_names.get(n)),
    ) {
        return Err(DatasetError::Setting {
            key: "data.n_classes".into(),
            found: format!(
                "is {n}, but there are {} classes, and class {n} is `{name}`",
                opened.class_names.len()
            ),
        });
    }
    if role == Role::Eval && !opened.class_names.is_empty() {
        agree_on_classes(spec, split, row, &mut opened)?;
    }
    Ok(opened)
}

/// Whether a format is a program's own, of which nothing is known but what it says.
pub(crate) fn is_own(format: &str) -> bool {
    !FORMATS.iter().any(|row| row.name == format)
}

/// The keys that a recipe gives and its format would pass over.
fn unread<'a>(spec: &'a DataSpec, row: &'a FormatRow) -> impl Iterator<Item = &'static Key> + 'a {
    let keys = FORMAT_KEYS.iter();
    keys.filter(|key| (key.is_given)(spec) && !row.reads.contains(&key.name))
}

impl DataSpec {
    /// Makes this a dataset of another format, and takes away the keys that this format does not read; returns their names.
    ///
    /// # Errors
    /// If there is no such format.
    pub fn change_format(&mut self, format: &str) -> Result<Vec<&'static str>, DatasetError> {
        format.clone_into(&mut self.format);
        let taken: Vec<&Key> = unread(self, row_of(self, &[])?).collect();
        taken.iter().for_each(|key| (key.clear)(self));
        Ok(taken.iter().map(|key| key.name).collect())
    }
}

fn row_of(spec: &DataSpec, own: &'static [FormatRow]) -> Result<&'static FormatRow, DatasetError> {
    let mut rows = FORMATS.iter().chain(own);
    rows.find(|row| row.name == spec.format)
        .ok_or_else(|| DatasetError::UnknownFormat {
            name: spec.format.clone(),
            known: FORMATS.iter().chain(own).map(|row| row.name).collect(),
        })
}

fn check_keys(spec: &DataSpec, row: &FormatRow) -> Result<(), DatasetError> {
    if let Some(key) = unread(spec, row).next() {
        return Err(DatasetError::UnreadKey {
            key: key.name,
            format: spec.format.clone(),
            readers: readers_of(key.name),
        });
    }
    match spec.n_classes {
        Some(n) if n > MAX_CLASSES => Err(DatasetError::Setting {
            key: "data.n_classes".into(),
            found: format!("is {n}: a cache holds at most {MAX_CLASSES} classes"),
        }),
        _ => Ok(()),
    }
}

/// Our formats that read a key.
fn readers_of(key: &str) -> Vec<&'static str> {
    let readers = FORMATS.iter().filter(|row| row.reads.contains(&key));
    readers.map(|row| row.name).collect()
}

/// A split that is not there: what is there instead is the answer to what to type next.
fn with_what_is_there(error: DatasetError, split: &SplitSpec) -> DatasetError {
    const NAMED: usize = 5;
    let DatasetError::SplitMissing {
        split: name,
        path,
        expected,
    } = error
    else {
        return error;
    };
    // Where the folder cannot be listed, the first error is the one to report.
    let entries = files::sorted_entries(&path).unwrap_or_default();
    let seen: Vec<String> = entries
        .iter()
        .filter(|entry| !entry.is_hidden())
        .map(|entry| format!("`{}`", entry.shown()))
        .collect();
    let mut found = match seen.len() {
        0 => "nothing".into(),
        n if n > NAMED => format!("{} and {} more", seen[..NAMED].join(", "), n - NAMED),
        _ => seen.join(", "),
    };
    if matches!(split, SplitSpec::Name(name) if path.ends_with(name)) {
        found += "; `data.root` is the split's own folder, and should be the one above it";
    }
    DatasetError::SplitMissing {
        split: name,
        path,
        expected: format!("{expected}; found {found}"),
    }
}

/// Numbers the classes of an evaluation split as the train split does.
fn agree_on_classes(
    spec: &DataSpec,
    split: &SplitSpec,
    row: &FormatRow,
    opened: &mut Opened,
) -> Result<(), DatasetError> {
    let reference = match (row.class_names)(spec, &spec.train) {
        Ok(names) if names.is_empty() => return Ok(()),
        Ok(names) => names,
        // Evaluation alone needs no training images.
        Err(DatasetError::SplitMissing { .. }) => {
            opened.notes.push(format!(
                "split `{}` is not here, so the classes of split `{split}` are its own",
                spec.train
            ));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let differ = |found| DatasetError::ClassNames {
        split: split.to_string(),
        found,
    };
    let map = classes::map_classes(&reference, &opened.class_names, row.shows_classes);
    if let Some(map) = map.map_err(differ)? {
        for label in &mut opened.labels {
            *label = map[*label as usize];
        }
        opened.notes.push(format!(
            "split `{split}` numbers its classes in another way than split `{}`: its labels were mapped by name",
            spec.train
        ));
    }
    opened.n_classes = opened.n_classes.max(reference.len());
    opened.class_names = reference;
    Ok(())
}
