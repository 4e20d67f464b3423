//! docs/formats.md against the registry: the page's first table has a row for each format with the keys that it reads, and
//! every key and limit is explained. What else the page claims is tested in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};

use logitcask_dataset::*;

const PAGE: &str = include_str!("../../../docs/formats.md");

/// What stands between back-ticks.
fn quoted(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The cells of the rows of the table that begins with `head`.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let lines = PAGE
        .lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.map(cells).collect()
}

#[test]
fn every_format_is_on_the_page_with_its_keys() {
    let rows = table("| format ");
    let found: BTreeMap<&str, BTreeSet<&str>> = rows
        .iter()
        .map(|cells| (cells[0].trim_matches('`'), quoted(cells[3])))
        .collect();
    let expected: BTreeMap<&str, BTreeSet<&str>> = formats()
        .iter()
        .map(|format| (format.name, format.reads.iter().copied().collect()))
        .collect();
    assert_eq!(found, expected);
    let read: BTreeSet<&str> = formats()
        .iter()
        .flat_map(|format| format.reads)
        .copied()
        .collect();
    assert_eq!(read, format_keys().collect(), "a key that nobody reads");
}

#[test]
fn the_limits_on_the_page_are_those_of_the_program() {
    let rows = table("| key ");
    let limit = |key: &str| {
        let row = rows
            .iter()
            .find(|cells| quoted(cells[0]).contains(key))
            .unwrap();
        row[1].split([',', ' ']).next().unwrap().to_owned()
    };
    assert_eq!(limit("max_image_pixels"), MAX_IMAGE_PIXELS.to_string());
    assert_eq!(limit("max_bytes"), MAX_BYTES.to_string());
}

/// A row of the second table speaks of formats that there are.
#[test]
fn refusals_are_of_formats_that_there_are() {
    let known: BTreeSet<&str> = formats().iter().map(|format| format.name).collect();
    let rows = table("| where ");
    assert!(rows.len() > 20, "{} rows", rows.len());
    for cells in rows {
        for name in quoted(cells[0]) {
            assert!(known.contains(name), "{name}");
        }
    }
}
