//! Archives become folders. Names that climb out of the folder are refused, and so are links, which could lead out of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use logitcask_dataset::Unpack;
use zip::ZipArchive;

use super::error::GetError;
use crate::progress::Progress;

const CLIMBS_OUT: &str = "a name that leads out of the folder";
const LINK: &str = "which is neither a file nor a folder";
const NO_TEXT: &str = "a name that is not UTF-8";

/// Unpacks into one folder and keeps count of what it placed there.
pub(super) struct Unpacker<'a> {
    into: &'a Path,
    stop: &'a AtomicBool,
    /// The length in bytes of each file, by its path below the folder.
    pub(super) files: BTreeMap<String, u64>,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(into: &'a Path, stop: &'a AtomicBool) -> Self {
        Self {
            into,
            stop,
            files: BTreeMap::new(),
        }
    }

    /// Unpacks `archive`, which its publisher calls `name`.
    pub(super) fn unpack(
        &mut self,
        archive: &Path,
        name: &str,
        how: Unpack,
    ) -> Result<(), GetError> {
        let file = File::open(archive).map_err(GetError::io("read", archive))?;
        let found = file.metadata().map_err(GetError::io("look at", archive))?;
        let n_bytes = found.len();
        let bar = Progress::new(format!("unpack {name}"), n_bytes / 1000, "kB");
        let watched = Watched {
            file,
            position: 0,
            bar: &bar,
            stop: self.stop,
        };
        let unpacked = match how {
            Unpack::TarGz => self.tar(MultiGzDecoder::new(BufReader::with_capacity(
                1 << 18,
                watched,
            ))),
            Unpack::Zip => self.zip(watched),
            Unpack::Keep => self.place(watched, Path::new(name)),
        };
        bar.finish();
        if self.stop.load(Ordering::Relaxed) {
            return Err(GetError::Stopped);
        }
        unpacked.map_err(|fault| match fault {
            Fault::Io(source) => GetError::Archive {
                archive: archive.into(),
                source,
            },
            Fault::Entry { entry, why } => GetError::Entry {
                archive: archive.into(),
                entry,
                why,
            },
        })
    }

    fn tar(&mut self, reader: impl Read) -> Result<(), Fault> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let entry = entry?;
            let kind = entry.header().entry_type();
            // A comment on the whole archive, as `git archive` writes it.
            if kind.is_pax_global_extensions() {
                continue;
            }
            let path = entry.path()?.into_owned();
            if kind.is_dir() {
                self.make_folder(&path)?;
            } else if kind.is_file() || kind.is_contiguous() {
                self.place(entry, &path)?;
            } else {
                return Err(Fault::entry(&path, LINK));
            }
        }
        Ok(())
    }

    fn zip(&mut self, file: Watched<'_>) -> Result<(), Fault> {
        let mut archive =
            ZipArchive::new(BufReader::with_capacity(1 << 16, file)).map_err(io::Error::from)?;
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(io::Error::from)?;
            let path = PathBuf::from(entry.name().map_err(io::Error::from)?.as_ref());
            if entry.is_symlink() {
                return Err(Fault::entry(&path, LINK));
            } else if entry.is_dir() {
                self.make_folder(&path)?;
            } else {
                self.place(entry, &path)?;
            }
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> Result<(), Fault> {
        Ok(fs::create_dir_all(self.into.join(inside(path)?))?)
    }

    /// Writes one file. The folder as a whole appears by a rename later, hence no rename for each.
    fn place(&mut self, mut content: impl Read, path: &Path) -> Result<(), Fault> {
        let path = inside(path)?;
        let name = path.to_str().ok_or_else(|| Fault::entry(&path, NO_TEXT))?;
        let target = self.into.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().write(true).create_new(true).open(&target)?;
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        let n_bytes = io::copy(&mut content, &mut writer)?;
        writer.flush()?;
        self.files.insert(name.to_owned(), n_bytes);
        Ok(())
    }
}

/// Brings everything below `folder` to the disk: once for all files, of which there can be a hundred thousand.
pub(super) fn flush(folder: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(File::open(folder)?)?;
    #[cfg(all(unix, not(target_os = "linux")))]
    rustix::fs::sync();
    let _ = folder;
    Ok(())
}

/// The path made of plain names only, or a refusal.
fn inside(path: &Path) -> Result<PathBuf, Fault> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            _ => return Err(Fault::entry(path, CLIMBS_OUT)),
        }
    }
    Ok(inside)
}

/// What is wrong, before the archive's name is added.
enum Fault {
    Io(io::Error),
    Entry { entry: String, why: &'static str },
}

impl Fault {
    fn entry(path: &Path, why: &'static str) -> Self {
        Fault::Entry {
            entry: path.display().to_string(),
            why,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// A file that moves a bar while it is read, and ends early when a stop is asked for.
struct Watched<'a> {
    file: File,
    position: u64,
    bar: &'a Progress,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let n = self.file.read(buffer)?;
        self.position += n as u64;
        self.bar.set(self.position / 1000, "");
        Ok(n)
    }
}

impl io::Seek for Watched<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}
