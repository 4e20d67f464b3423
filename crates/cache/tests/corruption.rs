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
    let pairs: Vec<(u32, u32)> = (0..2)
        .flat_map(|view| (0..N_SAMPLES).map(move |sample| (sample, view)))
        .collect();
    let rows: Rows = pairs.iter().map(|pair| read(&cache, *pair)).collect();
    if cache.encoding().is_dense() {
        // Together they are what they are alone, and one that is refused alone refuses its batch.
        assert_eq!(
            batch(&cache, &pairs).is_some(),
            rows.iter().all(Option::is_some)
        );
        let there = pairs.iter().zip(&rows).filter(|(_, row)| row.is_some());
        let (pairs, rows): (Vec<_>, Vec<_>) = there.map(|(pair, row)| (*pair, row)).unzip();
        let together = batch(&cache, &pairs).expect("each of them could be read");
        assert!(
            together
                .iter()
                .zip(rows)
                .all(|(a, b)| Some(a) == b.as_ref())
        );
    }
    Ok(rows)
}

fn read(cache: &LogitCache, (sample, view): (u32, u32)) -> Option<(Vec<f32>, u32)> {
    if cache.encoding().is_dense() {
        return batch(cache, &[(sample, view)])?.pop();
    }
    let (label, row) = cache.top_k_row_or_null(sample, view).ok()?;
    let row = row?;
    let mut numbers: Vec<f32> = row.classes.iter().map(|class| *class as f32).collect();
    numbers.extend(row.logits);
    numbers.extend([row.mean, row.deviation, row.label_logit]);
    numbers.extend(row.rest);
    Some((numbers, label))
}

fn batch(cache: &LogitCache, pairs: &[(u32, u32)]) -> Option<Vec<(Vec<f32>, u32)>> {
    let (mut logits, mut labels) = (vec![0.0; pairs.len() * N_CLASSES], vec![0; pairs.len()]);
    cache.rows(pairs, &mut logits, &mut labels).ok()?;
    let rows = logits.chunks_exact(N_CLASSES).map(<[f32]>::to_vec);
    Some(rows.zip(labels).collect())
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

/// The frame is the same for every encoding; here it is the rows that count. `LOGITCASK_FULL=1` cuts at every length.
#[test]
fn nor_in_the_other_encodings() {
    let every_length = match std::env::var_os("LOGITCASK_FULL") {
        Some(_) => 1,
        None => 101,
    };
    let dense = encodings().iter().map(|row| row.encoding);
    let dense = dense.filter(|encoding| encoding.is_dense() && *encoding != Encoding::F16);
    for encoding in dense.chain([Encoding::TopK(2)]) {
        check(encoding, every_length);
    }
}
