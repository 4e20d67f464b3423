//! MNIST and its kin (Fashion-MNIST, KMNIST): idx files, plain or gzipped. They are small, so they are held in memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::files;
use crate::{DataSpec, DatasetError, Image, ImageSize, SplitSpec};

const FORMAT: &str = "idx";

/// One of the sets that are published under MNIST's file names.
struct Kin {
    /// Where torchvision unpacks it. Two of them lie beside each other there, so the folder's name tells them apart.
    subfolder: &'static str,
    names: &'static [&'static str],
}

const DIGITS: Kin = Kin {
    subfolder: "MNIST/raw",
    names: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
};
const FASHION: Kin = Kin {
    subfolder: "FashionMNIST/raw",
    names: &[
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
    ],
};
const KUZUSHIJI: Kin = Kin {
    subfolder: "KMNIST/raw",
    names: &["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
};

pub(super) fn open_digits(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &DIGITS)
}

pub(super) fn open_fashion(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &FASHION)
}

pub(super) fn open_kuzushiji(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    open(spec, split, &KUZUSHIJI)
}

pub(super) fn digit_names(_: &DataSpec, _: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    Ok(owned(DIGITS.names))
}

pub(super) fn fashion_names(_: &DataSpec, _: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    Ok(owned(FASHION.names))
}

pub(super) fn kuzushiji_names(_: &DataSpec, _: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    Ok(owned(KUZUSHIJI.names))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn open(spec: &DataSpec, split: &SplitSpec, kin: &Kin) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let set = IdxFiles::read(spec, split, find_files(root, split, kin)?)?;
    let labels = set.labels.iter().map(|&label| u32::from(label)).collect();
    set.opened(spec, labels, owned(kin.names), false)
}

/// The images and labels of one split, in memory.
pub(super) struct IdxFiles {
    paths: [PathBuf; 2],
    images: Vec<u8>,
    height: usize,
    width: usize,
    pub(super) labels: Vec<u8>,
}

impl IdxFiles {
    pub(super) fn read(
        spec: &DataSpec,
        split: &SplitSpec,
        paths: [PathBuf; 2],
    ) -> Result<Self, DatasetError> {
        let [images_path, labels_path] = &paths;
        let (images, [n_samples, height, width]) = read_idx::<3>(spec, images_path)?;
        let (labels, [n_labels]) = read_idx::<1>(spec, labels_path)?;
        if n_samples != n_labels {
            return Err(malformed(
                labels_path,
                format!(
                    "it holds {n_labels} labels, but `{}` holds {n_samples} images",
                    files::file_name(images_path)
                ),
            ));
        }
        if n_samples == 0 {
            return Err(DatasetError::EmptySplit {
                split: split.to_string(),
                path: spec.root.clone(),
            });
        }
        Ok(Self {
            paths,
            images,
            height,
            width,
            labels,
        })
    }

    /// The split with its labels as classes, its images as they lie or transposed.
    pub(super) fn opened(
        self,
        spec: &DataSpec,
        labels: Vec<u32>,
        class_names: Vec<String>,
        transposed: bool,
    ) -> Result<Opened, DatasetError> {
        let size = ImageSize {
            height: self.height,
            width: self.width,
            channels: 1,
        };
        let source = Idx {
            file: files::file_name(&self.paths[0]),
            images: self.images,
            size,
            transposed,
            channels: spec.channels,
        };
        let n_classes = count_classes(spec, class_names.len(), &labels, |i| source.place(i))?;
        let (height, width) = match transposed {
            true => (self.width, self.height),
            false => (self.height, self.width),
        };
        Ok(Opened {
            source: Box::new(source),
            labels,
            class_names,
            n_classes,
            uniform_size: Some(ImageSize {
                height,
                width,
                channels: spec.channels.unwrap_or(1),
            }),
            files: self.paths.into(),
            notes: Vec::new(),
        })
    }
}

