//! Claims: who is at work on something, so that no two are at once, and that nobody waits for the dead.
//!
//! A claim on `X` is a file `X.claim-0001` beside it, that says who made it. Its process touches it every 15 s, by the
//! file server's clock. It is stale once its process is known to be gone, or when it has not been touched for 90 s; then
//! the next number may be made, `X.claim-0002`, by a hard link, which only one process can make. Who has made it looks
//! around again: where any other claim on `X` is not stale, it lets go. A holder that was paused for longer than 90 s may
//! have lost its claim without knowing: it asks [`Claim::check`] before it commits, by a rename, what it has done.
//!
//! Numbers are used again only after all claims are gone. A file is removed by its own process alone, or, once stale, by
//! the one that took over; so a name never comes to mean another claim while somebody may be about to remove it.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::owner::{Owner, Whereabouts};
use crate::write::{remove_leftovers, temporary_beside, unique};

/// How long a living process may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A claim that was not touched for longer is stale, whoever holds it.
    pub silence: Duration,
    /// A holder touches its claim this often.
    pub beat: Duration,
}

impl Default for Limits {
    /// 90 s and 15 s: five beats may fail before anybody takes over.
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(90),
            beat: Duration::from_secs(15),
        }
    }
}

/// Somebody else's claim that is not stale.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The file of the claim, beside what is claimed.
    pub path: PathBuf,
    /// Whose it is; `None` where that has not been written yet.
    pub owner: Option<Owner>,
    /// How long it has been held, by the file server's clock.
    pub held_for: Duration,
    /// How long it has been silent, by the same clock.
    pub silent_for: Duration,
    /// Its process is known to be there, or was seen touching the claim. Otherwise waiting tells: within
    /// [`Limits::silence`] it is either touched or stale.
    pub is_alive: bool,
}

/// Why there is no claim, or none any more.
#[derive(Debug)]
pub enum ClaimError {
    /// Somebody else holds it.
    Held(Box<Holder>),
    /// This process was silent for too long, and it was taken over.
    Lost {
        /// The file of the claim that this process had.
        path: PathBuf,
        /// Who has it now; `None` where nobody has, because the work was given back.
        by: Option<Box<Holder>>,
    },
    /// The file system cannot rename, and without that nothing can be committed.
    NoRename {
        /// The folder of what was to be claimed.
        folder: PathBuf,
        /// The file system's answer to the renaming.
        source: io::Error,
    },
    /// The file system said no.
    Io {
        /// What was to be claimed, or the file of a claim on it.
        path: PathBuf,
        /// The file system's answer, or what else is strange about the place.
        source: io::Error,
    },
}

/// Tries to claim, and remembers which claims of others were touched meanwhile.
#[derive(Debug, Default)]
pub struct Watcher {
    limits: Limits,
    seen: HashMap<PathBuf, Seen>,
}

/// What a claim looked like, and since when it has by this process's own clock.
#[derive(Debug)]
struct Seen {
    nonce: Option<u64>,
    touched: SystemTime,
    since: Instant,
    is_alive: bool,
}

impl Watcher {
    /// A watcher with other limits; all that claim one thing must have the same.
    pub fn new(limits: Limits) -> Watcher {
        Watcher {
            limits,
            seen: HashMap::new(),
        }
    }

