//! The leaderboard: runs of one configuration become a row, rows are compared seed by seed.

use std::collections::BTreeMap;

use logitcask_student::RunRecord;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::statistics::{Interval, Summary};

/// A finished run as the leaderboard sees it.
pub struct Entry<'a> {
    /// What it shares with the runs that differ in their seed alone.
    pub configuration: &'a str,
    /// The recipe's seed, by which runs are paired.
    pub seed: u64,
    /// What it came to.
    pub record: &'a RunRecord,
}

/// The configuration that the others are compared with: the one that was asked for, else the first.
///
/// # Errors
/// If there is none of that name.
pub fn reference<'a>(asked: Option<&str>, order: &'a [String]) -> Outcome<&'a str> {
    let found = match asked {
        None => order.first(),
        Some(asked) => order.iter().find(|name| *name == asked),
    };
    found.map(String::as_str).ok_or_else(|| {
        let asked = asked.unwrap_or_default();
        Failure::asked(format!("no configuration is called `{asked}`"))
            .with_hint(format!("there are: `{}`", order.join("`, `")))
    })
}

/// All rows, the best last epoch first.
#[derive(Serialize)]
pub struct Board {
    /// A row for each configuration.
    pub rows: Vec<Row>,
    /// The configuration that the others are compared with.
    pub reference: String,
    /// What all of it cost.
    pub cost: Cost,
}

/// A configuration. Accuracies and other shares are in [0, 1].
#[derive(Serialize)]
pub struct Row {
    /// What its runs have in common: all but the seed.
    pub configuration: String,
    /// The seeds of its finished runs.
    pub seeds: Vec<u64>,
    /// Top-1 after the last epoch.
    pub last: Option<Summary>,
    /// Top-1 after each run's best epoch. The images that chose the epoch also judge it: it flatters.
    pub best: Option<Summary>,
    /// Which epoch that was, run by run.
    pub best_epochs: Vec<usize>,
    /// Top-1 after the last epoch minus the reference's with the same seed.
    pub difference: Option<Interval>,
    /// Mean negative log-likelihood of the label after the last epoch, in nats.
    pub nll: Option<Summary>,
    /// Expected calibration error after the last epoch.
    pub ece: Option<Summary>,
    /// Share on which student and teacher name the same class, after the last epoch.
    pub agreement: Option<Summary>,
    /// Seconds spent in training.
    pub train_seconds: Option<Summary>,
}

/// What the teacher cost, and what reading its cache saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds of teacher time in the caches that the runs read.
    pub teacher_seconds: f64,
    /// Seconds that further captures for the other runs would have taken.
    pub teacher_seconds_saved: f64,
    /// Seconds that the students trained.
    pub student_seconds: f64,
}

impl Board {
    /// `order` names the configurations as they were asked for, `reference` the one to compare with.
    pub fn of(entries: &[Entry], order: &[String], reference: &str) -> Self {
        let last_by_seed = |configuration: &str| -> BTreeMap<u64, f64> {
            let of_it = entries
                .iter()
                .filter(|entry| entry.configuration == configuration);
            of_it
                .filter_map(|entry| Some((entry.seed, entry.record.last.eval?.top1)))
                .collect()
        };
        let against = last_by_seed(reference);
        let mut rows: Vec<Row> = order
            .iter()
            .filter_map(|configuration| {
                let own: Vec<&Entry> = entries
                    .iter()
                    .filter(|entry| entry.configuration == *configuration)
                    .collect();
                let differences: Vec<f64> = match *configuration == reference {
                    true => Vec::new(),
                    false => last_by_seed(configuration)
                        .iter()
                        .filter_map(|(seed, top1)| Some(top1 - against.get(seed)?))
                        .collect(),
                };
                (!own.is_empty()).then(|| Row::of(configuration, &own, &differences))
            })
            .collect();
        let score = |row: &Row| row.last.map_or(f64::NEG_INFINITY, |last| last.mean);
        rows.sort_by(|a, b| score(b).total_cmp(&score(a)));
        Self {
            rows,
            reference: reference.to_owned(),
            cost: Cost::of(entries),
        }
    }
}

impl Row {
    fn of(configuration: &str, own: &[&Entry], differences: &[f64]) -> Self {
        let summary = |value: &dyn Fn(&RunRecord) -> Option<f64>| {
            let values: Vec<f64> = own.iter().filter_map(|entry| value(entry.record)).collect();
            Summary::of(&values)
        };
        Self {
            configuration: configuration.to_owned(),
            seeds: own.iter().map(|entry| entry.seed).collect(),
            last: summary(&|record| Some(record.last.eval?.top1)),
            best: summary(&|record| Some(record.best.eval?.top1)),
            best_epochs: own.iter().map(|entry| entry.record.best.epoch).collect(),
            difference: Interval::of(differences),
            nll: summary(&|record| Some(record.last.eval?.nll)),
            ece: summary(&|record| Some(record.last.eval?.ece)),
            agreement: summary(&|record| record.last.eval?.agreement),
            train_seconds: summary(&|record| Some(record.times.train_seconds)),
        }
    }
}

