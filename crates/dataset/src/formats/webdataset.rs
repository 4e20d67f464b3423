//! WebDataset: tar shards in which the members of a sample share a name up to the first dot: `0001.jpg` and `0001.cls`
//! (the class as a number) or `0001.json` (with a field `label`: a number, or the class's name).
//!
//! A shard's headers are read once, at opening, and its labels; images are then read at their place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::classes;
use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::files::{self, Cursor, PlacedFile};
use crate::shards::check_shards;
use crate::{DataSpec, DatasetError, Image, ImageError, SplitSpec};

const IMAGES: &[&str] = &["jpg", "jpeg", "png", "webp"];
/// What lies beside images and is no news.
const COMPANIONS: &[&str] = &["txt", "text", "npy", "pyd"];
/// One name per line: what CLIP-benchmark's datasets have beside their shards.
const NAMES_FILE: &str = "classnames.txt";
/// A label file is a number or a small object. One above this is something else.
const MAX_LABEL_BYTES: u64 = 1 << 20;
/// Shards that cannot be read at a place, and what makes them plain.
const PACKED: &[(&str, &str)] = &[
    (".tar.gz", "gunzip"),
    (".tgz", "gunzip"),
    (".tar.zst", "unzstd"),
    (".tar.xz", "unxz"),
    (".tar.bz2", "bunzip2"),
];

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split)?;
    check_shards(spec, split, &paths)?;
    let mut read = Split::read(&paths, spec)?;
    if read.labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let mut notes = read.notes();
    let class_names = read.number_classes(root)?;
    if read.are_names && *split == spec.train {
        notes.push(format!(
            "labels are names: the {} classes are numbered in the order of their bytes",
            class_names.len()
        ));
        notes.extend(classes::numbers_as_text(&class_names));
    }
    let Split {
        shards,
        members,
        labels,
        ..
    } = read;
    let source = Shards {
        shards,
        members,
        max_bytes: spec.max_bytes(),
    };
    let n_classes = count_classes(spec, class_names.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names,
        n_classes,
        uniform_size: None,
        files: paths.into(),
        notes,
    })
}

/// Only the labels tell the classes, so all of them are read.
pub(super) fn class_names(spec: &DataSpec, split: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    let paths = find_files(&spec.root, split)?;
    Split::read(&paths, spec)?.number_classes(&spec.root)
}

/// `<split>.tar`, `<split>-*.tar`, or these and any other shards in a folder of the split's name.
fn find_files(root: &Path, split: &SplitSpec) -> Result<Vec<PathBuf>, DatasetError> {
    let name = match split {
        SplitSpec::Files(files) => {
            let paths = files::listed_files(root, split, files)?;
            paths.iter().try_for_each(|path| refuse_packed(path))?;
            return Ok(paths);
        }
        SplitSpec::Name(name) => name,
    };
    let (whole, part) = (format!("{name}."), format!("{name}-"));
    for (folder, prefixes) in [
        (root.to_path_buf(), &[&whole, &part][..]),
        (root.join(name), &[&whole, &part]),
        (root.join(name), &[&String::new()]),
    ] {
        if let Some(set) = only_set(name, &folder, prefixes)? {
            return Ok(set);
        }
    }
    Err(DatasetError::SplitMissing {
        split: name.clone(),
        path: root.into(),
        expected: format!("`{name}.tar`, `{name}-*.tar` or shards in the folder `{name}`"),
    })
}

/// The shards in `folder` under one of `prefixes`, if it is there and has any; two sets of them are refused.
fn only_set(
    split: &str,
    folder: &Path,
    prefixes: &[&String],
) -> Result<Option<Vec<PathBuf>>, DatasetError> {
    if !files::is_folder(folder)? {
        return Ok(None);
    }
    let mut sets = Vec::new();
    for prefix in prefixes {
        let set = shards_named(folder, prefix)?;
        sets.extend((!set.is_empty()).then_some(set));
    }
    match sets.as_slice() {
        [] | [_] => Ok(sets.pop()),
        [first, second, ..] => Err(DatasetError::ShardSets {
            split: split.into(),
            path: folder.into(),
            found: format!(
                "`{}` and `{}`",
                files::file_name(&first[0]),
                files::file_name(&second[0])
            ),
        }),
    }
}

