//! A small cache with every byte flipped in turn, and every file cut at every length: refused at opening, refused at
//! the gather of the row, or harmless. Never a panic, never a wrong row.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::path::Path;

use logitcask_cache::{Encoding, Io, LogitCache, OpenOptions, encodings};
use support::{capture, files, manifest};

const N_SAMPLES: u32 = 5;
const N_CLASSES: usize = 3;

/// Logits and label of each row, by view and sample; `None` where it is refused.
type Rows = Vec<Option<(Vec<f32>, u32)>>;

/// Every row of every view, or why not.
fn read_all(path: &Path, io: Io) -> Result<Rows, String> {
    let cache = LogitCache::open(path, OpenOptions { io }).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for view in 0..2 {
        for sample in 0..N_SAMPLES {
            let (mut logits, mut label) = (vec![0.0; N_CLASSES], [0]);
            let row = cache.rows(&[(sample, view)], &mut logits, &mut label);
            rows.push(row.ok().map(|()| (logits, label[0])));
        }
    }
    Ok(rows)
}

/// Counts of what happened to damaged copies.
#[derive(Debug, Default)]
struct Outcomes {
    refused_at_opening: usize,
    refused_at_gather: usize,
    harmless: usize,
}

impl Outcomes {
    /// Reads a damaged cache and holds it against the rows of the whole one.
    fn judge(&mut self, path: &Path, io: Io, whole: &[Option<(Vec<f32>, u32)>], what: &str) {
        match read_all(path, io) {
            Err(_) => self.refused_at_opening += 1,
            Ok(rows) => {
                let mut refused = false;
                for (row, expected) in rows.iter().zip(whole) {
                    match row {
                        Some(_) => assert_eq!(row, expected, "{what}: a wrong row"),
                        None => refused |= expected.is_some(),
                    }
                }
                if refused {
                    self.refused_at_gather += 1;
                } else {
                    self.harmless += 1;
                }
            }
        }
    }
}

fn check(encoding: Encoding, every_length: usize) {
    let root = tempfile::tempdir().unwrap();
    let (path, _) = capture(
        root.path(),
        &manifest(encoding, N_SAMPLES, N_CLASSES, 3),
        2,
        &[1],
    );
    let whole = read_all(&path, Io::Map).unwrap();
    assert_eq!(whole.iter().filter(|row| row.is_none()).count(), 2);
    let mut outcomes = Outcomes::default();
    // One view's files stand for all; the other view shows that damage does not spread.
    for (name, bytes) in files(&path)
        .iter()
        .filter(|(name, _)| !name.starts_with("view=0001"))
    {
        let file = path.join(name);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            replace(&file, &flipped);
            outcomes.judge(
                &path,
                Io::Map,
                &whole,
                &format!("{name}, byte {at} flipped"),
            );
            if at % every_length == 0 {
                replace(&file, &bytes[..at]);
                let io = if at % 2 == 0 { Io::Map } else { Io::Read };
                outcomes.judge(&path, io, &whole, &format!("{name} cut at {at}"));
            }
        }
        replace(&file, bytes);
    }
    assert_eq!(read_all(&path, Io::Read).unwrap(), whole);
    assert!(
        outcomes.refused_at_opening > 0 && outcomes.refused_at_gather > 0,
        "{encoding}: {outcomes:?}"
    );
}

/// By a new file and a rename, as anything does that respects mapped readers.
fn replace(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, file).unwrap();
}

#[test]
fn no_flipped_byte_and_no_truncation_gives_a_wrong_row() {
    check(Encoding::F16, 1);
}

/// The frame is the same for every encoding; here it is the rows that count.
#[test]
fn nor_in_the_other_encodings() {
    for row in encodings()
        .iter()
        .filter(|row| row.encoding.is_dense() && row.encoding != Encoding::F16)
    {
        check(row.encoding, 101);
    }
}
