//! The file that says what a cache is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::encodings::{Codec, Column};
use crate::folder;
use crate::key::{hex, hex_digest};
use crate::sealed::{self, FORMAT, VERSION};
use crate::{CacheError, CacheKey, Encoding};

/// Classes beyond this are refused: no classifier has them, and a hostile manifest must not size our buffers.
const MAX_CLASSES: usize = 1 << 20;
/// Samples in a chunk beyond this are refused, for the same reason.
const MAX_CHUNK_ROWS: u32 = 1 << 20;
/// Chunks in a view, likewise: each is a file that is looked for.
const MAX_CHUNKS: u32 = 1 << 20;
/// Bytes of a name, and of a text that is recorded: both are shown to people.
const MAX_NAME: usize = 1 << 12;
const MAX_RECORDED: usize = 1 << 16;
/// Pixel checks beyond one for each sample.
const MORE_PIXEL_CHECKS: usize = 64;

/// `cache.json`: what the cache is. Written first, and never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What identifies the logits.
    pub key: CacheKey,
    /// What people call the teacher; the folder is named after it.
    pub teacher: String,
    /// How many samples the split has, bad ones included.
    pub n_samples: u32,
    /// How many classes a row has.
    pub n_classes: usize,
    /// The classes' names, or none.
    pub class_names: Vec<String>,
    /// Digest of the split's labels. Checked, but no part of the key: a corrected label changes no logit.
    pub labels: [u8; 32],
    /// How many samples a chunk covers; the last one of a view may cover fewer.
    pub chunk_rows: u32,
    /// Digests of the pixels that the teacher saw, for some (sample, view) pairs.
    pub pixel_checks: Vec<PixelCheck>,
    /// How rows are stored.
    pub encoding: Encoding,
    /// Whether rows are the teacher's own logits, level and all. Where only probabilities were to be had, it is lost.
    pub absolute: bool,
    /// Length of the feature row stored beside each row of logits; 0 where there is none.
    pub feature_len: usize,
    /// Circumstances that change no logit: provider, versions, time. Free text by free name.
    pub recorded: BTreeMap<String, String>,
}

/// The digest of one view's pixels, as the teacher saw them before normalisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelCheck {
    /// Index of the sample in the split, from 0.
    pub sample: u32,
    /// Which view of it.
    pub view: u32,
    /// BLAKE3 of its pixels.
    #[serde(with = "hex_digest")]
    pub digest: [u8; 32],
}

