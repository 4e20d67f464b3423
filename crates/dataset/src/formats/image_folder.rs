//! A folder per class: `<split>/<class>/.../*.jpg`, as ImageNet and most people's own data have it. Tiny-ImageNet's
//! `val` with its `val_annotations.txt` is understood too.
//!
//! Classes are the folders of the train split in the order of their names' bytes, samples the files in the order that
//! torchvision's `ImageFolder` gives them: the files of a folder before those of the folders below it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes;
use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::codec::Codec;
use crate::files::{self, Entry};
use crate::{DataSpec, DatasetError, Image, ImageError, OnBad, SplitSpec};

/// What is taken for an image by its name.
const DECODED: &[&str] = &["jpg", "jpeg", "png", "webp"];
/// Images too, but not decoded. They keep their places all the same: an index must not depend on what is decoded.
const UNDECODED: &[&str] = &["bmp", "gif", "ppm", "pgm", "tif", "tiff"];
/// What lies beside images and is no news.
const COMPANIONS: &[&str] = &[
    "txt", "json", "csv", "tsv", "xml", "md", "yaml", "yml", "db", "ini",
];
const ANNOTATIONS: &str = "val_annotations.txt";
/// Deeper than any real layout; a loop of links ends here.
const MAX_DEPTH: usize = 16;

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let (folder, name) = split_folder(root, split)?;
    let classes = class_folders(root, spec, &folder)?;
    let annotations = folder.join(ANNOTATIONS);
    let mut seen = Seen::default();
    let found = match files::read_text(&annotations)? {
        Some(text) => annotated(&folder, &annotations, &text, &classes)?,
        None => by_folder(&folder, &classes, &mut seen)?,
    };
    if found.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: name.into(),
            path: root.into(),
        });
    }
    let (paths, labels): (Vec<PathBuf>, Vec<u32>) = found.into_iter().unzip();
    let mut notes = seen.notes(root);
    if let Some(undecoded) = undecoded(&paths, root)? {
        if spec.on_bad == OnBad::Error {
            return Err(DatasetError::Undecoded {
                split: name.into(),
                found: undecoded,
            });
        }
        notes.push(format!(
            "images of kinds that are not decoded are bad samples: {undecoded}"
        ));
    }
    let class_names = names(&classes);
    if root.join(spec.train.to_string()) == folder {
        notes.extend(about_classes(&class_names, &labels));
    }
    let paths: Arc<[PathBuf]> = paths.into();
    let source = Images {
        root: root.into(),
        paths: Arc::clone(&paths),
        max_bytes: spec.max_bytes(),
    };
    let n_classes = count_classes(spec, classes.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names,
        n_classes,
        uniform_size: None,
        files: paths,
        notes,
    })
}

pub(super) fn class_names(spec: &DataSpec, split: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    let (folder, _) = split_folder(&spec.root, split)?;
    Ok(names(&class_folders(&spec.root, spec, &folder)?))
}

fn names(classes: &[OsString]) -> Vec<String> {
    let names = classes.iter();
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// What is odd about the classes of a train split.
fn about_classes(names: &[String], labels: &[u32]) -> Vec<String> {
    let mut notes = Vec::from_iter(classes::numbers_as_text(names));
    let mut counts = vec![0u64; names.len()];
    for &label in labels {
        counts[label as usize] += 1;
    }
    let empty: Vec<&String> = names
        .iter()
        .zip(&counts)
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| name)
        .collect();
    if let Some(first) = empty.first() {
        notes.push(match empty.len() {
            1 => format!("class `{first}` has no image"),
            n => format!("{n} classes have no image, the first is `{first}`"),
        });
    }
    notes
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
    match files::is_folder(&folder)? {
        true => Ok((folder, name)),
        false => Err(DatasetError::SplitMissing {
            split: name.into(),
            path: root.into(),
            expected: format!("the folder `{name}` with a folder per class"),
        }),
    }
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
    let from = match files::is_folder(&train)? {
        true => &train,
        false => folder,
    };
    let entries = files::sorted_entries(from)?.into_iter();
    let folders = entries.filter(|entry| entry.is_folder && !is_droppings(entry));
    Ok(folders.map(|entry| entry.name).collect())
}

fn by_folder(
    folder: &Path,
    classes: &[OsString],
    seen: &mut Seen,
) -> Result<Vec<(PathBuf, u32)>, DatasetError> {
    let known: HashMap<&OsStr, u32> = classes.iter().map(OsString::as_os_str).zip(0..).collect();
    let mut found = Vec::new();
    let mut outside = Vec::new();
    for entry in files::sorted_entries(folder)? {
        if is_droppings(&entry) {
            seen.leave_out(&entry);
        } else if !entry.is_folder {
            outside.extend(is_image(&entry.name).then_some(entry.path));
        } else if let Some(&label) = known.get(entry.name.as_os_str()) {
            let images = images_below(&entry.path, seen)?;
            found.extend(images.into_iter().map(|image| (image, label)));
        } else {
            return Err(DatasetError::Label {
                place: format!("folder `{}`", entry.path.display()),
                found: "it is no class: the train split has no folder of this name".into(),
            });
        }
    }
    match (outside.first(), found.is_empty()) {
        (Some(_), true) => Err(DatasetError::Layout {
            path: folder.into(),
            found: format!(
                "holds {} images itself, expected a folder per class",
                outside.len()
            ),
        }),
        (first, _) => {
            seen.outside = outside.len();
            seen.first_outside = first.cloned();
            Ok(found)
        }
    }
}

