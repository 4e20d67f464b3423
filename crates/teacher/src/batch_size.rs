//! How many images to give a session at once.

use std::time::{Duration, Instant};

use logitcask_dataset::{ImageSize, PixelBatch};

use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;
use crate::session::Answer;
use crate::teacher::{Split, Teacher};

/// A batch size, and how it was come by.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchSize {
    /// Images in one run of the teacher.
    pub rows: usize,
    /// (Images at once, images per second over all sessions) of each that was tried; empty where there was no choice.
    pub tried: Vec<(usize, f64)>,
}

/// No single trial run is to take longer than this; a larger batch of a teacher that slow gains nothing anyway.
const LONGEST_RUN: Duration = Duration::from_millis(700);

/// A smaller batch that is this close to the best rate is preferred: it takes less memory and leaves less to lose.
const NEARLY_BEST: f64 = 0.97;

/// The batch size of the recipe; of the export, if that fixed one; or the one that a short trial on black images finds.
/// The result decides which images meet in a run, and is to be kept with the cache: a resumed or divided capture must
/// use the same.
pub fn find_batch_size(
    teacher: &mut Teacher,
    images: ImageSize,
) -> Result<BatchSize, TeacherError> {
    let input = teacher.input();
    if let Some(rows) = teacher
        .spec()
        .batch_size
        .filter(|_| input.at_once.is_none())
    {
        return Ok(BatchSize {
            rows: rows.max(1),
            tried: Vec::new(),
        });
    }
    if let Some(fixed) = input.fixed_batch.or(input.at_once) {
        // Whole runs, and enough of them that handing batches around costs nothing.
        return Ok(BatchSize {
            rows: fixed * 32usize.div_ceil(fixed),
            tried: Vec::new(),
        });
    }
    let candidates: &[usize] = match teacher.device().provider {
        ExecutionProvider::Cpu => &[16, 32, 64, 128],
        _ => &[32, 64, 128, 256, 512, 1024],
    };
    let tried = trials(teacher, images, candidates)?;
    let best = tried.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let chosen = tried.iter().find(|(_, rate)| *rate >= NEARLY_BEST * best);
    Ok(BatchSize {
        rows: chosen.map_or(candidates[0], |(rows, _)| *rows),
        tried,
    })
}

/// Batch sizes and their images per second, up to the first that would take too long or does not fit into memory.
fn trials(
    teacher: &mut Teacher,
    images: ImageSize,
    candidates: &[usize],
) -> Result<Vec<(usize, f64)>, TeacherError> {
    let mut tried: Vec<(usize, f64)> = Vec::new();
    for &rows in candidates {
        let slowest = tried
            .last()
            .map(|(_, rate)| *rate / teacher.sessions().0 as f64);
        if slowest.is_some_and(|rate| rows as f64 / rate > LONGEST_RUN.as_secs_f64()) {
            break;
        }
        match rate(teacher, images, rows) {
            Ok(rate) => tried.push((rows, rate)),
            Err(TeacherError::OutOfMemory { .. }) if !tried.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(tried)
}

/// Images per second with all sessions at work, as they will be: alone, a session has the caches to itself.
fn rate(teacher: &mut Teacher, images: ImageSize, rows: usize) -> Result<f64, TeacherError> {
    let rates = each_session(teacher, images, rows, |run| {
        // The first run allocates and, on a GPU, chooses its algorithms; it is not counted.
        run()?;
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            run()?;
            fastest = fastest.min(start.elapsed());
            if fastest > LONGEST_RUN {
                break;
            }
        }
        Ok(rows as f64 / fastest.as_secs_f64())
    })?;
    Ok(rates.iter().sum())
}

/// The bare sessions on ready tensors, all at once, for about `seconds`: what a capture with decoding, views and files is
/// measured against. Returns images per second, and images in all.
pub fn bare_rate(
    teacher: &mut Teacher,
    images: ImageSize,
    rows: usize,
    seconds: f64,
) -> Result<(f64, u64), TeacherError> {
    let start = Instant::now();
    let runs = each_session(teacher, images, rows, |run| {
        let mut runs = 0;
        while start.elapsed().as_secs_f64() < seconds {
            run()?;
            runs += 1;
        }
        Ok(runs)
    })?;
    let n_images = runs.iter().sum::<u64>() * rows as u64;
    Ok((n_images as f64 / start.elapsed().as_secs_f64(), n_images))
}

/// Gives each session a thread and a batch of black images, lets `measure` run them, and collects what it returns.
fn each_session<T: Send>(
    teacher: &mut Teacher,
    images: ImageSize,
    rows: usize,
    measure: impl Fn(&mut dyn FnMut() -> Result<(), TeacherError>) -> Result<T, TeacherError> + Sync,
) -> Result<Vec<T>, TeacherError> {
    let mut batch = PixelBatch::new(teacher.layout());
    batch.pixels = vec![0.0; rows * images.n_bytes()];
    (batch.n, batch.channels, batch.height, batch.width) =
        (rows, images.channels, images.height, images.width);
    let Split {
        workers,
        input,
        output,
        features,
        ..
    } = teacher.split();
    let (batch, measure) = (&batch, &measure);
    let results: Vec<Result<T, TeacherError>> = std::thread::scope(|scope| {
        let trials: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                scope.spawn(move || {
                    let mut answer = Answer::default();
                    measure(&mut || {
                        answer.clear();
                        worker.forward(input, output, features, batch, &mut answer)
                    })
                })
            })
            .collect();
        let join = |trial: std::thread::ScopedJoinHandle<'_, _>| {
            trial
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        trials.into_iter().map(join).collect()
    });
    results.into_iter().collect()
}
