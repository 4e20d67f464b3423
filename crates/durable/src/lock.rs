use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A lock held by this process, given back when dropped.
///
/// It is a file created exclusively, holding host, process id, the process's start time and the moment. A lock whose
/// process is gone on *this* host is stale and taken over. A lock of another host is never judged from here: the
/// error names the host and the process, and a person decides.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    contents: String,
}

/// Who holds a lock, as its file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// When the process started, in the kernel's own ticks; empty where the system does not tell. It tells a process
    /// from a later one that got the same number.
    pub started: String,
    /// When the lock was taken, in seconds since 1970.
    pub since: u64,
}

/// Why a lock could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Somebody holds it who is alive, or whom this host cannot judge.
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who holds it.
        owner: Owner,
        /// Whether the owner is on this host (then it is alive) or on another one.
        same_host: bool,
    },
    /// The lock file is not one of ours.
    Unreadable {
        /// The lock file.
        path: PathBuf,
    },
    /// The file system said no.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock at `path`, taking over one whose process has died on this host.
    ///
    /// # Errors
    /// [`LockError::Held`] with the owner's host and process, or what the file system reports.
    pub fn acquire(path: &Path) -> Result<Lock, LockError> {
        let io_error = |source| LockError::Io {
            path: path.into(),
            source,
        };
        let me = Owner::this_process();
        let contents = me.to_string();
        // Two rounds: the second follows the removal of a stale lock. Whoever loses the race meets a living owner.
        for _ in 0..2 {
            match create_whole(path, &contents) {
                Ok(()) => {
                    return Ok(Lock {
                        path: path.into(),
                        contents,
                    });
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error(error));
                }
                Err(_) => remove_if_stale(path, &me)?,
            }
        }
        Err(held(path, &me))
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only our own: if a person removed the file and another process took the lock, that one is left alone.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.contents) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Owner {
    fn this_process() -> Owner {
        let pid = std::process::id();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Owner {
            host: host_name(),
            pid,
            started: start_time(pid).unwrap_or_default(),
            since: since.map_or(0, |elapsed| elapsed.as_secs()),
        }
    }

    fn parse(text: &str) -> Option<Owner> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        Some(Owner {
            host: field("host")?.to_owned(),
            pid: field("pid")?.parse().ok()?,
            started: field("started").unwrap_or_default().to_owned(),
            since: field("since")?.parse().ok()?,
        })
    }

    /// Whether the process still runs; meaningful only on its own host.
    fn is_alive(&self) -> bool {
        if cfg!(target_os = "linux") {
            return start_time(self.pid).is_some_and(|started| started == self.started);
        }
        // `kill -0` asks without sending anything. Where even that is missing, assume the owner lives.
        let asked = Command::new("kill")
            .args(["-0", &self.pid.to_string()])
            .output();
        asked.map_or(true, |answer| answer.status.success())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "host {}", self.host)?;
        writeln!(f, "pid {}", self.pid)?;
        writeln!(f, "started {}", self.started)?;
        writeln!(f, "since {}", self.since)
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { path, owner, .. } => write!(
                f,
                "`{}` is held by process {} on host `{}`",
                path.display(),
                owner.pid,
                owner.host
            ),
            LockError::Unreadable { path } => {
                write!(f, "`{}` is not a lock file of logitcask", path.display())
            }
            LockError::Io { path, .. } => write!(f, "cannot lock `{}`", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Creates the lock with its contents in one step, or says that it exists: a link to a file that is already written. A
/// process killed between creating the lock and writing its name into it would leave one that nobody can judge.
fn create_whole(path: &Path, contents: &str) -> io::Result<()> {
    let linked = || {
        let temporary = temporary_beside(path)?;
        let written = write_new(&temporary, contents);
        let linked = written.and_then(|()| fs::hard_link(&temporary, path));
        let _ = fs::remove_file(&temporary);
        linked
    };
    let again = |error: io::Error| match error.kind() {
        // Somebody who cleans the folder took it for a leftover.
        io::ErrorKind::NotFound => linked(),
        _ => Err(error),
    };
    match linked().or_else(again).or_else(again) {
        // Some file systems know no links, and say so in either way.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            write_new(path, contents)
        }
        other => other,
    }
}

fn write_new(path: &Path, contents: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

/// A name that no other process uses, not even one with the same number on another host or in another container, and
/// that [`is_leftover`](crate::is_leftover) knows.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        let why = format!("`{}` has no file name", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (pid, nanoseconds) = (std::process::id(), now.map_or(0, |now| now.as_nanos()));
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(path.with_file_name(format!(".{name}.tmp-{pid}{nanoseconds}{count}")))
}

