//! A folder per class: `<split>/<class>/.../*.jpg`, as ImageNet and most people's own data have it. Tiny-ImageNet's
//! `val` with its `val_annotations.txt` is understood too.
//!
//! Classes are the folders of the train split in the order of their names' bytes, samples the files in that of their
//! paths: what torchvision's `ImageFolder` does.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fetched, Opened, Source, count_classes};
use crate::files;
use crate::{DataSpec, DatasetError, Image, ImageError, SplitSpec};

/// What is taken for an image by its name. Some of these are not decoded: better a sample that is named as bad than one
/// that is passed over in silence.
const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "tif", "tiff",
];
const ANNOTATIONS: &str = "val_annotations.txt";
/// Deeper than any real layout; a loop of links ends here.
const MAX_DEPTH: usize = 16;

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let (folder, name) = split_folder(root, split)?;
    let classes = class_folders(root, spec, &folder)?;
    let annotations = folder.join(ANNOTATIONS);
    let found = if annotations.is_file() {
        annotated(&folder, &annotations, &classes)?
    } else {
        by_folder(&folder, &classes)?
    };
    if found.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: name.into(),
            path: root.into(),
        });
    }
    let (paths, labels): (Vec<PathBuf>, Vec<u32>) = found.into_iter().unzip();
    let paths: Arc<[PathBuf]> = paths.into();
    let source = Images {
        root: root.into(),
        paths: Arc::clone(&paths),
    };
    let n_classes = count_classes(spec, classes.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names: classes
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect(),
        n_classes,
        uniform_size: None,
        files: paths,
    })
}

fn split_folder<'a>(root: &Path, split: &'a SplitSpec) -> Result<(PathBuf, &'a str), DatasetError> {
    let name = match split {
        SplitSpec::Name(name) => name.as_str(),
        SplitSpec::Files(names) => match names.as_slice() {
            [name] => name.as_str(),
            _ => {
                return Err(DatasetError::Setting {
                    key: "data.train".into(),
                    found: format!(
                        "lists {} names: a split of an image folder is one folder",
                        names.len()
                    ),
                });
            }
        },
    };
    let folder = root.join(name);
    if folder.is_dir() {
        return Ok((folder, name));
    }
    Err(DatasetError::SplitMissing {
        split: name.into(),
        path: root.into(),
        expected: format!("the folder `{name}` with a folder per class"),
    })
}

/// The classes are those of the train split, so that a class that evaluation lacks does not move the others.
fn class_folders(
    root: &Path,
    spec: &DataSpec,
    folder: &Path,
) -> Result<Vec<OsString>, DatasetError> {
    let train = match &spec.train {
        SplitSpec::Name(name) => root.join(name),
        SplitSpec::Files(names) => names
            .first()
            .map_or_else(|| folder.into(), |name| root.join(name)),
    };
    let from = if train.is_dir() { &train } else { folder };
    let mut names: Vec<OsString> = files::entries(from)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name().map(OsStr::to_os_string))
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .collect();
    names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    Ok(names)
}

fn by_folder(folder: &Path, classes: &[OsString]) -> Result<Vec<(PathBuf, u32)>, DatasetError> {
    let known: HashMap<&OsStr, u32> = classes
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_os_str(), i as u32))
        .collect();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = files::entries(folder)?
        .into_iter()
        .filter(|path| path.is_dir() && !is_hidden(path))
        .collect();
    folders.sort_by(|a, b| {
        a.as_os_str()
            .as_encoded_bytes()
            .cmp(b.as_os_str().as_encoded_bytes())
    });
    for path in folders {
        let Some(&label) = path.file_name().and_then(|name| known.get(name)) else {
            return Err(DatasetError::Label {
                place: format!("folder `{}`", path.display()),
                found: "it is no class: the train split has no folder of this name".into(),
            });
        };
        let mut images = Vec::new();
        collect_images(&path, 0, &mut images)?;
        images.sort_by(|a, b| {
            a.as_os_str()
                .as_encoded_bytes()
                .cmp(b.as_os_str().as_encoded_bytes())
        });
        found.extend(images.into_iter().map(|image| (image, label)));
    }
    Ok(found)
}

fn collect_images(
    folder: &Path,
    depth: usize,
    images: &mut Vec<PathBuf>,
) -> Result<(), DatasetError> {
    for path in files::entries(folder)? {
        if is_hidden(&path) {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                collect_images(&path, depth + 1, images)?;
            }
        } else if is_image(&path) {
            images.push(path);
        }
    }
    Ok(())
}

/// Tiny-ImageNet's `val`: `images/val_0.JPEG` and so on, in the order of the annotations: file, class, box.
fn annotated(
    folder: &Path,
    annotations: &Path,
    classes: &[OsString],
) -> Result<Vec<(PathBuf, u32)>, DatasetError> {
    let text = std::fs::read_to_string(annotations).map_err(|source| DatasetError::Io {
        action: "read",
        path: annotations.into(),
        source,
    })?;
    let malformed = |line: usize, found: String| DatasetError::Malformed {
        path: annotations.into(),
        format: "Tiny-ImageNet annotations",
        found: format!("line {}: {found}", line + 1),
    };
    let mut found = Vec::new();
    for (line_index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(malformed(line_index, "expected a file and a class".into()));
        };
        // A name is a name: what climbs out of the folder is not one.
        if file.is_empty() || file.contains(['/', '\\']) || file == ".." {
            return Err(malformed(line_index, format!("`{file}` is no file name")));
        }
        let label = classes.binary_search_by(|name| name.as_encoded_bytes().cmp(class.as_bytes()));
        let label = label.map_err(|_| {
            malformed(
                line_index,
                format!("`{class}` is no class of the train split"),
            )
        })?;
        found.push((folder.join("images").join(file), label as u32));
    }
    Ok(found)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or("");
    EXTENSIONS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(extension))
}

struct Images {
    root: PathBuf,
    paths: Arc<[PathBuf]>,
}

impl Source for Images {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError> {
        image.encoded.clear();
        let mut file = File::open(&self.paths[index as usize]).map_err(ImageError::Io)?;
        file.read_to_end(&mut image.encoded)
            .map_err(ImageError::Io)?;
        Ok(Fetched::Encoded)
    }

    fn place(&self, index: u32) -> String {
        let path = &self.paths[index as usize];
        format!(
            "`{}`",
            path.strip_prefix(&self.root).unwrap_or(path).display()
        )
    }
}
