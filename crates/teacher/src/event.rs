//! What a capture tells while it runs. Printing it is somebody else's business.

use std::time::Duration;

/// Something that happened; handed to the caller's closure on the caller's own thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Work begins, or begins again after [`Event::Halved`].
    Started(Plan),
    /// Comes a few times per second.
    Progress(Progress),
    /// A view's last chunk is on disk, and the view is part of the cache.
    ViewFinished {
        /// The view's number, from 0.
        view: u32,
    },
    /// A sample could not be decoded; its row is null.
    BadSample {
        /// Its index in the split.
        sample: u32,
        /// What the decoder or the file system objected to.
        error: logitcask_dataset::DatasetError,
    },
    /// Memory ran out; the unfinished chunks are done again with half as many images at once.
    Halved {
        /// Images in one run, before.
        from: usize,
        /// Images in one run from now on: half of `from`, rounded down.
        to: usize,
    },
}

/// How a capture is going to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Images still to do: samples times views.
    pub images: u64,
    /// Images in one run of the teacher.
    pub batch_size: usize,
    /// Sessions that run side by side.
    pub sessions: usize,
    /// Threads with which each session computes.
    pub threads_each: usize,
    /// Threads that decode and augment.
    pub decoders: usize,
    /// The most that batches of pixels and open chunks will ever take together, in bytes. The sessions' weights and
    /// intermediate results come on top.
    pub buffer_bytes: u64,
}

/// How far a capture is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Images answered since the start.
    pub done: u64,
    /// Images to answer in all: [`Plan::images`].
    pub total: u64,
    /// Time since the start.
    pub elapsed: Duration,
    /// Over the last few seconds.
    pub images_per_s: f64,
    /// Where the sessions' time went since the start.
    pub shares: Shares,
}

impl Progress {
    /// Seconds left at the present rate; `None` before there is a rate.
    pub fn eta_s(&self) -> Option<f64> {
        (self.images_per_s > 0.0)
            .then(|| self.total.saturating_sub(self.done) as f64 / self.images_per_s)
    }
}

/// Shares of the sessions' time, each 0 to 1, together 1 apart from rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// The teacher computed: what a faster device would shorten.
    pub model: f64,
    /// A session waited for decoded pixels.
    pub decode: f64,
    /// A session waited because finished rows could not be written as fast.
    pub disk: f64,
}
