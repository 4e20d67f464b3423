//! The binary versions of CIFAR-10 and CIFAR-100: fixed records of one label byte (two in CIFAR-100: coarse, fine) and
//! 3,072 bytes of pixels, channel by channel.

use std::path::{Path, PathBuf};

use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::files::{self, PlacedFile};
use crate::shards::check_shards;
use crate::{DataSpec, DatasetError, Image, ImageSize, SplitSpec};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const SIZE: ImageSize = ImageSize {
    height: SIDE,
    width: SIDE,
    channels: 3,
};

struct Variant {
    label_bytes: usize,
    /// Which of the label bytes is the label.
    label_at: usize,
    subfolder: &'static str,
    names_file: &'static str,
    /// The files of a split name: those that are there of the first alternative that has any.
    split_files: fn(&Path, &str) -> Result<Vec<PathBuf>, DatasetError>,
    n_classes: usize,
    names: &'static [&'static str],
}

const CIFAR_10: Variant = Variant {
    label_bytes: 1,
    label_at: 0,
    subfolder: "cifar-10-batches-bin",
    names_file: "batches.meta.txt",
    split_files: |folder, split| match split {
        "train" => files::files_named(folder, "data_batch_", ".bin"),
        // Without it, a part of the test split that somebody keeps beside the training batches.
        "test" => match named_file(folder, "test_batch")? {
            whole if whole.is_empty() => files::files_named(folder, "test_batch_", ".bin"),
            whole => Ok(whole),
        },
        other => named_file(folder, other),
    },
    n_classes: 10,
    names: &[
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ],
};

const CIFAR_100: Variant = Variant {
    label_bytes: 2,
    label_at: 1,
    subfolder: "cifar-100-binary",
    names_file: "fine_label_names.txt",
    split_files: named_file,
    n_classes: 100,
    names: &[],
};

/// The same files by their other label: 20 groups of five classes.
const CIFAR_100_COARSE: Variant = Variant {
    label_at: 0,
    names_file: "coarse_label_names.txt",
    n_classes: 20,
    ..CIFAR_100
};

pub(super) fn open_10(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &CIFAR_10)
}

pub(super) fn open_100(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, variant_of_100(spec)?)
}

pub(super) fn class_names_10(
    spec: &DataSpec,
    split: &SplitSpec,
) -> Result<Vec<String>, DatasetError> {
    class_names(&find_files(&spec.root, split, &CIFAR_10)?, &CIFAR_10)
}

pub(super) fn class_names_100(
    spec: &DataSpec,
    split: &SplitSpec,
) -> Result<Vec<String>, DatasetError> {
    let variant = variant_of_100(spec)?;
    class_names(&find_files(&spec.root, split, variant)?, variant)
}

/// Hugging Face's names of the two labels.
fn variant_of_100(spec: &DataSpec) -> Result<&'static Variant, DatasetError> {
    match spec.label_column.as_deref() {
        None | Some("fine_label") => Ok(&CIFAR_100),
        Some("coarse_label") => Ok(&CIFAR_100_COARSE),
        Some(other) => Err(DatasetError::Setting {
            key: "data.label_column".into(),
            found: format!("is `{other}`: CIFAR-100 has `fine_label` and `coarse_label`"),
        }),
    }
}

fn open(spec: &DataSpec, split: &SplitSpec, variant: &Variant) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split, variant)?;
    check_batches(spec, split, &paths)?;
    let batches = Batches::open(&paths, variant)?;
    if batches.n_samples() == 0 {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let labels = batches.read_labels()?;
    let class_names = class_names(&paths, variant)?;
    let n_classes = count_classes(spec, variant.n_classes, &labels, |i| batches.place(i))?;
    Ok(Opened {
        source: Box::new(batches),
        labels,
        class_names,
        n_classes,
        uniform_size: Some(SIZE),
        files: paths.into(),
        notes: Vec::new(),
    })
}

/// Batches are numbered from 1. How many there are is left open: people keep the first few.
fn check_batches(
    spec: &DataSpec,
    split: &SplitSpec,
    paths: &[PathBuf],
) -> Result<(), DatasetError> {
    check_shards(spec, split, paths)?;
    let (SplitSpec::Name(name), Some(first)) = (split, paths.first()) else {
        return Ok(());
    };
    let begins_late =
        files::file_name(first).starts_with("data_batch_") && !first.ends_with("data_batch_1.bin");
    if begins_late && !spec.allow_missing_shards {
        return Err(DatasetError::ShardsMissing {
            split: name.clone(),
            path: first.parent().unwrap_or(&spec.root).into(),
            missing: "`data_batch_1.bin`".into(),
        });
    }
    Ok(())
}

