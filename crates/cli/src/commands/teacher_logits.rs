use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logitcask_cache::{Found, LogitCache, LogitWriter, Manifest, OpenOptions, ViewFile};
use logitcask_dataset::{Preprocess, Role, Trust};
use logitcask_teacher::{
    Accuracy, BatchSize, CaptureReport, Event, Job, Part, Pixels, Teacher, TeacherSpec, capture,
    find_batch_size, gate, measure_accuracy, prepare, provenance, spread,
};
use serde_json::{Value, json};

use crate::args::TeacherLogits;
use crate::claims;
use crate::exit::{Failure, Outcome};
use crate::experiment::{CacheWant, Experiment, describe, hex, is_near};
use crate::machine;
use crate::progress::{Progress, bytes, duration, say};
use crate::recipe::Recipe;

pub(crate) fn run(args: &TeacherLogits, stop: &AtomicBool) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    args.machine.provider()?;
    let part: Part = args
        .part
        .parse()
        .map_err(|error| Failure::from(error).as_asked())?;
    check_has_teacher(&recipe)?;
    // What is captured is kept for long: digests are trusted only where no image can have changed since.
    let experiment = Experiment::open_trusting(recipe, Trust::StatusTimes)?;
    experiment.check_sizes()?;
    for teacher in &experiment.recipe.teacher {
        let mut stage = Stage {
            args,
            part,
            experiment: &experiment,
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

/// Refuses a recipe of a plain baseline.
pub(crate) fn check_has_teacher(recipe: &Recipe) -> Outcome {
    if recipe.teacher.is_empty() {
        return Err(Failure::asked("the recipe names no teacher")
            .hint("add a `[[teacher]]` section with `onnx = \"...\"`"));
    }
    Ok(())
}

/// One teacher at work. It is loaded when the first cache turns out to be missing, and not at all on a hit.
struct Stage<'a> {
    args: &'a TeacherLogits,
    part: Part,
    experiment: &'a Experiment,
    spec: &'a TeacherSpec,
    loaded: Option<Teacher>,
    stop: &'a AtomicBool,
}

impl Stage<'_> {
    fn serve(&mut self, want: &CacheWant) -> Outcome {
        let found = want.find(&self.args.recipe.cache_dir)?;
        if let Found::Hit(path) = &found {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            let n_there = want.views_there(&cache);
            if n_there == want.split.n_views {
                self.hit(want, &cache)?;
                return self.gate_hit(want, &cache);
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
            duration(teacher_seconds(cache.view_files()))
        ));
        self.print(want, cache, None);
        Ok(())
    }

    fn capture(&mut self, want: &CacheWant, found: &Found) -> Outcome {
        let preprocess = Preprocess::new(&self.spec.preprocess)?;
        let pixels = Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        };
        let teacher = self.teacher()?;
        let images = prepare(teacher, pixels)?;
        if let Some(fixed) = teacher.input().fixed_batch {
            say(format!(
                "the teacher takes exactly {fixed} image{} in a run: batches are cut, and the last one filled up with black",
                if fixed == 1 { "" } else { "s" }
            ));
        }
        // Only where no cache says so already: which images meet in one run decides the last bits of their logits.
        let batch_size = match recorded_batch_size(found)? {
            Some(rows) => rows,
            None => {
                let found = find_batch_size(teacher, images)?;
                self.tell_batch_size(&found);
                found.rows
            }
        };
        if want.split.role == Role::Train && self.experiment.eval.is_none() {
            self.gate_without_eval(want, &preprocess)?;
        }
        let (mut manifest, chunk_rows) = (want.manifest()?, self.spec.chunk_rows);
        let teacher = self.teacher()?;
        if teacher.feature_len() > 0 {
            manifest = manifest.with_features(teacher.feature_len());
            if let Some(chunk_rows) = chunk_rows {
                manifest.chunk_rows = chunk_rows as u32;
            }
        }
        manifest.recorded.extend(provenance(teacher, batch_size));
        let (cache_dir, part) = (&self.args.recipe.cache_dir, self.part);
        let writer = LogitWriter::open_part_waiting(
            cache_dir,
            &manifest,
            |n_chunks| part.range(n_chunks),
            &mut claims::waiting(Duration::ZERO, self.stop),
        )?;
        // Another part may have made the cache meanwhile; then its batch size holds for all.
        let batch_size = batch_size_of(writer.manifest()).unwrap_or(batch_size);
        if let Some(stated) = self.spec.batch_size.filter(|stated| *stated != batch_size) {
            say(format!(
                "the recipe says batch_size = {stated}; this cache was begun with {batch_size}, which holds for all of it"
            ));
        }
        let views: Vec<u32> = (0..want.split.n_views).collect();
        writer.check_space(&views)?;
        let job = Job {
            pixels,
            views: &views,
            batch_size,
            decoders: self.args.machine.threads(),
            views_per_pass: want.split.views_per_pass as usize,
            images,
        };
        let show = Show::new(want, self.args.recipe.json);
        let stop = self.stop;
        let report = capture(self.loaded_teacher()?, &job, &writer, stop, &|event| {
            show.event(event)
        });
        show.bar.finish();
        let report = report?;
        let path = writer.path().to_owned();
        drop(writer);
        if report.stopped {
            show.json(
                "stopped",
                json!({ "images": report.images, "seconds": report.seconds }),
            );
            return Err(stopped(report.images));
        }
        let cache = LogitCache::open(&path, OpenOptions::default())?;
        say(self.summary(want, &cache, &report));
        self.print(want, &cache, Some(&report));
        if want.split.role == Role::Eval {
            self.gate_by_eval(want, pixels, &cache)?;
        }
        Ok(())
    }

    fn teacher(&mut self) -> Outcome<&mut Teacher> {
        if self.loaded.is_none() {
            let machine = &self.args.machine;
            let teacher = machine.load(self.spec, &self.args.recipe.cache_dir)?;
            say(machine::describe(&teacher));
            let (sessions, threads_each) = teacher.sessions();
            self.json(
                "teacher",
                json!({
                    "teacher": self.spec.title(),
                    "provider": teacher.device().provider.name(),
                    "sessions": sessions,
                    "threads_each": threads_each,
                    "onnxruntime": teacher.runtime().version(),
                    "nodes": teacher.placement().nodes,
                    "nodes_left_to_cpu": teacher.placement().on_cpu(),
                }),
            );
            self.loaded = Some(teacher);
        }
        self.loaded_teacher()
    }

    fn loaded_teacher(&mut self) -> Outcome<&mut Teacher> {
        self.loaded
            .as_mut()
            .ok_or_else(|| Failure::work("the teacher is not loaded"))
    }

    fn tell_batch_size(&self, found: &BatchSize) {
        let tried: Vec<String> = found
            .tried
            .iter()
            .map(|(rows, rate)| format!("{rows}: {rate:.0} img/s"))
            .collect();
        if !tried.is_empty() {
            say(format!(
                "{} images at once, after a trial ({})",
                found.rows,
                tried.join(", ")
            ));
        }
        self.json(
            "batch_size",
            json!({ "chosen": found.rows, "tried": found.tried }),
        );
    }

    /// A cache of an inaccurate teacher may have been made on purpose; a recipe that sets a bar is told all the same, and
    /// what else the teacher may want to be shown.
    fn gate_hit(&mut self, want: &CacheWant, cache: &LogitCache) -> Outcome {
        let (Some(wanted), Some(top1), Role::Eval) =
            (self.spec.min_accuracy, cache.accuracy(), want.split.role)
        else {
            return Ok(());
        };
        if top1 >= wanted {
            return Ok(());
        }
        let preprocess = Preprocess::new(&self.spec.preprocess)?;
        let pixels = Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        };
        let n_samples = want.split.dataset.len();
        let correct = (top1 * n_samples as f64).round() as usize;
        self.teacher()?;
        self.refuse_below_bar(pixels, n_samples, correct)
    }

    /// The evaluation split's rows tell the teacher's accuracy. A part of many has few of them, so every part asks about the
    /// same thousand images, and all come to the same verdict.
    fn gate_by_eval(&mut self, want: &CacheWant, pixels: Pixels, cache: &LogitCache) -> Outcome {
        if self.part.is_whole() {
            self.gate_hit(want, cache)
        } else {
            self.measure(pixels, 1000, "evaluation images")
        }
    }

    /// Where the recipe names no evaluation split, training images in their clean view stand in for it: a thousand, or
    /// where no bar is set so few that the look costs little beside the capture.
    fn gate_without_eval(&mut self, want: &CacheWant, preprocess: &Preprocess) -> Outcome {
        let images = want.split.dataset.len() * want.split.n_views as usize;
        let n_samples = match self.spec.min_accuracy {
            Some(_) => 1000,
            None => 1000.min(images / 20),
        };
        let clean = self.experiment.train_in_clean_view()?;
        let pixels = Pixels {
            dataset: &clean.dataset,
            family: &clean.family,
            preprocess,
        };
        self.measure(pixels, n_samples, "training images")
    }

    /// Asks the teacher about some samples before the long work.
    fn measure(&mut self, pixels: Pixels, n_samples: usize, what: &str) -> Outcome {
        let samples = spread(&pixels.dataset.selected(), n_samples);
        let (stop, decoders) = (self.stop, self.args.machine.threads());
        let teacher = self.loaded_teacher()?;
        let accuracy = measure_accuracy(teacher, pixels, &samples, decoders, stop)?;
        // Asked to stop, it has looked at fewer: too few to judge by.
        if stop.load(Ordering::Relaxed) {
            return Err(stopped(0));
        }
        if accuracy.n_samples == 0 {
            return Ok(());
        }
        say(format!(
            "teacher accuracy {:.4} on {} {what}",
            accuracy.top1(),
            accuracy.n_samples
        ));
        self.json(
            "accuracy",
            json!({ "of": what, "top1": accuracy.top1(), "top5": accuracy.top5(), "samples": accuracy.n_samples }),
        );
        self.refuse_below_bar(pixels, accuracy.n_samples, accuracy.correct)
    }

    fn refuse_below_bar(&mut self, pixels: Pixels, n_samples: usize, correct: usize) -> Outcome {
        let accuracy = Accuracy {
            n_samples,
            correct,
            correct_top5: 0,
        };
        let samples = pixels.dataset.selected();
        let (stop, decoders) = (self.stop, self.args.machine.threads());
        let teacher = self.loaded_teacher()?;
        Ok(gate(teacher, pixels, &samples, &accuracy, decoders, stop)?)
    }

    fn summary(&self, want: &CacheWant, cache: &LogitCache, report: &CaptureReport) -> String {
        let rate = report.images_per_s();
        let decimals = usize::from(rate < 10.0);
        let mut said = format!(
            "{}: captured {} images in {} ({rate:.decimals$} img/s), {} on disk; {} of teacher time, saved whenever they are wanted again",
            want.split.what(),
            report.images,
            duration(report.seconds),
            bytes(folder_bytes(cache.path())),
            duration(report.teacher_seconds)
        );
        if !self.part.is_whole() {
            said = format!(
                "part {} of {}; {} of {} views whole",
                self.part,
                said,
                want.views_there(cache),
                want.split.n_views
            );
        }
        match (want.split.role, report.accuracy()) {
            (Role::Eval, Some(accuracy)) => {
                said += &format!(
                    "; teacher accuracy {accuracy:.4} on {} images",
                    report.correct.1
                );
            }
            (Role::Train, Some(accuracy)) => {
                said += &format!(
                    "; the teacher is right on {:.2} % of these views",
                    100.0 * accuracy
                );
            }
            _ => {}
        }
        if !self.spec.output_is.is_absolute() {
            said += &format!(
                "; rows are centred to mean 0, {} of {} values ({:.3} %) were clipped before the logarithm",
                report.clipped,
                report.values,
                100.0 * report.clipped as f64 / report.values.max(1) as f64
            );
        }
        match report.bad_samples.len() {
            0 => said,
            n => said + &format!("; {n} samples could not be read and have no row"),
        }
    }

    fn print(&self, want: &CacheWant, cache: &LogitCache, report: Option<&CaptureReport>) {
        if !self.args.recipe.json {
            println!("{}", cache.path().display());
            return;
        }
        self.json(
            "cache",
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
                "batch_size": report.map(|report| report.batch_size),
                "clipped": report.map(|report| report.clipped),
                "bad_samples": report.map(|report| &report.bad_samples),
                "teacher_seconds": teacher_seconds(cache.view_files()),
                "teacher_seconds_spent": report.map_or(0.0, |report| report.teacher_seconds),
                "teacher_seconds_saved": report.map_or(teacher_seconds(cache.view_files()), |_| 0.0),
            }),
        );
    }

    fn json(&self, event: &str, fields: Value) {
        if self.args.recipe.json {
            print_event(event, fields);
        }
    }
}

