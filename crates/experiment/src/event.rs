//! What happens while an experiment is at work, for whoever watches: a terminal, a log, a program.

use logitcask_cache::LogitCache;
use logitcask_student::Network;
use logitcask_teacher::{Accuracy, BatchSize, CaptureReport, Teacher};

use crate::want::CacheWant;

/// Something that happened. Sentences are for people; what a program may want to know comes as values.
#[non_exhaustive]
pub enum Event<'a> {
    /// What is being done.
    Info(String),
    /// What a person may want to know, and need not act on.
    Note(String),
    /// What may be meant, and what to do if it is not.
    Warning {
        /// What is strange, in one sentence.
        what: String,
        /// What to look at, and what to change.
        hint: String,
    },
    /// How far a long piece of work is.
    Progress {
        /// What it is: `reading images`.
        what: &'a str,
        /// What is counted: `img`.
        unit: &'static str,
        /// So many are done.
        done: u64,
        /// Of so many; 0 where that is not known yet.
        total: u64,
    },
    /// That piece of work has ended, well or not.
    Ended,
    /// A teacher is loaded and passed its checks.
    Teacher(&'a Teacher),
    /// A teacher was asked about labelled images.
    Accuracy {
        /// Which images: `training images`.
        of: &'a str,
        /// On how many it was right.
        accuracy: &'a Accuracy,
    },
    /// How many images are given to a teacher at once, and what was tried.
    BatchSize(&'a BatchSize),
    /// A capture goes on.
    Capture {
        /// The cache that is being filled.
        want: &'a CacheWant<'a>,
        /// What the teacher's capture tells.
        event: logitcask_teacher::Event,
    },
    /// A capture was stopped.
    Stopped {
        /// The cache that it was filling.
        want: &'a CacheWant<'a>,
        /// So many images are on disk since it began.
        images: u64,
        /// So long it took.
        seconds: f64,
    },
    /// A cache holds what is wanted of it, as far as this process's part goes.
    Cached {
        /// The cache as the recipe wants it.
        want: &'a CacheWant<'a>,
        /// The cache that was found or made.
        cache: &'a LogitCache,
        /// What it took; `None` where everything was there.
        report: Option<&'a CaptureReport>,
    },
    /// A student's training goes on.
    Training {
        /// The student that is being trained.
        network: &'a Network,
        /// Epochs that the recipe asks for.
        epochs: usize,
        /// What the training tells.
        event: logitcask_student::Event<'a>,
    },
}

/// Who watches. Called from the thread that works, so it had better be quick.
pub type Watch<'w> = dyn Fn(Event<'_>) + 'w;

pub(crate) fn info(watch: &Watch<'_>, text: impl Into<String>) {
    watch(Event::Info(text.into()));
}

pub(crate) fn note(watch: &Watch<'_>, text: impl Into<String>) {
    watch(Event::Note(text.into()));
}

/// Runs a piece of work that tells how far it is, as (done, total).
pub(crate) fn with_progress<T>(
    watch: &Watch<'_>,
    what: &str,
    unit: &'static str,
    work: impl FnOnce(&dyn Fn(u64, u64)) -> T,
) -> T {
    let outcome = work(&|done, total| {
        watch(Event::Progress {
            what,
            unit,
            done,
            total,
        });
    });
    watch(Event::Ended);
    outcome
}
