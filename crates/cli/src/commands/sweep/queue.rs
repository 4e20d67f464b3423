//! The runs of a sweep that are missing, and how they are trained.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logitcask_durable::Claim;

use super::live::Live;
use super::lock::locked;
use super::process::{last_lines, myself, spawn, wait};
use super::task::{Task, write_recipe};
use crate::args;
use logitcask_experiment::{Failure, Outcome, RECIPE};

/// Missing runs, and whoever takes the next one.
///
/// Each run is a process of its own: a run that dies takes no other with it, and none shares a thread with another.
pub(super) struct Queue<'a> {
    pub(super) args: &'a args::Sweep,
    pub(super) claim: &'a Claim,
    pub(super) lines: &'a Path,
    pub(super) missing: Mutex<VecDeque<Task>>,
    pub(super) failures: Mutex<Vec<String>>,
    pub(super) live: Live,
    pub(super) stop: &'a AtomicBool,
}

impl Queue<'_> {
    pub(super) fn work(&self) {
        let slots = self
            .args
            .devices
            .iter()
            .flat_map(|device| (0..self.args.jobs).map(move |_| device));
        std::thread::scope(|scope| {
            for device in slots {
                scope.spawn(move || self.serve(device));
            }
        });
        self.live.finish();
    }

    /// One run after the other, until none is left or a stop is asked for.
    fn serve(&self, device: &str) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(task) = locked(&self.missing).pop_front() else {
                return;
            };
            match self.train(&task, device) {
                Ok(true) => {}
                // Stopped: it is still to be done.
                Ok(false) => locked(&self.missing).push_front(task),
                Err(failure) => {
                    self.live.line(format!("{}: {failure}", task.title()));
                    locked(&self.failures).push(task.title());
                }
            }
        }
    }

    /// False if it was stopped.
    fn train(&self, task: &Task, device: &str) -> Outcome<bool> {
        let cannot =
            |error| Failure::work(format!("cannot make `{}`: {error}", task.folder.display()));
        logitcask_durable::create_dir_all(&task.folder).map_err(cannot)?;
        let recipe = task.folder.join(RECIPE);
        write_recipe(&recipe, &task.planned.recipe)?;
        let mut command = myself()?;
        command
            .arg("student")
            .arg(&recipe)
            .arg("--out")
            .arg(&task.folder)
            .arg("--cache-dir")
            .arg(&self.args.cache_dir)
            .args([
                "--device",
                device,
                "--threads",
                &self.threads_each().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let bar = self.live.start(task);
        let mut child = spawn(&mut command)?;
        let said = child
            .stderr
            .take()
            .map(|stderr| std::thread::spawn(move || last_lines(stderr)));
        let mut looked = Instant::now();
        let succeeded = wait(&mut child, self.stop, &mut || {
            if looked.elapsed() > Duration::from_millis(500) {
                looked = Instant::now();
                self.live.look(&bar, task);
            }
        });
        let said = said
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        bar.finish_and_clear();
        if !succeeded? {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            return Err(Failure::work(format!("the run failed\n{said}")));
        }
        let finished = task.finished()?;
        // One writer at a time.
        let missing = locked(&self.missing);
        self.claim.check()?;
        finished.append(self.lines)?;
        drop(missing);
        self.live.done(task, &finished);
        Ok(true)
    }

    fn threads_each(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let slots = self.args.jobs * self.args.devices.len();
        (self.args.threads.unwrap_or_else(cores) / slots).max(1)
    }

    pub(super) fn left(&self) -> (usize, usize) {
        (locked(&self.missing).len(), locked(&self.failures).len())
    }
}
