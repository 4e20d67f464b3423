//! Reading files and nothing that only looks like one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::look::metadata;

/// Opens a file for reading. A folder, a pipe or a device under its name is an error, and one at once: to open a pipe would
/// wait for somebody to write into it, and a device may have no end.
///
/// # Errors
/// Whatever the file system reports; [`io::ErrorKind::InvalidInput`] for what is no file.
pub fn open(path: &Path) -> io::Result<File> {
    match metadata(path)? {
        Some(found) if !found.is_file() => {
            let why = "it is no file but a folder, a pipe or a device";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        _ => File::open(path),
    }
}

/// All bytes of a file, by way of [`open`].
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let n_bytes = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that is text, by way of [`open`].
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_and_does_not_wait() {
        let folder = crate::claim::tests::Folder::new("read");
        let path = folder.join("text");
        fs::write(&path, "two\nlines\n").unwrap();
        assert_eq!(read(&path).unwrap(), b"two\nlines\n");
        assert_eq!(read_to_string(&path).unwrap(), "two\nlines\n");
        fs::write(&path, [b'a', 0xff]).unwrap();
        let error = read_to_string(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&path).unwrap(), [b'a', 0xff]);

        let error = read(&folder.join("absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            open(&folder).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        #[cfg(unix)]
        {
            let pipe = folder.join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            assert_eq!(open(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
