//! How far a sweep is, for people.

use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use logitcask_experiment::Finished;
use logitcask_student::EpochRecord;

use super::lock::locked;
use super::task::Task;
use crate::progress::{duration, on_terminal, say};

/// A bar for each run at work and one for the whole on a terminal; a line per finished run elsewhere.
pub(super) struct Live {
    bars: Option<MultiProgress>,
    whole: ProgressBar,
    done: Mutex<usize>,
    n_runs: usize,
}

impl Live {
    pub(super) fn new(n_runs: usize) -> Self {
        let bars = (on_terminal() && n_runs > 0).then(MultiProgress::new);
        let whole = ProgressBar::new(n_runs as u64);
        if let Some(bars) = &bars {
            let whole = bars.add(whole.clone());
            whole.set_style(style(
                "{msg:32} {wide_bar} {pos}/{len} runs    {elapsed} so far",
            ));
            whole.set_message("sweep");
        }
        Self {
            bars,
            whole,
            done: Mutex::new(0),
            n_runs,
        }
    }

    pub(super) fn start(&self, task: &Task) -> ProgressBar {
        let Some(bars) = &self.bars else {
            return ProgressBar::hidden();
        };
        let bar = bars.insert_before(&self.whole, ProgressBar::new(task.epochs()));
        bar.set_style(style(
            "{prefix:32} {wide_bar} {pos}/{len} epochs  {eta} left  {msg}",
        ));
        bar.set_prefix(task.title());
        self.look(&bar, task);
        bar
    }

    /// How far a run is.
    pub(super) fn look(&self, bar: &ProgressBar, task: &Task) {
        if self.bars.is_none() {
            return;
        }
        // A file that cannot be read now can be read later; the run itself says what is wrong with it.
        let epochs = EpochRecord::read_all(&task.folder).unwrap_or_default();
        if bar.position() == 0 && !epochs.is_empty() {
            bar.set_position(epochs.len() as u64);
            bar.reset_eta();
        }
        bar.set_position(epochs.len() as u64);
        if let Some(eval) = epochs.last().and_then(|epoch| epoch.eval) {
            bar.set_message(format!("top-1 {:.2} %", 100.0 * eval.top1));
        }
    }

    pub(super) fn done(&self, task: &Task, finished: &Finished) {
        let mut done = locked(&self.done);
        *done += 1;
        self.whole.set_position(*done as u64);
        let record = &finished.record;
        let accuracy = record.last.eval.map_or("no evaluation".to_owned(), |last| {
            let best = record.best.eval.unwrap_or(last);
            format!(
                "top-1 {:.2} % after the last epoch, {:.2} % at best (epoch {})",
                100.0 * last.top1,
                100.0 * best.top1,
                record.best.epoch
            )
        });
        self.line(format!(
            "[{}/{}] {}: {accuracy}; trained for {}",
            *done,
            self.n_runs,
            task.title(),
            duration(record.times.train_seconds)
        ));
    }

    pub(super) fn line(&self, text: String) {
        match &self.bars {
            // A terminal that cannot be written to has nobody to tell.
            Some(bars) => drop(bars.println(text)),
            None => say(text),
        }
    }

    pub(super) fn finish(&self) {
        self.whole.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
