//! WebDataset: tar shards in which the members of a sample share a name up to the first dot: `0001.jpg` and `0001.cls`
//! (the class as a number) or `0001.json` (with a field `label`).
//!
//! A shard's headers are read once, at opening; images are then read at their place.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::{Fetched, Opened, Source, count_classes};
use crate::files::{self, PlacedFile};
use crate::{DataSpec, DatasetError, Image, ImageError, SplitSpec};

const IMAGES: &[&str] = &["jpg", "jpeg", "png", "webp"];
/// A label file is a number or a small object. One above this is something else.
const MAX_LABEL_BYTES: u64 = 1 << 20;

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split)?;
    let label_field = spec.label_column.as_deref();
    let (mut shards, mut members, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for path in &paths {
        let shard = PlacedFile::open(path.clone())?;
        let index = shards.len() as u32;
        for sample in Samples::read(&shard, label_field)?.in_order {
            let (image, label) = sample.complete(&shard)?;
            members.push(Member {
                shard: index,
                key: sample.key,
                ..image
            });
            labels.push(label);
        }
        shards.push(shard);
    }
    if labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let source = Shards { shards, members };
    let n_classes = count_classes(spec, 0, &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names: Vec::new(),
        n_classes,
        uniform_size: None,
        files: paths.into(),
    })
}

fn find_files(root: &Path, split: &SplitSpec) -> Result<Vec<PathBuf>, DatasetError> {
    let name = match split {
        SplitSpec::Files(files) => return files::listed_files(root, split, files),
        SplitSpec::Name(name) => name,
    };
    let whole = root.join(format!("{name}.tar"));
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    for folder in [root.to_path_buf(), root.join(name)] {
        if folder.is_dir() {
            let shards = files::files_named(&folder, &format!("{name}-"), ".tar")?;
            if !shards.is_empty() {
                return Ok(shards);
            }
        }
    }
    Err(DatasetError::SplitMissing {
        split: name.clone(),
        path: root.into(),
        expected: format!("`{name}.tar` or `{name}-*.tar`"),
    })
}

/// Where an image lies.
#[derive(Clone, Default)]
struct Member {
    shard: u32,
    key: String,
    offset: u64,
    n_bytes: u64,
}

#[derive(Default)]
struct Sample {
    key: String,
    image: Option<Member>,
    label: Option<u32>,
}

impl Sample {
    fn complete(&self, shard: &PlacedFile) -> Result<(Member, u32), DatasetError> {
        let missing = |what: &str| malformed(shard, format!("sample `{}` has no {what}", self.key));
        let image = self
            .image
            .clone()
            .ok_or_else(|| missing("image (jpg, jpeg, png, webp)"))?;
        let label = self.label.ok_or_else(|| missing("label (cls or json)"))?;
        Ok((image, label))
    }
}

/// The samples of one shard, in order of first appearance.
#[derive(Default)]
struct Samples {
    in_order: Vec<Sample>,
    positions: HashMap<String, usize>,
    names: HashSet<String>,
}

impl Samples {
    fn read(shard: &PlacedFile, label_field: Option<&str>) -> Result<Self, DatasetError> {
        let io_error = |source| DatasetError::Io {
            action: "read",
            path: shard.path.clone(),
            source,
        };
        // Every writer ends an archive with blocks of zeros. Without them a shard that was cut off between two members
        // would pass for a smaller one.
        let mut end = [1u8; 512];
        if shard.n_bytes >= 512 {
            shard.read_named(&mut end, shard.n_bytes - 512)?;
        }
        if end != [0; 512] {
            return Err(malformed(
                shard,
                "it has no end-of-archive mark, so it is cut off".into(),
            ));
        }
        let mut samples = Self::default();
        let mut file = shard.file();
        file.seek(SeekFrom::Start(0)).map_err(io_error)?;
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().map_err(io_error)? {
            let mut entry = entry.map_err(|error| malformed(shard, error.to_string()))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
                malformed(
                    shard,
                    format!(
                        "member `{}` has a name that is not UTF-8",
                        error.as_bytes().escape_ascii()
                    ),
                )
            })?;
            if !stays_inside(&name) {
                return Err(malformed(
                    shard,
                    format!("member `{name}` climbs out of the archive"),
                ));
            }
            let Some((key, extension)) = key_and_extension(&name) else {
                continue;
            };
            let (offset, n_bytes) = (entry.raw_file_position(), entry.size());
            if offset
                .checked_add(n_bytes)
                .is_none_or(|end| end > shard.n_bytes)
            {
                return Err(malformed(
                    shard,
                    format!(
                        "member `{name}` is cut off: expected {n_bytes} bytes from {offset}, the file ends at {}",
                        shard.n_bytes
                    ),
                ));
            }
            let is_image = IMAGES
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension));
            if !is_image && extension != "cls" && extension != "json" {
                continue;
            }
            if !samples.names.insert(name.clone()) {
                return Err(malformed(shard, format!("member `{name}` is there twice")));
            }
            let sample = samples.of(key);
            if is_image {
                if sample.image.is_some() {
                    return Err(malformed(shard, format!("sample `{key}` has two images")));
                }
                sample.image = Some(Member {
                    offset,
                    n_bytes,
                    ..Member::default()
                });
            } else if extension == "cls" || sample.label.is_none() {
                let mut text = String::new();
                let read = (&mut entry).take(MAX_LABEL_BYTES).read_to_string(&mut text);
                read.map_err(|error| malformed(shard, format!("member `{name}`: {error}")))?;
                let label = if extension == "cls" {
                    parse_class(&text)
                } else {
                    parse_json(&text, label_field)
                };
                match label {
                    Ok(Some(label)) => sample.label = Some(label),
                    Ok(None) => {}
                    Err(found) => {
                        return Err(malformed(shard, format!("member `{name}`: {found}")));
                    }
                }
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

/// `a/b.c/0001.seg.png` is member `seg.png` of sample `a/b.c/0001`; names that begin with a dot are nobody's.
fn key_and_extension(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..dot], &name[dot + 1..]))
}

fn stays_inside(name: &str) -> bool {
    let mut components = Path::new(name).components();
    !name.contains('\\')
        && components.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn parse_class(text: &str) -> Result<Option<u32>, String> {
    let text = text.trim();
    text.parse()
        .map(Some)
        .map_err(|_| format!("`{}` is no class number", text.escape_debug()))
}

/// A json member without a label is only a description: the label may come from a `cls` member.
fn parse_json(text: &str, field: Option<&str>) -> Result<Option<u32>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let fields = match field {
        Some(field) => vec![field],
        None => vec!["label", "cls"],
    };
    let Some(label) = fields.iter().find_map(|field| value.get(field)) else {
        return Ok(None);
    };
    let number = label.as_u64().and_then(|label| u32::try_from(label).ok());
    number
        .map(Some)
        .ok_or_else(|| format!("`{label}` is no class number"))
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
}

impl Source for Shards {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError> {
        let member = &self.members[index as usize];
        image.encoded.clear();
        image.encoded.resize(member.n_bytes as usize, 0);
        let shard = &self.shards[member.shard as usize];
        shard
            .read_at(&mut image.encoded, member.offset)
            .map_err(ImageError::Io)?;
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
