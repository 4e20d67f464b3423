//! A whole capture (decode, views, sessions, encoding, checksums, files) beside the same sessions on ready tensors, in
//! turns. `benches/peers/capture.py` runs it in turns with Python's onnxruntime and PyTorch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use logitcask_cache::{LogitWriter, Manifest};
use logitcask_dataset::{Preprocess, Role};
use logitcask_experiment::{Experiment, Failure, Outcome, Recipe, check_has_teacher};
use logitcask_teacher::{
    BatchSize, CaptureReport, Job, Part, Pixels, Shares, Teacher, bare_rate, capture,
    find_batch_size, prepare,
};
use serde_json::json;

use super::measures::{cpu_seconds, median, peak_rss_bytes};
use crate::args::BenchCapture;
use crate::machine::describe;
use crate::progress::{bytes, say};
use crate::watch::shown;

pub(crate) fn run(args: &BenchCapture, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    check_has_teacher(&recipe)?;
    let recipe = recipe.with_known_teachers(&args.recipe.cache_dir, &shown())?;
    let experiment = Experiment::open(recipe, &shown())?;
    let spec = &experiment.recipe.teacher[0];
    let wants = experiment.wants(spec)?;
    let want = wants
        .iter()
        .find(|want| want.split.role == Role::Train)
        .ok_or_else(|| Failure::work("the recipe has no training split"))?;
    want.check_has_file()?;
    let preprocess = Preprocess::new(&spec.preprocess)?;
    let pixels = Pixels {
        dataset: &want.split.dataset,
        family: &want.split.family,
        preprocess: &preprocess,
    };
    let machine = args.machine.machine(&args.recipe.cache_dir)?;
    let mut teacher = machine.load(spec)?;
    say(describe(&teacher));
    let images = prepare(&mut teacher, pixels)?;
    let batch_size = find_batch_size(&mut teacher, images)?;

    // The first measurement of the sessions also says how many images fill the time.
    let (rate, _) = bare_rate(&mut teacher, images, batch_size.rows, args.seconds / 4.0)?;
    let mut manifest = want.manifest()?.with_features(teacher.feature_len());
    let at_once = teacher.input().at_once.unwrap_or(1);
    manifest.chunk_rows = chunk_rows(manifest.chunk_rows, at_once);
    let extent = Extent::filling(rate * args.seconds, &manifest, want.split.n_views);
    let job = Job {
        pixels,
        views: &extent.views,
        batch_size: batch_size.rows,
        decoders: machine.threads,
        views_per_pass: experiment.recipe.views.views_per_pass as usize,
        images,
    };
    say(format!(
        "{} rounds of about {:.0} s each way; {} images at once",
        args.rounds, args.seconds, batch_size.rows
    ));
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let round = Round::run(args, &mut teacher, &job, extent.part, &manifest, stop)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::work("stopped before every round was measured"));
        }
        say(format!(
            "capture {:.1} img/s, bare sessions {:.1} img/s",
            round.report.images_per_s(),
            round.bare.per_s
        ));
        rounds.push(round);
    }
    print(args, &teacher, &batch_size, &rounds);
    Ok(())
}

/// Chunks small enough that a round can be cut to length, which is to the capture's disadvantage, and of whole batches where
/// a batch decides its rows.
fn chunk_rows(chunk_rows: u32, at_once: usize) -> u32 {
    chunk_rows.min(1024).next_multiple_of(at_once as u32)
}

/// What is captured in a round: some chunks of the first view, or several whole views.
struct Extent {
    views: Vec<u32>,
    part: Part,
}

impl Extent {
    /// About `images` images of what the recipe asks for.
    fn filling(images: f64, manifest: &Manifest, n_views: u32) -> Extent {
        let n_samples = f64::from(manifest.n_samples);
        let whole_views = (images / n_samples).round();
        if whole_views >= 1.0 {
            let n = (whole_views as u32).min(n_views);
            return Extent {
                views: (0..n).collect(),
                part: Part::WHOLE,
            };
        }
        // The part of a chunk and more, however few images a slow teacher answers.
        let parts = (n_samples / images.max(1.0)).floor() as u32;
        let parts = parts.clamp(1, manifest.n_chunks());
        Extent {
            views: vec![0],
            part: Part::new(parts, parts).unwrap_or(Part::WHOLE),
        }
    }
}

