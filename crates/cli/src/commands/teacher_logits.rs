use std::path::Path;
use std::sync::atomic::AtomicBool;

use logitcask_cache::{Found, LogitCache, LogitWriter, OpenOptions};
use logitcask_dataset::{Preprocess, Role};
use logitcask_teacher::{
    Accuracy, CaptureReport, Device, Event, ExecutionProvider, Job, Part, Pixels, Runtime, Teacher,
    TeacherSpec, capture, find_batch_size, gate, measure_accuracy, prepare, provenance, spread,
};
use serde_json::json;

use crate::args::TeacherLogits;
use crate::exit::{Failure, Outcome};
use crate::experiment::{CacheWant, Experiment, describe, hex, is_near};
use crate::progress::{Progress, bytes, duration, say};
use crate::recipe::Recipe;

pub(crate) fn run(args: &TeacherLogits, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let provider: ExecutionProvider = args
        .provider
        .parse()
        .map_err(|error| Failure::from(error).as_asked())?;
    let part: Part = args
        .part
        .parse()
        .map_err(|error| Failure::from(error).as_asked())?;
    if recipe.teacher.is_empty() {
        return Err(Failure::asked("the recipe names no teacher")
            .hint("add a `[[teacher]]` section with `onnx = \"...\"`"));
    }
    let experiment = Experiment::open(recipe)?;
    for teacher in &experiment.recipe.teacher {
        let mut stage = Stage {
            args,
            provider,
            part,
            spec: teacher,
            loaded: None,
            stop,
        };
        for want in experiment.wants(teacher)? {
            stage.serve(&want)?;
        }
    }
    Ok(())
}

/// One teacher at work. It is loaded when the first cache turns out to be missing, and not at all on a hit.
struct Stage<'a> {
    args: &'a TeacherLogits,
    provider: ExecutionProvider,
    part: Part,
    spec: &'a TeacherSpec,
    loaded: Option<Teacher>,
    stop: &'a AtomicBool,
}

