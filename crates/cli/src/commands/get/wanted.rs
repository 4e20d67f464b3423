//! Which files a call brings from where, and what they must digest to.

use std::path::PathBuf;

use logitcask_dataset::{Publication, RemoteFile};
use logitcask_durable as durable;

use super::checksum::Digest;
use crate::args::DatasetGet;
use logitcask_experiment::{Failure, Outcome};

/// One file of a publication, as this call wants it.
pub(super) struct Wanted {
    pub(super) file: &'static RemoteFile,
    pub(super) name: &'static str,
    pub(super) origin: Origin,
    /// Absent only where the publisher gives none and the person neither.
    pub(super) digest: Option<Digest>,
}

/// Where a file comes from.
pub(super) enum Origin {
    Url(String),
    File(PathBuf),
}

/// Which files to bring from where, and what they must digest to.
pub(super) fn wanted(publication: &'static Publication, args: &DatasetGet) -> Outcome<Vec<Wanted>> {
    let n_files = publication.files.len();
    if !args.checksum.is_empty() && args.checksum.len() != n_files {
        let message = format!(
            "{} checksums are given, `{}` has {n_files} files",
            args.checksum.len(),
            publication.name
        );
        let names: Vec<&str> = publication.files.iter().map(name).collect();
        return Err(Failure::asked(message).with_hint(format!(
            "one `--checksum` for each of: {}",
            names.join(", ")
        )));
    }
    let mut wanted = Vec::new();
    for (index, file) in publication.files.iter().enumerate() {
        let digest = match args.checksum.get(index) {
            None => Digest::published(file.checksum),
            Some(digits) => Some(Digest::parse(digits).ok_or_else(|| {
                Failure::asked(format!("`{digits}` is no checksum"))
                    .with_hint("MD5 has 32 hexadecimal digits, SHA-256 has 64")
            })?),
        };
        let origin = match &args.from {
            None => Origin::Url(file.url.to_owned()),
            Some(from) => origin(from, name(file), n_files)?,
        };
        wanted.push(Wanted {
            file,
            name: name(file),
            origin,
            digest,
        });
    }
    Ok(wanted)
}

/// `from` is the file itself, or what is above it: a folder, an address that ends in `/`, or any address where there are
/// several files.
fn origin(from: &str, name: &str, n_files: usize) -> Outcome<Origin> {
    if from.starts_with("http://") || from.starts_with("https://") {
        return Ok(Origin::Url(match from.strip_suffix('/') {
            Some(base) => format!("{base}/{name}"),
            None if n_files > 1 => format!("{from}/{name}"),
            None => from.to_owned(),
        }));
    }
    if from.contains("://") {
        return Err(Failure::asked(format!(
            "`{from}` is neither an http(s) address nor a file"
        )));
    }
    let path = PathBuf::from(from);
    let found = durable::metadata(&path).map_err(Failure::io("look at", &path))?;
    if n_files > 1 && found.as_ref().is_some_and(|found| found.is_file()) {
        return Err(
            Failure::asked(format!("`{from}` is one file, and {n_files} are wanted"))
                .with_hint("`--from` takes the folder that holds them"),
        );
    }
    Ok(Origin::File(if found.is_some_and(|found| found.is_dir()) {
        path.join(name)
    } else {
        path
    }))
}

/// The name at the end of the address.
pub(super) fn name(file: &RemoteFile) -> &'static str {
    file.url.rsplit('/').next().unwrap_or(file.url)
}
