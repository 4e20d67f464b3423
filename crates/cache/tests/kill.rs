//! Captures killed with SIGKILL at random moments, and taken up again: the files end up identical to the byte.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logitcask_cache::{Encoding, LogitCache, Manifest, OpenOptions};
use support::{capture, files, label, logit, manifest};

const FOLDER: &str = "LOGITCASK_KILL_TEST_FOLDER";
const N_VIEWS: u32 = 3;

fn synthetic() -> Manifest {
    manifest(Encoding::F16, 160, 10, 16)
}

/// Not a test of its own: what the child process runs.
#[test]
fn child_that_captures() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        capture(Path::new(&folder), &synthetic(), N_VIEWS, &[5, 77]);
    }
}

fn child(folder: &Path) -> Child {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new(me);
    command
        .args(["--exact", "child_that_captures"])
        .env(FOLDER, folder);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
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

fn kill_and_resume(n_kills: u32) {
    let whole = tempfile::tempdir().unwrap();
    let started = Instant::now();
    assert!(child(whole.path()).wait().unwrap().success());
    let whole_time = started.elapsed();
    let cache = logitcask_cache::list(whole.path()).unwrap().remove(0);
    let expected = files(&cache.path);

    let (mut kills, mut round) = (0, 0u64);
    while kills < n_kills {
        let root = tempfile::tempdir().unwrap();
        // The moments are spread over the whole run by the golden ratio; a run that ends before its moment starts anew.
        loop {
            round += 1;
            let share = (round as f64 * 0.618_033_988_749_895).fract();
            let moment = Instant::now() + whole_time.mul_f64(share);
            let mut child = child(root.path());
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if Instant::now() >= moment {
                    break None;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            match ended {
                Some(status) if status.success() => break,
                // Killed between making its lock and writing its name into it, a process leaves a lock that nobody can
                // judge but by its age: for a minute it is refused.
                Some(_) => {
                    std::thread::sleep(Duration::from_secs(61));
                    continue;
                }
                None => {}
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            check_what_is_there(root.path());
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
#[test]
fn a_killed_capture_loses_nothing_that_it_had_finished() {
    let is_full = std::env::var_os("LOGITCASK_FULL").is_some();
    kill_and_resume(if is_full { 200 } else { 12 });
}