fn find_files(
    root: &Path,
    split: &SplitSpec,
    variant: &Variant,
) -> Result<Vec<PathBuf>, DatasetError> {
    let name = match split {
        SplitSpec::Files(files) => return files::listed_files(root, split, files),
        SplitSpec::Name(name) => name,
    };
    for folder in [root.to_path_buf(), root.join(variant.subfolder)] {
        if files::is_folder(&folder)? {
            let found = (variant.split_files)(&folder, name)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Err(DatasetError::SplitMissing {
        split: name.clone(),
        path: root.into(),
        expected: match (variant.label_bytes, name.as_str()) {
            (1, "train") => "files `data_batch_*.bin`".into(),
            (1, "test") => "the file `test_batch.bin`".into(),
            (_, other) => format!("the file `{other}.bin`"),
        },
    })
}

fn named_file(folder: &Path, split: &str) -> Result<Vec<PathBuf>, DatasetError> {
    let path = folder.join(format!("{split}.bin"));
    Ok(match files::is_file(&path)? {
        true => vec![path],
        false => Vec::new(),
    })
}

/// One name per line, as the archives have them beside the batches; without that file, the names that are built in. A
/// file that does not name every class is not one of names.
fn class_names(paths: &[PathBuf], variant: &Variant) -> Result<Vec<String>, DatasetError> {
    let beside = paths
        .first()
        .map(|path| path.with_file_name(variant.names_file));
    let named = match beside {
        Some(path) => files::names_in(&path)?,
        None => None,
    };
    let named = named.filter(|names| names.len() == variant.n_classes);
    Ok(named.unwrap_or_else(|| variant.names.iter().map(|&name| name.to_owned()).collect()))
}

struct Batches {
    files: Vec<PlacedFile>,
    /// The index of the first sample of each file, and the number of all at the end.
    starts: Vec<u32>,
    label_bytes: usize,
    label_at: usize,
}

impl Batches {
    fn open(paths: &[PathBuf], variant: &Variant) -> Result<Self, DatasetError> {
        let record = (variant.label_bytes + 3 * PLANE) as u64;
        let (mut files, mut starts) = (Vec::new(), vec![0u32]);
        for path in paths {
            let file = PlacedFile::open(path.clone())?;
            let total = u64::from(starts[starts.len() - 1]) + file.n_bytes / record;
            let total = u32::try_from(total)
                .ok()
                .filter(|_| file.n_bytes.is_multiple_of(record));
            let Some(total) = total else {
                return Err(DatasetError::RecordLength {
                    path: file.path,
                    bytes: file.n_bytes,
                    record,
                });
            };
            starts.push(total);
            files.push(file);
        }
        Ok(Self {
            files,
            starts,
            label_bytes: variant.label_bytes,
            label_at: variant.label_at,
        })
    }

    fn n_samples(&self) -> u32 {
        self.starts[self.starts.len() - 1]
    }

    fn record(&self) -> usize {
        self.label_bytes + 3 * PLANE
    }

    /// The file of a sample, and its record there.
    fn locate(&self, index: u32) -> (&PlacedFile, u32) {
        let file = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.files[file], index - self.starts[file])
    }

    /// One label byte of every record.
    fn read_labels(&self) -> Result<Vec<u32>, DatasetError> {
        const RECORDS_AT_ONCE: usize = 1024;
        let record = self.record();
        let mut labels = Vec::with_capacity(self.n_samples() as usize);
        let mut buffer = vec![0; RECORDS_AT_ONCE * record];
        for file in &self.files {
            let mut offset = 0;
            while offset < file.n_bytes {
                let n = (file.n_bytes - offset).min(buffer.len() as u64) as usize;
                file.read_named(&mut buffer[..n], offset)?;
                let records = buffer[..n].chunks_exact(record);
                labels.extend(records.map(|record| u32::from(record[self.label_at])));
                offset += n as u64;
            }
        }
        Ok(labels)
    }
}

impl Source for Batches {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let (file, record) = self.locate(index);
        let mut planes = [0u8; 3 * PLANE];
        let offset = u64::from(record) * self.record() as u64 + self.label_bytes as u64;
        file.read_named(&mut planes, offset)?;
        interleave(&planes, image.reshape(SIZE));
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        let (file, record) = self.locate(index);
        format!("`{}` record {record}", file.name())
    }

    fn file_starts(&self) -> Vec<u32> {
        self.starts[..self.files.len()].to_vec()
    }
}

/// (3, H, W) to (H, W, 3).
fn interleave(planes: &[u8; 3 * PLANE], pixels: &mut [u8]) {
    let (red, rest) = planes.split_at(PLANE);
    let (green, blue) = rest.split_at(PLANE);
    let channels = red.iter().zip(green).zip(blue);
    for (pixel, ((&r, &g), &b)) in pixels.chunks_exact_mut(3).zip(channels) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}
