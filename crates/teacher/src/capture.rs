//! `capture`: the teacher's logits of many views of many samples, into a cache.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use logitcask_cache::{CacheError, ChunkRows, LogitWriter, Manifest};
use logitcask_dataset::{BadSample, ImageSize, PixelBatch, render};

use crate::error::TeacherError;
use crate::event::{Event, Plan, Progress, Shares};
use crate::pipeline::{self, Answered, Pixels, Step, Task, Times};
use crate::rows::argmax;
use crate::spread::spread;
use crate::teacher::Teacher;

/// What is to be captured, and how.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Where pixels come from.
    pub pixels: Pixels<'a>,
    /// The views that the cache is to hold afterwards. Those already there are not captured again.
    pub views: &'a [u32],
    /// Images in one run of the teacher; must be the same for all that goes into one cache.
    pub batch_size: usize,
    /// Threads that decode and augment.
    pub decoders: usize,
    /// Views of an image that are rendered from one decoding of it. They are then captured side by side, in so many times
    /// the memory.
    pub views_per_pass: usize,
    /// The size of what the teacher is fed, as [`prepare`] found it.
    pub images: ImageSize,
}

/// Checks that this teacher and these pixels belong together, on a few real images spread over the dataset: size,
/// number of classes, and what the output holds. Returns the size of what the teacher is fed.
pub fn prepare(teacher: &mut Teacher, pixels: Pixels<'_>) -> Result<ImageSize, TeacherError> {
    const LOOKED_AT: usize = 16;
    let all: Vec<u32> = pixels.dataset.selected();
    let mut batch = PixelBatch::new(teacher.layout());
    let requests: Vec<(u32, u32)> = spread(&all, LOOKED_AT)
        .into_iter()
        .map(|sample| (sample, 0))
        .collect();
    render(
        pixels.dataset,
        pixels.family,
        pixels.preprocess,
        &requests,
        &mut batch,
    )?;
    teacher.examine(&batch, pixels.dataset.n_classes())?;
    Ok(ImageSize {
        height: batch.height,
        width: batch.width,
        channels: batch.channels,
    })
}

/// Refuses chunks that cut through batches which decide their rows: the rows would depend on the size of the chunks.
pub fn check_chunks(teacher: &Teacher, manifest: &Manifest) -> Result<(), TeacherError> {
    let chunk_rows = manifest.chunk_rows;
    match teacher.input().at_once {
        Some(at_once)
            if manifest.n_chunks() > 1 && !(chunk_rows as usize).is_multiple_of(at_once) =>
        {
            Err(TeacherError::ChunkCutsBatch {
                at_once,
                chunk_rows,
            })
        }
        _ => Ok(()),
    }
}

/// What a capture did.
#[derive(Clone, Debug, Default)]
pub struct CaptureReport {
    /// Images whose rows were written.
    pub images: u64,
    /// Seconds of wall time, from the call to its end.
    pub seconds: f64,
    /// Time that the teacher computed, averaged over its sessions: what later hits save.
    pub teacher_seconds: f64,
    /// Where the sessions' time went.
    pub shares: Shares,
    /// Views that are part of the cache now and were not before.
    pub finished_views: Vec<u32>,
    /// Views of which other parts of the capture have not written all their chunks yet.
    pub waiting_views: Vec<u32>,
    /// Samples without a row.
    pub bad_samples: BTreeSet<u32>,
    /// Probabilities that had to be clipped before the logarithm was taken, out of `values`.
    pub clipped: u64,
    /// Logits written, those of null rows included: rows times classes.
    pub values: u64,
    /// Images in one run, at the end: smaller than asked for where memory ran out.
    pub batch_size: usize,
    /// Rows whose largest logit is the label's, and rows counted; over the views captured here, as they are read back.
    pub correct: (u64, u64),
    /// Rows whose largest logit is, as they are read back, in the class where the teacher had it.
    pub kept_top1: u64,
    /// The capture was asked to stop before it was done; what is on disk is whole, and a next call goes on from there.
    pub stopped: bool,
}

