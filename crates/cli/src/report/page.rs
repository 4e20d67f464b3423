//! All that both pages say: runs side by side, their curves, and where each number comes from.

use std::collections::BTreeMap;

use logitcask_experiment::{Board, Summary};
use logitcask_student::{EpochRecord, Metrics};

use super::charts::{Chart, Series};
use super::looks::Look;
use super::run::Run;
use crate::leaderboard;

/// All that both pages say.
pub(super) struct Page {
    pub(super) runs: Vec<Run>,
    /// The configurations in the order of the runs; their places decide colours.
    pub(super) names: Vec<String>,
    pub(super) board: Board,
    /// A student of each configuration looked at again; the reason where that could not be done.
    pub(super) looks: Vec<Result<Look, String>>,
}

impl Page {
    pub(super) fn runs_of(&self, name: &str) -> impl Iterator<Item = &Run> {
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
    pub(super) fn curves(&self) -> Vec<Chart<'static>> {
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
    pub(super) fn losses(&self) -> Vec<Chart<'_>> {
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
    pub(super) fn reliability(&self) -> Option<Chart<'static>> {
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
    pub(super) fn every_run(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
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
    pub(super) fn facts(&self) -> Vec<String> {
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
    pub(super) fn cost(&self) -> Vec<String> {
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