/// Images per second, of the clock and of processor time: where others use the machine too, the second tells more.
#[derive(Clone, Copy)]
struct Rate {
    per_s: f64,
    per_cpu_s: Option<f64>,
}

struct Round {
    bare: Rate,
    report: CaptureReport,
    capture: Rate,
}

impl Round {
    fn run(
        args: &BenchCapture,
        teacher: &mut Teacher,
        job: &Job,
        part: Part,
        manifest: &Manifest,
        stop: &AtomicBool,
    ) -> Outcome<Round> {
        let before = cpu_seconds();
        let (per_s, n_images) = bare_rate(teacher, job.images, job.batch_size, args.seconds)?;
        let bare = Rate {
            per_s,
            per_cpu_s: per_cpu_second(n_images, before),
        };
        // On the disk where caches go, under a name that no listing takes for a cache.
        let folder = scratch(&args.recipe.cache_dir)?;
        let writer = LogitWriter::open_part(folder.path(), manifest, |n| part.range(n))?;
        let before = cpu_seconds();
        let report = capture(teacher, job, &writer, stop, &|_| {})?;
        let capture = Rate {
            per_s: report.images_per_s(),
            per_cpu_s: per_cpu_second(report.images, before),
        };
        Ok(Round {
            bare,
            report,
            capture,
        })
    }
}

fn scratch(cache_dir: &Path) -> Outcome<tempfile::TempDir> {
    logitcask_durable::create_dir_all(cache_dir).map_err(Failure::work)?;
    tempfile::TempDir::with_prefix_in(".bench-", cache_dir).map_err(Failure::work)
}

fn per_cpu_second(images: u64, before: Option<f64>) -> Option<f64> {
    let used = cpu_seconds()? - before?;
    (used > 0.0).then(|| images as f64 / used)
}

fn print(args: &BenchCapture, teacher: &Teacher, batch_size: &BatchSize, rounds: &[Round]) {
    let of = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let capture = of(|round| round.capture.per_s);
    let bare = of(|round| round.bare.per_s);
    let ratios = of(|round| round.capture.per_s / round.bare.per_s);
    let last = rounds.last().map(|round| &round.report);
    let shares = last.map_or(Shares::default(), |report| report.shares);
    let per_cpu = |rates: fn(&Round) -> Rate| -> Vec<Option<f64>> {
        rounds.iter().map(|round| rates(round).per_cpu_s).collect()
    };
    if args.recipe.json {
        let (sessions, threads_each) = teacher.sessions();
        println!(
            "{}",
            json!({
                "teacher": teacher.spec().title(),
                "provider": teacher.device().provider.name(),
                "onnxruntime": teacher.runtime().version(),
                "sessions": sessions,
                "threads_each": threads_each,
                "batch_size": batch_size.rows,
                "tried": batch_size.tried,
                "images_per_round": last.map(|report| report.images),
                "capture_images_per_s": capture,
                "bare_images_per_s": bare,
                "capture_images_per_cpu_s": per_cpu(|round| round.capture),
                "bare_images_per_cpu_s": per_cpu(|round| round.bare),
                "ratio": median(&ratios),
                "shares": { "model": shares.model, "decode": shares.decode, "disk": shares.disk },
                "peak_rss_bytes": peak_rss_bytes(),
            })
        );
        return;
    }
    println!("                 median      best");
    for (what, rates) in [("capture", &capture), ("bare sessions", &bare)] {
        let best = rates.iter().copied().fold(0.0, f64::max);
        println!("{what:13} {:9.1} {best:9.1} img/s", median(rates));
    }
    println!(
        "capture / bare {:.3}, median over {} rounds of {} images",
        median(&ratios),
        rounds.len(),
        last.map_or(0, |report| report.images)
    );
    println!(
        "the sessions' time: model {:.1} %, waiting for pixels {:.1} %, for the disk {:.1} %",
        100.0 * shares.model,
        100.0 * shares.decode,
        100.0 * shares.disk
    );
    if let Some(peak) = peak_rss_bytes() {
        println!("memory at most {}", bytes(peak));
    }
}

#[cfg(test)]
mod tests {
    use super::chunk_rows;

    /// A batch of 7 was cut by chunks of 1024, which capture refuses.
    #[test]
    fn chunks_hold_whole_batches() {
        assert_eq!(chunk_rows(8192, 1), 1024);
        assert_eq!(chunk_rows(8192, 7), 1029);
        assert_eq!(chunk_rows(256, 16), 256);
    }
}
