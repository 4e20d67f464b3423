//! Getting a published dataset: fetch its files, check them, unpack them, and only then let the dataset appear.
//!
//! Everything unfinished lies in a hidden folder beside the target, `data/datasets/.cifar10.get` say: the partial files,
//! from which a later call goes on, and the folder that is being unpacked. That folder takes the target's name by one
//! rename once the dataset in it has been opened. So what bears the name is whole, and a person may remove the hidden
//! folder at any time.

mod checksum;
mod download;
mod error;
mod record;
mod unpack;
mod wanted;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use logitcask_dataset::{DataSpec, Dataset, PUBLICATIONS, Publication, Role, SplitSpec};
use logitcask_durable::{self as durable, ClaimError};

use crate::args::DatasetGet;
use crate::progress::{bytes, say};
use crate::watch::shown;
use checksum::Digest;
use error::GetError;
use logitcask_experiment::{Failure, Outcome, claim};
use record::Record;
use unpack::Unpacker;
use wanted::{Origin, Wanted, wanted};

pub(crate) fn run(args: &DatasetGet, stop: &AtomicBool) -> Outcome {
    let publication = publication(&args.name)?;
    let wanted = wanted(publication, args)?;
    let to = match &args.to {
        Some(to) => to.clone(),
        None => Path::new("data/datasets").join(publication.name),
    };
    let explained = |error: GetError| {
        let hint = error.hint(publication);
        let failure = Failure::work(error);
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    };
    let name = to.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        Failure::asked(format!(
            "`{}` does not end in a folder's name",
            to.display()
        ))
    })?;
    let workplace = to.with_file_name(format!(".{name}.get"));
    match already_there(publication, &to).map_err(explained)? {
        Some(record) => {
            if durable::is_folder(&workplace).map_err(Failure::io("look for", &workplace))? {
                tidy(&workplace, stop).map_err(explained)?;
            }
            say(format!(
                "`{}` is there and whole: {} files, from {}",
                to.display(),
                record.files.len(),
                record.origins()
            ));
        }
        None => {
            get(publication, &wanted, &workplace, &to, stop).map_err(explained)?;
            say(format!(
                "`{}` is ready; a recipe reads it by:",
                to.display()
            ));
        }
    }
    print_section(publication, &to);
    Ok(())
}

fn publication(name: &str) -> Outcome<&'static Publication> {
    PUBLICATIONS
        .iter()
        .find(|publication| publication.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = PUBLICATIONS
                .iter()
                .map(|publication| publication.name)
                .collect();
            Failure::asked(format!("`{name}` is no dataset whose address is known"))
                .with_hint(format!("these are: {}", names.join(", ")))
        })
}

/// What an earlier call left under the final name. Whatever else stands there is not ours to touch.
fn already_there(publication: &Publication, to: &Path) -> Result<Option<Record>, GetError> {
    if let Some(record) = Record::read(to)? {
        if record.name != publication.name {
            return Err(GetError::Other {
                path: to.into(),
                found: record.name,
                wanted: publication.name,
            });
        }
        record.check(to)?;
        return Ok(Some(record));
    }
    let found =
        durable::absent_is_none(to.symlink_metadata()).map_err(GetError::io("look at", to))?;
    let is_free = match found {
        None => true,
        // Where a link leads counts, and one that leads nowhere is occupied.
        Some(_) if durable::is_folder(to).map_err(GetError::io("look at", to))? => {
            let held = durable::entries(to).map_err(GetError::io("read the folder", to))?;
            held.is_empty()
        }
        Some(_) => false,
    };
    match is_free {
        true => Ok(None),
        false => Err(GetError::Occupied { path: to.into() }),
    }
}

/// Works in `workplace` under a claim, and leaves nothing there but partial files worth going on from.
fn get(
    publication: &Publication,
    wanted: &[Wanted],
    workplace: &Path,
    to: &Path,
    stop: &AtomicBool,
) -> Result<(), GetError> {
    durable::create_dir_all(workplace).map_err(GetError::io("make the folder", workplace))?;
    let held = claim(&workplace.join(CLAIM), Duration::ZERO, stop, &shown())?;
    // A call that was thought dead must not go on unpacking into the folder of this one.
    let unpacked = workplace.join(format!("{UNPACKED}{}", held.nonce()));
    let is_done = || already_there(publication, to).map(|record| record.is_some());
    let work = || {
        remove_unpacked(workplace)?;
        bring_and_unpack(publication, wanted, workplace, &unpacked, stop)?;
        held.check()?;
        durable::rename(&unpacked, to).map_err(GetError::io("make the folder", to))
    };
    // Whoever had the claim before, or took it over since, may have done it all.
    let result = match is_done() {
        Ok(true) => Ok(()),
        Ok(false) => work().or_else(|error| match (&error, is_done()) {
            (GetError::Claim(_), Ok(true)) => Ok(()),
            _ => Err(error),
        }),
        Err(error) => Err(error),
    };
    // A leftover is harmless: nothing reads these names, and the next call starts by removing it.
    let _ = fs::remove_dir_all(&unpacked);
    drop(held);
    let _ = match result {
        Ok(()) => fs::remove_dir_all(workplace),
        // Goes only where it is empty.
        Err(_) => fs::remove_dir(workplace),
    };
    result
}

/// Removes what a call that was killed at its very end has left. Whoever is at work there cleans up after themselves.
fn tidy(workplace: &Path, stop: &AtomicBool) -> Result<(), GetError> {
    match claim(&workplace.join(CLAIM), Duration::ZERO, stop, &shown()) {
        Err(ClaimError::Held(_)) => return Ok(()),
        other => drop(other?),
    }
    durable::absent_is_none(fs::remove_dir_all(workplace))
        .map(drop)
        .map_err(GetError::io("remove", workplace))
}