impl Stage<'_> {
    fn serve(&mut self, want: &CacheWant) -> Outcome {
        let cache_dir = &self.args.recipe.cache_dir;
        let found = logitcask_cache::find(cache_dir, &want.key)?;
        if let Found::Hit(path) = &found {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            let n_there = want.views_there(&cache);
            if n_there == want.split.n_views {
                self.hit(want, &cache)?;
                return check_accuracy(self.spec, want, &cache);
            }
            say(format!(
                "{}: {n_there} of {} views there, capturing {} more",
                want.split.what(),
                want.split.n_views,
                want.split.n_views - n_there
            ));
        } else if let Found::Miss { nearest } = &found {
            say(match nearest {
                Some((path, differences)) if is_near(differences) => format!(
                    "{}: not captured yet; the nearest cache, `{}`, differs: {}",
                    want.split.what(),
                    path.display(),
                    describe(differences)
                ),
                _ => format!("{}: not captured yet", want.split.what()),
            });
        }
        self.capture(want, &found)
    }

    /// Everything is there: says so, and what it saves.
    fn hit(&self, want: &CacheWant, cache: &LogitCache) -> Outcome {
        say(format!(
            "{}: already in cache {} ({}); nothing to run, {} of teacher time saved",
            want.split.what(),
            &hex(&cache.id())[..16],
            cache.encoding(),
            duration(teacher_seconds(cache))
        ));
        self.print(want, cache, None)
    }

    fn capture(&mut self, want: &CacheWant, found: &Found) -> Outcome {
        let decoders = 1;
        let preprocess = Preprocess::new(&self.spec.preprocess)?;
        let pixels = Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        };
        let teacher = self.teacher()?;
        let images = prepare(teacher, pixels)?;
        let batch_size = match recorded_batch_size(found)? {
            Some(batch_size) => batch_size,
            None => find_batch_size(teacher, images)?.rows,
        };
        if want.split.role == Role::Train {
            self.gate_without_eval(want, pixels)?;
        }
        let mut manifest = want.manifest()?;
        let teacher = self.teacher()?;
        manifest.recorded.extend(provenance(teacher, batch_size));
        let writer = LogitWriter::open(&self.args.recipe.cache_dir, &manifest)?;
        let views: Vec<u32> = (0..want.split.n_views).collect();
        let job = Job {
            pixels,
            views: &views,
            part: self.part,
            batch_size,
            decoders,
            images,
        };
        let show = Show::new(want);
        let stop = self.stop;
        let report = capture(self.loaded_teacher()?, &job, &writer, stop, &|event| {
            show.event(event)
        });
        show.bar.finish();
        let report = report?;
        let path = writer.path().to_owned();
        drop(writer);
        if report.stopped {
            return Err(Failure::work("stopped before every view was captured")
                .hint("what is on disk is whole; the same command captures the rest"));
        }
        let cache = LogitCache::open(&path, OpenOptions::default())?;
        say(summary(want, &cache, &report));
        self.print(want, &cache, Some(&report))?;
        if want.split.role == Role::Eval {
            self.gate_by_eval(want, pixels, &report)?;
        }
        Ok(())
    }

    fn teacher(&mut self) -> Outcome<&mut Teacher> {
        if self.loaded.is_none() {
            let runtime = Runtime::load(crate::runtime::library_path().as_deref(), self.provider)?;
            let device = Device {
                provider: self.provider,
                gpus: self.args.gpus.clone(),
                tf32: self.args.tf32,
                ..Device::default()
            };
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = self.args.threads.unwrap_or(cores);
            let teacher = Teacher::load(&runtime, self.spec, &device, threads)?;
            let (sessions, threads_each) = teacher.sessions();
            say(format!(
                "teacher `{}` on {}, {sessions} sessions of {threads_each} threads, ONNX Runtime {}",
                self.spec.title(),
                self.provider,
                runtime.version()
            ));
            self.loaded = Some(teacher);
        }
        self.loaded_teacher()
    }

    fn loaded_teacher(&mut self) -> Outcome<&mut Teacher> {
        self.loaded
            .as_mut()
            .ok_or_else(|| Failure::work("the teacher is not loaded"))
    }

    /// The evaluation split was captured in full: its rows tell the teacher's accuracy.
    fn gate_by_eval(
        &mut self,
        want: &CacheWant,
        pixels: Pixels,
        report: &CaptureReport,
    ) -> Outcome {
        let accuracy = Accuracy {
            n_samples: report.correct.1 as usize,
            correct: report.correct.0 as usize,
            correct_top5: 0,
        };
        let samples = want.split.dataset.selected();
        let stop = self.stop;
        Ok(gate(
            self.loaded_teacher()?,
            pixels,
            &samples,
            &accuracy,
            1,
            stop,
        )?)
    }

    /// Where the recipe names no evaluation split, a thousand training images stand in for it.
    fn gate_without_eval(&mut self, want: &CacheWant, pixels: Pixels) -> Outcome {
        let has_eval = want.split.dataset.spec().eval.is_some();
        if has_eval || self.spec.min_accuracy.is_none() {
            return Ok(());
        }
        let samples = spread(&want.split.dataset.selected(), 1000);
        let stop = self.stop;
        let teacher = self.loaded_teacher()?;
        let accuracy = measure_accuracy(teacher, pixels, &samples, 1, stop)?;
        say(format!(
            "teacher accuracy on {} training images: {:.4}",
            accuracy.n_samples,
            accuracy.top1()
        ));
        Ok(gate(teacher, pixels, &samples, &accuracy, 1, stop)?)
    }

    fn print(
        &self,
        want: &CacheWant,
        cache: &LogitCache,
        report: Option<&CaptureReport>,
    ) -> Outcome {
        if !self.args.recipe.json {
            println!("{}", cache.path().display());
            return Ok(());
        }
        println!(
            "{}",
            json!({
                "cache": cache.path().display().to_string(),
                "id": hex(&cache.id()),
                "split": want.split.what(),
                "hit": report.is_none(),
                "views": cache.views().len(),
                "samples": cache.manifest().n_samples,
                "accuracy": cache.accuracy(),
                "images": report.map_or(0, |report| report.images),
                "images_per_s": report.map(CaptureReport::images_per_s),
                "seconds": report.map(|report| report.seconds),
                "teacher_seconds": teacher_seconds(cache),
            })
        );
        Ok(())
    }
}

