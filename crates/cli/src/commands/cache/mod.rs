//! Looking at caches, checking them, and making caches from caches.

mod compare;
mod picture;
mod plan;
mod rework;
mod show;
mod verify;

use logitcask_experiment::{Failure, Outcome};
use serde::Serialize;

use crate::args::Cache;
use crate::progress::harmless;

pub(crate) fn run(args: &Cache) -> Outcome {
    match args {
        Cache::Ls(args) => show::ls(args),
        Cache::Show(args) => show::show(args),
        Cache::Plan(args) => plan::plan(args),
        Cache::Verify(args) => verify::verify(args),
        Cache::Diff(args) => compare::diff(args),
        Cache::Stats(args) => compare::stats(args),
        Cache::Transcode(args) => rework::transcode(args),
        Cache::Merge(args) => rework::merge(args),
        Cache::Export(args) => rework::export(args),
        Cache::Gc(args) => rework::gc(args),
    }
}

/// One JSON object on stdout.
fn print_json(value: &impl Serialize) -> Outcome {
    println!("{}", serde_json::to_string(value).map_err(Failure::work)?);
    Ok(())
}

/// A text in one line, and not longer than a person reads.
fn short(text: &str) -> String {
    const MOST: usize = 200;
    let mut short: String = text.chars().take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        short += "...";
    }
    short.replace(['\n', '\t'], " ")
}

/// Rows of cells under a header, aligned.
fn print_columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| {
            row.each_ref()
                .map(|cell| harmless(&short(cell)).into_owned())
        })
        .collect();
    let header = header.map(str::to_owned);
    let width = |column: usize| {
        rows.iter()
            .chain([&header])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    for row in [&header].into_iter().chain(&rows) {
        let cells: Vec<String> = (0..N)
            .map(|column| format!("{:w$}", row[column], w = width(column)))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
