//! Who captured which chunks, where that was somebody else than `cache.json` names: a record of its own for each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::key::hex_digest;
use crate::manifest::too_long;
use crate::sealed::{self, FORMAT, VERSION};
use crate::{CacheError, Manifest, folder};

/// What can move the last bits of a row under one key. Of batch sizes a cache has one.
const MOVING: [&str; 6] = [
    "provider",
    "device",
    "onnxruntime",
    "onnxruntime_build",
    "cpu",
    "cpu_features",
];

/// `maker-4096-8192-<digest>.json`: that rows of samples 4096 to 8191 were written by a process whose provider, library or
/// processor is not that of `cache.json`. Chunks among them that were there already, or were another's part, are not its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maker {
    format: String,
    version: u32,
    /// The cache's key, so that a record in another cache is refused.
    #[serde(with = "hex_digest")]
    key: [u8; 32],
    first_sample: u32,
    end_sample: u32,
    /// Circumstances of its run, as `recorded` in `cache.json`.
    pub recorded: BTreeMap<String, String>,
}

impl Maker {
    /// The maker that `recorded` tells of; `None` where nothing that moves rows differs from what the cache records.
    pub(crate) fn beside(
        cache: &Manifest,
        samples: Range<u32>,
        recorded: &BTreeMap<String, String>,
    ) -> Option<Maker> {
        let maker = Maker {
            format: FORMAT.to_owned(),
            version: VERSION,
            key: cache.key.digest(),
            first_sample: samples.start,
            end_sample: samples.end,
            recorded: recorded.clone(),
        };
        (!maker.differences(cache).is_empty()).then_some(maker)
    }

    /// The samples of its part, in every view.
    pub fn samples(&self) -> Range<u32> {
        self.first_sample..self.end_sample
    }

    /// What moves rows and is not as the cache records it: name and value.
    pub fn differences(&self, cache: &Manifest) -> Vec<(&str, &str)> {
        let own = MOVING
            .iter()
            .filter_map(|name| self.recorded.get_key_value(*name));
        own.filter(|(name, value)| cache.recorded.get(*name) != Some(value))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// Writes the record into the cache at `path`. The caller holds the claim on these chunks.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CacheError> {
        let file = path.join(self.file_name());
        match folder::exists(&file)? {
            true => Ok(()),
            false => sealed::write(&file, self),
        }
    }

    fn file_name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in &self.recorded {
            hasher.update(format!("{name}\0{value}\0").as_bytes());
        }
        let digest = hasher.finalize().to_hex();
        let (first, end) = (self.first_sample, self.end_sample);
        format!("maker-{first}-{end}-{}.json", &digest[..8])
    }
}

/// The makers of the cache at `path` beside the one that its `cache.json` records.
///
/// # Errors
/// If the folder is no cache, or a record is damaged or of another cache.
pub fn makers(path: &Path) -> Result<Vec<Maker>, CacheError> {
    read_all(path, &Manifest::read(path)?)
}

/// The same from a folder, a cache or an archive, of which `manifest` has been read.
pub(crate) fn read_all(path: &Path, manifest: &Manifest) -> Result<Vec<Maker>, CacheError> {
    let read = |file: PathBuf| {
        let maker: Maker = sealed::read(&file)?;
        let problem = if maker.key != manifest.key.digest() {
            "it belongs to a cache with another key"
        } else if maker.first_sample >= maker.end_sample || maker.end_sample > manifest.n_samples {
            "its samples are none of this cache's"
        } else if too_long(&maker.recorded).is_some() {
            "it records longer texts than are read: 4096 bytes of a name and 65536 of a text"
        } else {
            return Ok(maker);
        };
        Err(CacheError::damaged(&file, problem))
    };
    files(path)?.into_iter().map(read).collect()
}

/// The records' files, by name.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut files = folder::entries(path)?;
    files.retain(|file| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.and_then(samples_of).is_some()
    });
    files.sort();
    Ok(files)
}

/// The samples that a record of this name is about; `None` where it is no record's name.
pub(crate) fn samples_of(name: &str) -> Option<Range<u32>> {
    let name = name.strip_prefix("maker-")?.strip_suffix(".json")?;
    let mut parts = name.split('-');
    let (first, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(first..end)
}
