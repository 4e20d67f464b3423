//! `sweep`: captures what is missing, trains what is missing, and compares what is finished.

mod live;
mod lock;
mod process;
mod queue;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logitcask_cache::{Found, LogitCache, OpenOptions};
use logitcask_experiment::{
    Board, Entry, Experiment, Failure, Finished, Outcome, Planned, Recipe, Sweep, claim, objective,
    open_device, placeless, sections,
};

use crate::args;
use crate::leaderboard;
use crate::progress::say;
use crate::watch::shown;
use live::Live;
use process::{myself, spawn, wait};
use queue::Queue;
use task::{Task, write_recipe};

pub(crate) fn run(args: &args::Sweep, stop: &AtomicBool) -> Outcome {
    let sweep = Sweep::load(&args.sweep)?;
    let at_once = args.jobs * args.devices.len();
    if let Some(threads) = args.threads.filter(|threads| *threads < at_once) {
        return Err(Failure::asked(format!(
            "`--threads {threads}` is fewer than one for each of the {at_once} runs at a time"
        )));
    }
    for device in &args.devices {
        open_device(device, false)?;
    }
    let configurations = sweep.configurations();
    let reference = logitcask_experiment::reference(args.reference.as_deref(), &configurations)?;
    if !args.show {
        let out = args.out.clone();
        let out = out.unwrap_or_else(|| Path::new("data/runs").join(&sweep.name));
        work(args, &sweep, &out, stop)?;
    }
    let finished = sweep.finished()?;
    say_missing(&sweep, &finished)?;
    print(&sweep, &finished, reference, args.json)
}

/// Captures what is missing, then trains what is missing.
fn work(args: &args::Sweep, sweep: &Sweep, out: &Path, stop: &AtomicBool) -> Outcome {
    let cannot = |error: std::io::Error| {
        Failure::work(format!(
            "cannot make the folder `{}`: {error}",
            out.display()
        ))
    };
    logitcask_durable::create_dir_all(out).map_err(cannot)?;
    let held = claim(&out.join(".sweep"), Duration::ZERO, stop, &shown()).map_err(|error| {
        let remedy = error.hint().unwrap_or_default();
        Failure::from(error).with_hint(format!("{remedy}; `--show` tells how far that sweep is"))
    })?;
    sweep.tidy()?;
    let sources = Sources::open(sweep, &args.cache_dir)?;
    sources.capture(args, out, stop)?;
    let tasks = sources.tasks(args, sweep, out)?;

    let known: Vec<String> = Finished::read_all(&sweep.lines)?
        .into_iter()
        .map(|line| line.key)
        .collect();
    let n_runs = tasks.len();
    let missing: VecDeque<Task> = tasks
        .into_iter()
        .filter(|task| !known.contains(&task.key))
        .collect();
    let n_missing = missing.len();
    say(match n_missing {
        0 => format!("{n_runs} runs, all of them finished before"),
        _ => format!(
            "{n_runs} runs, {} finished before, {n_missing} to train",
            n_runs - n_missing
        ),
    });
    let queue = Queue {
        args,
        claim: &held,
        lines: &sweep.lines,
        missing: Mutex::new(missing),
        failures: Mutex::new(Vec::new()),
        live: Live::new(n_missing),
        stop,
    };
    queue.work();
    let (n_left, n_failed) = queue.left();
    if n_failed > 0 {
        return Err(
            Failure::work(format!("{n_failed} of {n_missing} runs failed"))
                .with_hint("the same command tries them again; finished runs are kept"),
        );
    }
    if stop.load(Ordering::Relaxed) && n_left > 0 {
        return Err(Failure::work(format!("stopped with {n_left} of {n_runs} runs to go"))
            .with_hint("what is finished is saved, what was interrupted continues from its checkpoint: run the same command"));
    }
    Ok(())
}

/// What the runs read, opened once for all runs that read the same.
struct Sources {
    by_recipe: BTreeMap<String, Experiment>,
}

impl Sources {
    /// Whatever cannot be trained is refused here, before the first run.
    fn open(sweep: &Sweep, cache_dir: &Path) -> Outcome<Self> {
        let mut by_recipe = BTreeMap::new();
        for run in &sweep.runs {
            let source = source_of(&run.recipe)?;
            let experiment = match by_recipe.entry(source) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let recipe = run
                        .recipe
                        .clone()
                        .with_known_teachers(cache_dir, &shown())?;
                    entry.insert(Experiment::open(recipe, &shown())?)
                }
            };
            check(run, experiment)?;
        }
        Ok(Self { by_recipe })
    }

    /// Runs the teacher where views are missing: the recipes with the most views first, because the others read the
    /// beginning of the same caches.
    fn capture(&self, args: &args::Sweep, out: &Path, stop: &AtomicBool) -> Outcome {
        let mut experiments: Vec<&Experiment> = self.by_recipe.values().collect();
        experiments.sort_by_key(|experiment| std::cmp::Reverse(experiment.taught.n_views));
        for experiment in experiments {
            if is_captured(experiment, &args.cache_dir)? {
                continue;
            }
            let path = out.join("capture.toml");
            write_recipe(&path, &experiment.recipe)?;
            let mut command = myself()?;
            command
                .arg("teacher-logits")
                .arg(&path)
                .arg("--cache-dir")
                .arg(&args.cache_dir)
                .args(["--provider", &args.provider])
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            if let Some(threads) = args.threads {
                command.args(["--threads", &threads.to_string()]);
            }
            let mut child = spawn(&mut command)?;
            if !wait(&mut child, stop, &mut || ())? {
                return Err(Failure::work("the teacher's logits could not be captured")
                    .with_hint("the reason stands above; the same command goes on from here"));
            }
        }
        Ok(())
    }

    /// Every run with what identifies it: seed by seed, so that an early stop leaves whole comparisons.
    fn tasks(&self, args: &args::Sweep, sweep: &Sweep, out: &Path) -> Outcome<Vec<Task>> {
        let mut rows = BTreeMap::new();
        for (source, experiment) in &self.by_recipe {
            rows.insert(source, rows_digest(experiment, args)?);
        }
        let mut tasks = Vec::new();
        for run in &sweep.runs {
            let Some(rows) = rows.get(&source_of(&run.recipe)?) else {
                continue;
            };
            let mut hasher = blake3::Hasher::new();
            hasher.update(placeless(&run.recipe.to_toml()?).as_bytes());
            hasher.update(rows);
            let key = hasher.finalize().to_hex().to_string();
            let seed = run.recipe.seed;
            let name = format!("{}-s{seed}-{}", slug(&run.configuration), &key[..8]);
            tasks.push(Task {
                key,
                folder: out.join(name),
                planned: run.clone(),
            });
        }
        let place = |task: &Task| {
            let of_same = sweep
                .runs
                .iter()
                .filter(|run| run.configuration == task.planned.configuration);
            of_same
                .take_while(|run| run.recipe.seed != task.planned.recipe.seed)
                .count()
        };
        tasks.sort_by_cached_key(place);
        Ok(tasks)
    }
}

