//! Rows for a person, objects for a program: what the commands about caches print.

use logitcask_experiment::{Failure, Outcome};
use serde::Serialize;

use crate::progress::harmless;

/// One JSON object on stdout.
pub(super) fn print_json(value: &impl Serialize) -> Outcome {
    println!("{}", serde_json::to_string(value).map_err(Failure::work)?);
    Ok(())
}

/// Rows of cells under a header, aligned.
pub(super) fn print_columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
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

/// A text in one line, and not longer than a person reads.
fn short(text: &str) -> String {
    const MOST: usize = 200;
    let mut short: String = text.chars().take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        short += "...";
    }
    short.replace(['\n', '\t'], " ")
}
