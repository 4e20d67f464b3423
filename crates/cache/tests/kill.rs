//! Captures killed with SIGKILL at random moments, and taken up again: the files end up identical to the byte.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logitcask_cache::{CacheError, Encoding, LogitCache, LogitWriter, Manifest, OpenOptions};
use support::{files, label, logit, manifest, write_chunk};

const FOLDER: &str = "LOGITCASK_KILL_TEST_FOLDER";
const CHUNKS: &str = "LOGITCASK_KILL_TEST_CHUNKS";
const N_VIEWS: u32 = 3;

fn synthetic() -> Manifest {
    manifest(Encoding::F16, 160, 10, 16)
}

/// Not a test of its own: what the child process runs.
#[test]
fn child_that_captures() {
    let (Some(folder), Ok(chunks)) = (std::env::var_os(FOLDER), std::env::var(CHUNKS)) else {
        return;
    };
    let (start, end) = chunks.split_once("..").unwrap();
    let chunks = start.parse().unwrap()..end.parse().unwrap();
    let writer = LogitWriter::open_part(Path::new(&folder), &synthetic(), |_| chunks).unwrap();
    for view in 0..N_VIEWS {
        for chunk in writer.missing_chunks(view).unwrap() {
            write_chunk(&writer, view, chunk, &[5, 77]);
        }
        // Another part may have to complete it.
        match writer.finish_view(view) {
            Ok(()) | Err(CacheError::Unfinished { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn child(folder: &Path, chunks: &str) -> Child {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new(me);
    command
        .args(["--exact", "child_that_captures", "--nocapture"])
        .env(FOLDER, folder)
        .env(CHUNKS, chunks);
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Everything that can be read after a kill must be right.
fn check_what_is_there(root: &Path) {
    for cache in logitcask_cache::list(root).unwrap() {
        assert_eq!(cache.problem, None);
        let cache = LogitCache::open(&cache.path, OpenOptions::default()).unwrap();
        let mut row = [0.0; 10];
        for &view in cache.views() {
            for sample in 0..160 {
                let found = cache.row_or_null(sample, view, &mut row).unwrap();
                assert_eq!(
                    found,
                    (sample != 5 && sample != 77).then(|| label(sample, 10))
                );
                if found.is_some() {
                    assert!((row[3] - logit(sample, view, 3)).abs() < 0.01);
                }
            }
        }
    }
}

/// Runs one process for each of `parts` at a time, kills them at random moments and starts them again until all have
/// ended by themselves; over and over, until `n_kills` have been killed.
fn kill_and_resume(parts: &[&'static str], n_kills: u32) {
    let whole = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert!(child(whole.path(), "0..10").wait().unwrap().success());
    let whole_time = started.elapsed();
    let cache = logitcask_cache::list(whole.path()).unwrap().remove(0);
    let expected = files(&cache.path);

    let (mut kills, mut round) = (0, 0u64);
    while kills < n_kills {
        let root = tempfile::tempdir().unwrap();
        // The moments are spread over the whole run by the golden ratio.
        let mut start = |part: &'static str| {
            round += 1;
            let share = (round as f64 * 0.618_033_988_749_895).fract();
            let moment = Instant::now() + whole_time.mul_f64(share);
            (part, child(root.path(), part), moment)
        };
        let mut running: Vec<_> = parts.iter().map(|part| start(part)).collect();
        while let Some((part, mut process, moment)) = running.pop() {
            match process.try_wait().unwrap() {
                Some(status) if status.success() => {}
                Some(status) => panic!("nobody is in the way of the part {part}: {status}"),
                None if Instant::now() < moment => {
                    std::thread::sleep(Duration::from_micros(200));
                    running.insert(0, (part, process, moment));
                }
                None => {
                    process.kill().unwrap();
                    process.wait().unwrap();
                    kills += 1;
                    check_what_is_there(root.path());
                    running.insert(0, start(part));
                }
            }
        }
        let cache = logitcask_cache::list(root.path()).unwrap().remove(0);
        let found = files(&cache.path);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        assert!(
            found == expected,
            "a resumed capture differs after {kills} kills"
        );
        check_what_is_there(root.path());
    }
}

/// A dozen by default; `LOGITCASK_FULL=1` makes it two hundred.
fn n_kills() -> u32 {
    if std::env::var_os("LOGITCASK_FULL").is_some() {
        200
    } else {
        12
    }
}

#[test]
fn a_killed_capture_loses_nothing_that_it_had_finished() {
    kill_and_resume(&["0..10"], n_kills());
}

/// Pauses the process, and makes its claims as old as if that were long ago.
#[cfg(target_os = "linux")]
fn pause_for_long(process: &Child, root: &Path) {
    signal(process, "-STOP");
    let stat = format!("/proc/{}/stat", process.id());
    let is_running = || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        !stat.contains(") T") && !stat.contains(") Z")
    };
    while is_running() {
        std::thread::yield_now();
    }
    for cache in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(cache.unwrap().path()).unwrap() {
            let file = file.unwrap();
            if file.file_name().to_string_lossy().contains(".claim-") {
                let file = std::fs::File::options().write(true).open(file.path());
                file.unwrap()
                    .set_modified(std::time::SystemTime::UNIX_EPOCH)
                    .unwrap();
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn signal(process: &Child, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &process.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_paused_capture_that_was_taken_over_finds_its_work_done() {
    let whole = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert!(child(whole.path(), "0..10").wait().unwrap().success());
    let whole_time = started.elapsed();
    let expected = files(&logitcask_cache::list(whole.path()).unwrap().remove(0).path);
    for round in 1..=n_kills() {
        let root = tempfile::tempdir().unwrap();
        let mut paused = child(root.path(), "0..10");
        let share = (f64::from(round) * 0.618_033_988_749_895).fract();
        std::thread::sleep(whole_time.mul_f64(share));
        pause_for_long(&paused, root.path());
        assert!(child(root.path(), "0..10").wait().unwrap().success());
        signal(&paused, "-CONT");
        assert!(paused.wait().unwrap().success(), "round {round}");
        let cache = logitcask_cache::list(root.path()).unwrap().remove(0);
        assert!(files(&cache.path) == expected, "round {round}");
        check_what_is_there(root.path());
    }
}

#[test]
fn killed_parts_of_one_capture_lose_nothing_either() {
    kill_and_resume(&["0..3", "3..10", "10..10"], n_kills());
}