/// Removes a lock whose process is gone on this host; an error says who holds it otherwise.
///
/// Judging and removing are two steps, and between them another process could have removed the stale lock and taken a
/// fresh one. So only the process that holds a guard file beside the lock may do both.
fn remove_if_stale(path: &Path, me: &Owner) -> Result<(), LockError> {
    let io_error = |source| LockError::Io {
        path: path.into(),
        source,
    };
    let guard = path.with_extension("takeover");
    match OpenOptions::new().write(true).create_new(true).open(&guard) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Somebody else is taking over, or died while doing so. The step takes microseconds.
            if older_than_a_minute(&guard) {
                let _ = fs::remove_file(&guard);
            }
            return Err(held(path, me));
        }
        Err(error) => return Err(io_error(error)),
    }
    let removed = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(error)),
        Ok(text) if is_stale(path, &text, me) => fs::remove_file(path).map_err(io_error),
        Ok(_) => Err(held(path, me)),
    };
    let _ = fs::remove_file(&guard);
    removed
}

fn is_stale(path: &Path, text: &str, me: &Owner) -> bool {
    match Owner::parse(text) {
        Some(owner) => owner.host == me.host && !owner.is_alive(),
        // Where there are no links, a lock created but not yet written belongs to somebody who died between the two
        // steps, or who is just now writing; only age tells them apart. Any other text is not ours to remove.
        None => text.is_empty() && older_than_a_minute(path),
    }
}

fn held(path: &Path, me: &Owner) -> LockError {
    match fs::read_to_string(path)
        .ok()
        .as_deref()
        .and_then(Owner::parse)
    {
        Some(owner) => LockError::Held {
            path: path.into(),
            same_host: owner.host == me.host,
            owner,
        },
        None => LockError::Unreadable { path: path.into() },
    }
}

fn older_than_a_minute(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified()).ok();
    modified
        .and_then(|modified| modified.elapsed().ok())
        .is_some_and(|age| age.as_secs() > 60)
}

fn host_name() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let asked = || {
        let output = Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = kernel.or_else(asked).unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.replace(char::is_whitespace, "-"),
    }
}

/// Field 22 of `/proc/<pid>/stat`, with the boot's identity before it: the number alone starts again after a reboot.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    // A zombie has ended; it only waits for its parent to notice.
    if fields.next()? == "Z" {
        return None;
    }
    let ticks = fields.nth(18)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}+{ticks}", boot.trim()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh folder under the system's temporary folder, gone with the test.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(test: &str) -> Self {
            let name = format!("logitcask-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl std::ops::Deref for Folder {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_held_lock_names_its_owner_and_is_free_after_drop() {
        let folder = Folder::new("held_lock");
        let path = folder.join("lock");
        let lock = Lock::acquire(&path).unwrap();
        match Lock::acquire(&path).unwrap_err() {
            LockError::Held {
                owner, same_host, ..
            } => {
                assert_eq!(owner.pid, std::process::id());
                assert!(same_host);
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let folder = Folder::new("stale_lock");
        let path = folder.join("lock");
        let mut child = Command::new("true").spawn().unwrap();
        let mut owner = Owner::this_process();
        owner.pid = child.id();
        child.wait().unwrap();
        fs::write(&path, owner.to_string()).unwrap();
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn a_reused_process_number_does_not_keep_a_stale_lock_alive() {
        let folder = Folder::new("reused_pid");
        let path = folder.join("lock");
        let mut owner = Owner::this_process();
        owner.started = "another-boot+1".to_owned();
        fs::write(&path, owner.to_string()).unwrap();
        if cfg!(target_os = "linux") {
            Lock::acquire(&path).unwrap();
        }
    }

    #[test]
    fn another_host_is_never_judged_from_here() {
        let folder = Folder::new("other_host");
        let path = folder.join("lock");
        let mut owner = Owner::this_process();
        owner.host = "elsewhere".to_owned();
        fs::write(&path, owner.to_string()).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(error.to_string().contains("host `elsewhere`"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn of_many_racing_for_a_stale_lock_one_wins() {
        let folder = Folder::new("race");
        let path = folder.join("lock");
        let mut owner = Owner::this_process();
        owner.started = "another-boot+1".to_owned();
        fs::write(&path, owner.to_string()).unwrap();
        let held: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Lock::acquire(&path).ok()))
                .collect();
            racers
                .into_iter()
                .filter_map(|r| r.join().unwrap())
                .collect()
        });
        assert_eq!(held.len(), 1, "{} hold one lock", held.len());
    }
}
