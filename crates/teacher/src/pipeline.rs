//! Decode threads -> bounded queue -> one session per worker -> the caller, who writes.
//!
//! Decoders and workers are separate threads on the same cores: while the queue is full the decoders sleep and every
//! core computes; where decoding is the slower part, the workers sleep and every core decodes. The caller's thread
//! takes the answers, so that writing and reporting need no locks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logitcask_dataset::{
    BadSample, Dataset, DatasetError, PixelBatch, PixelLayout, Preprocess, ViewFamily, render_views,
};

use crate::error::TeacherError;
use crate::event::Shares;
use crate::queue::{Popped, Queue};
use crate::session::Answer;
use crate::teacher::{Split, Teacher};

/// Where pixels come from.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    /// The split whose samples are decoded.
    pub dataset: &'a Dataset,
    /// How they are augmented.
    pub family: &'a ViewFamily,
    /// How they become the teacher's input.
    pub preprocess: &'a Preprocess,
}

/// One batch: samples of one view, inside one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) view: u32,
    pub(crate) chunk: u32,
    /// (sample, view), as pixels are asked for.
    pub(crate) requests: Vec<(u32, u32)>,
}

/// The teacher's answer to one batch.
pub(crate) struct Answered {
    pub(crate) task: Task,
    pub(crate) answer: Answer,
    /// Samples of the batch that could not be decoded; their rows mean nothing. If that is all of them, there are no rows.
    pub(crate) bad: Vec<BadSample>,
}

/// Finished batches that may wait for the writer, per session. They are small, and flushing a chunk to the disk can take
/// as long as many batches.
pub(crate) const ANSWERS_EACH: usize = 32;

/// How often the caller gets a chance to report although no answer came.
const TICK: Duration = Duration::from_millis(200);

/// Where the workers' time went, in nanoseconds, summed over all of them.
#[derive(Default)]
pub(crate) struct Times {
    model: AtomicU64,
    decode: AtomicU64,
    disk: AtomicU64,
}

impl Times {
    pub(crate) fn shares(&self) -> Shares {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let (model, decode, disk) = (read(&self.model), read(&self.decode), read(&self.disk));
        let total = (model + decode + disk).max(1.0);
        Shares {
            model: model / total,
            decode: decode / total,
            disk: disk / total,
        }
    }

    /// Seconds that sessions computed, summed over sessions.
    pub(crate) fn teacher_seconds(&self) -> f64 {
        self.model.load(Ordering::Relaxed) as f64 * 1e-9
    }
}

/// What the caller is given: an answer, or a moment to report in.
pub(crate) enum Step {
    Answered(Box<Answered>),
    Tick,
}

/// Answers all `tasks`, which come in groups of the same samples in several views, handing each answer to `sink` in
/// whatever order they are finished. Ends early, without an error, once `stop` is set: batches that a session is working
/// on are still answered.
pub(crate) fn run(
    teacher: &mut Teacher,
    pixels: Pixels<'_>,
    tasks: impl Iterator<Item = Vec<Task>> + Send,
    decoders: usize,
    stop: &AtomicBool,
    times: &Times,
    sink: &mut dyn FnMut(Step) -> Result<(), TeacherError>,
) -> Result<(), TeacherError> {
    let Split {
        workers,
        input,
        output,
        features,
        layout,
    } = teacher.split();
    let line = Line {
        tasks: Mutex::new(tasks),
        rendered: Queue::new(queue_length(workers.len()), decoders),
        answers: Queue::new(ANSWERS_EACH * workers.len(), workers.len()),
        spare: Mutex::new(Vec::new()),
        failure: Mutex::new(None),
        stop,
        times,
    };
    std::thread::scope(|scope| {
        let line = &line;
        for _ in 0..decoders {
            let token = line.rendered.producer();
            scope.spawn(move || {
                let _token = token;
                line.render(pixels, layout);
            });
        }
        for worker in workers {
            let token = line.answers.producer();
            scope.spawn(move || {
                let _token = token;
                line.answer(|batch, answer| worker.forward(input, output, features, batch, answer));
            });
        }
        loop {
            let step = match line.answers.pop_within(TICK) {
                Popped::Item(answered) => Step::Answered(answered),
                Popped::Late => Step::Tick,
                Popped::End => break,
            };
            if let Err(error) = sink(step) {
                line.fail(error);
                break;
            }
        }
    });
    line.failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

/// What threads that render and sessions that answer share.
struct Line<'a, T> {
    tasks: Mutex<T>,
    rendered: Queue<Rendered>,
    answers: Queue<Box<Answered>>,
    /// Batches whose memory is used again.
    spare: Mutex<Vec<PixelBatch>>,
    /// The first thing that went wrong.
    failure: Mutex<Option<TeacherError>>,
    stop: &'a AtomicBool,
    times: &'a Times,
}

