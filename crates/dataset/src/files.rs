//! Files read at a place, from many threads at once, without a shared cursor and without a map: a file that shrinks
//! under us is then an error and not a signal.

use std::borrow::Borrow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use logitcask_durable as durable;

use crate::{DatasetError, SplitSpec};

/// An open file of known length.
#[derive(Debug)]
pub(crate) struct PlacedFile {
    pub(crate) path: PathBuf,
    pub(crate) n_bytes: u64,
    file: File,
}

impl PlacedFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, DatasetError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((n_bytes, file)) => Ok(Self {
                path,
                n_bytes,
                file,
            }),
            Err(source) => Err(DatasetError::Io {
                action: "open",
                path,
                source,
            }),
        }
    }

    /// Fills `into` with the bytes from `offset` on.
    pub(crate) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::read_exact_at(&self.file, into, offset)
        }
        #[cfg(windows)]
        {
            use std::os::windows::fs::FileExt;
            let mut done = 0;
            while done < into.len() {
                match self
                    .file
                    .seek_read(&mut into[done..], offset + done as u64)?
                {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => done += n,
                }
            }
            Ok(())
        }
    }

    /// As [`Self::read_at`], with the file named in the error.
    pub(crate) fn read_named(&self, into: &mut [u8], offset: u64) -> Result<(), DatasetError> {
        self.read_at(into, offset)
            .map_err(|source| self.io_error(source))
    }

    pub(crate) fn io_error(&self, source: io::Error) -> DatasetError {
        DatasetError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        }
    }

    /// The file's name without its folder, for messages.
    pub(crate) fn name(&self) -> String {
        file_name(&self.path)
    }
}

/// Reads a [`PlacedFile`] in order, from a place of its own: any number of these share a file.
pub(crate) struct Cursor<F> {
    file: F,
    position: u64,
}

impl<F: Borrow<PlacedFile>> Cursor<F> {
    pub(crate) fn new(file: F, position: u64) -> Self {
        Self { file, position }
    }
}

impl<F: Borrow<PlacedFile>> Read for Cursor<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let file = self.file.borrow();
        let left = file.n_bytes.saturating_sub(self.position);
        let n = left.min(into.len() as u64) as usize;
        file.read_at(&mut into[..n], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<F: Borrow<PlacedFile>> Seek for Cursor<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.borrow().n_bytes.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The files of a folder whose name begins with `prefix` and ends with `suffix`, sorted by name.
pub(crate) fn files_named(
    folder: &Path,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<PathBuf>, DatasetError> {
    let mut found: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a folder is there. To be absent is one answer; not to be allowed to look is an error.
pub(crate) fn is_folder(path: &Path) -> Result<bool, DatasetError> {
    asked(path, durable::is_folder(path))
}

/// Whether a file is there.
pub(crate) fn is_file(path: &Path) -> Result<bool, DatasetError> {
    asked(path, durable::is_file(path))
}

fn asked<T>(path: &Path, answer: io::Result<T>) -> Result<T, DatasetError> {
    answer.map_err(|source| DatasetError::Io {
        action: "look at",
        path: path.into(),
        source,
    })
}

/// What a text file says; None where it is not there.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, DatasetError> {
    let text = durable::absent_is_none(fs::read_to_string(path));
    text.map_err(|source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// The bytes of a file; None where it is not there.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, DatasetError> {
    let bytes = durable::absent_is_none(fs::read(path));
    bytes.map_err(|source| DatasetError::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// One name per line of a text file.
pub(crate) fn names_in(path: &Path) -> Result<Option<Vec<String>>, DatasetError> {
    let lines = |text: String| {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Ok(read_text(path)?.map(lines))
}

/// Something in a folder.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: OsString,
    /// Where a link leads counts.
    pub(crate) is_folder: bool,
}

impl Entry {
    pub(crate) fn is_hidden(&self) -> bool {
        self.name.as_encoded_bytes().starts_with(b".")
    }

    /// The name for messages; what is no Unicode is replaced.
    pub(crate) fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

/// What a folder holds, in the order of the names' bytes.
pub(crate) fn sorted_entries(folder: &Path) -> Result<Vec<Entry>, DatasetError> {
    let io_error = |source| DatasetError::Io {
        action: "list",
        path: folder.into(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let kind = entry.file_type().map_err(io_error)?;
        let path = entry.path();
        found.push(Entry {
            is_folder: kind.is_dir() || kind.is_symlink() && is_folder(&path)?,
            name: entry.file_name(),
            path,
        });
    }
    found.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
    Ok(found)
}

/// What a folder holds, in no order.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let io_error = |source| DatasetError::Io {
        action: "list",
        path: folder.into(),
        source,
    };
    let listed = fs::read_dir(folder).and_then(|listed| listed.collect::<io::Result<Vec<_>>>());
    let listed = listed.map_err(io_error)?.into_iter();
    Ok(listed.map(|entry| entry.path()).collect())
}

/// The dataset's folder, which must be there.
pub(crate) fn existing_folder(root: &Path) -> Result<&Path, DatasetError> {
    match is_folder(root)? {
        true => Ok(root),
        false => Err(DatasetError::FolderMissing { path: root.into() }),
    }
}

/// The files of a split that lists them: each must be there.
pub(crate) fn listed_files(
    root: &Path,
    split: &SplitSpec,
    files: &[String],
) -> Result<Vec<PathBuf>, DatasetError> {
    let missing = |path: &Path| DatasetError::SplitMissing {
        split: split.to_string(),
        path: root.into(),
        expected: format!("the file `{}`", path.display()),
    };
    files
        .iter()
        .map(|name| {
            let path = root.join(name);
            match is_file(&path)? {
                true => Ok(path),
                false => Err(missing(&path)),
            }
        })
        .collect()
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}
