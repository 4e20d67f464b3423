//! One page about one or more runs: a leaderboard, learning curves, how honest and how much like their teacher the
//! students are, and where each number comes from.

mod charts;
mod html;
mod looks;
mod markdown;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use logitcask_experiment::{
    Board, Entry, Failure, Finished, Outcome, RECIPE, Recipe, Summary, placeless, reference,
};
use logitcask_student::{EpochRecord, Metrics, RunRecord};

use crate::args::Report;
use crate::leaderboard;
use crate::progress::say;
use charts::{Chart, Series};
use looks::Look;

/// A run as a report sees it.
pub(crate) struct Run {
    /// What runs that differ in their seed alone share: the sweep's words, the recipe's losses, or a folder's name.
    configuration: String,
    seed: u64,
    folder: PathBuf,
    record: RunRecord,
    epochs: Vec<EpochRecord>,
    recipe: String,
}

impl Run {
    /// Reads a finished run.
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        let record = RunRecord::read(folder)?.ok_or_else(|| {
            Failure::work(format!("`{}` holds no finished run", folder.display()))
                .with_hint("give the folder of a run, as `student` printed it; an unfinished one continues by its own command")
        })?;
        let recorded = |key: &str| record.recorded.get(key).cloned().unwrap_or_default();
        Ok(Self {
            configuration: recorded("losses"),
            seed: recorded("seed").parse().unwrap_or_default(),
            epochs: EpochRecord::read_all(folder)?,
            recipe: recipe_of(folder)?,
            folder: folder.to_owned(),
            record,
        })
    }

    /// A finished run of a sweep.
    pub(crate) fn of_line(line: Finished) -> Self {
        Self {
            configuration: line.configuration,
            seed: line.seed,
            folder: line.run,
            record: line.record,
            epochs: line.epochs,
            recipe: line.recipe,
        }
    }

    fn recorded(&self, key: &str) -> &str {
        self.record.recorded.get(key).map_or("", String::as_str)
    }

    /// The recipe without its seed and without places: equal for repetitions of one experiment.
    fn experiment(&self) -> String {
        let mut recipe = placeless(&self.recipe)
            .parse::<toml::Table>()
            .unwrap_or_default();
        recipe.remove("seed");
        recipe.to_string()
    }
}

/// A run's recipe; empty where a run has none.
fn recipe_of(folder: &Path) -> Outcome<String> {
    let path = folder.join(RECIPE);
    match logitcask_durable::exists(&path).map_err(Failure::io("read", &path))? {
        true => Recipe::text(&path),
        false => Ok(String::new()),
    }
}

/// All that both pages say.
struct Page {
    runs: Vec<Run>,
    /// The configurations in the order of the runs; their places decide colours.
    names: Vec<String>,
    board: Board,
    /// A student of each configuration looked at again; the reason where that could not be done.
    looks: Vec<Result<Look, String>>,
}

