//! Stage one: every teacher of a recipe over every view, into caches. What is there already is not asked again.

mod gate;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use logitcask_cache::{
    CacheError, Found, LogitCache, LogitWriter, Manifest, OpenOptions, clear_stale_claims,
};
use logitcask_dataset::{Preprocess, Trust};
use logitcask_teacher::{
    Job, Part, Pixels, Teacher, TeacherSpec, Warning, check_chunks, find_batch_size, prepare,
    provenance,
};

use crate::claims;
use crate::event::{Event, Watch, info, note};
use crate::experiment::Experiment;
use crate::failure::{Failure, Outcome};
use crate::machine::Machine;
use crate::open_cache::{describe, is_near};
use crate::recipe::Recipe;
use crate::want::CacheWant;

/// Where a capture writes, what it runs on, and which part of the work it does.
pub struct Capture<'a> {
    /// The folder below which caches are looked for and made.
    pub cache_dir: &'a Path,
    /// What runs the teachers.
    pub machine: &'a Machine,
    /// Which of the chunks, where several processes share the work.
    pub part: Part,
    /// Set to stop at the next safe place.
    pub stop: &'a AtomicBool,
}

/// Captures what a recipe's teachers say of its images, as far as it is not in a cache yet.
///
/// # Errors
/// If the recipe names no teacher or its data cannot be read; if a teacher answers otherwise than a classifier of these images,
/// or less accurately than the recipe asks; if it was stopped.
pub fn capture(recipe: Recipe, how: &Capture<'_>, watch: &Watch<'_>) -> Outcome {
    check_has_teacher(&recipe)?;
    let recipe = recipe.with_known_teachers(how.cache_dir, watch)?;
    // What is captured is kept for long: digests are trusted only where no image can have changed since.
    let experiment = Experiment::open_trusting(recipe, Trust::StatusTimes, watch)?;
    experiment.check_sizes()?;
    for teacher in &experiment.recipe.teacher {
        let mut stage = Stage {
            how,
            watch,
            experiment: &experiment,
            spec: teacher,
            loaded: None,
            told: Vec::new(),
        };
        for want in experiment.wants(teacher)? {
            stage.serve(&want)?;
        }
    }
    Ok(())
}

/// Refuses a recipe of a plain baseline.
///
/// # Errors
/// If the recipe names no teacher.
pub fn check_has_teacher(recipe: &Recipe) -> Outcome {
    if recipe.teacher.is_empty() {
        return Err(Failure::asked("the recipe names no teacher")
            .with_hint("add a `[[teacher]]` section with `onnx = \"...\"`"));
    }
    Ok(())
}

/// One teacher at work. It is loaded when the first cache turns out to be missing, and not at all on a hit.
struct Stage<'a> {
    how: &'a Capture<'a>,
    watch: &'a Watch<'a>,
    experiment: &'a Experiment,
    spec: &'a TeacherSpec,
    loaded: Option<Teacher>,
    /// Doubts that a person has been told of.
    told: Vec<Warning>,
}