    /// Claims `what`, a path in a folder that exists; asks `wait` again and again, while another one holds it, whether to
    /// go on waiting.
    ///
    /// # Errors
    /// [`ClaimError::Held`] when `wait` says no, or what the file system reports.
    pub fn claim(
        &mut self,
        what: &Path,
        mut wait: impl FnMut(&Holder) -> bool,
    ) -> Result<Claim, ClaimError> {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.try_claim(what) {
                Err(ClaimError::Held(holder)) if wait(&holder) => std::thread::sleep(pause),
                other => return other,
            }
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn try_claim(&mut self, what: &Path) -> Result<Claim, ClaimError> {
        for _ in 0..1000 {
            if let Some(claim) = self.attempt(what)? {
                return Ok(claim);
            }
            // Two that let go for each other's sake must not meet again.
            std::thread::sleep(Duration::from_micros(unique() % 10_000));
        }
        let strange = "a name is taken there that the folder does not show";
        Err(failed(what)(io::Error::other(strange)))
    }

    /// `None` if another process came in between.
    fn attempt(&mut self, what: &Path) -> Result<Option<Claim>, ClaimError> {
        let Some(draft) = Draft::write(what)? else {
            return Ok(None);
        };
        let found = self.look(what, draft.now)?;
        if let Some(holder) = found.living {
            return Err(ClaimError::Held(Box::new(holder)));
        }
        let number = found.stale.last().map_or(1, |&(number, _)| number + 1);
        let Some(mut claim) = draft.place(what, number, self.limits)? else {
            return Ok(None);
        };
        // From here on others see it, and dropping it lets go.
        let again = self.look_beside(&claim, draft.now)?;
        if !again.is_held() {
            return Ok(None);
        }
        claim.stale = again.stale;
        claim.heart = Some(Heart::start(&claim.file, self.limits.beat).map_err(failed(what))?);
        // Drafts of the killed. Somebody who lives and misses his own writes another.
        let is_draft = |name: &str| what.file_name().is_some_and(|what| what == name);
        let _ = remove_leftovers(folder_of(what), is_draft);
        Ok(Some(claim))
    }

    /// All claims on `what`, at the file server's time `now`.
    fn look(&mut self, what: &Path, now: SystemTime) -> Result<Surroundings, ClaimError> {
        self.look_around(what, None, now)
    }

    /// The claims beside this one.
    fn look_beside(&mut self, own: &Claim, now: SystemTime) -> Result<Surroundings, ClaimError> {
        self.look_around(&own.what, Some(own), now)
    }

    fn look_around(
        &mut self,
        what: &Path,
        own: Option<&Claim>,
        now: SystemTime,
    ) -> Result<Surroundings, ClaimError> {
        let mut around = Surroundings::default();
        for (number, path) in numbered(what).map_err(failed(what))? {
            let Some(found) = patiently(|| Found::read(&path)).map_err(failed(&path))? else {
                continue;
            };
            let nonce = found.owner.as_ref().map(|owner| owner.nonce);
            if own.is_some_and(|own| nonce == Some(own.nonce) && path == own.path) {
                around.is_ours = true;
                continue;
            }
            match self.living(path.clone(), found, now) {
                None => around.stale.push((number, path)),
                Some(holder) => {
                    around.highest = around.highest.max(number);
                    around.living = Some(holder);
                }
            }
        }
        Ok(around)
    }

    /// The holder of a claim; `None` where it is stale.
    fn living(&mut self, path: PathBuf, found: Found, now: SystemTime) -> Option<Holder> {
        let whereabouts = found.owner.as_ref().map(Owner::whereabouts);
        if whereabouts == Some(Whereabouts::Gone) {
            return None;
        }
        let seen = self.remember(&path, &found);
        let unchanged_for = seen.since.elapsed();
        let is_alive = seen.is_alive || whereabouts == Some(Whereabouts::Here);
        // A time to come is that of a clock that was set since: only this process's own tells then.
        let silent_for = now.duration_since(found.touched).unwrap_or_default();
        if silent_for.max(unchanged_for) > self.limits.silence {
            return None;
        }
        let since = found
            .owner
            .as_ref()
            .map(|owner| UNIX_EPOCH + Duration::from_secs(owner.since));
        let held_for = since.and_then(|since| now.duration_since(since).ok());
        Some(Holder {
            path,
            owner: found.owner,
            held_for: held_for.unwrap_or_default(),
            silent_for,
            is_alive,
        })
    }

    fn remember(&mut self, path: &Path, found: &Found) -> &Seen {
        let fresh = Seen {
            nonce: found.owner.as_ref().map(|owner| owner.nonce),
            touched: found.touched,
            since: Instant::now(),
            is_alive: false,
        };
        let seen = self.seen.entry(path.to_path_buf());
        let seen = seen.or_insert_with(|| Seen { ..fresh });
        if seen.nonce != fresh.nonce {
            *seen = fresh;
        } else if seen.touched != fresh.touched {
            *seen = Seen {
                is_alive: true,
                ..fresh
            };
        }
        seen
    }
}

/// What there is beside a claim, or before there is one.
#[derive(Default)]
struct Surroundings {
    /// By number, and in its order.
    stale: Vec<(u32, PathBuf)>,
    /// The one with the highest number.
    living: Option<Holder>,
    /// The highest number of a living one; 0 where there is none.
    highest: u32,
    /// Our own claim is among them.
    is_ours: bool,
}

impl Surroundings {
    /// Whether a claim that was just made may be held: it is there, and nobody else lives.
    fn is_held(&self) -> bool {
        self.is_ours && self.living.is_none()
    }
}

/// A claim of this process, given back when dropped.
#[derive(Debug)]
pub struct Claim {
    what: PathBuf,
    path: PathBuf,
    number: u32,
    nonce: u64,
    /// The open file: touching goes to what was claimed, whatever its name means by now.
    file: Arc<File>,
    limits: Limits,
    /// Claims that were found stale, to be removed with this one.
    stale: Vec<(u32, PathBuf)>,
    heart: Option<Heart>,
}

impl Claim {
    /// The file of this claim, beside what is claimed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// No two claims have the same: for the names of what is in the making.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Says whether the claim is still this process's; to be asked before each commit.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] if another process took over while this one was paused, or what the file system reports.
    pub fn check(&self) -> Result<(), ClaimError> {
        // Somebody who has overtaken nobody, but was late, lets go within moments.
        let patience = Duration::from_secs(2);
        let since = Instant::now();
        loop {
            // A touched file of a name that is gone may be an error; what counts is whether it is gone.
            let now =
                patiently(|| touch(&self.file).and_then(|()| self.file.metadata()?.modified()));
            let clock = *now.as_ref().unwrap_or(&UNIX_EPOCH);
            let around = Watcher::new(self.limits).look_beside(self, clock)?;
            let is_overtaken = around.highest > self.number;
            if around.is_ours && !is_overtaken {
                return now.map(drop).map_err(failed(&self.what));
            }
            if !around.is_ours || since.elapsed() > patience {
                return Err(ClaimError::Lost {
                    path: self.path.clone(),
                    by: around.living.map(Box::new),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn remove(&self) -> io::Result<()> {
        match Found::read(&self.path)?.and_then(|found| found.owner) {
            Some(owner) if owner.nonce == self.nonce => fs::remove_file(&self.path),
            // The name is gone, or another's.
            _ => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(heart) = self.heart.take() {
            heart.stop();
        }
        // What cannot be removed stays stale, and the next claim's to remove.
        for (_, path) in &self.stale {
            let _ = fs::remove_file(path);
        }
        if patiently(|| self.remove()).is_err() {
            // Nobody shall wait for what was given back.
            let _ = self.file.set_modified(UNIX_EPOCH);
        }
    }
}

/// The thread that touches a claim.
#[derive(Debug)]
struct Heart {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Heart {
    fn start(file: &Arc<File>, every: Duration) -> io::Result<Heart> {
        let (stop, stopped) = channel();
        let file = Arc::clone(file);
        let named = std::thread::Builder::new().name("claim".to_owned());
        let thread = named.spawn(move || beat(|| touch(&file), every, &stopped))?;
        Ok(Heart { stop, thread })
    }

    fn stop(self) {
        drop(self.stop);
        // A panic of that thread would be told by its own message.
        let _ = self.thread.join();
    }
}

fn beat(touch: impl Fn() -> io::Result<()>, every: Duration, stopped: &Receiver<()>) {
    let mut pause = every;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        // A server that does not answer now may answer soon.
        pause = match touch() {
            Ok(()) => every,
            Err(_) => every / 10,
        };
    }
}

/// A claim in the making: written beside, under a name of its own, and renamed once, so that a file system that cannot
/// rename is found out before there is work to lose.
struct Draft {
    path: Temporary,
    file: Arc<File>,
    owner: Owner,
    /// The file server's time when this was made.
    now: SystemTime,
}

impl Draft {
    /// `None` if somebody who cleans the folder took it for a leftover.
    fn write(what: &Path) -> Result<Option<Draft>, ClaimError> {
        let beside = || temporary_beside(what).map(Temporary);
        // Whatever happens, neither name stays.
        let first = beside().map_err(failed(what))?;
        let mut draft = Draft {
            path: beside().map_err(failed(what))?,
            file: Arc::new(File::create_new(&first.0).map_err(failed(what))?),
            owner: Owner::this_process(unique(), 0),
            now: UNIX_EPOCH,
        };
        draft.fill().map_err(failed(what))?;
        let Err(error) = fs::rename(&first.0, &draft.path.0) else {
            return Ok(Some(draft));
        };
        match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            io::ErrorKind::Unsupported
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::CrossesDevices => Err(ClaimError::NoRename {
                folder: folder_of(what).to_path_buf(),
                source: error,
            }),
            _ => Err(failed(what)(error)),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        touch(&self.file)?;
        self.now = self.file.metadata()?.modified()?;
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.owner.since = since.as_secs();
        (&*self.file).write_all(self.owner.to_string().as_bytes())
    }

    /// Makes the claim of this number; `None` if another process has it.
    fn place(&self, what: &Path, number: u32, limits: Limits) -> Result<Option<Claim>, ClaimError> {
        let path = claim_path(what, number);
        let claim = |file: &Arc<File>| Claim {
            what: what.to_path_buf(),
            path: path.clone(),
            number,
            nonce: self.owner.nonce,
            file: Arc::clone(file),
            limits,
            stale: Vec::new(),
            heart: None,
        };
        // On the server before it has its name there: others read it from then on.
        self.file.sync_all().map_err(failed(&path))?;
        // The answer may be lost, and a second try finds the first one's link: what counts is who is in the file.
        let answer = fs::hard_link(&self.path.0, &path);
        match self.is_at(&path) {
            Ok(true) => return Ok(Some(claim(&self.file))),
            Ok(false) => {}
            Err(error) => {
                // It may be there, and nobody shall wait for it.
                let _ = self.file.set_modified(UNIX_EPOCH);
                return Err(failed(&path)(error));
            }
        }
        let Err(error) = answer else {
            return Ok(None);
        };
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Ok(None),
            // File systems without links say so in many ways.
            io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::TooManyLinks => {
                let file = self.create_at(&path).map_err(failed(&path))?;
                Ok(file.map(|file| claim(&Arc::new(file))))
            }
            _ => Err(failed(&path)(error)),
        }
    }

    /// Where there are no links: the name first, then the text. A process killed between the two leaves a claim of
    /// nobody, which is stale when it has been silent for long enough.
    fn create_at(&self, path: &Path) -> io::Result<Option<File>> {
        let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            other => other?,
        };
        file.write_all(self.owner.to_string().as_bytes())?;
        file.sync_all()?;
        Ok(self.is_at(path)?.then_some(file))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let owner = patiently(|| Found::read(path))?.and_then(|found| found.owner);
        Ok(owner.is_some_and(|owner| owner.nonce == self.owner.nonce))
    }
}

/// A name that goes when it is dropped, unless it has gone before.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = patiently(|| fs::remove_file(&self.0));
    }
}

/// A claim's file, as it is.
struct Found {
    owner: Option<Owner>,
    touched: SystemTime,
}

impl Found {
    /// `None` where there is none. Opening makes a network file system ask its server.
    fn read(path: &Path) -> io::Result<Option<Found>> {
        let mut options = OpenOptions::new();
        options.read(true);
        // Of a pipe that somebody put there one would wait for the other end.
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        }
        let mut file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        // Ours are a few lines; another's file may be of any length.
        (&mut file).take(4096).read_to_end(&mut bytes)?;
        Ok(Some(Found {
            owner: std::str::from_utf8(&bytes).ok().and_then(Owner::parse),
            touched: file.metadata()?.modified()?,
        }))
    }
}

/// The claims on `what` that have a file, by number.
fn numbered(what: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let prefix = match what.file_name().and_then(|name| name.to_str()) {
        Some(name) => format!("{name}.claim-"),
        None => return Ok(Vec::new()),
    };
    let list = || -> io::Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder_of(what))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            let number = number.and_then(|number| number.parse().ok());
            if let Some(number) = number.filter(|number| *number < u32::MAX) {
                found.push((number, claim_path(what, number)));
            }
        }
        found.sort();
        Ok(found)
    };
    patiently(list)
}

