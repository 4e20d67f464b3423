//! A run of a sweep as a process of its own, which ends when the sweep does.

use logitcask_experiment::{Failure, Outcome};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// This very program, told to stop when we are gone: a sweep that is killed leaves nobody training behind its back.
pub(super) fn myself() -> Outcome<Command> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::work(format!("cannot find this program's own file: {error}")))?;
    let mut command = Command::new(path);
    command.arg("--stop-with-stdin");
    Ok(command)
}

pub(super) fn spawn(command: &mut Command) -> Outcome<Child> {
    command
        .spawn()
        .map_err(|error| Failure::work(format!("cannot start a process: {error}")))
}

/// Waits for the end; a stop is handed on by closing the child's stdin. True if the child succeeded.
pub(super) fn wait(
    child: &mut Child,
    stop: &AtomicBool,
    meanwhile: &mut dyn FnMut(),
) -> Outcome<bool> {
    loop {
        let ended = child
            .try_wait()
            .map_err(|error| Failure::work(format!("cannot wait for a process: {error}")))?;
        if let Some(status) = ended {
            return Ok(status.success());
        }
        if stop.load(Ordering::Relaxed) {
            drop(child.stdin.take());
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a failed run said at its end.
pub(super) fn last_lines(stderr: impl std::io::Read) -> String {
    const N_LINES: usize = 8;
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        last.push_back(format!("    {line}"));
        if last.len() > N_LINES {
            last.pop_front();
        }
    }
    Vec::from(last).join("\n")
}
