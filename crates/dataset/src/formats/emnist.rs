//! EMNIST (Cohen et al. 2017): six sets of handwritten digits and letters under names of their own, as idx files:
//! `emnist-<set>-<train|test>-images-idx3-ubyte`, plain or gzipped. A split is named by both: `balanced-train`.
//!
//! Every image lies transposed in its file. torchvision passes it on so, and teachers were trained on
//! that; `transpose = true` sets it upright.

use std::path::{Path, PathBuf};

use super::mnist::{self, IdxFiles};
use super::opened::Opened;
use crate::files;
use crate::{DataSpec, DatasetError, SplitSpec};

/// One of the six sets: its name, its classes (the characters of its mapping file), and the label of the first.
struct Set {
    name: &'static str,
    classes: &'static str,
    first: u8,
}

const BY_CLASS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Fifteen letters look alike in both cases, and are one class each.
const MERGED: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt";

const SETS: &[Set] = &[
    Set {
        name: "balanced",
        classes: MERGED,
        first: 0,
    },
    Set {
        name: "byclass",
        classes: BY_CLASS,
        first: 0,
    },
    Set {
        name: "bymerge",
        classes: MERGED,
        first: 0,
    },
    Set {
        name: "digits",
        classes: "0123456789",
        first: 0,
    },
    // A letter of either case is one class. These labels alone begin at 1.
    Set {
        name: "letters",
        classes: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        first: 1,
    },
    Set {
        name: "mnist",
        classes: "0123456789",
        first: 0,
    },
];

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let (set, paths) = find_files(root, split)?;
    let labels_file = files::file_name(&paths[1]);
    let idx = IdxFiles::read(spec, split, paths)?;
    let place = |index: u32| format!("`{labels_file}` label {index}");
    let labels = classes_of(&idx.labels, set, place)?;
    let mut opened = idx.opened(spec, labels, names(set), spec.transpose == Some(true))?;
    if spec.transpose.is_none() {
        opened.notes.push(
            "images lie transposed, as torchvision gives them; `data.transpose = true` sets them upright, `false` silences this".into(),
        );
    }
    Ok(opened)
}

pub(super) fn class_names(spec: &DataSpec, split: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    Ok(names(find_files(&spec.root, split)?.0))
}

fn names(set: &Set) -> Vec<String> {
    set.classes.chars().map(String::from).collect()
}

fn classes_of(
    labels: &[u8],
    set: &Set,
    place: impl Fn(u32) -> String,
) -> Result<Vec<u32>, DatasetError> {
    let labels = labels.iter().enumerate();
    let classes = labels.map(|(index, &label)| {
        let class = label.checked_sub(set.first).map(u32::from);
        class.ok_or_else(|| DatasetError::Label {
            place: format!("sample {index} ({})", place(index as u32)),
            found: format!(
                "the label is `{label}`, expected {} to {}",
                set.first,
                set.classes.len()
            ),
        })
    });
    classes.collect()
}

/// The split's set, and its images and labels.
fn find_files(
    root: &Path,
    split: &SplitSpec,
) -> Result<(&'static Set, [PathBuf; 2]), DatasetError> {
    match split {
        SplitSpec::Files(listed) => {
            let paths = mnist::listed(root, split, listed)?;
            Ok((set_of_file(&paths[0])?, paths))
        }
        SplitSpec::Name(name) => find_by_name(root, name),
    }
}

/// The set that a file's name tells.
fn set_of_file(path: &Path) -> Result<&'static Set, DatasetError> {
    let set = files::file_name(path)
        .split('-')
        .nth(1)
        .and_then(set_called);
    set.ok_or_else(|| DatasetError::Layout {
        path: path.into(),
        found: "names none of EMNIST's sets: expected `emnist-<set>-<split>-images-idx3-ubyte`"
            .into(),
    })
}

/// Files of `emnist-<split>-...`, where the archive has them and where torchvision unpacks it.
fn find_by_name(root: &Path, split: &str) -> Result<(&'static Set, [PathBuf; 2]), DatasetError> {
    let missing = |expected: String| DatasetError::SplitMissing {
        split: split.into(),
        path: root.into(),
        expected,
    };
    let set = split.split_once('-').and_then(|(set, _)| set_called(set));
    let set = set.ok_or_else(|| {
        let known: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        missing(format!(
            "the name of a set and a split, such as `balanced-train`; sets are {}",
            known.join(", ")
        ))
    })?;
    let folders = ["", "gzip", "EMNIST/raw", "EMNIST/raw/gzip"].map(|below| root.join(below));
    let paths = mnist::idx_pair(&folders, &format!("emnist-{split}"))?;
    let paths = paths.ok_or_else(|| {
        missing(format!(
            "`emnist-{split}-images-idx3-ubyte` and `emnist-{split}-labels-idx1-ubyte`, or these with `.gz`"
        ))
    })?;
    Ok((set, paths))
}

/// The set of this name, if it is one of the six.
fn set_called(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}
