//! A run's figures as TensorBoard reads them: `tensorboard --logdir data/runs`.
//!
//! An event file is a row of records: the length, the length's masked CRC-32C, the bytes, and the bytes' masked CRC-32C.
//! The first record is the format's version, and each further one is an epoch with all its figures.
//!
//! A page of our own in place of a guest: of the two crates that write this format, `tboard` wants `protoc` where it is
//! built, `tensorboard-rs` brings an image library of 2021, and neither goes on with a file that a killed run left.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc_fast::{CrcAlgorithm, checksum};

use crate::protobuf::Message;
use crate::{EpochRecord, StudentError};

/// The event file of a run that goes on.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Where a run keeps it. TensorBoard knows its files by `tfevents` in their names.
    pub const FILE: &'static str = "events.out.tfevents.logitcask";

    /// Makes the file hold the epochs of `history` and no others: those that are there keep the time they were written
    /// at, half a record that a kill left goes, and what is missing is added.
    pub(crate) fn open(run: &Path, history: &[EpochRecord]) -> Result<Self, StudentError> {
        let path = run.join(Self::FILE);
        let there = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(StudentError::io("read", &path))?,
        };
        let (n_records, length) = whole_records(&there, 1 + history.len());
        let mut bytes = there[..length].to_vec();
        if n_records == 0 {
            bytes.extend(record(version()));
        }
        for epoch in &history[n_records.saturating_sub(1)..] {
            bytes.extend(record(event(epoch)));
        }
        if bytes != there {
            logitcask_durable::write_atomic(&path, |w| w.write_all(&bytes))
                .map_err(StudentError::io("write", &path))?;
        }
        let file = File::options().append(true).open(&path);
        let file = file.map_err(StudentError::io("write", &path))?;
        Ok(Self { path, file })
    }

    /// Adds an epoch, so that a TensorBoard that is watching shows it.
    pub(crate) fn add(&mut self, epoch: &EpochRecord) -> Result<(), StudentError> {
        let bytes = record(event(epoch));
        let written = self.file.write_all(&bytes);
        written.map_err(StudentError::io("write", &self.path))
    }
}

/// How many records at the beginning are whole, at most `most`, and where the last of them ends.
fn whole_records(bytes: &[u8], most: usize) -> (usize, usize) {
    let (mut n_records, mut end) = (0, 0);
    while n_records < most {
        let Some(length) = record_length(&bytes[end..]) else {
            break;
        };
        end += length;
        n_records += 1;
    }
    (n_records, end)
}

/// The length of the record that `bytes` begin with, if it is whole and right.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let content = bytes
        .get(12..)?
        .get(..usize::try_from(length).ok()?)?
        .to_vec();
    let whole = framed(&content);
    bytes.starts_with(&whole).then_some(whole.len())
}

fn record(event: Message) -> Vec<u8> {
    framed(&event.into_bytes())
}

fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked_crc(content).to_le_bytes());
    bytes
}

/// The mask keeps a checksum from being taken for data that has one.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time = 1, step = 2, file_version = 3, summary = 5 }`.
fn version() -> Message {
    let mut event = Message::default();
    event.double(1, now()).bytes(3, "brain.Event:2");
    event
}

fn event(epoch: &EpochRecord) -> Message {
    let mut summary = Message::default();
    for (tag, value) in scalars(epoch) {
        let mut scalar = Message::default();
        scalar.bytes(1, tag).float(2, value as f32);
        summary.message(1, &scalar);
    }
    let mut event = Message::default();
    event.double(1, now()).int(2, epoch.epoch as i64);
    event.message(5, &summary);
    event
}

/// Every figure of an epoch. Terms are unweighted, as in `metrics.jsonl`.
fn scalars(epoch: &EpochRecord) -> Vec<(String, f64)> {
    let mut scalars = vec![
        ("train/loss".to_owned(), epoch.loss),
        ("train/top1".to_owned(), epoch.train_top1),
        ("train/lr".to_owned(), epoch.lr),
    ];
    let terms = epoch.terms.iter();
    scalars.extend(terms.map(|term| (format!("loss/{}", term.name), term.value)));
    if let Some(eval) = epoch.eval {
        let figures = [
            ("top1", Some(eval.top1)),
            ("top5", Some(eval.top5)),
            ("nll", Some(eval.nll)),
            ("ece", Some(eval.ece)),
            ("agreement", eval.agreement),
            ("divergence", eval.divergence),
            ("teacher_top1", eval.teacher_top1),
        ];
        let known = figures
            .into_iter()
            .filter_map(|(name, value)| Some((format!("eval/{name}"), value?)));
        scalars.extend(known);
    }
    scalars
}

/// Seconds since 1970 by this machine's clock; 0 where that is set before.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn epoch(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            lr: 0.1,
            loss: 2.0,
            first_loss: None,
            terms: vec![],
            train_top1: 0.5,
            eval: None,
        }
    }

    /// The check value of CRC-32C is that of RFC 3720's catalogue, 0xe3069283; the mask, by hand: rotated right by 15 bits
    /// that is 0x2507c60d, and 0xa282ead8 more is 0xc78ab0e5.
    #[test]
    fn a_record_by_hand() {
        let bytes = framed(b"123456789");
        assert_eq!(bytes[..8], [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[12..21], b"123456789");
        assert_eq!(bytes[21..], 0xc78a_b0e5u32.to_le_bytes());
    }

    #[test]
    fn a_file_that_a_kill_left_goes_on_with_what_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TensorBoard::FILE);
        let history: Vec<EpochRecord> = (1..=3).map(epoch).collect();
        let mut board = TensorBoard::open(folder.path(), &[]).unwrap();
        for epoch in &history {
            board.add(epoch).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=4).map(|n| whole_records(&whole, n).1).collect();
        assert_eq!(ends[3], whole.len());

        // Cut anywhere, opened again after two epochs: the first records are as they were.
        for cut in [0, 5, ends[0], ends[1] + 7, ends[2] - 1, whole.len()] {
            fs::write(&path, &whole[..cut]).unwrap();
            TensorBoard::open(folder.path(), &history[..2]).unwrap();
            let after = fs::read(&path).unwrap();
            assert_eq!(whole_records(&after, 9), (3, after.len()), "cut at {cut}");
            let kept = ends.iter().filter(|end| **end <= cut.min(ends[2])).max();
            let kept = *kept.unwrap_or(&0);
            assert!(after[..kept] == whole[..kept], "cut at {cut}");
        }
        // A flipped byte ends what is kept.
        let mut flipped = whole.clone();
        flipped[ends[0] + 15] ^= 1;
        assert_eq!(whole_records(&flipped, 9).0, 1);
    }
}