/// The images of one class in the order of torchvision's `make_dataset`: folders by their whole path, so that `a-b` comes
/// before `a/c`, and the files of each by name. Names are compared by bytes, as Python compares code points.
fn images_below(class: &Path, seen: &mut Seen) -> Result<Vec<PathBuf>, DatasetError> {
    let mut folders = vec![(Vec::new(), class.to_path_buf(), 0)];
    let mut walked: BTreeMap<Vec<u8>, Vec<PathBuf>> = BTreeMap::new();
    while let Some((key, folder, depth)) = folders.pop() {
        let mut images = Vec::new();
        for entry in files::sorted_entries(&folder)? {
            if is_droppings(&entry) {
                seen.leave_out(&entry);
            } else if entry.is_folder {
                let below = [&key[..], b"/", entry.name.as_encoded_bytes()].concat();
                if depth < MAX_DEPTH {
                    folders.push((below, entry.path, depth + 1));
                }
            } else if is_image(&entry.name) {
                images.push(entry.path);
            } else {
                seen.leave_out(&entry);
            }
        }
        walked.insert(key, images);
    }
    Ok(walked.into_values().flatten().collect())
}

/// What was seen in a split and is not one of its samples.
#[derive(Default)]
struct Seen {
    /// How many of a kind, and the first.
    left_out: BTreeMap<String, (usize, PathBuf)>,
    /// Images that lie beside the class folders.
    outside: usize,
    first_outside: Option<PathBuf>,
}

impl Seen {
    fn leave_out(&mut self, entry: &Entry) {
        let extension = extension(&entry.name);
        let kind = match (entry.is_folder, extension) {
            (true, _) => format!("folder `{}`", entry.shown()),
            (false, _) if entry.is_hidden() && !is_image(&entry.name) => return,
            (false, _) if entry.is_hidden() => "hidden images".into(),
            (false, None) => "files without an extension".into(),
            (false, Some(extension)) if is_one_of(extension, COMPANIONS) => return,
            (false, Some(extension)) => format!("`.{}`", extension.to_ascii_lowercase()),
        };
        let place = self.left_out.entry(kind);
        place.or_insert_with(|| (0, entry.path.clone())).0 += 1;
    }

    fn notes(&self, root: &Path) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.left_out.is_empty() {
            let kinds = self.left_out.iter();
            let kinds = kinds.map(|(kind, (n, first))| counted(kind, *n, first, root));
            let kinds: Vec<String> = kinds.collect();
            notes.push(format!(
                "left out, being no images by name: {}",
                kinds.join(", ")
            ));
        }
        if let Some(first) = &self.first_outside {
            let found = counted("images", self.outside, first, root);
            notes.push(format!("left out, lying beside the class folders: {found}"));
        }
        notes
    }
}

fn counted(kind: &str, n: usize, first: &Path, root: &Path) -> String {
    let first = first.strip_prefix(root).unwrap_or(first);
    format!("{kind} ({n}, the first is `{}`)", first.display())
}

/// The images of kinds that are not decoded, by their names and by what they begin with: a JPEG called `.bmp` is none.
fn undecoded(paths: &[PathBuf], root: &Path) -> Result<Option<String>, DatasetError> {
    let mut kinds: BTreeMap<String, (usize, &PathBuf)> = BTreeMap::new();
    for path in paths {
        let Some(extension) = path.file_name().and_then(extension) else {
            continue;
        };
        if is_one_of(extension, UNDECODED) && !begins_as_decoded(path)? {
            let kind = format!("`.{}`", extension.to_ascii_lowercase());
            kinds.entry(kind).or_insert((0, path)).0 += 1;
        }
    }
    let kinds = kinds.iter();
    let kinds = kinds.map(|(kind, (n, first))| counted(kind, *n, first, root));
    let kinds: Vec<String> = kinds.collect();
    Ok((!kinds.is_empty()).then(|| kinds.join(", ")))
}

fn begins_as_decoded(path: &Path) -> Result<bool, DatasetError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.map_err(|source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    })?;
    Ok(Codec::of(&head).is_ok())
}

/// Tiny-ImageNet's `val`: `images/val_0.JPEG` and so on, in the order of the annotations: file, class, box.
fn annotated(
    folder: &Path,
    annotations: &Path,
    text: &str,
    classes: &[OsString],
) -> Result<Vec<(PathBuf, u32)>, DatasetError> {
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

/// What systems and tools leave behind: names that begin with a dot, and the folder that macOS packs into archives.
fn is_droppings(entry: &Entry) -> bool {
    entry.is_hidden() || entry.name == "__MACOSX"
}

fn is_image(name: &OsStr) -> bool {
    extension(name)
        .is_some_and(|extension| is_one_of(extension, DECODED) || is_one_of(extension, UNDECODED))
}

fn extension(name: &OsStr) -> Option<&str> {
    Path::new(name).extension().and_then(OsStr::to_str)
}

fn is_one_of(extension: &str, known: &[&str]) -> bool {
    known
        .iter()
        .any(|known| known.eq_ignore_ascii_case(extension))
}

struct Images {
    root: PathBuf,
    paths: Arc<[PathBuf]>,
    max_bytes: u64,
}

impl Source for Images {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let path = &self.paths[index as usize];
        image.encoded.clear();
        // Even a file that is not there: it was when the split was listed.
        let io_error = |source| DatasetError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let mut file = File::open(path).map_err(io_error)?;
        let (bytes, limit) = (file.metadata().map_err(io_error)?.len(), self.max_bytes);
        if bytes > limit {
            return Err(ImageError::TooManyBytes { bytes, limit }.into());
        }
        file.read_to_end(&mut image.encoded).map_err(io_error)?;
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
