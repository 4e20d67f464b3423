//! Whether a library is still the one that was fetched.
//!
//! pip checks the wheel when `make setup` fetches it; what lies in `.runtime` for months afterwards is checked here, each time it
//! is loaded, against the SHA-256 digests that were noted then. That is 30 MB, a fraction of what loading them takes.

use std::path::Path;

use logitcask_durable as durable;
use sha2::{Digest, Sha256};

use crate::error::TeacherError;

/// Beside the libraries: a line `<64 digits>  <name>` for each, as `sha256sum` writes and checks it.
const FILE: &str = "SHA256SUMS";

/// Refuses a library whose bytes are not those that were fetched. A folder without digests was not filled by `make setup`, or
/// before it noted them, and is taken as it is.
pub(crate) fn check(library: &Path) -> Result<(), TeacherError> {
    let unreadable = |path: &Path, source| TeacherError::RuntimeUnread {
        path: path.to_owned(),
        source,
    };
    let sums = library.with_file_name(FILE);
    let text = durable::absent_is_none(durable::read_to_string(&sums));
    let Some(text) = text.map_err(|source| unreadable(&sums, source))? else {
        return Ok(());
    };
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    let noted = text.lines().find_map(|line| {
        let (digest, of) = line.split_once("  ")?;
        (of == name).then_some(digest)
    });
    let bytes = durable::read(library).map_err(|source| unreadable(library, source))?;
    let digest = Sha256::digest(&bytes);
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    match noted {
        Some(noted) if noted == found => Ok(()),
        noted => Err(TeacherError::RuntimeChanged {
            path: library.to_owned(),
            noted: noted.unwrap_or("none").to_owned(),
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The digest of `abc` that FIPS 180-2, B.1 prints.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_library_that_changed_since_it_was_fetched_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libonnxruntime.so.1.31.1");
        let sums = folder.path().join(FILE);
        fs::write(&library, "abc").unwrap();
        assert!(check(&library).is_ok(), "nobody noted anything");
        fs::write(&sums, format!("{ABC}  libonnxruntime.so.1.31.1\n")).unwrap();
        assert!(check(&library).is_ok());
        fs::write(&library, "abd").unwrap();
        let refusal = check(&library).unwrap_err().to_string();
        assert!(refusal.contains(ABC), "{refusal}");
        fs::write(&library, "abc").unwrap();
        fs::write(&sums, format!("{ABC}  libother.so\n")).unwrap();
        assert!(check(&library).unwrap_err().to_string().contains("none"));
    }
}
