//! `teacher-logits`: a capture, shown as it goes on.

mod json_lines;
mod show;

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use logitcask_cache::LogitCache;
use logitcask_dataset::Role;
use logitcask_experiment::{
    CacheWant, Capture, Event, Outcome, capture, encoding_of, hex, read_checked, teacher_seconds,
};
use logitcask_teacher::{BatchSize, CaptureReport, Part, percent};
use serde_json::{Value, json};

use crate::args::TeacherLogits;
use crate::machine;
use crate::progress::{bytes, duration, say};
use crate::watch::Terminal;
use json_lines::print_event;
use show::Show;

pub(crate) fn run(args: &TeacherLogits, stop: &AtomicBool) -> Outcome {
    let recipe = read_checked(&args.recipe.recipe, &args.recipe.overrides)?;
    let machine = args.machine.machine(&args.recipe.cache_dir)?;
    let how = Capture {
        cache_dir: &args.recipe.cache_dir,
        machine: &machine,
        part: args.part.parse()?,
        stop,
    };
    let told = Told {
        json: args.recipe.json,
        part: how.part,
        terminal: Terminal::default(),
        at_work: RefCell::default(),
    };
    capture(recipe, &how, &|event| told.event(event))
}

/// What a person is told, or a program in lines of JSON.
struct Told {
    json: bool,
    part: Part,
    terminal: Terminal,
    /// The capture that goes on.
    at_work: RefCell<Option<Show>>,
}

impl Told {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Teacher(teacher) => {
                say(machine::describe(teacher));
                let (sessions, threads_each) = teacher.sessions();
                self.json(
                    "teacher",
                    json!({
                        "teacher": teacher.spec().title(),
                        "provider": teacher.device().provider.name(),
                        "sessions": sessions,
                        "threads_each": threads_each,
                        "onnxruntime": teacher.runtime().version(),
                        "nodes": teacher.placement().nodes,
                        "nodes_left_to_cpu": teacher.placement().on_cpu(),
                    }),
                );
            }
            Event::Accuracy { of, accuracy } => {
                say(format!(
                    "teacher accuracy {} on {} {of}",
                    percent(accuracy.top1()),
                    accuracy.n_samples
                ));
                self.json(
                    "accuracy",
                    json!({ "of": of, "top1": accuracy.top1(), "top5": accuracy.top5(), "samples": accuracy.n_samples }),
                );
            }
            Event::BatchSize(found) => self.batch_size(found),
            Event::Capture { want, event } => {
                let mut at_work = self.at_work.borrow_mut();
                at_work
                    .get_or_insert_with(|| Show::new(want, self.json))
                    .event(event);
            }
            Event::Ended => {
                if let Some(show) = self.at_work.take() {
                    show.bar.finish();
                }
                self.terminal.event(&event);
            }
            Event::Stopped {
                want,
                images,
                seconds,
            } => self.json(
                "stopped",
                json!({ "images": images, "seconds": seconds, "split": want.split.what() }),
            ),
            Event::Cached {
                want,
                cache,
                report,
            } => {
                say(match report {
                    Some(report) => self.summary(want, cache, report),
                    None => hit(want, cache),
                });
                self.print(want, cache, report);
            }
            event => self.terminal.event(&event),
        }
    }

    fn batch_size(&self, found: &BatchSize) {
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

    fn summary(&self, want: &CacheWant<'_>, cache: &LogitCache, report: &CaptureReport) -> String {
        let rate = report.images_per_s();
        let decimals = usize::from(rate < 10.0);
        let mut said = format!(
            "{}: captured {} images in {} ({rate:.decimals$} img/s), {} on disk; {} of teacher time, saved whenever they are wanted again",
            want.split.what(),
            report.images,
            duration(report.seconds),
            on_disk(cache),
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
        if !want.teacher.output_is.is_absolute() {
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
        said
    }

    fn print(&self, want: &CacheWant<'_>, cache: &LogitCache, report: Option<&CaptureReport>) {
        if !self.json {
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
        if self.json {
            print_event(event, fields);
        }
    }
}

/// Everything is there: what that saves.
fn hit(want: &CacheWant<'_>, cache: &LogitCache) -> String {
    format!(
        "{}: already in cache {} ({}); nothing to run, {} of teacher time saved",
        want.split.what(),
        &hex(&cache.id())[..16],
        encoding_of(cache),
        duration(teacher_seconds(cache.view_files()))
    )
}

/// What a cache takes, for people: one that cannot be measured now is there all the same.
fn on_disk(cache: &LogitCache) -> String {
    logitcask_cache::bytes_of(cache.path()).map_or("some bytes".to_owned(), bytes)
}