/// The plain shards of a folder whose names begin with `prefix`; one of which only a packed version is there is refused.
fn shards_named(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, DatasetError> {
    let entries = files::sorted_entries(folder)?.into_iter();
    let paths: Vec<PathBuf> = entries
        .filter(|entry| !entry.is_folder && !entry.is_hidden() && entry.shown().starts_with(prefix))
        .map(|entry| entry.path)
        .collect();
    let plain: HashSet<String> = paths.iter().map(|path| files::file_name(path)).collect();
    for path in &paths {
        let name = files::file_name(path);
        let unpacked = PACKED
            .iter()
            .find_map(|(end, _)| Some(format!("{}.tar", name.strip_suffix(end)?)));
        if unpacked.is_some_and(|name| !plain.contains(&name)) {
            refuse_packed(path)?;
        }
    }
    let is_shard = |path: &PathBuf| path.extension().is_some_and(|end| end == "tar");
    Ok(paths.into_iter().filter(is_shard).collect())
}

fn refuse_packed(path: &Path) -> Result<(), DatasetError> {
    let name = files::file_name(path);
    match PACKED.iter().find(|(end, _)| name.ends_with(end)) {
        None => Ok(()),
        Some((_, unpack)) => Err(DatasetError::Compressed {
            path: path.into(),
            unpack,
        }),
    }
}

/// All shards of a split.
#[derive(Default)]
struct Split {
    shards: Vec<PlacedFile>,
    members: Vec<Member>,
    /// Numbers; where the labels are names, positions in the order of their first appearance.
    labels: Vec<u32>,
    are_names: bool,
    positions: HashMap<String, u32>,
    /// What `class_name` calls a number.
    named: BTreeMap<u32, String>,
    /// Members that are neither images nor labels: how many of a kind, and the first.
    left_out: BTreeMap<String, (usize, String)>,
}

impl Split {
    fn read(paths: &[PathBuf], spec: &DataSpec) -> Result<Self, DatasetError> {
        let mut split = Self::default();
        for path in paths {
            let shard = PlacedFile::open(path.clone())?;
            let samples = Samples::read(&shard, &mut split.left_out)?;
            for sample in samples.in_order {
                let image = sample.image(&shard, &samples.unread)?;
                let label = sample.label(&shard, spec.label_column.as_deref())?;
                split.push_label(&shard, &sample.key, label)?;
                split.members.push(Member {
                    shard: split.shards.len() as u32,
                    key: sample.key,
                    place: image,
                });
            }
            split.shards.push(shard);
        }
        Ok(split)
    }

    fn push_label(
        &mut self,
        shard: &PlacedFile,
        key: &str,
        label: Label,
    ) -> Result<(), DatasetError> {
        let is_name = matches!(label, Label::Name(_));
        if !self.labels.is_empty() && is_name != self.are_names {
            let found =
                format!("sample `{key}` mixes labels that are numbers with labels that are names");
            return Err(malformed(shard, found));
        }
        self.are_names = is_name;
        let label = match label {
            Label::Number(number, None) => number,
            Label::Number(number, Some(name)) => {
                let known = self.named.entry(number).or_insert_with(|| name.clone());
                if *known != name {
                    let found =
                        format!("sample `{key}` calls class {number} `{name}`, another `{known}`");
                    return Err(malformed(shard, found));
                }
                number
            }
            Label::Name(name) => {
                let next = self.positions.len() as u32;
                *self.positions.entry(name).or_insert(next)
            }
        };
        self.labels.push(label);
        Ok(())
    }

    /// Brings labels that are names into the order of these, and says what the classes are called.
    fn number_classes(&mut self, root: &Path) -> Result<Vec<String>, DatasetError> {
        if self.are_names {
            let names = classes::from_names(self.positions.keys().map(String::as_str));
            let mut numbers = vec![0; names.len()];
            for (name, number) in names.iter().zip(0..) {
                numbers[self.positions[name] as usize] = number;
            }
            for label in &mut self.labels {
                *label = numbers[*label as usize];
            }
            return Ok(names);
        }
        let n_seen = self
            .labels
            .iter()
            .max()
            .map_or(0, |&label| label as usize + 1);
        if self.named.len() == n_seen {
            return Ok(self.named.values().cloned().collect());
        }
        Ok(files::names_in(&root.join(NAMES_FILE))?.unwrap_or_default())
    }

    fn notes(&self) -> Vec<String> {
        let kinds = self.left_out.iter();
        let kinds: Vec<String> = kinds
            .map(|(kind, (n, first))| format!("`.{kind}` ({n}, the first is `{first}`)"))
            .collect();
        match kinds.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "left out, being neither images nor labels: {}",
                kinds.join(", ")
            )],
        }
    }
}

/// Where an image lies.
struct Member {
    shard: u32,
    key: String,
    place: Place,
}

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    n_bytes: u64,
}

/// A sample's members by what follows the first dot of their names, in lower case.
#[derive(Default)]
struct Sample {
    key: String,
    images: Vec<(String, Place)>,
    labels: Vec<(String, Place)>,
}

enum Label {
    /// The class, and what `class_name` calls it.
    Number(u32, Option<String>),
    Name(String),
}