/// Writes `report.html`, `report.md` and `curves.svg` into `out`, and returns the page's path.
pub(crate) fn write(mut runs: Vec<Run>, args: &Report, out: &Path) -> Outcome<PathBuf> {
    name_apart(&mut runs);
    let mut names: Vec<String> = Vec::new();
    for run in &runs {
        if !names.contains(&run.configuration) {
            names.push(run.configuration.clone());
        }
    }
    let reference = reference(args.reference.as_deref(), &names)?;
    let entries: Vec<Entry> = runs.iter().map(Run::entry).collect();
    let board = Board::of(&entries, &names, reference);
    let looks = names
        .iter()
        .map(|name| look_at(&runs, name, &args.cache_dir))
        .collect();
    let page = Page {
        runs,
        names,
        board,
        looks,
    };
    let files = [
        ("curves.svg", charts::sheet(&page.curves(), &page.names)?),
        ("report.md", markdown::page(&page)),
        ("report.html", html::page(&page)?),
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

/// Where two experiments have the same name, their folders' names tell them apart.
fn name_apart(runs: &mut [Run]) {
    let known: Vec<(String, String)> = runs
        .iter()
        .map(|run| (run.configuration.clone(), run.experiment()))
        .collect();
    for (run, (name, experiment)) in runs.iter_mut().zip(&known) {
        let is_other =
            |(other_name, other): &(String, String)| other_name == name && other != experiment;
        if known.iter().any(is_other) || run.configuration.is_empty() {
            let folder = run.folder.file_name().unwrap_or_default();
            run.configuration = folder.to_string_lossy().into_owned();
        }
        // Wherever such a run is named, it says what it is.
        if run.recorded("inconsistent") == "true" && !run.configuration.contains("inconsistent") {
            run.configuration.push_str(" (inconsistent views)");
        }
    }
}

/// The first run of a configuration, looked at again. A report without it is still a report, and says so.
fn look_at(runs: &[Run], name: &str, cache_dir: &Path) -> Result<Look, String> {
    let run = runs.iter().find(|run| run.configuration == name);
    let run = run.ok_or_else(|| "it has no run".to_owned())?;
    match looks::look(&run.folder, cache_dir) {
        Ok(Some(look)) => Ok(look),
        Ok(None) => Err("its recipe names no evaluation split".to_owned()),
        Err(failure) => {
            let hint = failure.hint().map(|hint| format!("\n  hint: {hint}"));
            say(format!(
                "{name}: its student could not be looked at again: {failure}{}",
                hint.unwrap_or_default()
            ));
            Err(failure.to_string())
        }
    }
}

impl Run {
    fn entry(&self) -> Entry<'_> {
        Entry {
            configuration: &self.configuration,
            seed: self.seed,
            record: &self.record,
        }
    }
}

impl Page {
    fn runs_of(&self, name: &str) -> impl Iterator<Item = &Run> {
        self.runs
            .iter()
            .filter(move |run| run.configuration == name)
    }

    /// What an epoch says, by epoch: mean and deviation over a configuration's seeds.
    fn by_epoch(
        &self,
        name: &str,
        value: impl Fn(&EpochRecord) -> Option<f64>,
    ) -> Vec<(f64, f64, f64)> {
        let mut values: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for epoch in self.runs_of(name).flat_map(|run| &run.epochs) {
            if let Some(value) = value(epoch).filter(|value| value.is_finite()) {
                values.entry(epoch.epoch).or_default().push(value);
            }
        }
        let point = |(epoch, values): (usize, Vec<f64>)| {
            let Summary { mean, sd, .. } = Summary::of(&values)?;
            Some((epoch as f64, mean, sd.unwrap_or(0.0)))
        };
        values.into_iter().filter_map(point).collect()
    }

    /// What the evaluations said, a chart per figure; charts that nobody has points for are left out.
    fn curves(&self) -> Vec<Chart<'static>> {
        type Figure = (&'static str, fn(&Metrics) -> Option<f64>);
        let figures: [Figure; 4] = [
            ("top-1 accuracy, %", |eval| Some(100.0 * eval.top1)),
            ("negative log-likelihood, nats", |eval| Some(eval.nll)),
            ("calibration error (ECE), %", |eval| Some(100.0 * eval.ece)),
            ("agreement with the teacher, %", |eval| {
                Some(100.0 * eval.agreement?)
            }),
        ];
        let charts = figures.into_iter().map(|(title, figure)| {
            let series = self.names.iter().enumerate().map(|(index, name)| Series {
                name: name.clone(),
                index,
                points: self.by_epoch(name, |epoch| figure(epoch.eval.as_ref()?)),
            });
            Chart {
                title,
                x_title: "epoch",
                series: series.filter(|series| !series.points.is_empty()).collect(),
                unit_square: false,
            }
        });
        charts.filter(|chart| !chart.series.is_empty()).collect()
    }

    /// The parts of each configuration's loss over time.
    fn losses(&self) -> Vec<Chart<'_>> {
        let charts = self.names.iter().map(|name| {
            let epochs = self.runs_of(name).flat_map(|run| &run.epochs);
            let mut parts: Vec<&str> = Vec::new();
            for term in epochs.flat_map(|epoch| &epoch.terms) {
                if !parts.contains(&term.name.as_str()) {
                    parts.push(&term.name);
                }
            }
            let series = parts.iter().enumerate().map(|(index, part)| Series {
                name: (*part).to_owned(),
                index,
                points: self.by_epoch(name, |epoch| {
                    Some(epoch.terms.iter().find(|term| term.name == **part)?.value)
                }),
            });
            Chart {
                title: name,
                x_title: "epoch",
                series: series.collect(),
                unit_square: false,
            }
        });
        charts.filter(|chart| !chart.series.is_empty()).collect()
    }

    /// Confidence against what it was worth, a line per configuration; `None` where no student could be looked at.
    fn reliability(&self) -> Option<Chart<'static>> {
        let series =
            self.names
                .iter()
                .zip(&self.looks)
                .enumerate()
                .filter_map(|(index, (name, look))| {
                    let points = look
                        .as_ref()
                        .ok()?
                        .bins
                        .iter()
                        .map(|&(confidence, right, _)| (confidence, right, 0.0));
                    Some(Series {
                        name: name.clone(),
                        index,
                        points: points.collect(),
                    })
                });
        let series: Vec<Series> = series.collect();
        (!series.is_empty()).then_some(Chart {
            title: "share that is right, by confidence",
            x_title: "the student's confidence",
            series,
            unit_square: true,
        })
    }

    /// A row for every run: for whoever wants to do the statistics anew.
    fn every_run(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let header = vec![
            "configuration",
            "seed",
            "top-1 last",
            "top-1 best (epoch)",
            "NLL",
            "ECE",
            "training",
            "folder",
        ];
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let rows = self.runs.iter().map(|run| {
            let last = run.record.last.eval;
            let best = run.record.best.eval.map(|eval| percent(eval.top1));
            let told = |figure: &dyn Fn(Metrics) -> String| last.map_or("-".to_owned(), figure);
            vec![
                run.configuration.clone(),
                run.seed.to_string(),
                told(&|eval| percent(eval.top1)),
                format!(
                    "{} ({})",
                    best.unwrap_or("-".to_owned()),
                    run.record.best.epoch
                ),
                told(&|eval| format!("{:.4}", eval.nll)),
                told(&|eval| percent(eval.ece)),
                crate::progress::duration(run.record.times.train_seconds),
                run.folder.display().to_string(),
            ]
        });
        (header, rows.collect())
    }

    /// What was the same for every run: lines below the table.
    fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let mut add = |text: String| {
            if !text.is_empty() && !facts.contains(&text) {
                facts.push(text);
            }
        };
        for run in &self.runs {
            for key in ["data", "teacher", "cache", "arithmetic", "notes"] {
                add(run.recorded(key).to_owned());
            }
            add(format!(
                "Student: {}, {} parameters, {} training samples.",
                run.record.student, run.record.n_parameters, run.record.n_train
            ));
            add(run.recorded("tool").to_owned());
        }
        if let Some(eval) = self.runs.iter().find_map(|run| run.record.last.eval) {
            let p = eval.top1;
            let standard_error = (p * (1.0 - p) / eval.n_samples.max(1) as f64).sqrt();
            add(format!(
                "Evaluated on {} images: one accuracy has a standard error of about {:.1} points from the choice of \
                 images alone, so small differences between single runs mean little.",
                eval.n_samples,
                100.0 * standard_error
            ));
        }
        facts
    }

    /// What it all cost: sentences.
    fn cost(&self) -> Vec<String> {
        let cost = leaderboard::cost(&self.board.cost, self.runs.len());
        let mut lines: Vec<String> = cost.into_iter().collect();
        let mut shares = [0.0; 5];
        for times in self.runs.iter().map(|run| &run.record.times) {
            let parts = [
                times.data_seconds,
                times.forward_seconds,
                times.loss_seconds,
                times.backward_seconds,
                times.step_seconds,
            ];
            shares
                .iter_mut()
                .zip(parts)
                .for_each(|(sum, part)| *sum += part);
        }
        let total: f64 = shares.iter().sum();
        if total > 0.0 {
            let names = [
                "reading pixels and rows",
                "forward",
                "loss",
                "backward",
                "optimiser",
            ];
            let told = names
                .iter()
                .zip(shares)
                .map(|(name, share)| format!("{name} {:.0} %", 100.0 * share / total));
            lines.push(format!(
                "Of the training time: {}.",
                told.collect::<Vec<_>>().join(", ")
            ));
        }
        lines
    }
}
