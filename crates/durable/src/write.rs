//! Files and folders that appear whole, under their final name, and survive a power failure.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::look::{absent_is_none, entries, is_folder};

/// Writes `path` through `fill` so that it appears whole or not at all.
///
/// The bytes go to `.<name>.tmp-<number>` in the same folder, are flushed to the disk, and take the final name by a
/// rename; then the folder is flushed, so that the name survives a power failure too. If `fill` or the disk fails,
/// the temporary file is removed and whatever stood at `path` is untouched.
///
/// # Errors
/// Whatever `fill`, the disk or the rename reports.
pub fn write_atomic(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_whole(&temporary, fill).and_then(|()| rename(&temporary, path));
    if written.is_err() {
        // The first error is the one worth telling; a leftover is harmless, for nothing reads this name.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Renames within one file system and flushes the target's folder, so that the new name survives a power failure.
///
/// # Errors
/// Whatever the rename or the flush reports.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Removes a file and flushes its folder, so that nothing removed after it can go before it. One that is gone already is no
/// error.
///
/// # Errors
/// Whatever the file system reports.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match absent_is_none(fs::remove_file(path))? {
        Some(()) => sync_folder_of(path),
        None => Ok(()),
    }
}

/// Creates `path` and its missing parents, and flushes the folders that gained a name.
///
/// # Errors
/// Whatever the file system reports.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || is_folder(path)? {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(path)? => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder_of(path),
    }
}

/// True for the name of a temporary file that [`write_atomic`] makes.
pub fn is_leftover(name: &str) -> bool {
    target_of(name).is_some()
}

/// The name that a temporary file was to have; `None` for any other file.
fn target_of(name: &str) -> Option<&str> {
    let (target, pid) = name.strip_prefix('.')?.rsplit_once(".tmp-")?;
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(target)
}

/// Removes what killed writers left behind in `folder`, and returns how many files that were. `is_ours` is asked about
/// the name that each was to have.
///
/// A living writer's file looks the same: say yes only to names that a [`Claim`](crate::Claim) of yours guards.
///
/// # Errors
/// Whatever reading the folder or removing a file reports.
pub fn remove_leftovers(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(target_of).is_some_and(&is_ours) {
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                // Its writer, or another cleaner, was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    fill(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()
}

/// A name that no other process uses: a process id would not do, for in containers most programs are number 1, and a
/// writer that was thought dead must not go on writing into the file of its successor.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        let why = format!("`{}` has no file name", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })?;
    Ok(path.with_file_name(format!(".{name}.tmp-{}", unique())))
}

/// A number from the system's randomness, by way of the keys of std's hash tables.
pub(crate) fn unique() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// On Unix a rename is durable only once the folder that holds the name has been flushed. Elsewhere folders cannot be
/// opened as files, and the file system orders renames itself.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_leftover() {
        let folder = crate::claim::tests::Folder::new("failed_write");
        let path = folder.join("cache.json");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_are_known_by_name_and_nothing_else_is_removed() {
        let folder = crate::claim::tests::Folder::new("leftovers");
        for name in [
            ".part-00000.arrow.tmp-123",
            ".part-00001.arrow.tmp-123",
            "part-00000.arrow",
            ".keep",
            "x.tmp-1",
        ] {
            fs::write(folder.join(name), b"").unwrap();
        }
        let is_ours = |name: &str| name == "part-00000.arrow";
        assert_eq!(remove_leftovers(&folder, is_ours).unwrap(), 1);
        assert!(!folder.join(".part-00000.arrow.tmp-123").exists());
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 4);
    }

    #[test]
    fn temporary_names_are_beside_and_never_the_same() {
        let names = [(); 2].map(|()| temporary_beside(Path::new("a/b.json")).unwrap());
        assert_ne!(names[0], names[1]);
        for name in names {
            assert_eq!(name.parent(), Some(Path::new("a")));
            let name = name.file_name().and_then(|name| name.to_str()).unwrap();
            assert!(is_leftover(name), "{name}");
            assert_eq!(target_of(name), Some("b.json"));
        }
        assert!(temporary_beside(Path::new("a/..")).is_err());
        for no_leftover in [
            "b.json",
            ".b.json",
            ".b.json.tmp-",
            ".b.json.tmp-x",
            "b.json.tmp-1",
        ] {
            assert!(!is_leftover(no_leftover), "{no_leftover}");
        }
    }

    #[test]
    fn what_is_gone_may_be_removed_and_a_folder_may_not() {
        let folder = crate::claim::tests::Folder::new("remove");
        let file = folder.join("file");
        fs::write(&file, b"").unwrap();
        remove_file(&file).unwrap();
        assert!(!file.exists());
        remove_file(&file).unwrap();
        assert!(remove_file(&folder).is_err());
        // A folder that is not there cannot be flushed, and that is told.
        assert!(sync_folder_of(&folder.join("none/file")).is_err());
        sync_folder_of(Path::new("Cargo.toml")).unwrap();
    }

    #[test]
    fn a_renamed_file_stands_under_its_new_name_alone() {
        let folder = crate::claim::tests::Folder::new("rename");
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(&from, b"x").unwrap();
        rename(&from, &to).unwrap();
        assert!(!from.exists() && fs::read(&to).unwrap() == b"x");
        assert!(rename(&from, &to).is_err());
    }

    #[test]
    fn a_file_where_a_folder_should_be_is_an_error() {
        let folder = crate::claim::tests::Folder::new("file_for_folder");
        fs::write(folder.join("a"), b"").unwrap();
        assert!(create_dir_all(&folder.join("a")).is_err());
        assert!(create_dir_all(&folder.join("a/b")).is_err());
        create_dir_all(Path::new("")).unwrap();
    }

    #[test]
    fn nested_folders_appear() {
        let folder = crate::claim::tests::Folder::new("nested");
        create_dir_all(&folder.join("a/b/c")).unwrap();
        create_dir_all(&folder.join("a/b/c")).unwrap();
        assert!(folder.join("a/b/c").is_dir());
    }
}