impl Sample {
    /// `0001.jpg`. A name with more dots, `img.0.jpg`, is a companion beside that (`0001.seg.png`), and the image where it
    /// is the only one.
    fn image(
        &self,
        shard: &PlacedFile,
        unread: &HashMap<String, String>,
    ) -> Result<Place, DatasetError> {
        let key = &self.key;
        let plain = |(extension, _): &&(String, Place)| !extension.contains('.');
        let found = match self.images.iter().filter(plain).count() {
            0 => self.images.as_slice(),
            1 => {
                return Ok(self
                    .images
                    .iter()
                    .find(plain)
                    .map_or(self.images[0].1, |found| found.1));
            }
            _ => return Err(malformed(shard, format!("sample `{key}` has two images"))),
        };
        match found {
            [(_, place)] => Ok(*place),
            [] => {
                let other = unread.get(key).map(|name| format!(", but `{name}`"));
                let kinds = IMAGES.join(", ");
                let found = format!(
                    "sample `{key}` has no image ({kinds}){}",
                    other.unwrap_or_default()
                );
                Err(malformed(shard, found))
            }
            [(first, _), (second, _), ..] => Err(malformed(
                shard,
                format!(
                    "`{key}.{first}` and `{key}.{second}` are one sample, because keys end at the first dot, and it has two images"
                ),
            )),
        }
    }

    /// `0001.cls` before `0001.json`, both before names with more dots.
    fn label(&self, shard: &PlacedFile, field: Option<&str>) -> Result<Label, DatasetError> {
        let key = &self.key;
        for dotted in [false, true] {
            for kind in ["cls", "json"] {
                let fits = |(extension, _): &&(String, Place)| {
                    last(extension) == kind && extension.contains('.') == dotted
                };
                let mut found = self.labels.iter().filter(fits);
                let (Some((extension, place)), more) = (found.next(), found.next()) else {
                    continue;
                };
                let name = format!("{key}.{extension}");
                if let Some((more, _)) = more {
                    let found = format!("`{name}` and `{key}.{more}` are two labels of one sample");
                    return Err(malformed(shard, found));
                }
                let wrong = |found: String| malformed(shard, format!("member `{name}`: {found}"));
                let text = read_label(shard, *place)?.map_err(wrong)?;
                let label = match kind {
                    "cls" => parse_class(&text).map(Some),
                    _ => parse_json(&text, field),
                };
                if let Some(label) = label.map_err(wrong)? {
                    return Ok(label);
                }
            }
        }
        Err(malformed(
            shard,
            format!("sample `{key}` has no label (cls or json)"),
        ))
    }
}

fn read_label(shard: &PlacedFile, place: Place) -> Result<Result<String, String>, DatasetError> {
    if place.n_bytes > MAX_LABEL_BYTES {
        return Ok(Err(format!(
            "it is {} bytes, a label has at most {MAX_LABEL_BYTES}",
            place.n_bytes
        )));
    }
    let mut bytes = vec![0; place.n_bytes as usize];
    shard.read_named(&mut bytes, place.offset)?;
    Ok(String::from_utf8(bytes).map_err(|error| error.to_string()))
}

/// The samples of one shard, in order of first appearance.
#[derive(Default)]
struct Samples {
    in_order: Vec<Sample>,
    positions: HashMap<String, usize>,
    names: HashSet<String>,
    /// By key, a member that is neither image nor label.
    unread: HashMap<String, String>,
}

impl Samples {
    fn read(
        shard: &PlacedFile,
        left_out: &mut BTreeMap<String, (usize, String)>,
    ) -> Result<Self, DatasetError> {
        check_end(shard)?;
        let mut samples = Self::default();
        let mut archive = tar::Archive::new(Cursor::new(shard, 0));
        let entries = archive.entries_with_seek();
        for entry in entries.map_err(|source| shard.io_error(source))? {
            let entry = entry.map_err(|error| malformed(shard, error.to_string()))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = member_name(shard, &entry.path_bytes())?;
            let Some((key, extension)) = key_and_extension(&name) else {
                continue;
            };
            let place = Place {
                offset: entry.raw_file_position(),
                n_bytes: entry.size(),
            };
            check_inside(shard, &name, place)?;
            let extension = extension.to_ascii_lowercase();
            let kind = last(&extension);
            let is_image = IMAGES.contains(&kind);
            if !is_image && kind != "cls" && kind != "json" {
                if !COMPANIONS.contains(&kind) {
                    let kind = left_out.entry(kind.to_owned());
                    kind.or_insert_with(|| (0, name.clone())).0 += 1;
                    samples.unread.insert(key.to_owned(), name);
                }
                continue;
            }
            if !samples.names.insert(name.clone()) {
                return Err(malformed(shard, format!("member `{name}` is there twice")));
            }
            let sample = samples.of(key);
            match is_image {
                true => sample.images.push((extension, place)),
                false => sample.labels.push((extension, place)),
            }
        }
        Ok(samples)
    }