/// What is claimed in the hidden folder: all of it.
const CLAIM: &str = ".get";

/// What the folder's name begins with while a dataset is unpacked.
const UNPACKED: &str = "unpacked-";

/// Removes what killed calls had begun to unpack.
fn remove_unpacked(workplace: &Path) -> Result<(), GetError> {
    for path in durable::entries(workplace).map_err(GetError::io("read the folder", workplace))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(UNPACKED) {
            fs::remove_dir_all(&path).map_err(GetError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn bring_and_unpack(
    publication: &Publication,
    wanted: &[Wanted],
    workplace: &Path,
    unpacked: &Path,
    stop: &AtomicBool,
) -> Result<(), GetError> {
    say(format!("{}: {}", publication.name, publication.terms));
    // All files first: what fails, fails before the work of unpacking.
    let mut sources = Vec::new();
    for wanted in wanted {
        sources.push(bring(wanted, workplace, stop)?);
    }
    durable::create_dir_all(unpacked).map_err(GetError::io("make the folder", unpacked))?;
    let mut unpacker = Unpacker::new(unpacked, stop);
    for (wanted, source) in wanted.iter().zip(&sources) {
        unpacker.unpack(&source.path, wanted.name, wanted.file.unpack)?;
    }
    let files = unpacker.files;
    tell_samples(publication, unpacked)?;
    let fetched = sources.into_iter().map(|source| source.fetched).collect();
    Record {
        name: publication.name.to_owned(),
        fetched,
        files,
    }
    .write(unpacked)?;
    unpack::flush(unpacked).map_err(GetError::io("write", unpacked))
}

/// A file that is here and checked.
struct Source {
    path: PathBuf,
    fetched: record::Fetched,
}

fn bring(wanted: &Wanted, workplace: &Path, stop: &AtomicBool) -> Result<Source, GetError> {
    let url = match &wanted.origin {
        Origin::Url(url) => url,
        Origin::File(path) => {
            let digest = check(wanted, path)?;
            let from = path.display().to_string();
            return Ok(Source {
                path: path.clone(),
                fetched: record::Fetched { from, digest },
            });
        }
    };
    let whole = workplace.join(wanted.name);
    let fetched = |digest| record::Fetched {
        from: url.clone(),
        digest,
    };
    // An earlier call may have been stopped after this file was complete.
    if durable::is_file(&whole).map_err(GetError::io("look for", &whole))? {
        match check(wanted, &whole) {
            Ok(digest) => {
                let fetched = fetched(digest);
                return Ok(Source {
                    path: whole,
                    fetched,
                });
            }
            // Another's, or damaged since: fetched again.
            Err(GetError::Checksum { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let size = wanted
        .file
        .n_bytes
        .map_or(String::new(), |n| format!(" ({})", bytes(n)));
    say(format!("{}{size} from {url}", wanted.name));
    let part = workplace.join(format!("{}.part", wanted.name));
    download::download(url, &part, stop)?;
    let digest = match check(wanted, &part) {
        Ok(digest) => digest,
        Err(error) => {
            // It would only be continued into the same wrong file.
            fs::remove_file(&part).map_err(GetError::io("remove", &part))?;
            return Err(error);
        }
    };
    durable::rename(&part, &whole).map_err(GetError::io("write", &whole))?;
    Ok(Source {
        path: whole,
        fetched: fetched(digest),
    })
}

/// Digests a file, and refuses it where it is not the one that is wanted.
fn check(wanted: &Wanted, path: &Path) -> Result<Digest, GetError> {
    let algorithm = wanted
        .digest
        .as_ref()
        .map_or(checksum::Algorithm::Sha256, |digest| digest.algorithm);
    let found = Digest::of_file(path, algorithm).map_err(GetError::io("read", path))?;
    match &wanted.digest {
        Some(expected) if *expected != found => Err(GetError::Checksum {
            file: match &wanted.origin {
                Origin::Url(url) => url.clone(),
                Origin::File(path) => path.display().to_string(),
            },
            is_official: matches!(&wanted.origin, Origin::Url(url) if url == wanted.file.url),
            expected: expected.clone(),
            found,
        }),
        Some(_) => Ok(found),
        None => {
            say(format!(
                "the publisher gives no checksum; {} has {found}",
                wanted.name
            ));
            Ok(found)
        }
    }
}

/// Opens both splits: an archive that does not read as its dataset must not appear as one.
fn tell_samples(publication: &Publication, unpacked: &Path) -> Result<(), GetError> {
    let unreadable = |source| GetError::Unreadable {
        format: publication.format,
        source: Box::new(source),
    };
    let mut spec = DataSpec::new(publication.format, unpacked.join(publication.folder));
    spec.eval = Some(SplitSpec::Name(publication.eval.to_owned()));
    let train = Dataset::open(&spec, Role::Train).map_err(unreadable)?;
    let eval = Dataset::open(&spec, Role::Eval).map_err(unreadable)?;
    say(format!(
        "{} samples for training, {} for evaluation, {} classes",
        train.len(),
        eval.len(),
        train.n_classes()
    ));
    Ok(())
}

/// What to write into a recipe, as TOML on stdout.
fn print_section(publication: &Publication, to: &Path) {
    // `join` of an empty folder would end in a slash.
    let root = match publication.folder {
        "" => to.to_owned(),
        folder => to.join(folder),
    };
    let root = toml::Value::String(root.display().to_string());
    println!(
        "[data]\nformat = \"{}\"\nroot = {root}\neval = \"{}\"",
        publication.format, publication.eval
    );
}
