//! What `dataset get` writes beside a dataset, so that it knows its own work again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use logitcask_durable::{absent_is_none, metadata, write_atomic};
use serde::{Deserialize, Serialize};

use super::checksum::Digest;
use super::error::GetError;

/// Hidden, so that no dataset format takes it for data.
const FILE: &str = ".logitcask-get.json";

#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// The publication's name, as `dataset get` takes it.
    pub(super) name: String,
    pub(super) fetched: Vec<Fetched>,
    /// The length in bytes of each file, by its path below the folder.
    pub(super) files: BTreeMap<String, u64>,
}

/// Where a file came from, and what it was.
#[derive(Serialize, Deserialize)]
pub(super) struct Fetched {
    pub(super) from: String,
    pub(super) digest: Digest,
}

impl Record {
    /// The record in `folder`, where there is one.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, GetError> {
        let path = folder.join(FILE);
        // Absent also where `folder` is a file: that is not ours either.
        let text =
            absent_is_none(fs::read_to_string(&path)).map_err(GetError::io("read", &path))?;
        let Some(text) = text else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| GetError::Record { path, source })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), GetError> {
        let path = folder.join(FILE);
        let written = write_atomic(&path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        });
        written.map_err(GetError::io("write", &path))
    }

    /// Every file is there in its length. The bytes were checked when they came; caches check the pixels again.
    pub(super) fn check(&self, folder: &Path) -> Result<(), GetError> {
        let mut damaged = Vec::new();
        for (name, n_bytes) in &self.files {
            let path = folder.join(name);
            let found = metadata(&path).map_err(GetError::io("look at", &path))?;
            if !found.is_some_and(|found| found.is_file() && found.len() == *n_bytes) {
                damaged.push(name);
            }
        }
        match damaged.first() {
            None => Ok(()),
            Some(file) => Err(GetError::Damaged {
                path: folder.into(),
                file: (*file).clone(),
                n_damaged: damaged.len(),
                n_files: self.files.len(),
            }),
        }
    }

    /// Where the files came from, for a person.
    pub(super) fn origins(&self) -> String {
        let origins: Vec<&str> = self
            .fetched
            .iter()
            .map(|fetched| fetched.from.as_str())
            .collect();
        origins.join(", ")
    }
}
