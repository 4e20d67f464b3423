//! MNIST and its kin (Fashion-MNIST, KMNIST): idx files, plain or gzipped. They are small, so they are held in memory.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Fetched, Opened, Source, count_classes};
use crate::files;
use crate::{DataSpec, DatasetError, Image, ImageError, ImageSize, SplitSpec};

const FORMAT: &str = "idx";

const FASHION: &[&str] = &[
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
const DIGITS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

pub(super) fn open_digits(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, DIGITS)
}

pub(super) fn open_fashion(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, FASHION)
}

fn open(spec: &DataSpec, split: &SplitSpec, names: &[&str]) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let (images_path, labels_path) = find_files(root, split)?;
    let (images, [n_samples, height, width]) = read_idx::<3>(&images_path)?;
    let (labels, [n_labels]) = read_idx::<1>(&labels_path)?;
    if n_samples != n_labels {
        return Err(malformed(
            &labels_path,
            format!(
                "it holds {n_labels} labels, but `{}` holds {n_samples} images",
                files::file_name(&images_path)
            ),
        ));
    }
    if n_samples == 0 {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let labels: Vec<u32> = labels.into_iter().map(u32::from).collect();
    let size = ImageSize {
        height,
        width,
        channels: 1,
    };
    let source = Idx {
        file: files::file_name(&images_path),
        images,
        size,
        channels: spec.channels,
    };
    let n_classes = count_classes(spec, names.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names: names.iter().map(|&name| name.to_owned()).collect(),
        n_classes,
        uniform_size: Some(ImageSize {
            channels: spec.channels.unwrap_or(1),
            ..size
        }),
        files: vec![images_path, labels_path].into(),
    })
}

fn find_files(root: &Path, split: &SplitSpec) -> Result<(PathBuf, PathBuf), DatasetError> {
    let prefix = match split {
        SplitSpec::Files(names) => {
            let [images, labels] = names.as_slice() else {
                return Err(DatasetError::Setting {
                    key: "data.train".into(),
                    found: format!(
                        "lists {} files: expected the images and the labels",
                        names.len()
                    ),
                });
            };
            let find = |name: &String| files::listed_files(root, split, std::slice::from_ref(name));
            return Ok((find(images)?.remove(0), find(labels)?.remove(0)));
        }
        SplitSpec::Name(name) if name == "test" => "t10k",
        SplitSpec::Name(name) => name,
    };
    let find = |what: &str| {
        // As published, and as some archives unpack them.
        let names = [
            format!("{prefix}-{what}-ubyte"),
            format!("{prefix}-{}-ubyte", what.replacen("-", ".", 1)),
        ];
        let folders = [
            root.to_path_buf(),
            root.join("MNIST/raw"),
            root.join("FashionMNIST/raw"),
        ];
        let paths = folders
            .iter()
            .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        let found = paths
            .flat_map(|path| [path.clone(), path.with_added_extension("gz")])
            .find(|path| path.is_file());
        found.ok_or_else(|| DatasetError::SplitMissing {
            split: split.to_string(),
            path: root.into(),
            expected: format!("`{}` or `{}.gz`", names[0], names[0]),
        })
    };
    Ok((find("images-idx3")?, find("labels-idx1")?))
}

/// The body of an idx file of bytes with `N` dimensions, and these.
fn read_idx<const N: usize>(path: &Path) -> Result<(Vec<u8>, [usize; N]), DatasetError> {
    let io_error = |source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    };
    let mut bytes = fs::read(path).map_err(io_error)?;
    let mut head = [0u8; 16];
    let head = &mut head[..4 + 4 * N];
    let gzipped = bytes.starts_with(&[0x1F, 0x8B]);
    let mut body = Vec::new();
    if gzipped {
        let mut unpacked = MultiGzDecoder::new(bytes.as_slice());
        unpacked.read_exact(head).map_err(io_error)?;
        let dimensions = parse_head::<N>(path, head)?;
        // No more is unpacked than the header asks for, and nothing is reserved on its word alone.
        let expected = n_bytes(path, &dimensions)?;
        unpacked
            .take(expected + 1)
            .read_to_end(&mut body)
            .map_err(io_error)?;
        return checked_body(path, body, dimensions);
    }
    if bytes.len() < head.len() {
        return Err(malformed(
            path,
            format!("it is {} bytes, shorter than its header", bytes.len()),
        ));
    }
    head.copy_from_slice(&bytes[..head.len()]);
    let dimensions = parse_head::<N>(path, head)?;
    bytes.drain(..head.len());
    checked_body(path, bytes, dimensions)
}

fn parse_head<const N: usize>(path: &Path, head: &[u8]) -> Result<[usize; N], DatasetError> {
    let word = |i: usize| {
        u32::from_be_bytes([
            head[i * 4],
            head[i * 4 + 1],
            head[i * 4 + 2],
            head[i * 4 + 3],
        ])
    };
    let expected = 0x0800 + N as u32; // unsigned bytes, N dimensions
    if word(0) != expected {
        return Err(malformed(
            path,
            format!(
                "expected the magic number {expected:#010x}, found {:#010x}",
                word(0)
            ),
        ));
    }
    Ok(std::array::from_fn(|i| word(i + 1) as usize))
}

fn n_bytes<const N: usize>(path: &Path, dimensions: &[usize; N]) -> Result<u64, DatasetError> {
    let product = dimensions
        .iter()
        .try_fold(1u64, |product, &n| product.checked_mul(n as u64));
    product
        .filter(|&n| n < 1 << 40)
        .ok_or_else(|| malformed(path, format!("its header claims {dimensions:?} values")))
}

fn checked_body<const N: usize>(
    path: &Path,
    body: Vec<u8>,
    dimensions: [usize; N],
) -> Result<(Vec<u8>, [usize; N]), DatasetError> {
    let expected = n_bytes(path, &dimensions)?;
    let found = body.len() as u64;
    if found != expected {
        let found = if found > expected {
            "more".into()
        } else {
            found.to_string()
        };
        return Err(malformed(
            path,
            format!("expected {expected} bytes after the header, found {found}"),
        ));
    }
    if dimensions[0] > 0 && expected == 0 {
        return Err(malformed(
            path,
            format!("its header claims images of {dimensions:?} values"),
        ));
    }
    Ok((body, dimensions))
}

fn malformed(path: &Path, found: String) -> DatasetError {
    DatasetError::Malformed {
        path: path.into(),
        format: FORMAT,
        found,
    }
}

struct Idx {
    file: String,
    images: Vec<u8>,
    size: ImageSize,
    channels: Option<usize>,
}

impl Source for Idx {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError> {
        let n = self.size.n_bytes();
        image
            .reshape(self.size)
            .copy_from_slice(&self.images[index as usize * n..][..n]);
        if self.channels == Some(3) {
            crate::pixels::repeat_grey(image);
        }
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        format!("`{}` image {index}", self.file)
    }
}
