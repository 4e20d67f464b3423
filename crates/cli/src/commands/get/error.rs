//! What can go wrong on the way to a dataset, and what to type then.

use std::io;
use std::path::{Path, PathBuf};

use logitcask_dataset::{DatasetError, Publication};
use logitcask_durable::ClaimError;
use thiserror::Error;

use super::checksum::Digest;
use super::wanted::name;
use crate::progress::bytes;

#[derive(Debug, Error)]
pub(super) enum GetError {
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot reach `{url}`")]
    Unreachable {
        url: String,
        source: Box<ureq::Error>,
    },
    #[error("`{url}` answers `{status}`")]
    Refused { url: String, status: String },
    #[error("the connection to `{url}` broke after {}", progress(*have, *total))]
    Cut {
        url: String,
        have: u64,
        total: Option<u64>,
        source: Option<io::Error>,
    },
    #[error("`{file}` is not the file that was published: it has {found}, expected {expected}")]
    Checksum {
        file: String,
        /// It comes from the publisher's own address.
        is_official: bool,
        expected: Digest,
        found: Digest,
    },
    #[error("cannot unpack `{}`", archive.display())]
    Archive { archive: PathBuf, source: io::Error },
    #[error("`{}` holds `{entry}`, {why}", archive.display())]
    Entry {
        archive: PathBuf,
        entry: String,
        why: &'static str,
    },
    #[error("what was unpacked does not read as `{format}`")]
    Unreadable {
        format: &'static str,
        source: Box<DatasetError>,
    },
    #[error("`{}` is there already, and `dataset get` did not make it", path.display())]
    Occupied { path: PathBuf },
    #[error("`{}` holds `{found}`, not `{wanted}`", path.display())]
    Other {
        path: PathBuf,
        found: String,
        wanted: &'static str,
    },
    #[error("`{}` is not whole: `{file}` is missing or has another length ({n_damaged} of {n_files} files)", path.display())]
    Damaged {
        path: PathBuf,
        file: String,
        n_damaged: usize,
        n_files: usize,
    },
    #[error("cannot read `{}`, which says what is in this folder", path.display())]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("stopped")]
    Stopped,
}

impl GetError {
    /// For `map_err`: what was tried on `path`.
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GetError {
        let path = path.into();
        move |source| GetError::Io { verb, path, source }
    }

    /// What to type next.
    pub(super) fn hint(&self, publication: &Publication) -> Option<String> {
        let command = format!("logitcask dataset get {}", publication.name);
        match self {
            GetError::Unreachable { .. } | GetError::Refused { .. } => {
                Some(by_hand(publication, &command))
            }
            GetError::Cut { .. } | GetError::Stopped => {
                Some("what has come is kept; the same command goes on from there".to_owned())
            }
            GetError::Checksum {
                is_official: true, ..
            } => Some(format!(
                "it was removed; the same command fetches it anew, `{command} --from URL` from a mirror"
            )),
            GetError::Checksum { found, .. } => Some(format!(
                "if you know why it differs and trust it, add `--checksum {}`",
                found.digits
            )),
            GetError::Entry { .. } => Some(format!(
                "nothing was kept of it; `{command}` takes the publisher's own"
            )),
            GetError::Occupied { .. }
            | GetError::Other { .. }
            | GetError::Damaged { .. }
            | GetError::Record { .. } => {
                Some("move it away, or say with `--to DIR` where the dataset shall go".to_owned())
            }
            GetError::Unreadable { source, .. } => source.hint(),
            GetError::Claim(error) => error.hint(),
            GetError::Io { .. } | GetError::Archive { .. } => None,
        }
    }
}

/// How to do without a network.
fn by_hand(publication: &Publication, command: &str) -> String {
    match publication.files {
        [file] => format!(
            "fetch {} where there is a network, bring the file here, and type: {command} --from {}",
            file.url,
            name(file)
        ),
        files => {
            let addresses: Vec<String> = files
                .iter()
                .map(|file| format!("\n    {}", file.url))
                .collect();
            format!(
                "where there is a network fetch{}\n  bring the files here into one folder, and type: {command} --from FOLDER",
                addresses.concat()
            )
        }
    }
}

fn progress(have: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} of {}", bytes(have), bytes(total)),
        None => bytes(have),
    }
}