    fn of(&mut self, key: &str) -> &mut Sample {
        let position = match self.positions.get(key) {
            Some(&position) => position,
            None => {
                self.positions.insert(key.into(), self.in_order.len());
                self.in_order.push(Sample {
                    key: key.into(),
                    ..Sample::default()
                });
                self.in_order.len() - 1
            }
        };
        &mut self.in_order[position]
    }
}

/// Every writer ends an archive with blocks of zeros. Without them a shard that was cut off between two members would
/// pass for a smaller one.
fn check_end(shard: &PlacedFile) -> Result<(), DatasetError> {
    let mut end = [1u8; 512];
    if shard.n_bytes >= 512 {
        shard.read_named(&mut end, shard.n_bytes - 512)?;
    }
    match end == [0; 512] {
        true => Ok(()),
        false => Err(malformed(
            shard,
            "it has no end-of-archive mark, so it is cut off".into(),
        )),
    }
}

fn member_name(shard: &PlacedFile, bytes: &[u8]) -> Result<String, DatasetError> {
    let name = String::from_utf8(bytes.to_vec()).map_err(|error| {
        let name = error.as_bytes().escape_ascii();
        malformed(
            shard,
            format!("member `{name}` has a name that is not UTF-8"),
        )
    })?;
    match stays_inside(&name) {
        true => Ok(name),
        false => Err(malformed(
            shard,
            format!("member `{name}` climbs out of the archive"),
        )),
    }
}

fn check_inside(shard: &PlacedFile, name: &str, place: Place) -> Result<(), DatasetError> {
    let Place { offset, n_bytes } = place;
    let end = offset.checked_add(n_bytes);
    if end.is_some_and(|end| end <= shard.n_bytes) {
        return Ok(());
    }
    Err(malformed(
        shard,
        format!(
            "member `{name}` is cut off: expected {n_bytes} bytes from {offset}, the file ends at {}",
            shard.n_bytes
        ),
    ))
}

/// `a/b.c/0001.seg.png` is member `seg.png` of sample `a/b.c/0001`; names that begin with a dot are nobody's.
fn key_and_extension(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// What follows the last dot.
fn last(extension: &str) -> &str {
    extension.rsplit('.').next().unwrap_or(extension)
}

fn stays_inside(name: &str) -> bool {
    let mut components = Path::new(name).components();
    !name.contains('\\')
        && components.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn parse_class(text: &str) -> Result<Label, String> {
    let text = text.trim();
    text.parse()
        .map(|number| Label::Number(number, None))
        .map_err(|_| format!("`{}` is no class number", text.escape_debug()))
}

/// A json member without a label is only a description: the label may come from another member.
fn parse_json(text: &str, field: Option<&str>) -> Result<Option<Label>, String> {
    use serde_json::Value;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let fields = match field {
        Some(field) => vec![field],
        None => vec!["label", "cls"],
    };
    let Some(label) = fields.iter().find_map(|field| value.get(field)) else {
        return Ok(None);
    };
    let number = match label {
        Value::String(name) => return Ok(Some(Label::Name(name.clone()))),
        Value::Bool(truth) => return Ok(Some(Label::Name(truth.to_string()))),
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        _ => None,
    };
    let name = value.get("class_name").and_then(Value::as_str);
    number
        .and_then(|number| u32::try_from(number).ok())
        .map(|number| Some(Label::Number(number, name.map(str::to_owned))))
        .ok_or_else(|| format!("`{label}` is no class number"))
}

/// 3.0 is 3: what pandas makes of a column of integers with a gap.
fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX))
        .then_some(number as u64)
}

fn malformed(shard: &PlacedFile, found: String) -> DatasetError {
    DatasetError::Malformed {
        path: shard.path.clone(),
        format: "WebDataset",
        found,
    }
}

struct Shards {
    shards: Vec<PlacedFile>,
    members: Vec<Member>,
    max_bytes: u64,
}

impl Source for Shards {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let member = &self.members[index as usize];
        let Place { offset, n_bytes } = member.place;
        if n_bytes > self.max_bytes {
            return Err(ImageError::TooManyBytes {
                bytes: n_bytes,
                limit: self.max_bytes,
            }
            .into());
        }
        image.encoded.clear();
        image.encoded.resize(n_bytes as usize, 0);
        let shard = &self.shards[member.shard as usize];
        shard.read_named(&mut image.encoded, offset)?;
        Ok(Fetched::Encoded)
    }

    fn place(&self, index: u32) -> String {
        let member = &self.members[index as usize];
        format!(
            "`{}` member `{}`",
            self.shards[member.shard as usize].name(),
            member.key
        )
    }

    fn file_starts(&self) -> Vec<u32> {
        let first = |shard: u32| self.members.partition_point(|member| member.shard < shard);
        (0..self.shards.len() as u32)
            .map(|shard| first(shard) as u32)
            .collect()
    }
}