impl Stage<'_> {
    fn serve(&mut self, want: &CacheWant<'_>) -> Outcome {
        let found = want.find(self.how.cache_dir, self.watch)?;
        let what = want.split.what();
        if let Found::Hit(path) | Found::Transcoded(path) = &found {
            let cache = LogitCache::open(path, OpenOptions::default())?;
            let n_there = want.views_there(&cache);
            if n_there == want.split.n_views {
                self.gate_by_eval(want, &cache)?;
                // Every row is there: what cannot be tidied up, on a disk that is read only say, is in nobody's way.
                if let Err(error) = clear_stale_claims(path) {
                    note(self.watch, format!("a dead writer's claims stay: {error}"));
                }
                let (cache, report) = (&cache, None);
                (self.watch)(Event::Cached {
                    want,
                    cache,
                    report,
                });
                return Ok(());
            }
            if let Some(from) = cache.manifest().transcoded_from() {
                let (path, from) = (path.clone(), from.to_owned());
                return Err(CacheError::Transcoded { path, from }.into());
            }
            let n_views = want.split.n_views;
            let n_more = n_views - n_there;
            let told =
                format!("{what}: {n_there} of {n_views} views there, capturing {n_more} more");
            info(self.watch, told);
        } else if let Found::Miss { nearest } = &found {
            let told = match nearest {
                Some((path, differences)) if is_near(differences) => format!(
                    "{what}: not captured yet; the nearest cache, `{}`, differs: {}",
                    path.display(),
                    describe(differences)
                ),
                _ => format!("{what}: not captured yet"),
            };
            info(self.watch, told);
        }
        self.capture(want, &found)
    }

    fn capture(&mut self, want: &CacheWant<'_>, found: &Found) -> Outcome {
        want.check_has_file()?;
        let preprocess = Preprocess::new(&self.spec.preprocess)?;
        let pixels = Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        };
        let teacher = self.teacher()?;
        let images = prepare(teacher, pixels)?;
        let doubts = teacher.warnings().to_vec();
        let fixed = teacher.input().fixed_batch;
        self.tell(doubts);
        if let Some(fixed) = fixed {
            let images = if fixed == 1 { "image" } else { "images" };
            let told = format!(
                "the teacher takes exactly {fixed} {images} in a run: batches are cut, and the last one filled up with black"
            );
            info(self.watch, told);
        }
        self.gate_before(want, pixels)?;
        let teacher = self.teacher()?;
        // Only where no cache says so already: which images meet in one run decides the last bits of their logits.
        let batch_size = match recorded_batch_size(found)? {
            Some(rows) => rows,
            None => {
                let found = find_batch_size(teacher, images)?;
                (self.watch)(Event::BatchSize(&found));
                found.rows
            }
        };
        let writer = self.writer(want, batch_size)?;
        // Another part may have made the cache meanwhile; then its batch size holds for all.
        let batch_size = batch_size_of(writer.manifest(), writer.path())?.unwrap_or(batch_size);
        self.tell_other_batch_size(batch_size);
        let views: Vec<u32> = (0..want.split.n_views).collect();
        writer.check_space(&views)?;
        let job = Job {
            pixels,
            views: &views,
            batch_size,
            decoders: self.how.machine.threads,
            views_per_pass: want.split.views_per_pass as usize,
            images,
        };
        let (watch, stop) = (self.watch, self.how.stop);
        let report =
            logitcask_teacher::capture(self.loaded_teacher()?, &job, &writer, stop, &|event| {
                watch(Event::Capture { want, event })
            });
        watch(Event::Ended);
        let report = report?;
        let path = writer.path().to_owned();
        drop(writer);
        if report.stopped {
            let (images, seconds) = (report.images, report.seconds);
            watch(Event::Stopped {
                want,
                images,
                seconds,
            });
            return Err(stopped(images));
        }
        let cache = LogitCache::open(&path, OpenOptions::default())?;
        // The parts have all judged by the same images, before the work.
        if self.how.part.is_whole()
            && let Err(refused) = self.gate_by_eval(want, &cache)
        {
            // The whole split was just captured, and is below a bar that a part of it had passed.
            drop(cache);
            logitcask_cache::remove(&path)?;
            return Err(refused);
        }
        let (cache, report) = (&cache, Some(&report));
        watch(Event::Cached {
            want,
            cache,
            report,
        });
        Ok(())
    }

    /// Opens the cache for this part's chunks.
    fn writer(&mut self, want: &CacheWant<'_>, batch_size: usize) -> Outcome<LogitWriter> {
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
        manifest.recorded.extend(provenance(teacher, batch_size));
        check_chunks(teacher, &manifest)?;
        let part = self.how.part;
        Ok(LogitWriter::open_part_waiting(
            self.how.cache_dir,
            &manifest,
            |n_chunks| part.range(n_chunks),
            &mut claims::waiting(Duration::ZERO, self.how.stop, self.watch),
        )?)
    }

    fn tell_other_batch_size(&self, batch_size: usize) {
        let is_keyed = self
            .loaded
            .as_ref()
            .is_some_and(|teacher| teacher.input().at_once.is_some());
        let stated = self.spec.batch_size.filter(|_| !is_keyed);
        if let Some(stated) = stated.filter(|stated| *stated != batch_size) {
            let told = format!(
                "the recipe says batch_size = {stated}; this cache was begun with {batch_size}, which holds for all of it"
            );
            info(self.watch, told);
        }
    }

    fn teacher(&mut self) -> Outcome<&mut Teacher> {
        if self.loaded.is_none() {
            let teacher = self.how.machine.load(self.spec)?;
            (self.watch)(Event::Teacher(&teacher));
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
                (self.watch)(Event::Warning {
                    what: doubt.to_string(),
                    hint: doubt.hint(),
                });
                self.told.push(doubt);
            }
        }
    }
}

fn stopped(images: u64) -> Failure {
    Failure::work(format!(
        "stopped before every view was captured; {images} images are on disk since the start"
    ))
    .with_hint("what is on disk is whole; the same command captures the rest")
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
        .with_hint(
            "the cache was not made by a capture: capture into another folder, with `--cache-dir`",
        )),
    }
}
