//! One page about one or more runs: a table, learning curves, and where each number comes from.

mod curves;
mod html;
mod markdown;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use logitcask_student::{EpochRecord, RunRecord};

use crate::exit::{Failure, Outcome};

/// A run as a report sees it.
pub(crate) struct Run {
    /// What tells it apart in tables: the recipe's losses, or the folder where two runs share them.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) record: RunRecord,
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) recipe: String,
}

impl Run {
    /// Reads a finished run.
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        let record = RunRecord::read(folder)?.ok_or_else(|| {
            Failure::work(format!("`{}` holds no finished run", folder.display()))
                .hint("give the folder of a run, as `student` printed it; an unfinished one continues by its own command")
        })?;
        Ok(Self {
            name: record.recorded.get("losses").cloned().unwrap_or_default(),
            epochs: EpochRecord::read_all(folder)?,
            recipe: fs::read_to_string(folder.join("recipe.toml")).unwrap_or_default(),
            folder: folder.to_owned(),
            record,
        })
    }

    fn recorded(&self, key: &str) -> &str {
        self.record.recorded.get(key).map_or("", String::as_str)
    }
}

/// Writes `report.html`, `report.md` and `curves.svg` into `out`, and returns the page's path.
pub(crate) fn write(mut runs: Vec<Run>, out: &Path) -> Outcome<PathBuf> {
    name_apart(&mut runs);
    let curves = curves::svg(&runs)?;
    let files = [
        ("curves.svg", curves.clone()),
        ("report.md", markdown::page(&runs)),
        ("report.html", html::page(&runs, &curves)),
    ];
    logitcask_durable::create_dir_all(out).map_err(|e| cannot_write(out, e))?;
    for (name, text) in files {
        let path = out.join(name);
        logitcask_durable::write_atomic(&path, |w| w.write_all(text.as_bytes()))
            .map_err(|e| cannot_write(&path, e))?;
    }
    Ok(out.join("report.html"))
}

fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    Failure::work(format!("cannot write `{}`: {error}", path.display()))
}

/// Where two runs have the same losses, their folder names tell them apart.
fn name_apart(runs: &mut [Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        let shared = names.iter().filter(|name| **name == run.name).count() > 1;
        if shared || run.name.is_empty() {
            let folder = run.folder.file_name().unwrap_or_default();
            run.name = folder.to_string_lossy().into_owned();
        }
    }
}

/// The table of results: a header and a row per run, cells as text. The first column is text, the others are numbers.
fn table(runs: &[Run]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = vec![
        "loss",
        "student",
        "top-1 last",
        "top-1 best (epoch)",
        "NLL",
        "ECE",
        "agrees with teacher",
        "training",
    ];
    let rows = runs
        .iter()
        .map(|run| {
            let last = run.record.last.eval.unwrap_or_default();
            let best = &run.record.best;
            vec![
                run.name.clone(),
                run.record.student.clone(),
                percent(last.top1),
                format!(
                    "{} ({})",
                    percent(best.eval.unwrap_or_default().top1),
                    best.epoch
                ),
                format!("{:.3}", last.nll),
                format!("{:.3}", last.ece),
                last.agreement.map_or("-".to_owned(), percent),
                crate::progress::duration(run.record.times.train_seconds),
            ]
        })
        .collect();
    (header, rows)
}

/// What was the same for every run, and what it cost: lines below the table.
fn facts(runs: &[Run]) -> Vec<String> {
    let mut facts = Vec::new();
    let mut add = |text: String| {
        if !text.is_empty() && !facts.contains(&text) {
            facts.push(text);
        }
    };
    for run in runs {
        for key in ["data", "teacher", "cache"] {
            add(run.recorded(key).to_owned());
        }
    }
    let seconds = |run: &Run| {
        run.recorded("teacher_seconds")
            .parse::<f64>()
            .unwrap_or(0.0)
    };
    // Runs on one cache share its cost.
    let caches: std::collections::BTreeMap<&str, f64> = runs
        .iter()
        .map(|run| (run.recorded("cache"), seconds(run)))
        .collect();
    let paid: f64 = caches.values().sum();
    let reused: f64 = runs.iter().map(seconds).sum::<f64>() - paid;
    if paid > 0.0 {
        add(format!(
            "The teacher ran once, for {}; reading its cache instead saved {} over these {} runs.",
            crate::progress::duration(paid),
            crate::progress::duration(reused),
            runs.len()
        ));
    }
    if let Some(eval) = runs.iter().find_map(|run| run.record.last.eval) {
        let p = eval.top1;
        let standard_error = (p * (1.0 - p) / eval.n_samples.max(1) as f64).sqrt();
        add(format!(
            "Evaluated on {} images: one accuracy has a standard error of about {:.1} points, so small differences \
             between single runs mean little.",
            eval.n_samples,
            100.0 * standard_error
        ));
    }
    facts
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