fn find_files(root: &Path, split: &SplitSpec, kin: &Kin) -> Result<[PathBuf; 2], DatasetError> {
    let prefix = match split {
        SplitSpec::Files(names) => return listed(root, split, names),
        SplitSpec::Name(name) if name == "test" => "t10k",
        SplitSpec::Name(name) => name,
    };
    let folders = [root.to_path_buf(), root.join(kin.subfolder)];
    idx_pair(&folders, prefix)?.ok_or_else(|| DatasetError::SplitMissing {
        split: split.to_string(),
        path: root.into(),
        expected: format!(
            "`{prefix}-images-idx3-ubyte` and `{prefix}-labels-idx1-ubyte`, or these with `.gz`"
        ),
    })
}

/// The two files of a split that lists them.
pub(super) fn listed(
    root: &Path,
    split: &SplitSpec,
    names: &[String],
) -> Result<[PathBuf; 2], DatasetError> {
    let paths = files::listed_files(root, split, names)?;
    paths.try_into().map_err(|_| DatasetError::Setting {
        key: "data.train".into(),
        found: format!(
            "lists {} files: expected the images and the labels",
            names.len()
        ),
    })
}

/// The images and the labels of a prefix, as published and as some archives unpack them, in the first folder that has
/// both.
pub(super) fn idx_pair(
    folders: &[PathBuf],
    prefix: &str,
) -> Result<Option<[PathBuf; 2]>, DatasetError> {
    for folder in folders {
        let find = |what: &str| {
            for what in [what.to_owned(), what.replacen('-', ".", 1)] {
                for end in ["", ".gz"] {
                    let path = folder.join(format!("{prefix}-{what}-ubyte{end}"));
                    if files::is_file(&path)? {
                        return Ok::<_, DatasetError>(Some(path));
                    }
                }
            }
            Ok(None)
        };
        if let (Some(images), Some(labels)) = (find("images-idx3")?, find("labels-idx1")?) {
            return Ok(Some([images, labels]));
        }
    }
    Ok(None)
}

/// The body of an idx file of bytes with `N` dimensions, and these. No more is read or unpacked than the header asks for,
/// and what that is is checked before anything is reserved.
fn read_idx<const N: usize>(
    spec: &DataSpec,
    path: &Path,
) -> Result<(Vec<u8>, [usize; N]), DatasetError> {
    let io_error = |source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    };
    let mut bytes = unpacked(path).map_err(io_error)?;
    let mut head = Vec::new();
    let n_head = 4 + 4 * N;
    bytes
        .by_ref()
        .take(n_head as u64)
        .read_to_end(&mut head)
        .map_err(io_error)?;
    if head.len() < n_head {
        return Err(malformed(
            path,
            format!("it is {} bytes, shorter than its header", head.len()),
        ));
    }
    let dimensions = parse_head::<N>(path, &head)?;
    let expected = n_bytes(path, &dimensions)?;
    let what = || format!("the contents of `{}`", path.display());
    spec.check_bytes(what, expected.into())?;
    let mut body = Vec::new();
    bytes
        .take(expected + 1)
        .read_to_end(&mut body)
        .map_err(io_error)?;
    checked_body(path, body, dimensions)
}

/// What the file holds, whether it is packed by gzip or not: its first bytes tell, as names do not.
fn unpacked(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(2).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(file);
    Ok(match magic == [0x1F, 0x8B] {
        true => Box::new(MultiGzDecoder::new(io::BufReader::new(whole))),
        false => Box::new(whole),
    })
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
    product.ok_or_else(|| malformed(path, format!("its header claims {dimensions:?} values")))
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
    /// As the file has it.
    size: ImageSize,
    transposed: bool,
    channels: Option<usize>,
}

impl Source for Idx {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let n = self.size.n_bytes();
        let pixels = &self.images[index as usize * n..][..n];
        let ImageSize { height, width, .. } = self.size;
        if self.transposed {
            let size = ImageSize {
                height: width,
                width: height,
                channels: 1,
            };
            for (at, value) in image.reshape(size).iter_mut().enumerate() {
                *value = pixels[at % height * width + at / height];
            }
        } else {
            image.reshape(self.size).copy_from_slice(pixels);
        }
        if self.channels == Some(3) {
            crate::pixels::repeat_grey(image);
        }
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        format!("`{}` image {index}", self.file)
    }
}