/// The file's own shape: the manifest, what every file says of itself, and the key's digest for those who only look.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    format: String,
    version: u32,
    #[serde(with = "hex_digest")]
    key: [u8; 32],
    ingredients: CacheKey,
    teacher: String,
    n_samples: u32,
    n_classes: usize,
    class_names: Vec<String>,
    #[serde(with = "hex_digest")]
    labels: [u8; 32],
    chunk_rows: u32,
    encoding: Encoding,
    absolute: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    feature_len: usize,
    pixel_checks: Vec<PixelCheck>,
    recorded: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest with a fitting chunk size, and nothing recorded yet.
    pub fn new(
        teacher: &str,
        key: CacheKey,
        encoding: Encoding,
        n_samples: u32,
        n_classes: usize,
    ) -> Manifest {
        Manifest {
            key: CacheKey {
                encoding: encoding.to_string(),
                ..key
            },
            teacher: teacher.to_owned(),
            n_samples,
            n_classes,
            class_names: Vec::new(),
            labels: [0; 32],
            chunk_rows: default_chunk_rows(n_samples, encoding.row_bytes(n_classes)),
            pixel_checks: Vec::new(),
            encoding,
            absolute: true,
            feature_len: 0,
            recorded: BTreeMap::new(),
        }
    }

    /// The same with a row of features beside each row of logits: `feature_len` values, as f32 where the encoding is
    /// `f32` and as f16 otherwise.
    pub fn with_features(self, feature_len: usize) -> Manifest {
        let mut manifest = Manifest {
            feature_len,
            ..self
        };
        manifest.chunk_rows = default_chunk_rows(manifest.n_samples, manifest.row_bytes());
        manifest
    }

    /// What writes and reads rows of features; `None` where there are none.
    pub(crate) fn feature_codec(&self) -> Option<Box<dyn Codec>> {
        let encoding = match self.encoding {
            Encoding::F32 => Encoding::F32,
            _ => Encoding::F16,
        };
        (self.feature_len > 0).then(|| encoding.codec(self.feature_len))
    }

    /// The columns of a row: the encoding's, then the features'. A row's check runs over all of them.
    pub(crate) fn columns(&self) -> Vec<Column> {
        let mut columns = self.encoding.codec(self.n_classes).columns();
        if let Some(codec) = self.feature_codec() {
            columns.extend(codec.columns().into_iter().map(|column| Column {
                name: "features",
                ..column
            }));
        }
        columns
    }

    /// Bytes of logits and features in one row, without `sample`, `label` and `check`.
    pub(crate) fn row_bytes(&self) -> usize {
        self.columns().iter().map(Column::row_bytes).sum()
    }

    /// For rows that were transcoded, the encodings that they went through before: `f32`, or `f32, f16`. Caches that were
    /// transcoded before these had a key of their own only record it.
    pub fn transcoded_from(&self) -> Option<&str> {
        match self.key.transcoded.as_str() {
            "" if self.recorded.contains_key("transcoded_from") => {
                let encoding = self.recorded.get("transcoded_from_encoding");
                Some(encoding.map_or("another encoding", String::as_str))
            }
            "" => None,
            encodings => Some(encodings),
        }
    }

    /// `<teacher>-<key12>`, the name of the cache's folder.
    pub fn folder_name(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        };
        let teacher: String = self.teacher.chars().take(64).map(plain).collect();
        // A leading dot would hide the folder.
        let teacher = teacher.trim_start_matches('.');
        let teacher = if teacher.is_empty() {
            "teacher"
        } else {
            teacher
        };
        format!("{teacher}-{}", self.key.key12())
    }

    /// How many chunks a view has.
    pub fn n_chunks(&self) -> u32 {
        self.n_samples.div_ceil(self.chunk_rows)
    }

    /// The samples that `chunk` covers.
    ///
    /// # Errors
    /// If there is no such chunk.
    pub fn chunk_range(&self, chunk: u32) -> Result<std::ops::Range<u32>, CacheError> {
        let n_chunks = self.n_chunks();
        if chunk >= n_chunks {
            return Err(CacheError::NoSuchChunk { chunk, n_chunks });
        }
        let start = chunk * self.chunk_rows;
        Ok(start..start.saturating_add(self.chunk_rows).min(self.n_samples))
    }

    /// Reads and checks the `cache.json` of the cache at `path`.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn read(path: &Path) -> Result<Manifest, CacheError> {
        let file = manifest_path(path);
        if !crate::folder::exists(&file)? {
            return Err(CacheError::NotACache {
                path: path.to_path_buf(),
            });
        }
        Manifest::read_file(&file)
    }

    /// Reads and checks a manifest under whatever name.
    pub(crate) fn read_file(file: &Path) -> Result<Manifest, CacheError> {
        let found: ManifestFile = sealed::read(file)?;
        let key = found.ingredients.digest();
        if found.key != key {
            let problem = format!(
                "its ingredients give the key `{}`, it says `{}`",
                hex(&key),
                hex(&found.key)
            );
            return Err(CacheError::damaged(file, problem));
        }
        let manifest = Manifest {
            key: found.ingredients,
            teacher: found.teacher,
            n_samples: found.n_samples,
            n_classes: found.n_classes,
            class_names: found.class_names,
            labels: found.labels,
            chunk_rows: found.chunk_rows,
            pixel_checks: found.pixel_checks,
            encoding: found.encoding,
            absolute: found.absolute,
            feature_len: found.feature_len,
            recorded: found.recorded,
        };
        manifest
            .check()
            .map_err(|error| CacheError::damaged(file, error.to_string()))?;
        Ok(manifest)
    }

    /// Writes `cache.json` into the cache at `path`.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CacheError> {
        let file = ManifestFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            key: self.key.digest(),
            ingredients: self.key.clone(),
            teacher: self.teacher.clone(),
            n_samples: self.n_samples,
            n_classes: self.n_classes,
            class_names: self.class_names.clone(),
            labels: self.labels,
            chunk_rows: self.chunk_rows,
            encoding: self.encoding,
            absolute: self.absolute,
            feature_len: self.feature_len,
            pixel_checks: self.pixel_checks.clone(),
            recorded: self.recorded.clone(),
        };
        sealed::write(&manifest_path(path), &file)
    }

    /// Refuses numbers that no cache can have.
    pub(crate) fn check(&self) -> Result<(), CacheError> {
        let refuse = |field, value: String, problem| {
            Err(CacheError::Manifest {
                field,
                value,
                problem,
            })
        };
        if self.n_samples == 0 {
            return refuse("n_samples", "0".to_owned(), "there is nothing to capture");
        }
        if self.n_classes == 0 || self.n_classes > MAX_CLASSES {
            return refuse(
                "n_classes",
                self.n_classes.to_string(),
                "expected between 1 and 1048576",
            );
        }
        if let Encoding::TopK(k) = self.encoding
            && k as usize >= self.n_classes
        {
            return refuse(
                "encoding",
                self.encoding.to_string(),
                "expected fewer than the classes; `f16` holds them all",
            );
        }
        if self.feature_len > MAX_CLASSES {
            return refuse(
                "feature_len",
                self.feature_len.to_string(),
                "expected at most 1048576",
            );
        }
        if self.chunk_rows == 0 || self.chunk_rows > MAX_CHUNK_ROWS {
            return refuse(
                "chunk_rows",
                self.chunk_rows.to_string(),
                "expected between 1 and 1048576",
            );
        }
        let row_bytes = self.encoding.row_bytes(self.n_classes) + 4 * self.feature_len;
        if row_bytes as u64 * u64::from(self.chunk_rows) > i32::MAX as u64 {
            return refuse(
                "chunk_rows",
                self.chunk_rows.to_string(),
                "a chunk would exceed 2 GiB",
            );
        }
        if self.n_chunks() > MAX_CHUNKS {
            return refuse(
                "n_samples",
                self.n_samples.to_string(),
                "expected at most 1048576 chunks of `chunk_rows` samples",
            );
        }
        let pixel_checks = &self.pixel_checks;
        if pixel_checks.len() > self.n_samples as usize + MORE_PIXEL_CHECKS
            || pixel_checks
                .iter()
                .any(|check| check.sample >= self.n_samples)
        {
            return refuse(
                "pixel_checks",
                format!("{} digests", pixel_checks.len()),
                "expected at most one for each sample and 64 more, of samples below `n_samples`",
            );
        }
        let mut names = self.class_names.iter().chain([&self.teacher]);
        if let Some(name) = names.find(|name| name.len() > MAX_NAME) {
            return refuse(
                "a name",
                format!("{} bytes", name.len()),
                "expected at most 4096 bytes in a name",
            );
        }
        if let Some(n_bytes) = too_long(&self.recorded) {
            return refuse(
                "recorded",
                format!("a text of {n_bytes} bytes"),
                "expected at most 4096 bytes in a name and 65536 in a text",
            );
        }
        if !self.class_names.is_empty() && self.class_names.len() != self.n_classes {
            return refuse(
                "class_names",
                format!("{} names", self.class_names.len()),
                "expected one per class or none",
            );
        }
        if self.key.encoding != self.encoding.to_string() {
            return refuse(
                "key.encoding",
                self.key.encoding.clone(),
                "expected the name of `encoding`",
            );
        }
        Ok(())
    }

    /// Refuses to go on with a cache that has the same key but disagrees in what the key leaves out.
    pub(crate) fn check_agrees(&self, wanted: &Manifest, path: &Path) -> Result<(), CacheError> {
        let disagrees = |field, cached: String, wanted: String| {
            Err(CacheError::Disagrees {
                path: path.to_path_buf(),
                field,
                cached,
                wanted,
            })
        };
        // The folder's name holds twelve digits of the key. Should two keys ever share them, this says so.
        if let Some(difference) = wanted.key.differences(&self.key).pop() {
            return disagrees(difference.field, difference.cached, difference.wanted);
        }
        if let (Some(from), None) = (self.transcoded_from(), wanted.transcoded_from()) {
            return Err(CacheError::Transcoded {
                path: path.to_path_buf(),
                from: from.to_owned(),
            });
        }
        if self.n_samples != wanted.n_samples {
            return disagrees(
                "n_samples",
                self.n_samples.to_string(),
                wanted.n_samples.to_string(),
            );
        }
        if self.n_classes != wanted.n_classes {
            return disagrees(
                "n_classes",
                self.n_classes.to_string(),
                wanted.n_classes.to_string(),
            );
        }
        if self.feature_len != wanted.feature_len {
            return disagrees(
                "feature_len",
                self.feature_len.to_string(),
                wanted.feature_len.to_string(),
            );
        }
        if self.labels != wanted.labels {
            return disagrees("labels", hex(&self.labels), hex(&wanted.labels));
        }
        for check in &self.pixel_checks {
            let now = wanted
                .pixel_checks
                .iter()
                .find(|now| (now.sample, now.view) == (check.sample, check.view));
            if let Some(now) = now.filter(|now| now.digest != check.digest) {
                return disagrees("pixel_checks", hex(&check.digest), hex(&now.digest));
            }
        }
        Ok(())
    }
}

