//! The binary versions of CIFAR-10 and CIFAR-100: fixed records of one label byte (two in CIFAR-100: coarse, fine) and
//! 3,072 bytes of pixels, channel by channel.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Fetched, Opened, Source, count_classes};
use crate::files::{self, PlacedFile};
use crate::{DataSpec, DatasetError, Image, ImageError, ImageSize, SplitSpec};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const SIZE: ImageSize = ImageSize {
    height: SIDE,
    width: SIDE,
    channels: 3,
};

struct Variant {
    label_bytes: usize,
    subfolder: &'static str,
    names_file: &'static str,
    /// The files of a split name: those that are there of the first alternative that has any.
    split_files: fn(&Path, &str) -> Result<Vec<PathBuf>, DatasetError>,
    n_classes: usize,
    names: &'static [&'static str],
}

const CIFAR_10: Variant = Variant {
    label_bytes: 1,
    subfolder: "cifar-10-batches-bin",
    names_file: "batches.meta.txt",
    split_files: |folder, split| match split {
        "train" => files::files_named(folder, "data_batch_", ".bin"),
        "test" if folder.join("test_batch.bin").is_file() => {
            Ok(vec![folder.join("test_batch.bin")])
        }
        // A part of the test split that somebody keeps beside the training batches.
        "test" => files::files_named(folder, "test_batch_", ".bin"),
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
    subfolder: "cifar-100-binary",
    names_file: "fine_label_names.txt",
    split_files: |folder, split| named_file(folder, split),
    n_classes: 100,
    names: &[],
};

pub(super) fn open_10(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &CIFAR_10)
}

pub(super) fn open_100(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &CIFAR_100)
}

fn open(spec: &DataSpec, split: &SplitSpec, variant: &Variant) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split, variant)?;
    let batches = Batches::open(&paths, variant.label_bytes)?;
    if batches.n_samples() == 0 {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let labels = batches.read_labels()?;
    let folder = paths[0].parent().unwrap_or(root);
    let class_names = class_names(folder, variant);
    let n_classes = count_classes(spec, variant.n_classes, &labels, |i| batches.place(i))?;
    Ok(Opened {
        source: Box::new(batches),
        labels,
        class_names,
        n_classes,
        uniform_size: Some(SIZE),
        files: paths.into(),
    })
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
        if folder.is_dir() {
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
    Ok(if path.is_file() {
        vec![path]
    } else {
        Vec::new()
    })
}

/// One name per line, as the archives have them; without that file, the names that are built in. A file that does not
/// name every class is not one of names.
fn class_names(folder: &Path, variant: &Variant) -> Vec<String> {
    let text = fs::read_to_string(folder.join(variant.names_file)).unwrap_or_default();
    let named: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if named.len() == variant.n_classes {
        return named;
    }
    variant.names.iter().map(|&name| name.to_owned()).collect()
}

struct Batches {
    files: Vec<PlacedFile>,
    /// The index of the first sample of each file, and the number of all at the end.
    starts: Vec<u32>,
    label_bytes: usize,
}

impl Batches {
    fn open(paths: &[PathBuf], label_bytes: usize) -> Result<Self, DatasetError> {
        let record = (label_bytes + 3 * PLANE) as u64;
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
            label_bytes,
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

    /// The last label byte of every record: the label of CIFAR-10, the fine label of CIFAR-100.
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
                labels.extend(records.map(|record| u32::from(record[self.label_bytes - 1])));
                offset += n as u64;
            }
        }
        Ok(labels)
    }
}

impl Source for Batches {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError> {
        let (file, record) = self.locate(index);
        let mut planes = [0u8; 3 * PLANE];
        let offset = u64::from(record) * self.record() as u64 + self.label_bytes as u64;
        file.read_at(&mut planes, offset).map_err(ImageError::Io)?;
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
