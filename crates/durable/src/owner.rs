//! Who holds a claim, and what this process can know about that one.

use std::fmt;
use std::fs;

/// The process that holds a claim, as the claim's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The host's name, for people: names prove nothing, and containers choose their own.
    pub host: String,
    /// The process id, in its own namespace.
    pub pid: u32,
    /// The kernel's boot and the process's pid namespace, within which a process id means something. Empty where the
    /// system does not tell.
    boot: String,
    pid_namespace: String,
    /// When the process started, in the kernel's own ticks; empty where the system does not tell. It tells a process
    /// from a later one that got the same number.
    started: String,
    /// No two claims have the same.
    pub(crate) nonce: u64,
    /// When it was claimed, in seconds since 1970 by the file server's clock.
    pub(crate) since: u64,
}

/// What this process can know of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It has ended, even if another process has its number by now.
    Gone,
    /// A process of its number is there, and nothing tells it from the one that claimed.
    Here,
    /// It runs, or ran, where this process cannot look.
    Unknown,
}

impl Owner {
    pub(crate) fn this_process(nonce: u64, since: u64) -> Owner {
        let pid = std::process::id();
        Owner {
            host: host_name(),
            pid,
            boot: boot(),
            pid_namespace: pid_namespace(),
            started: match state_of(pid) {
                Some(State::Started(ticks)) => ticks,
                _ => String::new(),
            },
            nonce,
            since,
        }
    }

    /// `None` for any other text, and for a part of one.
    pub(crate) fn parse(text: &str) -> Option<Owner> {
        let text = text.strip_suffix('\n')?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        Some(Owner {
            host: field("host")?.to_owned(),
            pid: field("pid")?.parse().ok()?,
            boot: field("boot")?.to_owned(),
            pid_namespace: field("pid_namespace")?.to_owned(),
            started: field("started")?.to_owned(),
            nonce: field("nonce")?.parse().ok()?,
            since: field("since")?.parse().ok()?,
        })
    }

    /// Only a process of the same boot and the same pid namespace is judged, and only where both are known.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        let same = |theirs: &str, ours: String| !ours.is_empty() && ours == theirs;
        if !same(&self.boot, boot()) || !same(&self.pid_namespace, pid_namespace()) {
            return Whereabouts::Unknown;
        }
        match process_exists(self.pid) {
            None => Whereabouts::Unknown,
            Some(false) => Whereabouts::Gone,
            Some(true) => match state_of(self.pid) {
                Some(State::Ended) => Whereabouts::Gone,
                // Another process has the number by now.
                Some(State::Started(ticks))
                    if !self.started.is_empty() && ticks != self.started =>
                {
                    Whereabouts::Gone
                }
                _ => Whereabouts::Here,
            },
        }
    }
}

/// The claim file's text. `since` comes last: a text without it is not whole.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "host {}", self.host)?;
        writeln!(f, "boot {}", self.boot)?;
        writeln!(f, "pid_namespace {}", self.pid_namespace)?;
        writeln!(f, "pid {}", self.pid)?;
        writeln!(f, "started {}", self.started)?;
        writeln!(f, "nonce {}", self.nonce)?;
        writeln!(f, "since {}", self.since)
    }
}

enum State {
    Started(String),
    /// A zombie has ended; it only waits for its parent to notice.
    Ended,
}

/// Fields 3 and 22 of `/proc/<pid>/stat`. `None` where it cannot be read: hidden from this user, or not mounted.
fn state_of(pid: u32) -> Option<State> {
    if !proc_is_of_our_namespace() {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace();
    match fields.next()? {
        "Z" | "X" => Some(State::Ended),
        _ => Some(State::Started(fields.nth(18)?.to_owned())),
    }
}

/// `/proc` may be another namespace's, where our numbers belong to others: a container started without a `/proc` of its
/// own sees the host's. Then this process is listed with a number in each namespace from there down to its own.
fn proc_is_of_our_namespace() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap_or_default();
    numbers.split_whitespace().count() == 1
}

/// The boot's identity and the time namespace, in which start times are counted.
fn boot() -> String {
    let Ok(id) = fs::read_to_string("/proc/sys/kernel/random/boot_id") else {
        return String::new();
    };
    // Kernels before 5.6 have none, and then all processes share one.
    let clock = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    format!("{}+{}", id.trim(), clock.display())
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid");
    link.map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// A signal that is none. It finds processes that a hidden `/proc` does not show.
#[cfg(unix)]
fn process_exists(pid: u32) -> Option<bool> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(true),
        Err(rustix::io::Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

#[cfg(not(unix))]
fn process_exists(_pid: u32) -> Option<bool> {
    None
}

#[cfg(unix)]
fn host_name() -> String {
    let system = rustix::system::uname();
    match system.nodename().to_string_lossy().trim() {
        "" => "unknown".to_owned(),
        name => name.replace(char::is_whitespace, "-"),
    }
}

#[cfg(not(unix))]
fn host_name() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_and_half_a_text_is_none() {
        let owner = Owner::this_process(7, 1_700_000_000);
        let text = owner.to_string();
        assert_eq!(Owner::parse(&text).as_ref(), Some(&owner));
        for end in 0..text.len() {
            assert_eq!(Owner::parse(&text[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn this_process_is_here() {
        let me = Owner::this_process(7, 0);
        let expected = match cfg!(target_os = "linux") {
            true => Whereabouts::Here,
            false => Whereabouts::Unknown,
        };
        assert_eq!(me.whereabouts(), expected);
        assert_eq!(me.started.is_empty(), !cfg!(target_os = "linux"));
    }

    #[test]
    fn a_process_that_ended_and_one_whose_number_is_used_again_are_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut ended = Owner::this_process(7, 0);
        ended.pid = child.id();
        child.wait().unwrap();
        let mut reused = Owner::this_process(7, 0);
        reused.started = "1".to_owned();
        if cfg!(target_os = "linux") {
            assert_eq!(ended.whereabouts(), Whereabouts::Gone);
            assert_eq!(reused.whereabouts(), Whereabouts::Gone);
        }
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut zombie = Owner::this_process(7, 0);
        zombie.pid = child.id();
        zombie.started = String::new();
        // It has ended when its side of the pipe is closed, and nobody has asked for its status.
        let is_zombie = || matches!(state_of(child.id()), Some(State::Ended));
        while cfg!(target_os = "linux") && !is_zombie() {
            std::thread::yield_now();
        }
        if cfg!(target_os = "linux") {
            assert_eq!(zombie.whereabouts(), Whereabouts::Gone);
        }
        child.wait().unwrap();
    }

    #[test]
    fn another_boot_or_namespace_or_an_unknown_one_is_not_judged() {
        let dead = Owner {
            pid: 4_000_000,
            ..Owner::this_process(7, 0)
        };
        for (boot, pid_namespace) in [
            ("another", dead.pid_namespace.as_str()),
            (dead.boot.as_str(), "pid:[1]"),
            ("", dead.pid_namespace.as_str()),
            (dead.boot.as_str(), ""),
        ] {
            let owner = Owner {
                boot: boot.to_owned(),
                pid_namespace: pid_namespace.to_owned(),
                ..dead.clone()
            };
            assert_eq!(owner.whereabouts(), Whereabouts::Unknown, "{owner}");
        }
    }
}