/// As many rows as make a chunk of some 16 MiB, and fewer where that would leave a view with less than 32 chunks:
/// a chunk is what a killed capture loses, and what parts of a capture are made of.
fn default_chunk_rows(n_samples: u32, row_bytes: usize) -> u32 {
    let by_size = ((16 << 20) / row_bytes.max(1)).clamp(256, 8192) as u32;
    let by_count = n_samples.div_ceil(32).max(256);
    1 << by_size.min(by_count.next_power_of_two()).ilog2()
}

/// How long a name or a text is that nobody can have recorded.
pub(crate) fn too_long(recorded: &BTreeMap<String, String>) -> Option<usize> {
    let lengths = recorded
        .iter()
        .flat_map(|(name, text)| [(name.len(), MAX_NAME), (text.len(), MAX_RECORDED)]);
    let mut too_long = lengths.filter(|(n_bytes, most)| n_bytes > most);
    too_long.next().map(|(n_bytes, _)| n_bytes)
}

fn manifest_path(cache: &Path) -> PathBuf {
    cache.join(folder::MANIFEST)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_a_sensible_size() {
        assert_eq!(default_chunk_rows(1_281_167, 2000), 8192);
        assert_eq!(default_chunk_rows(50_000, 200), 2048);
        assert_eq!(default_chunk_rows(1201, 20), 256);
        assert_eq!(default_chunk_rows(14_197_122, 43_682), 256);
    }

    #[test]
    fn folder_names_are_plain() {
        let mut manifest =
            Manifest::new("../a teacher/ß", CacheKey::default(), Encoding::F16, 10, 10);
        assert_eq!(
            manifest.folder_name(),
            format!("-a-teacher---{}", manifest.key.key12())
        );
        manifest.teacher = String::new();
        assert!(manifest.folder_name().starts_with("teacher-"));
    }

    #[test]
    fn what_no_cache_can_have_is_refused_before_it_takes_memory_or_time() {
        let plain = || Manifest::new("t", CacheKey::default(), Encoding::F16, 10, 10);
        let refused = |change: &dyn Fn(&mut Manifest), limit: &str| {
            let mut manifest = plain();
            manifest.check().unwrap();
            change(&mut manifest);
            let error = manifest.check().unwrap_err().to_string();
            assert!(error.contains(limit), "`{limit}` is missing from: {error}");
        };
        refused(&|m| m.n_classes = 1 << 21, "1048576");
        refused(&|m| m.chunk_rows = 1 << 21, "1048576");
        let claims = |n_samples, chunk_rows| {
            move |m: &mut Manifest| (m.n_samples, m.chunk_rows) = (n_samples, chunk_rows)
        };
        refused(&claims(u32::MAX, 256), "1048576 chunks");
        refused(&claims((1 << 20) + 1, 1), "1048576 chunks");
        let mut largest = plain();
        claims(1 << 20, 1)(&mut largest);
        largest.check().unwrap();
        refused(&|m| m.teacher = "x".repeat(100_000), "4096 bytes");
        refused(
            &|m| m.class_names = vec!["x".repeat(5000); 10],
            "4096 bytes",
        );
        refused(
            &|m| drop(m.recorded.insert("x".into(), "y".repeat(70_000))),
            "65536",
        );
        let check = |sample| PixelCheck {
            sample,
            view: 0,
            digest: [0; 32],
        };
        refused(&|m| m.pixel_checks = vec![check(10)], "below `n_samples`");
        refused(&|m| m.pixel_checks = vec![check(9); 75], "64 more");
    }

    #[test]
    fn chunk_ranges_cover_every_sample_once() {
        let manifest = Manifest {
            chunk_rows: 4,
            ..Manifest::new("t", CacheKey::default(), Encoding::F16, 10, 10)
        };
        let ranges: Vec<_> = (0..manifest.n_chunks())
            .map(|chunk| manifest.chunk_range(chunk).unwrap())
            .collect();
        assert_eq!(ranges, [0..4, 4..8, 8..10]);
        assert!(manifest.chunk_range(3).is_err());
    }
}