/// One line on stdout: `{"event": ..., ...}`.
fn print_event(event: &str, fields: Value) {
    let mut line = json!({ "event": event });
    if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
        line.extend(fields);
    }
    println!("{line}");
}

fn stopped(images: u64) -> Failure {
    Failure::work(format!(
        "stopped before every view was captured; {images} images are on disk since the start"
    ))
    .hint("what is on disk is whole; the same command captures the rest")
}

/// The batch size of an unfinished or growing cache: which images meet in one run of the teacher decides the last bits of
/// their logits.
fn recorded_batch_size(found: &Found) -> Outcome<Option<usize>> {
    match found {
        Found::Miss { .. } => Ok(None),
        Found::Hit(path) => {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            Ok(batch_size_of(cache.manifest()))
        }
    }
}

fn batch_size_of(manifest: &Manifest) -> Option<usize> {
    manifest.recorded.get("batch_size")?.parse().ok()
}

/// Seconds that the teacher computed for these views of a cache, over all captures.
pub(crate) fn teacher_seconds(views: &[ViewFile]) -> f64 {
    views
        .iter()
        .filter_map(|view| view.recorded.get("teacher_seconds")?.parse::<f64>().ok())
        .fold(0.0, |sum, seconds| sum + seconds)
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

/// Turns events into a bar, and into lines of JSON where these are wanted.
struct Show {
    bar: Progress,
    what: String,
    as_json: bool,
    last_progress: Cell<Option<Instant>>,
}

impl Show {
    fn new(want: &CacheWant, as_json: bool) -> Self {
        Self {
            bar: Progress::new(want.split.what(), 0, "img"),
            what: want.split.what(),
            as_json,
            last_progress: Cell::new(None),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Started(plan) => {
                self.bar.line(format!(
                    "{}: {} images, {} at once; at most {} of pixels and rows in work",
                    self.what,
                    plan.images,
                    plan.batch_size,
                    bytes(plan.buffer_bytes)
                ));
                self.bar.set_total(plan.images);
                self.json(
                    "started",
                    json!({
                        "images": plan.images,
                        "batch_size": plan.batch_size,
                        "sessions": plan.sessions,
                        "decoders": plan.decoders,
                        "buffer_bytes": plan.buffer_bytes,
                    }),
                );
            }
            Event::Progress(progress) => {
                let shares = progress.shares;
                let waiting = format!(
                    "model {:.0} %, waiting for pixels {:.0} %, for the disk {:.0} %",
                    100.0 * shares.model,
                    100.0 * shares.decode,
                    100.0 * shares.disk
                );
                self.bar.set(progress.done, waiting);
                if self.is_due() || progress.done == progress.total {
                    self.json(
                        "progress",
                        json!({
                            "done": progress.done,
                            "total": progress.total,
                            "images_per_s": progress.images_per_s,
                            "eta_s": progress.eta_s(),
                            "model": shares.model,
                            "decode": shares.decode,
                            "disk": shares.disk,
                        }),
                    );
                }
            }
            Event::ViewFinished { view } => self.json("view", json!({ "view": view })),
            Event::BadSample { sample, error } => {
                self.bar.line(format!(
                    "sample {sample} cannot be read and gets no row: {error}"
                ));
                self.json(
                    "bad_sample",
                    json!({ "sample": sample, "error": error.to_string() }),
                );
            }
            Event::Halved { from, to } => {
                self.bar.line(format!(
                    "out of memory with {from} images at once; going on with {to}"
                ));
                self.json("halved", json!({ "from": from, "to": to }));
            }
            _ => {}
        }
    }

    /// Once a second is enough for a log that is kept.
    fn is_due(&self) -> bool {
        let due = self
            .last_progress
            .get()
            .is_none_or(|last| last.elapsed().as_secs_f64() >= 1.0);
        if due {
            self.last_progress.set(Some(Instant::now()));
        }
        due
    }

    fn json(&self, event: &str, mut fields: Value) {
        if self.as_json {
            fields["split"] = self.what.clone().into();
            print_event(event, fields);
        }
    }
}
