//! Claims between real processes: killed, paused, in namespaces of their own, and on file systems that lie.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what is skipped is said aloud, and the processes talk by their stdout"
)]

mod liar;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use logitcask_durable::{Claim, ClaimError, Holder, Limits, Watcher};

const ROLE: &str = "LOGITCASK_CLAIM_ROLE";
const FOLDER: &str = "LOGITCASK_CLAIM_FOLDER";
const SILENCE_MS: &str = "LOGITCASK_CLAIM_SILENCE_MS";
const N_ROUNDS: &str = "LOGITCASK_CLAIM_ROUNDS";

/// Silence that a test can wait for, and that a busy machine does not exceed by itself.
const SHORT: Duration = Duration::from_millis(1500);
/// Silence that no test waits for.
const LONG: Duration = Duration::from_secs(60);

fn limits(silence: Duration) -> Limits {
    Limits {
        silence,
        beat: silence / 10,
    }
}

fn never(_: &Holder) -> bool {
    false
}

/// A fresh folder under the system's temporary folder, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("logitcask-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// This test program in another role; how it is started stands in `wrap`, its first words.
fn process(role: &str, folder: &Path, silence: Duration, wrap: &[&str]) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = wrap.iter().map(|word| word.as_ref()).collect();
    words.push(me.as_os_str());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--exact", "in_another_process", "--nocapture"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .env(SILENCE_MS, silence.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Not a test of its own: what the other processes run.
#[test]
fn in_another_process() {
    let (Ok(role), Ok(folder)) = (std::env::var(ROLE), std::env::var(FOLDER)) else {
        return;
    };
    let silence = std::env::var(SILENCE_MS).unwrap().parse().unwrap();
    let (folder, silence) = (Path::new(&folder), Duration::from_millis(silence));
    match role.as_str() {
        "hold" => hold(&folder.join("work"), silence),
        "race" => race(folder, silence),
        "judge" => judge_a_neighbour(folder, silence),
        other => panic!("{other}?"),
    }
}

/// Claims, says so, and says what has become of the claim whenever it is asked; lets go when stdin ends.
fn hold(work: &Path, silence: Duration) {
    let claim = Watcher::new(limits(silence)).claim(work, |_| true).unwrap();
    say("held");
    for _ in std::io::stdin().lock().lines() {
        say(match claim.check() {
            Ok(()) => "mine",
            Err(ClaimError::Lost { .. }) => "lost",
            Err(error) => panic!("{error}"),
        });
    }
    drop(claim);
    say("let go");
}

fn say(word: &str) {
    println!("\n{word}");
    std::io::stdout().flush().unwrap();
}