/// The batch size of an unfinished or growing cache: which images meet in one run of the teacher decides the last bits of
/// their logits.
fn recorded_batch_size(found: &Found) -> Outcome<Option<usize>> {
    match found {
        Found::Miss { .. } => Ok(None),
        Found::Hit(path) => {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            let recorded = cache.manifest().recorded.get("batch_size");
            Ok(recorded.and_then(|text| text.parse().ok()))
        }
    }
}

/// A cache of an inaccurate teacher may have been made on purpose; a recipe that sets a bar is told all the same.
fn check_accuracy(spec: &TeacherSpec, want: &CacheWant, cache: &LogitCache) -> Outcome {
    let (Some(wanted), Some(accuracy), Role::Eval) =
        (spec.min_accuracy, cache.accuracy(), want.split.role)
    else {
        return Ok(());
    };
    if accuracy >= wanted {
        return Ok(());
    }
    Err(Failure::work(format!(
        "teacher `{}` has accuracy {accuracy:.4} on the evaluation split, the recipe wants at least {wanted}",
        spec.title()
    ))
    .hint("check the teacher's `mean`, `std` and `channel_order`, or lower `min_accuracy`"))
}

/// Seconds that the teacher computed for the views of a cache, over all its captures.
pub(crate) fn teacher_seconds(cache: &LogitCache) -> f64 {
    let seconds = |view: &logitcask_cache::ViewFile| {
        view.recorded.get("teacher_seconds")?.parse::<f64>().ok()
    };
    cache
        .view_files()
        .iter()
        .filter_map(seconds)
        .fold(0.0, |sum, seconds| sum + seconds)
}

fn summary(want: &CacheWant, cache: &LogitCache, report: &CaptureReport) -> String {
    let size = folder_bytes(cache.path());
    let accuracy = match (want.split.role, report.accuracy()) {
        (Role::Eval, Some(accuracy)) => format!(
            "; teacher accuracy {accuracy:.4} on {} images",
            report.correct.1
        ),
        (Role::Train, Some(accuracy)) => format!(
            "; the teacher is right on {:.2} % of these views",
            100.0 * accuracy
        ),
        _ => String::new(),
    };
    let bad = match report.bad_samples.len() {
        0 => String::new(),
        n => format!("; {n} samples could not be read and have no row"),
    };
    format!(
        "{}: captured {} images in {} ({:.0} img/s), {} on disk{accuracy}{bad}",
        want.split.what(),
        report.images,
        duration(report.seconds),
        report.images_per_s(),
        bytes(size)
    )
}

fn folder_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Turns events into a bar.
struct Show {
    bar: Progress,
}

impl Show {
    fn new(want: &CacheWant) -> Self {
        Self {
            bar: Progress::new(want.split.what(), 0, "img"),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Started(plan) => self.bar.set_total(plan.images),
            Event::Progress(progress) => {
                let shares = progress.shares;
                let waiting = format!(
                    "model {:.0} %, waiting for pixels {:.0} %, for the disk {:.0} %",
                    100.0 * shares.model,
                    100.0 * shares.decode,
                    100.0 * shares.disk
                );
                self.bar.set(progress.done, waiting);
            }
            Event::BadSample { sample, error } => {
                self.bar.line(format!(
                    "sample {sample} cannot be read and gets no row: {error}"
                ));
            }
            Event::Halved { from, to } => {
                self.bar.line(format!(
                    "out of memory with {from} images at once; going on with {to}"
                ));
            }
            _ => {}
        }
    }
}