impl Cost {
    fn of(entries: &[Entry]) -> Self {
        let recorded = |entry: &Entry, key: &str| entry.record.recorded.get(key).cloned();
        let seconds = |entry: &Entry| {
            recorded(entry, "teacher_seconds")
                .and_then(|seconds| seconds.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        // Older records have no keys.
        let cache = |entry: &Entry| {
            recorded(entry, "cache_keys")
                .or_else(|| recorded(entry, "cache"))
                .unwrap_or_default()
        };
        // Runs on one cache share its cost: that of the most views that one of them reads.
        let mut caches: BTreeMap<String, f64> = BTreeMap::new();
        for entry in entries {
            let most = caches.entry(cache(entry)).or_default();
            *most = most.max(seconds(entry));
        }
        let teacher_seconds: f64 = caches.values().sum();
        Self {
            teacher_seconds,
            teacher_seconds_saved: entries.iter().map(seconds).sum::<f64>() - teacher_seconds,
            student_seconds: entries
                .iter()
                .map(|entry| entry.record.times.train_seconds)
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(top1: f64, cache: &str) -> RunRecord {
        let value = serde_json::json!({
            "student": "resnet8", "n_parameters": 1, "n_train": 10,
            "last": epoch(2, top1), "best": epoch(1, top1 + 0.01),
            "train_seconds": 5.0, "eval_seconds": 1.0,
            "recorded": { "cache_keys": cache, "teacher_seconds": "10" },
        });
        serde_json::from_value(value).unwrap()
    }

    fn epoch(epoch: usize, top1: f64) -> serde_json::Value {
        serde_json::json!({
            "epoch": epoch, "lr": 0.1, "loss": 1.0, "terms": [], "train_top1": 0.5,
            "eval": { "n_samples": 100, "top1": top1, "top5": 1.0, "nll": 0.5, "ece": 0.1 },
        })
    }

    #[test]
    fn differences_are_paired_by_seed_and_never_by_place() {
        let records = [0.70, 0.80, 0.81, 0.72].map(|top1| record(top1, "c"));
        let entry = |configuration, seed, index: usize| Entry {
            configuration,
            seed,
            record: &records[index],
        };
        // The second configuration ran in the other order, and its third seed has no partner.
        let extra = record(0.99, "c");
        let entries = [
            entry("a", 1, 0),
            entry("a", 2, 1),
            entry("b", 2, 2),
            entry("b", 1, 3),
            Entry {
                configuration: "b",
                seed: 3,
                record: &extra,
            },
        ];
        let board = Board::of(&entries, &["a".to_owned(), "b".to_owned()], "a");
        assert_eq!(board.rows[0].configuration, "b");
        let difference = board.rows[0].difference.unwrap();
        // +0.02 and +0.01: mean 0.015, standard deviation 0.00707, t(1) = 12.706.
        assert!((difference.mean - 0.015).abs() < 1e-12);
        assert!((difference.high.unwrap() - (0.015 + 12.706 * 0.005)).abs() < 1e-5);
        assert!(
            board.rows[1].difference.is_none(),
            "the reference is not compared with itself"
        );
    }

    #[test]
    fn the_teacher_is_paid_once_per_cache() {
        let records = ["c", "c", "d"].map(|cache| record(0.5, cache));
        let entries: Vec<Entry> = records
            .iter()
            .zip(1..)
            .map(|(record, seed)| Entry {
                configuration: "a",
                seed,
                record,
            })
            .collect();
        let cost = Board::of(&entries, &["a".to_owned()], "a").cost;
        assert_eq!(
            (cost.teacher_seconds, cost.teacher_seconds_saved),
            (20.0, 10.0)
        );
        assert_eq!(cost.student_seconds, 15.0);
    }

    #[test]
    fn runs_on_fewer_views_of_a_cache_cost_nothing_more() {
        let records = [2.5, 10.0, 5.0].map(|seconds| {
            let mut record = record(0.5, "c");
            let seconds = seconds.to_string();
            record
                .recorded
                .insert("teacher_seconds".to_owned(), seconds);
            record
        });
        let entries: Vec<Entry> = records
            .iter()
            .map(|record| Entry {
                configuration: "a",
                seed: 1,
                record,
            })
            .collect();
        let cost = Cost::of(&entries);
        assert_eq!(
            (cost.teacher_seconds, cost.teacher_seconds_saved),
            (10.0, 7.5)
        );
    }
}