/// What decides which images and rows a run reads.
fn source_of(recipe: &Recipe) -> Outcome<String> {
    Recipe {
        seed: 0,
        ensemble: None,
        student: None,
        loss: Vec::new(),
        train: None,
        ..recipe.clone()
    }
    .to_toml()
}

/// Names that do not exist, options that a loss does not know.
fn check(run: &Planned, experiment: &Experiment) -> Outcome {
    let named = |failure: Failure| {
        let remedy = failure.hint().map(str::to_owned);
        let named = Failure::asked(format!("`{}`: {failure}", run.configuration));
        match remedy {
            Some(remedy) => named.with_hint(remedy),
            None => named,
        }
    };
    let (student, _) = sections(&run.recipe).map_err(named)?;
    logitcask_student::find_model(&student.name, &[]).map_err(|error| named(error.into()))?;
    objective(&run.recipe, experiment.train.dataset.n_classes()).map_err(named)?;
    Ok(())
}

fn is_captured(experiment: &Experiment, cache_dir: &Path) -> Outcome<bool> {
    for teacher in &experiment.recipe.teacher {
        for want in experiment.wants(teacher)? {
            let path = match logitcask_cache::find(cache_dir, &want.key)? {
                Found::Hit(path) | Found::Transcoded(path) => path,
                Found::Miss { .. } => return Ok(false),
            };
            let cache = LogitCache::open(&path, OpenOptions::default())?;
            if want.views_there(&cache) < want.split.n_views {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// BLAKE3 over images, labels, the samples that are trained on and the very views that a run reads: views that are captured later change nothing.
fn rows_digest(experiment: &Experiment, args: &args::Sweep) -> Outcome<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    for split in [Some(&experiment.train), experiment.eval.as_ref()]
        .into_iter()
        .flatten()
    {
        hasher.update(&split.fingerprint.images);
        hasher.update(&split.fingerprint.labels);
    }
    // `subset` and `exclude` may name files.
    for sample in experiment.train.dataset.selected() {
        hasher.update(&sample.to_le_bytes());
    }
    for teacher in &experiment.recipe.teacher {
        for want in experiment.wants(teacher)? {
            let cache = want.open(&args.cache_dir, &args.sweep, &shown())?;
            hasher.update(&cache.manifest().key.digest());
            for file in cache.view_files_below(want.split.n_views) {
                hasher.update(&file.digest());
            }
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

/// A configuration as a part of a folder's name.
fn slug(configuration: &str) -> String {
    let plain: String = configuration
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '_' {
                c
            } else {
                ' '
            }
        })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join("-").chars().take(40).collect()
}

fn say_missing(sweep: &Sweep, finished: &[Finished]) -> Outcome {
    let n_missing = sweep.runs.len() - finished.len();
    if n_missing > 0 {
        say(format!(
            "{n_missing} of {} runs are not finished",
            sweep.runs.len()
        ));
    }
    if finished.is_empty() {
        return Err(Failure::work("no run is finished yet")
            .with_hint("without `--show` the sweep trains them"));
    }
    Ok(())
}

fn print(sweep: &Sweep, finished: &[Finished], reference: &str, json: bool) -> Outcome {
    let entries: Vec<Entry> = finished.iter().map(Finished::entry).collect();
    let board = Board::of(&entries, &sweep.configurations(), reference);
    if json {
        for row in &board.rows {
            println!("{}", serde_json::to_string(row).map_err(Failure::work)?);
        }
        let cost = serde_json::json!({ "reference": board.reference, "cost": board.cost });
        println!("{cost}");
        return Ok(());
    }
    print_table(&board);
    for line in leaderboard::legend(&board) {
        say(line);
    }
    if let Some(sentence) = leaderboard::cost(&board.cost, finished.len()) {
        say(sentence);
    }
    say(format!(
        "finished runs: {}; a page: logitcask report {}",
        sweep.lines.display(),
        sweep.path.display()
    ));
    Ok(())
}

/// Columns of the width of their longest cell: the first starts on the left, numbers end on the right.
fn print_table(board: &Board) {
    let (header, rows) = leaderboard::table(board);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([header[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in std::iter::once(&header).chain(&rows) {
        let cells = row.iter().zip(&widths).enumerate();
        let padded: Vec<String> = cells
            .map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        println!("{}", padded.join("  ").trim_end());
    }
}
