//! STL-10's binary version: images of 3 x 96 x 96 bytes, channel by channel and column by column, in `*_X.bin`; labels
//! 1 to 10, a byte each, in `*_y.bin`.

use std::path::{Path, PathBuf};

use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::files::{self, PlacedFile};
use crate::{DataSpec, DatasetError, Image, ImageSize, SplitSpec};

const SIDE: usize = 96;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 3 * PLANE;
const SIZE: ImageSize = ImageSize {
    height: SIDE,
    width: SIDE,
    channels: 3,
};
const NAMES: [&str; 10] = [
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
];

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let (images_path, labels_path) = find_files(root, split)?;
    let file = PlacedFile::open(images_path)?;
    if !file.n_bytes.is_multiple_of(RECORD as u64) {
        let (path, bytes) = (file.path, file.n_bytes);
        return Err(DatasetError::RecordLength {
            path,
            bytes,
            record: RECORD as u64,
        });
    }
    let n_samples = file.n_bytes / RECORD as u64;
    let labels_file = PlacedFile::open(labels_path.clone())?;
    if labels_file.n_bytes != n_samples {
        return Err(DatasetError::Malformed {
            found: format!(
                "it holds {} labels, but `{}` holds {n_samples} images",
                labels_file.n_bytes,
                file.name()
            ),
            path: labels_path,
            format: "STL-10",
        });
    }
    let mut labels = vec![0u8; n_samples as usize];
    labels_file.read_named(&mut labels, 0)?;
    if labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    if let Some(index) = labels.iter().position(|&label| label == 0) {
        return Err(DatasetError::Label {
            place: format!(
                "sample {index} (`{}` byte {index})",
                files::file_name(&labels_path)
            ),
            found: "the label is `0`, expected 1 to 10".into(),
        });
    }
    let labels: Vec<u32> = labels
        .into_iter()
        .map(|label| u32::from(label) - 1)
        .collect();
    let paths = vec![file.path.clone(), labels_path];
    let source = Stl10 { file };
    let n_classes = count_classes(spec, NAMES.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names: NAMES.map(str::to_owned).to_vec(),
        n_classes,
        uniform_size: Some(SIZE),
        files: paths.into(),
        notes: Vec::new(),
    })
}

pub(super) fn class_names(_: &DataSpec, _: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    Ok(NAMES.map(str::to_owned).to_vec())
}

fn find_files(root: &Path, split: &SplitSpec) -> Result<(PathBuf, PathBuf), DatasetError> {
    let name = match split {
        SplitSpec::Name(name) => name,
        SplitSpec::Files(names) => {
            let mut found = files::listed_files(root, split, names)?.into_iter();
            return match (found.next(), found.next(), found.next()) {
                (Some(images), Some(labels), None) => Ok((images, labels)),
                _ => Err(DatasetError::Setting {
                    key: "data.train".into(),
                    found: format!(
                        "lists {} files: expected the images and the labels",
                        names.len()
                    ),
                }),
            };
        }
    };
    for folder in [root.to_path_buf(), root.join("stl10_binary")] {
        let images = folder.join(format!("{name}_X.bin"));
        let labels = folder.join(format!("{name}_y.bin"));
        if files::is_file(&images)? && files::is_file(&labels)? {
            return Ok((images, labels));
        }
    }
    Err(DatasetError::SplitMissing {
        split: name.clone(),
        path: root.into(),
        expected: format!("`{name}_X.bin` and `{name}_y.bin`"),
    })
}

struct Stl10 {
    file: PlacedFile,
}

impl Source for Stl10 {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let mut planes = [0u8; RECORD];
        let offset = u64::from(index) * RECORD as u64;
        self.file.read_named(&mut planes, offset)?;
        for (at, pixel) in image.reshape(SIZE).chunks_exact_mut(3).enumerate() {
            let (y, x) = (at / SIDE, at % SIDE);
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = planes[channel * PLANE + x * SIDE + y];
            }
        }
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        format!("`{}` image {index}", self.file.name())
    }
}