impl<T: Iterator<Item = Vec<Task>>> Line<'_, T> {
    /// Renders groups of tasks until there are none, or somebody fails or stops.
    fn render(&self, pixels: Pixels<'_>, layout: PixelLayout) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(group) = locked(&self.tasks).next() else {
                return;
            };
            let mut batches: Vec<PixelBatch> = {
                let mut spare = locked(&self.spare);
                let mut one = |_| spare.pop().unwrap_or_else(|| PixelBatch::new(layout));
                (0..group.len()).map(&mut one).collect()
            };
            if let Err(error) = render_group(pixels, &group, &mut batches) {
                return self.fail(error.into());
            }
            for (task, batch) in group.into_iter().zip(batches) {
                if self.rendered.push(Rendered { task, batch }).is_err() {
                    return;
                }
            }
        }
    }

    /// Answers what is rendered, by one session.
    fn answer(
        &self,
        mut forward: impl FnMut(&PixelBatch, &mut Answer) -> Result<(), TeacherError>,
    ) {
        let mut waiting_since = Instant::now();
        while let Some(Rendered { task, mut batch }) = self.rendered.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return self.rendered.abandon();
            }
            let start = Instant::now();
            let mut answer = Answer::default();
            let bad = std::mem::take(&mut batch.bad);
            // Of a batch without a single image not even the size is known.
            let asked = if bad.len() < batch.n {
                forward(&batch, &mut answer)
            } else {
                Ok(())
            };
            let result = asked.and_then(|()| check_finite(&task, &answer, &bad));
            let end = Instant::now();
            count(&self.times.decode, start - waiting_since);
            count(&self.times.model, end - start);
            locked(&self.spare).push(batch);
            if let Err(error) = result {
                return self.fail(error);
            }
            match self.answers.push(Box::new(Answered { task, answer, bad })) {
                Ok(waited) => count(&self.times.disk, waited),
                Err(_) => return,
            }
            waiting_since = Instant::now();
        }
    }

    /// Ends the work of all.
    fn fail(&self, error: TeacherError) {
        locked(&self.failure).get_or_insert(error);
        self.rendered.abandon();
        self.answers.abandon();
    }
}

/// A thread that panicked takes the run down anyway: what it left is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A batch on its way to a session.
struct Rendered {
    task: Task,
    batch: PixelBatch,
}

/// Batches that wait for a session: one each, and one more so that the first to finish never waits.
pub(crate) fn queue_length(workers: usize) -> usize {
    workers + 1
}

/// A batch per task of a group: the same samples, another view each.
fn render_group(
    pixels: Pixels<'_>,
    group: &[Task],
    batches: &mut [PixelBatch],
) -> Result<(), DatasetError> {
    let Some(first) = group.first() else {
        return Ok(());
    };
    let samples: Vec<u32> = first.requests.iter().map(|&(sample, _)| sample).collect();
    let views: Vec<u32> = group.iter().map(|task| task.view).collect();
    render_views(
        pixels.dataset,
        pixels.family,
        pixels.preprocess,
        &samples,
        &views,
        batches,
    )
}

/// Batches of pixels that exist at most: in the decoders' hands, in the queue, in the sessions' hands.
pub(crate) fn batches_at_once(workers: usize, decoders: usize) -> usize {
    decoders + queue_length(workers) + workers
}

fn count(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
}

/// A NaN or an infinity would poison every student trained from it, epochs later and far from here.
fn check_finite(task: &Task, answer: &Answer, bad: &[BadSample]) -> Result<(), TeacherError> {
    let looked_at = [
        ("class", &answer.rows, answer.width),
        ("feature", &answer.features, answer.feature_len),
    ];
    for (what, values, width) in looked_at {
        if values.iter().all(|value| value.is_finite()) {
            continue;
        }
        let rows = task.requests.iter().zip(values.chunks_exact(width));
        for (row_index, (&(sample, view), row)) in rows.enumerate() {
            if bad.iter().any(|bad| bad.row == row_index) {
                continue;
            }
            if let Some(index) = row.iter().position(|value| !value.is_finite()) {
                return Err(TeacherError::NotFinite {
                    sample,
                    view,
                    what,
                    index,
                    value: row[index],
                });
            }
        }
    }
    Ok(())
}