/// A process that holds the claim until it is told otherwise.
struct Other {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self { child, said };
        other.hears("held");
        other
    }

    fn hears(&mut self, word: &str) {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            let n_bytes = self.said.read_line(&mut line).unwrap();
            assert!(n_bytes > 0, "it ended before it said `{word}`");
            let others = ["mine", "lost"].iter().filter(|other| **other != word);
            for other in others {
                assert_ne!(line.trim(), *other, "`{word}` was expected");
            }
        }
    }

    fn is_asked_and_says(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        self.hears(word);
    }

    fn gets(&self, signal: &str) {
        signalled(&self.child, signal);
    }

    fn lets_go(mut self) {
        drop(self.child.stdin.take());
        self.hears("let go");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signalled(child: &Child, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args([signal, &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

/// How long it took to get the claim, and who was in the way last.
fn claimed(work: &Path, silence: Duration) -> (Claim, Duration, Option<Holder>) {
    let (started, mut last) = (Instant::now(), None);
    let claim = Watcher::new(limits(silence)).claim(work, |holder| {
        last = Some(holder.clone());
        started.elapsed() < silence * 4
    });
    (claim.unwrap(), started.elapsed(), last)
}

#[test]
fn one_holds_at_a_time_and_nothing_is_left() {
    let folder = Folder::new("one_holds");
    let work = folder.work();
    let mut watcher = Watcher::default();
    let claim = watcher.claim(&work, never).unwrap();
    claim.check().unwrap();
    let error = watcher.claim(&work, never).unwrap_err();
    let ClaimError::Held(holder) = &error else {
        panic!("{error:?}")
    };
    assert!(holder.is_alive);
    assert_eq!(holder.owner.as_ref().unwrap().pid, std::process::id());
    assert!(error.to_string().contains("work.claim-0001"), "{error}");
    assert_eq!(folder.names(), ["work.claim-0001"]);
    drop(claim);
    assert!(folder.names().is_empty());
    // Another thing in the same folder is another claim.
    let _work = watcher.claim(&work, never).unwrap();
    watcher.claim(&folder.0.join("work-2"), never).unwrap();
}

#[test]
fn the_claim_of_a_killed_process_is_taken_over_at_once() {
    let folder = Folder::new("killed");
    let mut other = Other::start(process("hold", &folder.0, LONG, &[]));
    let error = Watcher::new(limits(LONG))
        .try_claim(&folder.work())
        .unwrap_err();
    assert!(
        matches!(&error, ClaimError::Held(holder) if holder.is_alive),
        "{error}"
    );
    other.gets("-KILL");
    other.child.wait().unwrap();
    let (claim, took, _) = claimed(&folder.work(), LONG);
    assert!(took < LONG / 4, "{took:?}");
    assert_eq!(folder.names(), ["work.claim-0001", "work.claim-0002"]);
    drop(claim);
    assert!(folder.names().is_empty());
}

#[test]
fn a_paused_process_loses_its_claim_and_learns_it() {
    let folder = Folder::new("paused");
    let mut other = Other::start(process("hold", &folder.0, SHORT, &[]));
    // It beats: nobody takes over, however long it holds.
    std::thread::sleep(SHORT * 2);
    other.is_asked_and_says("mine");
    other.gets("-STOP");
    let (claim, took, holder) = claimed(&folder.work(), SHORT);
    assert!(took > SHORT / 2, "{took:?}");
    assert_eq!(holder.unwrap().owner.unwrap().pid, other.child.id());
    other.gets("-CONT");
    other.is_asked_and_says("lost");
    claim.check().unwrap();
    // What it gives back is not its any more.
    other.lets_go();
    claim.check().unwrap();
    drop(claim);
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_paused_process_whom_nobody_missed_keeps_its_claim() {
    let folder = Folder::new("not_missed");
    let mut other = Other::start(process("hold", &folder.0, SHORT, &[]));
    other.gets("-STOP");
    std::thread::sleep(SHORT * 2);
    other.gets("-CONT");
    other.is_asked_and_says("mine");
    other.lets_go();
    assert!(folder.names().is_empty());
}

#[test]
fn a_taken_over_claim_that_was_given_back_is_lost_all_the_same() {
    let folder = Folder::new("given_back");
    let mut other = Other::start(process("hold", &folder.0, SHORT, &[]));
    other.gets("-STOP");
    let (claim, ..) = claimed(&folder.work(), SHORT);
    drop(claim);
    other.gets("-CONT");
    other.is_asked_and_says("lost");
    // Its number is another's by now, and stays there.
    let (claim, ..) = claimed(&folder.work(), SHORT);
    assert!(claim.path().ends_with("work.claim-0001"));
    other.is_asked_and_says("lost");
    other.lets_go();
    claim.check().unwrap();
}

#[test]
fn the_time_of_the_file_server_tells_and_no_hosts_clock() {
    let hour = Duration::from_secs(3600);
    let folder = Folder::new("skew");
    let work = folder.work();
    let path = folder.0.join("work.claim-0007");
    let elsewhere = "host far\nboot x\npid_namespace y\npid 1\nstarted 1\nnonce 5\nsince 1\n";
    let touched = |time: SystemTime| {
        fs::write(&path, elsewhere).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    // Long ago by the server's clock: dead, whatever the watcher's clock says.
    touched(SystemTime::now() - hour);
    let (claim, took, _) = claimed(&work, SHORT);
    assert!(took < SHORT, "{took:?}");
    assert!(claim.path().ends_with("work.claim-0008"));
    drop(claim);
    assert!(folder.names().is_empty());
    // Just now, and in an hour's time, by a clock that was set back since: only waiting tells.
    for time in [SystemTime::now(), SystemTime::now() + hour] {
        touched(time);
        let (claim, took, holder) = claimed(&work, SHORT);
        assert!(took > SHORT / 2, "{took:?}");
        let holder = holder.unwrap();
        assert!(!holder.is_alive);
        assert_eq!(holder.owner.unwrap().host, "far");
        drop(claim);
        assert!(folder.names().is_empty());
    }
    // A beat seen is life seen, whatever the time says.
    touched(SystemTime::now() + hour);
    let mut watcher = Watcher::new(limits(SHORT));
    for beat in 1..4 {
        let error = watcher.try_claim(&work).unwrap_err();
        assert!(
            matches!(&error, ClaimError::Held(holder) if holder.is_alive == (beat > 1)),
            "beat {beat}: {error:?}"
        );
        std::thread::sleep(SHORT / 2);
        touched(SystemTime::now() + hour + Duration::from_secs(beat));
    }
}

#[test]
fn a_claim_without_a_name_goes_stale_by_silence() {
    let folder = Folder::new("nameless");
    for text in ["", "host half", "something else entirely"] {
        fs::write(folder.0.join("work.claim-0001"), text).unwrap();
        let (claim, took, holder) = claimed(&folder.work(), SHORT);
        assert!(took > SHORT / 2, "{text}: {took:?}");
        assert!(holder.unwrap().owner.is_none());
        drop(claim);
        assert!(folder.names().is_empty());
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_absent() {
    let folder = Folder::new("unreadable");
    // A folder opens and does not read: an error that no user is exempt from.
    fs::create_dir(folder.0.join("work.claim-0001")).unwrap();
    let error = Watcher::default().try_claim(&folder.work()).unwrap_err();
    assert!(matches!(error, ClaimError::Io { .. }), "{error}");
    assert_eq!(folder.names(), ["work.claim-0001"]);
    let nowhere = folder.0.join("no/such/work");
    let error = Watcher::default().try_claim(&nowhere).unwrap_err();
    assert!(matches!(error, ClaimError::Io { .. }), "{error}");
}

fn may_unshare() -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["--uts", "--pid", "--fork", "--mount-proc", "true"]);
    let may = try_it
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !may {
        eprintln!(
            "SKIPPED: namespaces need root and `unshare`; claims across hosts are not tested"
        );
    }
    may
}

const OTHER_HOST: [&str; 8] = [
    "unshare",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
];

#[test]
fn a_host_that_cannot_be_looked_into_is_judged_by_its_beats() {
    if !may_unshare() {
        return;
    }
    let folder = Folder::new("other_host");
    let mut wrap = OTHER_HOST.to_vec();
    wrap.extend(["hostname nodeA; exec \"$@\"", "sh"]);
    let mut other = Other::start(process("hold", &folder.0, SHORT, &wrap));
    // Its number means another process here, or none; it lives all the same.
    let started = Instant::now();
    let error = Watcher::new(limits(SHORT))
        .claim(&folder.work(), |_| started.elapsed() < SHORT * 3)
        .unwrap_err();
    assert!(error.to_string().contains("host `nodeA`"), "{error}");
    assert!(
        matches!(&error, ClaimError::Held(holder) if holder.is_alive),
        "{error:?}"
    );
    other.is_asked_and_says("mine");
    // With its parent, `unshare`, the whole namespace ends, a moment later: the end of its stdin must not come first.
    let _stdin = other.child.stdin.take();
    other.gets("-KILL");
    other.child.wait().unwrap();
    let (_claim, took, _) = claimed(&folder.work(), SHORT);
    assert!(took > SHORT / 2, "{took:?}");
}

#[test]
fn a_hidden_or_foreign_proc_does_not_kill_the_living() {
    if !may_unshare() {
        return;
    }
    let hidden = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /proc; exec \"$@\"",
        "sh",
    ];
    // The numbers of this namespace mean other processes in the `/proc` that it sees.
    let foreign = ["unshare", "--pid", "--fork", "--kill-child"];
    for (name, wrap) in [("hidden", &hidden[..]), ("foreign", &foreign[..])] {
        let folder = Folder::new(&format!("proc_{name}"));
        let mut command = process("judge", &folder.0, SHORT, wrap);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(folder.names().is_empty(), "{name}: {:?}", folder.names());
    }
}

/// Both the holder and the judge see the same strange `/proc`.
fn judge_a_neighbour(folder: &Path, silence: Duration) {
    // Where there is no `/proc`, `current_exe` does not know; the first argument does.
    let me = std::env::args_os().next().unwrap();
    let mut command = Command::new(me);
    command
        .args(["--exact", "in_another_process", "--nocapture"])
        .env(ROLE, "hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut other = Other::start(command);
    let started = Instant::now();
    let work = folder.join("work");
    let held = Watcher::new(limits(silence)).claim(&work, |_| started.elapsed() < silence * 3);
    assert!(matches!(held, Err(ClaimError::Held(_))), "{held:?}");
    other.is_asked_and_says("mine");
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    drop(claimed(&work, silence));
}

#[test]
fn a_file_system_that_cannot_rename_is_refused_before_any_work() {
    let folder = Folder::new("no_rename");
    let Some(liar) = liar::build(&folder.0.with_extension("liar.so")) else {
        return;
    };
    for errno in [38, 22, 95] {
        let mut command = process("hold", &folder.0, LONG, &[]);
        command
            .env("LD_PRELOAD", &liar)
            .env("LIE_PATH", "work")
            .env("LIE_RENAME", format!("refuse {errno}"));
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("NoRename"),
            "{errno}: {said}"
        );
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
    fs::remove_file(liar).unwrap();
}

#[test]
fn without_links_claims_are_made_another_way() {
    let folder = Folder::new("no_links");
    let Some(liar) = liar::build(&folder.0.with_extension("liar.so")) else {
        return;
    };
    // EPERM, EXDEV, EINVAL, EMLINK, ENOSYS, ENOTSUP
    for errno in [1, 18, 22, 31, 38, 95] {
        let lying = |role: &str| {
            let mut command = process(role, &folder.0, LONG, &[]);
            command
                .env("LD_PRELOAD", &liar)
                .env("LIE_PATH", "work")
                .env("LIE_LINK", format!("refuse {errno}"));
            command
        };
        let mut other = Other::start(lying("hold"));
        other.is_asked_and_says("mine");
        let error = Watcher::new(limits(LONG))
            .try_claim(&folder.work())
            .unwrap_err();
        assert!(matches!(error, ClaimError::Held(_)), "{errno}: {error}");
        other.lets_go();
        assert!(folder.names().is_empty(), "{errno}: {:?}", folder.names());
    }
    fs::remove_file(liar).unwrap();
}

#[test]
fn lost_answers_and_failed_removals_stop_nobody() {
    let folder = Folder::new("lies");
    let Some(liar) = liar::build(&folder.0.with_extension("liar.so")) else {
        return;
    };
    for (what, how) in [
        ("LIE_LINK", "lose 1"),
        ("LIE_LINK", "lose 3"),
        ("LIE_LINK", "fail 5"),
        ("LIE_UNLINK", "lose 2"),
        ("LIE_UNLINK", "fail 2"),
        // Never: everything stays, and nobody waits for it.
        ("LIE_UNLINK", "refuse 5"),
        ("LIE_RENAME", "lose 7"),
    ] {
        let lie = [("LIE_PATH", "work"), (what, how)];
        let n_rounds = 30;
        let told = contest(&folder.0, n_rounds, LONG, 3, &[], |command| {
            command.env("LD_PRELOAD", &liar).envs(lie);
        });
        let left: Vec<String> = folder.names();
        if how != "refuse 5" {
            assert!(
                !left.iter().any(|name| name.contains("claim")),
                "{what} {how}: {left:?}"
            );
        }
        assert_eq!(told.doubles, [], "{what} {how}");
        fs::remove_dir_all(&folder.0).unwrap();
        fs::create_dir(&folder.0).unwrap();
    }
    fs::remove_file(liar).unwrap();
}

#[test]
fn of_many_that_are_killed_at_random_no_two_hold_one_claim() {
    let folder = Folder::new("kills");
    let told = contest(&folder.0, n_rounds(), LONG, 4, &["-KILL"], |_| ());
    eprintln!("{told:?}");
    assert_eq!(told.doubles, []);
    assert!(told.n_signals > 10, "{told:?}");
}

#[test]
fn of_many_that_are_paused_at_random_none_does_harm() {
    let folder = Folder::new("pauses");
    let silence = Duration::from_millis(400);
    let told = contest(
        &folder.0,
        n_rounds() / 2,
        silence,
        4,
        &["-STOP", "-KILL"],
        |_| (),
    );
    eprintln!("{told:?}");
    assert!(told.n_signals > 2, "{told:?}");
}

/// Some hundreds by default; `LOGITCASK_FULL=1` makes it ten thousand.
fn n_rounds() -> u32 {
    match std::env::var_os("LOGITCASK_FULL").is_some() {
        true => 10_000,
        false => 400,
    }
}

/// What became of a contest.
#[derive(Debug, Default)]
struct Told {
    n_signals: usize,
    paused: Vec<u32>,
    /// Two processes that were at work at once.
    doubles: Vec<(u32, u32)>,
}

/// Several processes do the same rounds of work, one after the other, and are sent signals meanwhile: the killed are
/// replaced, the paused go on after a while. In the end all work is done, and right.
fn contest(
    folder: &Path,
    n_rounds: u32,
    silence: Duration,
    n_processes: usize,
    signals: &[&str],
    prepare: impl Fn(&mut Command),
) -> Told {
    let start = || {
        let mut command = process("race", folder, silence, &[]);
        command
            .env(N_ROUNDS, n_rounds.to_string())
            .stdout(Stdio::null());
        prepare(&mut command);
        command.spawn().unwrap()
    };
    // On a busy machine all of it takes long; some of it is done every while.
    let patience = Duration::from_secs(120);
    let (mut n_done, mut last_looked) = (String::new(), Instant::now());
    let mut running: Vec<Child> = (0..n_processes).map(|_| start()).collect();
    let mut told = Told::default();
    while !running.is_empty() {
        if last_looked.elapsed() > patience {
            let n_now = fs::read_to_string(folder.join("reached")).unwrap_or_default();
            assert!(n_now != n_done, "nobody gets on: {n_now} rounds");
            (n_done, last_looked) = (n_now, Instant::now());
        }
        running.retain_mut(|child| match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                false
            }
            None => true,
        });
        std::thread::sleep(Duration::from_millis(7 + told.n_signals as u64 % 13));
        if signals.is_empty() || running.is_empty() {
            continue;
        }
        let signal = signals[told.n_signals % signals.len()];
        let at = told.n_signals * 7 % running.len();
        told.n_signals += 1;
        let child = &mut running[at];
        if child.try_wait().unwrap().is_some() {
            continue;
        }
        signalled(child, signal);
        if signal == "-KILL" {
            child.wait().unwrap();
            running[at] = start();
        } else {
            told.paused.push(child.id());
            std::thread::sleep(silence * 5 / 4);
            signalled(child, "-CONT");
        }
    }
    for round in 0..n_rounds {
        let text = fs::read_to_string(folder.join(format!("done-{round}"))).unwrap();
        assert_eq!(text, right(round));
    }
    let doubles = fs::read_to_string(folder.join("doubles"));
    for line in doubles.unwrap_or_default().lines() {
        let (one, other) = line.split_once(' ').unwrap();
        told.doubles
            .push((one.parse().unwrap(), other.parse().unwrap()));
    }
    told
}

/// The work is a function of its round: whoever does it gets the same.
fn right(round: u32) -> String {
    format!(
        "{round} squared is {}\n",
        u64::from(round) * u64::from(round)
    )
}

/// Does whichever round is not done, after claiming it. Who finds somebody alive inside says so.
fn race(folder: &Path, silence: Duration) {
    let n_rounds: u32 = std::env::var(N_ROUNDS).unwrap().parse().unwrap();
    let mut watcher = Watcher::new(limits(silence));
    // Whoever is started anew does not look for thousands of rounds again: it would be killed before it had found its place.
    let reached = folder.join("reached");
    let first = fs::read_to_string(&reached).ok();
    let first = first.and_then(|round| round.parse().ok()).unwrap_or(0);
    for round in first..n_rounds {
        let done = folder.join(format!("done-{round}"));
        let is_done = || match fs::metadata(&done) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{error}"),
        };
        while !is_done() {
            let claim = match watcher.claim(&folder.join("work"), |_| !is_done()) {
                Ok(claim) => claim,
                Err(ClaimError::Held(_)) => continue,
                // A link that failed and was not made: the next command would try again.
                Err(ClaimError::Io { source, .. }) if source.raw_os_error() == Some(5) => continue,
                Err(error) => panic!("{error}: {error:?}"),
            };
            if is_done() {
                continue;
            }
            enter(folder);
            std::thread::sleep(Duration::from_millis(2));
            let draft = folder.join(format!("draft-{}", std::process::id()));
            fs::write(&draft, right(round)).unwrap();
            let commit = claim.check();
            if commit.is_ok() {
                fs::rename(&draft, &done).unwrap();
                // All before this round is done: there is one claim on all of them.
                fs::write(&draft, round.to_string()).unwrap();
                fs::rename(&draft, &reached).unwrap();
            }
            let _ = fs::remove_file(folder.join("inside"));
            match commit {
                Ok(()) | Err(ClaimError::Lost { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Leaves a mark that nobody else may find while its process lives.
fn enter(folder: &Path) {
    let (mark, me) = (folder.join("inside"), std::process::id());
    for _ in 0..2 {
        let made = OpenOptions::new().write(true).create_new(true).open(&mark);
        if let Ok(mut file) = made {
            return write!(file, "{me}").unwrap();
        }
        let found = fs::read_to_string(&mark).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{found}/stat")).unwrap_or_default();
        let is_alive = !found.is_empty() && !stat.is_empty() && !stat.contains(") Z");
        if is_alive {
            let mut doubles = OpenOptions::new();
            let file = doubles
                .append(true)
                .create(true)
                .open(folder.join("doubles"));
            writeln!(file.unwrap(), "{me} {found}").unwrap();
        }
        let _ = fs::remove_file(&mark);
    }
}
