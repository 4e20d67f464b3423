//! Batches rendered ahead of whoever trains on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::batch::{Scratch, render_with};
use crate::{Dataset, DatasetError, PixelBatch, PixelLayout, Preprocess, ViewFamily};

/// Batches rendered ahead of time on several threads, handed over in the order asked for.
///
/// Each thread renders a batch of its own. At most `ahead` batches beyond the one being waited for are in work or
/// ready, so memory is bounded; give batches [back](Loader::recycle) and their buffers are used again.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts `threads` threads (at least one) on `batches`, each a list of (sample, view).
    pub fn new(
        dataset: Arc<Dataset>,
        family: Arc<ViewFamily>,
        preprocess: Preprocess,
        layout: PixelLayout,
        batches: impl Iterator<Item = Vec<(u32, u32)>> + Send + 'static,
        threads: usize,
        ahead: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                batches: Box::new(batches),
                n_given: 0,
                n_taken: 0,
                exhausted: false,
                stopped: false,
                panicked: false,
                ready: BTreeMap::new(),
                free: Vec::new(),
            }),
            room: Condvar::new(),
            arrived: Condvar::new(),
            ahead: ahead as u64,
        });
        let work = Arc::new((dataset, family, preprocess));
        let start = |_| {
            let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
            std::thread::spawn(move || {
                let _guard = PanicGuard(&shared);
                let (dataset, family, preprocess) = &*work;
                let mut scratch = Scratch::default();
                while let Some(Task {
                    number,
                    requests,
                    mut batch,
                }) = shared.next_task(layout)
                {
                    let rendered = render_with(
                        dataset,
                        family,
                        preprocess,
                        &requests,
                        &mut batch,
                        &mut scratch,
                    );
                    shared.deliver(number, rendered.map(|()| batch));
                }
            })
        };
        Self {
            threads: (0..threads.max(1)).map(start).collect(),
            shared,
        }
    }

    /// Gives a batch back, so that its buffers are used again.
    pub fn recycle(&self, batch: PixelBatch) {
        self.shared.lock().free.push(batch);
    }
}

impl Iterator for Loader {
    type Item = Result<PixelBatch, DatasetError>;

    /// The next batch; after an error there are none.
    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        loop {
            if state.stopped {
                return None;
            }
            let number = state.n_taken;
            if let Some(batch) = state.ready.remove(&number) {
                state.n_taken += 1;
                state.stopped = batch.is_err();
                self.shared.room.notify_all();
                return Some(batch);
            }
            if state.panicked {
                state.stopped = true;
                return Some(Err(DatasetError::LoaderPanicked));
            }
            if state.exhausted && state.n_taken == state.n_given {
                return None;
            }
            state = self
                .shared
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A panic has been reported by `next`, or nobody was interested any more.
            let _ = thread.join();
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// There is room for another batch, or it is time to stop.
    room: Condvar,
    /// A batch has arrived, or none will.
    arrived: Condvar,
    ahead: u64,
}

struct State {
    batches: Box<dyn Iterator<Item = Vec<(u32, u32)>> + Send>,
    /// Batches given to threads; the number of the next one.
    n_given: u64,
    /// Batches handed over; the number of the one waited for.
    n_taken: u64,
    exhausted: bool,
    stopped: bool,
    panicked: bool,
    ready: BTreeMap<u64, Result<PixelBatch, DatasetError>>,
    free: Vec<PixelBatch>,
}

/// A batch for a thread to render.
struct Task {
    number: u64,
    requests: Vec<(u32, u32)>,
    batch: PixelBatch,
}

impl Shared {
    /// A thread that panics marks the state itself, so what a poisoned lock holds is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_task(&self, layout: PixelLayout) -> Option<Task> {
        let mut state = self.lock();
        while !state.stopped && state.n_given > state.n_taken + self.ahead {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        let Some(requests) = state.batches.next() else {
            state.exhausted = true;
            self.arrived.notify_all();
            self.room.notify_all();
            return None;
        };
        let number = state.n_given;
        state.n_given += 1;
        let batch = state.free.pop().unwrap_or_else(|| PixelBatch::new(layout));
        Some(Task {
            number,
            requests,
            batch,
        })
    }

    fn deliver(&self, number: u64, batch: Result<PixelBatch, DatasetError>) {
        self.lock().ready.insert(number, batch);
        self.arrived.notify_all();
    }
}

struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.arrived.notify_all();
        }
    }
}
