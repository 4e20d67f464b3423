mod gate;
mod show;

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use logitcask_cache::{
    CacheError, Found, LogitCache, LogitWriter, Manifest, OpenOptions, ViewFile, clear_stale_claims,
};
use logitcask_dataset::{Preprocess, Role, Trust};
use logitcask_teacher::{
    BatchSize, CaptureReport, Job, Part, Pixels, Teacher, TeacherSpec, Warning, capture,
    check_chunks, find_batch_size, percent, prepare, provenance,
};
use serde_json::{Value, json};

use crate::args::TeacherLogits;
use crate::claims;
use crate::exit::{Failure, Outcome};
use crate::experiment::{CacheWant, Experiment, describe, encoding_of, hex, is_near};
use crate::machine;
use crate::progress::{bytes, duration, say};
use crate::recipe::Recipe;
use show::Show;

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
            told: Vec::new(),
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
    /// Doubts that a person has been told of.
    told: Vec<Warning>,
    stop: &'a AtomicBool,
}

impl Stage<'_> {
    fn serve(&mut self, want: &CacheWant) -> Outcome {
        let found = want.find(&self.args.recipe.cache_dir)?;
        if let Found::Hit(path) | Found::Transcoded(path) = &found {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            let n_there = want.views_there(&cache);
            if n_there == want.split.n_views {
                self.gate_by_eval(want, &cache)?;
                // Every row is there: what cannot be tidied up, on a disk that is read only say, is in nobody's way.
                if let Err(error) = clear_stale_claims(path) {
                    say(format!("note: a dead writer's claims stay: {error}"));
                }
                return self.hit(want, &cache);
            }
            if let Some(from) = cache.manifest().transcoded_from() {
                let (path, from) = (path.clone(), from.to_owned());
                return Err(CacheError::Transcoded { path, from }.into());
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
            encoding_of(cache),
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
        let doubts = teacher.warnings().to_vec();
        self.tell(doubts);
        let teacher = self.teacher()?;
        if let Some(fixed) = teacher.input().fixed_batch {
            say(format!(
                "the teacher takes exactly {fixed} image{} in a run: batches are cut, and the last one filled up with black",
                if fixed == 1 { "" } else { "s" }
            ));
        }
        self.gate_before(want, pixels)?;
        let teacher = self.teacher()?;
        // Only where no cache says so already: which images meet in one run decides the last bits of their logits.
        let batch_size = match recorded_batch_size(found)? {
            Some(rows) => rows,
            None => {
                let found = find_batch_size(teacher, images)?;
                self.tell_batch_size(&found);
                found.rows
            }
        };
        let (mut manifest, chunk_rows) = (want.manifest()?, self.spec.chunk_rows);
        let teacher = self.teacher()?;
        if teacher.feature_len() > 0 {
            manifest = manifest.with_features(teacher.feature_len());
            if let Some(chunk_rows) = chunk_rows {
                manifest.chunk_rows = chunk_rows;
            }
        }
        if let Some(at_once) = teacher.input().at_once.filter(|_| chunk_rows.is_none()) {
            manifest.chunk_rows = manifest.chunk_rows.next_multiple_of(at_once as u32);
        }
        let keyed = teacher.input().at_once.is_some();
        manifest.recorded.extend(provenance(teacher, batch_size));
        check_chunks(teacher, &manifest)?;
        let (cache_dir, part) = (&self.args.recipe.cache_dir, self.part);
        let writer = LogitWriter::open_part_waiting(
            cache_dir,
            &manifest,
            |n_chunks| part.range(n_chunks),
            &mut claims::waiting(Duration::ZERO, self.stop),
        )?;
        // Another part may have made the cache meanwhile; then its batch size holds for all.
        let recorded = batch_size_of(writer.manifest(), writer.path())?;
        let batch_size = recorded.unwrap_or(batch_size);
        let stated = self.spec.batch_size.filter(|_| !keyed);
        if let Some(stated) = stated.filter(|stated| *stated != batch_size) {
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
        // The parts have all judged by the same images, before the work.
        if self.part.is_whole()
            && let Err(refused) = self.gate_by_eval(want, &cache)
        {
            // The whole split was just captured, and is below a bar that a part of it had passed.
            drop(cache);
            logitcask_cache::remove(&path)?;
            return Err(refused);
        }
        say(self.summary(want, &cache, &report)?);
        self.print(want, &cache, Some(&report));
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

    fn tell(&mut self, doubts: Vec<Warning>) {
        for doubt in doubts {
            if !self.told.contains(&doubt) {
                warn(&doubt, &doubt.hint());
                self.told.push(doubt);
            }
        }
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

    fn summary(
        &self,
        want: &CacheWant,
        cache: &LogitCache,
        report: &CaptureReport,
    ) -> Outcome<String> {
        let rate = report.images_per_s();
        let decimals = usize::from(rate < 10.0);
        let mut said = format!(
            "{}: captured {} images in {} ({rate:.decimals$} img/s), {} on disk; {} of teacher time, saved whenever they are wanted again",
            want.split.what(),
            report.images,
            duration(report.seconds),
            bytes(logitcask_cache::bytes_of(cache.path())?),
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
                    "; teacher accuracy {} on {} images",
                    percent(accuracy),
                    report.correct.1
                );
            }
            (Role::Train, Some(accuracy)) => {
                said += &format!(
                    "; the teacher is right on {} of these views",
                    percent(accuracy)
                );
            }
            _ => {}
        }
        if let Some(agreement) = report.agreement().filter(|share| *share < 1.0) {
            said += &format!(
                "; stored as `{}`, {} of the rows keep their largest logit in its class",
                cache.encoding(),
                percent(agreement)
            );
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
            0 => {}
            n => said += &format!("; {n} samples could not be read and have no row"),
        }
        Ok(said)
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
                "agreement": report.and_then(CaptureReport::agreement),
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

/// Tells of something that may be meant.
fn warn(doubt: &dyn Display, hint: &str) {
    say(format!("warning: {doubt}\n  hint: {hint}"));
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
        Found::Miss { .. } | Found::Transcoded(_) => Ok(None),
        Found::Hit(path) => {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            batch_size_of(cache.manifest(), path)
        }
    }
}

/// What a manifest records, which is any text.
fn batch_size_of(manifest: &Manifest, cache: &Path) -> Outcome<Option<usize>> {
    const MOST: usize = 1 << 20;
    let Some(text) = manifest.recorded.get("batch_size") else {
        return Ok(None);
    };
    match text.parse() {
        Ok(rows @ 1..=MOST) => Ok(Some(rows)),
        _ => Err(Failure::work(format!(
            "cache `{}` records a batch size of `{text}`, expected between 1 and {MOST}",
            cache.display()
        ))
        .hint(
            "the cache was not made by a capture: capture into another folder, with `--cache-dir`",
        )),
    }
}

/// Seconds that the teacher computed for these views of a cache, over all captures.
pub(crate) fn teacher_seconds(views: &[ViewFile]) -> f64 {
    views
        .iter()
        .filter_map(|view| view.recorded.get("teacher_seconds")?.parse::<f64>().ok())
        .fold(0.0, |sum, seconds| sum + seconds)
}