impl CaptureReport {
    /// Images per second of wall time.
    pub fn images_per_s(&self) -> f64 {
        if self.seconds > 0.0 {
            self.images as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// The share of rows whose largest logit the encoding has left in its class; `None` where nothing was captured.
    pub fn agreement(&self) -> Option<f64> {
        (self.correct.1 > 0).then(|| self.kept_top1 as f64 / self.correct.1 as f64)
    }

    /// Top-1 accuracy over what was captured here; `None` if that was nothing.
    pub fn accuracy(&self) -> Option<f64> {
        (self.correct.1 > 0).then(|| self.correct.0 as f64 / self.correct.1 as f64)
    }
}

/// Captures what is missing of `job` into `writer`'s cache: of the chunks that the writer was opened for. Events arrive
/// on the calling thread.
///
/// Other processes may capture other chunks at the same time; whichever completes a view makes it exist.
///
/// Chunks are the unit of loss: whatever ends this early, finished chunks stay and only they count. Batches never
/// straddle chunks and always start at a chunk's first sample, so that an interrupted capture, a divided one and one in
/// a single run give the same bytes.
pub fn capture(
    teacher: &mut Teacher,
    job: &Job<'_>,
    writer: &LogitWriter,
    stop: &AtomicBool,
    events: &dyn Fn(Event),
) -> Result<CaptureReport, TeacherError> {
    check_chunks(teacher, writer.manifest())?;
    let start = Instant::now();
    let times = Times::default();
    let mut report = CaptureReport {
        batch_size: job.batch_size.max(1),
        ..CaptureReport::default()
    };
    let mut spent = Spent::default();
    loop {
        let missing = plan(job, writer)?;
        let batch_size = report.batch_size;
        let n_classes = job.pixels.dataset.n_classes();
        let images = missing.iter().map(Missing::images).sum();
        events(Event::Started(describe(
            teacher,
            job,
            images,
            report.batch_size,
            writer,
        )));
        let mut sink = Sink {
            writer,
            events,
            labels: job.pixels.dataset.labels(),
            n_classes,
            feature_len: writer.manifest().feature_len,
            open: BTreeMap::new(),
            remaining: remaining_chunks(&missing),
            report: &mut report,
            meter: Meter::new(start, images),
            times: &times,
            sessions: teacher.sessions().0 as f64,
            spent: &mut spent,
        };
        let outcome = pipeline::run(
            teacher,
            job.pixels,
            cut(missing, u32::try_from(batch_size).unwrap_or(u32::MAX)),
            job.decoders,
            stop,
            &times,
            &mut |step| sink.take(step),
        );
        let all_done = sink.remaining.values().all(|chunks| *chunks == 0);
        if outcome.is_ok() && all_done {
            sink.finish_the_rest(job.views)?;
        }
        match outcome {
            // Batches of a chunk must all have met the same number of neighbours, so its finished part is dropped too.
            Err(TeacherError::OutOfMemory { rows, .. })
                if report.batch_size > 1 && rows > 1 && teacher.input().at_once.is_none() =>
            {
                let to = report.batch_size / 2;
                events(Event::Halved {
                    from: report.batch_size,
                    to,
                });
                report.batch_size = to;
            }
            Err(error) => return Err(error),
            Ok(()) => {
                report.stopped = !all_done;
                break;
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.teacher_seconds = times.teacher_seconds() / teacher.sessions().0 as f64;
    report.shares = times.shares();
    Ok(report)
}

/// A chunk that is to be captured.
#[derive(Clone)]
struct Missing {
    /// The views in which it is missing, from 0.
    views: Vec<u32>,
    chunk: u32,
    samples: Range<u32>,
}

impl Missing {
    fn images(&self) -> u64 {
        self.views.len() as u64 * self.samples.len() as u64
    }
}

/// The missing chunks of every view, in order: what is done first is on disk first. Views of one pass go through the
/// chunks side by side.
fn plan(job: &Job<'_>, writer: &LogitWriter) -> Result<Vec<Missing>, TeacherError> {
    let mut missing = Vec::new();
    for pass in job.views.chunks(job.views_per_pass.max(1)) {
        let mut by_chunk: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &view in pass {
            for chunk in writer.missing_chunks(view)? {
                by_chunk.entry(chunk).or_default().push(view);
            }
        }
        for (chunk, views) in by_chunk {
            missing.push(Missing {
                views,
                chunk,
                samples: writer.chunk_range(chunk)?,
            });
        }
    }
    Ok(missing)
}

/// Cuts chunks into batches as they are asked for: the samples of hundreds of views would not fit into memory. Batches
/// that come together hold the same samples in several views.
fn cut(missing: Vec<Missing>, batch_size: u32) -> impl Iterator<Item = Vec<Task>> + Send {
    missing.into_iter().flat_map(
        move |Missing {
                  views,
                  chunk,
                  samples,
              }| {
            let end = samples.end;
            samples.step_by(batch_size as usize).map(move |start| {
                let samples = start..end.min(start.saturating_add(batch_size));
                let task = |&view: &u32| Task {
                    view,
                    chunk,
                    requests: samples.clone().map(|sample| (sample, view)).collect(),
                };
                views.iter().map(task).collect()
            })
        },
    )
}

/// How many chunks of each view this run is going to write.
fn remaining_chunks(missing: &[Missing]) -> BTreeMap<u32, usize> {
    let mut remaining = BTreeMap::new();
    for view in missing.iter().flat_map(|chunk| &chunk.views) {
        *remaining.entry(*view).or_default() += 1;
    }
    remaining
}

fn describe(
    teacher: &Teacher,
    job: &Job<'_>,
    images: u64,
    batch_size: usize,
    writer: &LogitWriter,
) -> Plan {
    let (sessions, threads_each) = teacher.sessions();
    let batch_bytes = job.images.n_bytes() * size_of::<f32>() * batch_size;
    // The chunk being filled, the next one, and those that a slow session still holds a batch of.
    let chunk_rows = writer.manifest().chunk_rows as usize;
    let open_chunks = (2 + sessions * batch_size / chunk_rows) * job.views_per_pass.max(1);
    let row_bytes = (job.pixels.dataset.n_classes() + teacher.feature_len()) * size_of::<f32>();
    let chunk_bytes = chunk_rows * row_bytes;
    let waiting_rows = pipeline::ANSWERS_EACH * sessions * batch_size;
    let answer_bytes = waiting_rows * row_bytes;
    let pixel_bytes =
        pipeline::batches_at_once(sessions, job.decoders * job.views_per_pass.max(1)) * batch_bytes;
    Plan {
        images,
        batch_size,
        sessions,
        threads_each,
        decoders: job.decoders,
        buffer_bytes: (pixel_bytes + answer_bytes + open_chunks * chunk_bytes) as u64,
    }
}

/// Takes answers in whatever order they come, fills chunks, and writes each as soon as it is whole.
struct Sink<'a> {
    writer: &'a LogitWriter,
    events: &'a dyn Fn(Event),
    labels: &'a [u32],
    n_classes: usize,
    feature_len: usize,
    open: BTreeMap<(u32, u32), OpenChunk>,
    remaining: BTreeMap<u32, usize>,
    report: &'a mut CaptureReport,
    meter: Meter,
    times: &'a Times,
    sessions: f64,
    spent: &'a mut Spent,
}

/// What the teacher's work on each view cost this run.
#[derive(Default)]
struct Spent {
    /// Seconds that have been put down to some view.
    told: f64,
    /// Seconds of the teacher and chunks written in this run, by view.
    views: BTreeMap<u32, (f64, usize)>,
}

/// A chunk that is being filled.
struct OpenChunk {
    start: u32,
    logits: Vec<f32>,
    features: Vec<f32>,
    valid: Vec<bool>,
    n_missing: usize,
}

impl Sink<'_> {
    fn take(&mut self, step: Step) -> Result<(), TeacherError> {
        if let Step::Answered(answered) = step {
            let rows = answered.task.requests.len() as u64;
            self.place(*answered)?;
            self.meter.count(rows);
        }
        if let Some(progress) = self.meter.progress(self.times) {
            (self.events)(Event::Progress(progress));
        }
        Ok(())
    }

    fn place(&mut self, answered: Answered) -> Result<(), TeacherError> {
        let Answered { task, answer, bad } = answered;
        if answer.width != self.n_classes && bad.len() < task.requests.len() {
            return Err(TeacherError::ClassCount {
                teacher: answer.width,
                dataset: self.n_classes,
            });
        }
        if answer.feature_len != self.feature_len && bad.len() < task.requests.len() {
            return Err(TeacherError::FeatureLength {
                found: answer.feature_len,
                expected: self.feature_len,
            });
        }
        self.report.clipped += answer.clipped;
        let (n_classes, feature_len) = (self.n_classes, self.feature_len);
        let range = self.writer.chunk_range(task.chunk)?;
        let chunk = self
            .open
            .entry((task.view, task.chunk))
            .or_insert_with(|| OpenChunk {
                start: range.start,
                logits: vec![0.0; range.len() * n_classes],
                features: vec![0.0; range.len() * feature_len],
                valid: vec![true; range.len()],
                n_missing: range.len(),
            });
        for ((sample, _), row) in task
            .requests
            .iter()
            .zip(answer.rows.chunks_exact(n_classes))
        {
            let position = (sample - chunk.start) as usize;
            chunk.logits[position * n_classes..][..n_classes].copy_from_slice(row);
        }
        if feature_len > 0 {
            let rows = answer.features.chunks_exact(feature_len);
            for ((sample, _), row) in task.requests.iter().zip(rows) {
                let position = (sample - chunk.start) as usize;
                chunk.features[position * feature_len..][..feature_len].copy_from_slice(row);
            }
        }
        for BadSample { index, error, .. } in bad {
            let position = (index - chunk.start) as usize;
            chunk.valid[position] = false;
            chunk.logits[position * n_classes..][..n_classes].fill(0.0);
            chunk.features[position * feature_len..][..feature_len].fill(0.0);
            if self.report.bad_samples.insert(index) {
                (self.events)(Event::BadSample {
                    sample: index,
                    error,
                });
            }
        }
        chunk.n_missing -= task.requests.len();
        if chunk.n_missing == 0 {
            self.write(task.view, task.chunk)?;
        }
        Ok(())
    }

    fn write(&mut self, view: u32, chunk: u32) -> Result<(), TeacherError> {
        let Some(filled) = self.open.remove(&(view, chunk)) else {
            return Ok(());
        };
        let range = filled.start as usize..filled.start as usize + filled.valid.len();
        let labels = &self.labels[range];
        let n_correct = self.writer.write_chunk(
            view,
            chunk,
            &ChunkRows {
                labels,
                logits: &filled.logits,
                valid: &filled.valid,
                features: &filled.features,
            },
        )?;
        self.report_on(&filled, n_correct);
        self.spent.views.entry(view).or_default().1 += 1;
        if let Some(remaining) = self.remaining.get_mut(&view) {
            *remaining -= 1;
            if *remaining == 0 {
                // Views overlap in time, so each is given the teacher's time since the one before it.
                let seconds = self.times.teacher_seconds() / self.sessions;
                self.spent.views.entry(view).or_default().0 += seconds - self.spent.told;
                self.spent.told = seconds;
                self.finish(view)?;
            }
        }
        Ok(())
    }

    /// Adds a written chunk to the report.
    fn report_on(&mut self, filled: &OpenChunk, n_correct: u32) {
        self.report.images += filled.valid.len() as u64;
        self.report.values += filled.logits.len() as u64;
        let encoding = self.writer.encoding();
        let rows = filled
            .logits
            .chunks_exact(self.n_classes)
            .zip(&filled.valid);
        for (row, _) in rows.filter(|(_, valid)| **valid) {
            let kept = argmax(row) == argmax(&encoding.read_back(row));
            self.report.kept_top1 += u64::from(kept);
            self.report.correct.1 += 1;
        }
        self.report.correct.0 += u64::from(n_correct);
    }

    /// Makes the view exist if its chunks are all there, those of other parts included.
    fn finish(&mut self, view: u32) -> Result<bool, TeacherError> {
        match self.writer.finish_view_as(view, self.circumstances(view)) {
            Ok(()) => {
                self.report.finished_views.push(view);
                (self.events)(Event::ViewFinished { view });
                Ok(true)
            }
            Err(CacheError::Unfinished { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finishes views whose last chunk another part wrote just before it ended, or this one just before it was killed.
    fn finish_the_rest(&mut self, views: &[u32]) -> Result<(), TeacherError> {
        let there = self.writer.views()?;
        for &view in views.iter().filter(|view| !there.contains(view)) {
            if !self.finish(view)? {
                self.report.waiting_views.push(view);
            }
        }
        Ok(())
    }

    /// What a view carries about its making.
    fn circumstances(&self, view: u32) -> BTreeMap<String, String> {
        let mut recorded = self.writer.recorded().clone();
        let mut record = |name: &str, value| recorded.insert(name.to_owned(), value);
        record("batch_size", self.report.batch_size.to_string());
        // Other parts and earlier runs made the other chunks, at the same price.
        if let Some(&(seconds, n_chunks)) = self.spent.views.get(&view) {
            let whole = f64::from(self.writer.manifest().n_chunks());
            let seconds = seconds * whole / n_chunks as f64;
            record("teacher_seconds", format!("{seconds:.6}"));
        }
        if self.report.clipped > 0 {
            let (clipped, values) = (self.report.clipped, self.report.values);
            record("clipped", format!("{clipped} of {values} values so far"));
        }
        recorded
    }
}

/// Counts images and, a few times per second, says how it goes.
struct Meter {
    start: Instant,
    last_report: Instant,
    total: u64,
    done: u64,
    /// (when, images done) of the last few reports: the rate is taken over these.
    recent: VecDeque<(Instant, u64)>,
}

impl Meter {
    const EVERY: Duration = Duration::from_millis(250);
    const WINDOW: usize = 20;

    fn new(start: Instant, total: u64) -> Meter {
        let now = Instant::now();
        Meter {
            start,
            last_report: now,
            total,
            done: 0,
            recent: [(now, 0)].into(),
        }
    }

    fn count(&mut self, images: u64) {
        self.done += images;
    }

    fn progress(&mut self, times: &Times) -> Option<Progress> {
        let now = Instant::now();
        if now - self.last_report < Self::EVERY && self.done < self.total {
            return None;
        }
        self.last_report = now;
        if self.recent.len() == Self::WINDOW {
            self.recent.pop_front();
        }
        let (then, before) = self.recent.front().copied().unwrap_or((self.start, 0));
        self.recent.push_back((now, self.done));
        let seconds = (now - then).as_secs_f64();
        let images_per_s = if seconds > 0.0 {
            (self.done - before) as f64 / seconds
        } else {
            0.0
        };
        Some(Progress {
            done: self.done,
            total: self.total,
            elapsed: now - self.start,
            images_per_s,
            shares: times.shares(),
        })
    }
}