fn claim_path(what: &Path, number: u32) -> PathBuf {
    let name = what.file_name().unwrap_or_default().to_string_lossy();
    what.with_file_name(format!("{name}.claim-{number:04}"))
}

fn folder_of(what: &Path) -> &Path {
    match what.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Network file systems fail for moments. What is not there is an answer, and no failure.
fn patiently<T>(ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut answer = ask();
    for _ in 0..2 {
        match &answer {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                std::thread::sleep(Duration::from_millis(20));
                answer = ask();
            }
            _ => break,
        }
    }
    answer
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_path_buf();
    move |source| ClaimError::Io { path, source }
}

/// Sets the file's times by the file server's clock, not by this machine's.
#[cfg(unix)]
fn touch(file: &File) -> io::Result<()> {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW as _,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(futimens(file, &times)?)
}

#[cfg(not(unix))]
fn touch(file: &File) -> io::Result<()> {
    file.set_modified(SystemTime::now())
}

impl ClaimError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClaimError::Held(holder) => Some(match (&holder.owner, holder.is_alive) {
                (Some(owner), true) => format!(
                    "wait until it has finished, or stop it with `kill {}` on `{}`; then type the same command again",
                    owner.pid, owner.host
                ),
                _ => "type the same command again: whoever is silent for 90 s is taken for dead".to_owned(),
            }),
            ClaimError::Lost { .. } => Some(
                "nothing is lost: type the same command again, it goes on from what is done".to_owned(),
            ),
            ClaimError::NoRename { .. } => Some(
                "choose a folder on another file system: files are written beside their place and renamed into it"
                    .to_owned(),
            ),
            ClaimError::Io { .. } => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(
                f,
                "process {} on host `{}`, which has held `{}` for {} and was heard of {} ago",
                owner.pid,
                owner.host,
                self.path.display(),
                told(self.held_for),
                told(self.silent_for)
            ),
            None => write!(
                f,
                "somebody who has not written their name into `{}`",
                self.path.display()
            ),
        }
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::Held(holder) => write!(f, "in the way is {holder}"),
            ClaimError::Lost { path, by: Some(by) } => write!(
                f,
                "`{}` was taken over while this process was paused, by {by}",
                path.display()
            ),
            ClaimError::Lost { path, by: None } => write!(
                f,
                "`{}` was taken over while this process was paused, and given back since",
                path.display()
            ),
            ClaimError::NoRename { folder, .. } => {
                write!(f, "files in `{}` cannot be renamed", folder.display())
            }
            ClaimError::Io { path, .. } => write!(f, "cannot claim `{}`", path.display()),
        }
    }
}

impl std::error::Error for ClaimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClaimError::NoRename { source, .. } | ClaimError::Io { source, .. } => Some(source),
            ClaimError::Held(_) | ClaimError::Lost { .. } => None,
        }
    }
}

fn told(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
pub(crate) mod tests;
