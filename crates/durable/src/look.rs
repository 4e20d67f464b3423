//! Whether something is there: absence is an answer, and every other error is none.
//!
//! `Path::exists` and its like say "no" to a server that lost its handle and to a folder without permission; who believes
//! that makes anew what is there, or leaves it out.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// `None` where there is nothing of that name. A path that runs through a file is absent too: no name can stand below a
/// file, and no server's trouble is told that way.
///
/// # Errors
/// Every other one.
pub fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

/// What stands there, links followed; `None` where nothing does.
///
/// # Errors
/// As [`absent_is_none`].
pub fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    absent_is_none(fs::metadata(path))
}

/// Whether anything stands there.
///
/// # Errors
/// As [`absent_is_none`].
pub fn exists(path: &Path) -> io::Result<bool> {
    Ok(metadata(path)?.is_some())
}

/// Whether a file stands there.
///
/// # Errors
/// As [`absent_is_none`].
pub fn is_file(path: &Path) -> io::Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.is_file()))
}

/// Whether a folder stands there.
///
/// # Errors
/// As [`absent_is_none`].
pub fn is_folder(path: &Path) -> io::Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.is_dir()))
}

/// All that a folder holds, by name; nothing where there is no such folder. A list that breaks off is an error.
///
/// # Errors
/// Of opening or reading the folder; of a file in its place too.
pub fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let paths = listed.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_what_has_no_name_and_nothing_else() {
        let folder = crate::claim::tests::Folder::new("look");
        let file = folder.join("file");
        fs::write(&file, b"").unwrap();
        assert!(exists(&file).unwrap() && is_file(&file).unwrap() && !is_folder(&file).unwrap());
        assert!(is_folder(&folder).unwrap() && !is_file(&folder).unwrap());
        assert!(!exists(&folder.join("none")).unwrap());
        assert!(!exists(&file.join("below a file")).unwrap());
        // Too long for any file system: no answer about what is there.
        assert!(exists(&folder.join("x".repeat(5000))).is_err());
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        assert!(absent_is_none::<()>(Err(denied())).is_err());
    }

    #[test]
    fn a_folder_is_listed_by_name_and_a_file_is_none() {
        let folder = crate::claim::tests::Folder::new("entries");
        for name in ["b", "a"] {
            fs::write(folder.join(name), b"").unwrap();
        }
        let found = entries(&folder).unwrap();
        assert_eq!(found, ["a", "b"].map(|name| folder.join(name)));
        assert!(entries(&folder.join("none")).unwrap().is_empty());
        assert!(entries(&folder.join("a")).is_err());
    }
}
