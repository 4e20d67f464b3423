//! What a run leaves behind for reports: `metrics.jsonl`, a line per epoch, and `run.json`, written when it is done. Each line
//! and each file carries its own digest, which is compared when it is read. Those of runs from before there were digests are
//! read as they are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{Metrics, StudentError, Tally};

/// One term of the loss, averaged over an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// `method.component`, or the method's name where it has one component only.
    pub name: String,
    /// Weight in the total, warm-up included.
    pub weight: f64,
    /// Its value before it is weighted: of one step, or the mean over an epoch's.
    pub value: f64,
}

/// A line of `metrics.jsonl`. It holds no time and no place, so that two runs of one recipe write the same lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch's number, from 1.
    pub epoch: usize,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Mean total loss over the epoch's steps.
    pub loss: f64,
    /// Total loss of the epoch's first step: in the first epoch, that of the untrained student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_loss: Option<f64>,
    /// The loss's terms, in the recipe's order.
    pub terms: Vec<Term>,
    /// Accuracy on the training batches as they were trained on (batch statistics, augmented views).
    pub train_top1: f64,
    /// The evaluation split, clean view, running statistics; absent where the recipe names no such split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Metrics>,
}

/// `times.json`: what a run has cost so far, over all resumptions. Apart from the checkpoint, so that a checkpoint depends
/// on the recipe alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Wall-clock seconds spent in training: the shares below, and checkpoints.
    pub train_seconds: f64,
    /// Wall-clock seconds spent in evaluation.
    pub eval_seconds: f64,
    /// Of the training seconds, those spent waiting for pixels and gathering the teacher's rows.
    #[serde(default)]
    pub data_seconds: f64,
    /// The student's forward pass.
    #[serde(default)]
    pub forward_seconds: f64,
    /// Of the training seconds, those spent on the losses.
    #[serde(default)]
    pub loss_seconds: f64,
    /// Of the training seconds, those spent on the gradients.
    #[serde(default)]
    pub backward_seconds: f64,
    /// Of the training seconds, those that the optimiser took.
    #[serde(default)]
    pub step_seconds: f64,
    /// Adding up metrics, and showing them.
    #[serde(default)]
    pub metrics_seconds: f64,
}

/// Measures one stretch of work after the other.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the last lap.
    pub(crate) fn lap(&mut self, seconds: &mut f64) {
        let now = Instant::now();
        *seconds += (now - self.0).as_secs_f64();
        self.0 = now;
    }
}

/// An epoch's record in the making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochSums {
    n_steps: usize,
    loss: f64,
    first_loss: Option<f64>,
    terms: Vec<Term>,
    tally: Tally,
    lr: f64,
}

impl EpochSums {
    pub(crate) fn add(
        &mut self,
        loss: f64,
        terms: &[Term],
        logits: &[f32],
        labels: &[u32],
        lr: f64,
    ) {
        self.n_steps += 1;
        self.loss += loss;
        self.first_loss.get_or_insert(loss);
        self.lr = lr;
        if self.terms.is_empty() {
            self.terms = terms.to_vec();
        } else {
            for (sum, term) in self.terms.iter_mut().zip(terms) {
                sum.value += term.value;
            }
        }
        self.tally.add(logits, labels, None);
    }

    /// Accuracy over the epoch so far.
    pub(crate) fn top1(&self) -> f64 {
        self.tally.top1()
    }

    pub(crate) fn into_record(mut self, epoch: usize) -> EpochRecord {
        let n_steps = self.n_steps.max(1) as f64;
        for term in &mut self.terms {
            term.value /= n_steps;
        }
        EpochRecord {
            epoch,
            lr: self.lr,
            loss: self.loss / n_steps,
            first_loss: self.first_loss,
            terms: self.terms,
            train_top1: self.tally.top1(),
            eval: None,
        }
    }
}

impl Times {
    /// Where a run keeps them.
    pub const FILE: &'static str = "times.json";

    pub(crate) fn read(run: &Path) -> Result<Self, StudentError> {
        Ok(read_json(&run.join(Self::FILE))?.unwrap_or_default())
    }

    pub(crate) fn write(&self, run: &Path) -> Result<(), StudentError> {
        write_json(&run.join(Self::FILE), self)
    }
}

/// `run.json`: what a finished run trained, how good it became and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The student's name in the zoo.
    pub student: String,
    /// How many numbers of the student training moves.
    pub n_parameters: usize,
    /// Training samples an epoch visits.
    pub n_train: usize,
    /// The record of the last epoch that was trained.
    pub last: EpochRecord,
    /// The epoch with the best `eval.top1` (the first of equals); the last one where nothing was evaluated.
    pub best: EpochRecord,
    /// What it cost, over all resumptions.
    #[serde(flatten)]
    pub times: Times,
    /// Whatever the caller wants to remember: cache ids, teacher seconds, machine, tool version.
    pub recorded: BTreeMap<String, String>,
}

impl RunRecord {
    /// Where a run keeps it.
    pub const FILE: &'static str = "run.json";

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, run: &Path) -> Result<(), StudentError> {
        write_json(&run.join(Self::FILE), self)
    }

    /// Reads the record of a finished run; `None` if the run is not finished.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a run record as it was written.
    pub fn read(run: &Path) -> Result<Option<Self>, StudentError> {
        read_json(&run.join(Self::FILE))
    }
}

impl EpochRecord {
    /// Where a run keeps its epochs.
    pub const FILE: &'static str = "metrics.jsonl";

    /// Reads the epochs of a run, finished or not.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not a record, not the next epoch's or not as it was written.
    pub fn read_all(run: &Path) -> Result<Vec<Self>, StudentError> {
        let path = run.join(Self::FILE);
        let text = match read_text(&path)? {
            None => return Ok(Vec::new()),
            Some(text) => text,
        };
        let mut records: Vec<Self> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let damaged = |problem: String| StudentError::Damaged {
                path: path.clone(),
                problem: format!("has a line {} that is damaged: {problem}", index + 1),
            };
            let record: Self = unsealed(line).map_err(damaged)?;
            if record.epoch != index + 1 {
                return Err(damaged(format!("it is of epoch {}", record.epoch)));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Rewrites the whole file: it is small, and so it is whole after a kill at any moment.
    pub(crate) fn write_all(records: &[Self], run: &Path) -> Result<(), StudentError> {
        let path = run.join(Self::FILE);
        logitcask_durable::write_atomic(&path, |w| {
            for record in records {
                let line = serde_json::to_string(record)?;
                writeln!(w, "{}", logitcask_durable::seal_json(&line))?;
            }
            Ok(())
        })
        .map_err(StudentError::io("write", path))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StudentError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    unsealed(&text)
        .map(Some)
        .map_err(|problem| StudentError::Damaged {
            path: path.into(),
            problem: format!("is damaged: {problem}"),
        })
}

/// What a file says; `None` where there is none.
fn read_text(path: &Path) -> Result<Option<String>, StudentError> {
    match logitcask_durable::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(StudentError::Damaged {
                path: path.into(),
                problem: "is damaged: it is not text".into(),
            })
        }
        other => other.map(Some).map_err(StudentError::io("read", path)),
    }
}

/// What a JSON object says, if it is as it was written.
fn unsealed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let object = logitcask_durable::unseal_json(text).map_err(|seal| seal.to_string())?;
    // Those of earlier versions carry no digest.
    let object = object.as_deref().unwrap_or(text);
    serde_json::from_str(object).map_err(|error| format!("it is not a record ({error})"))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StudentError> {
    logitcask_durable::write_atomic(path, |w| {
        let object = serde_json::to_string_pretty(value)?;
        w.write_all(logitcask_durable::seal_json(&object).as_bytes())
    })
    .map_err(StudentError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            lr: 0.1,
            loss: 2.5,
            first_loss: None,
            terms: vec![],
            train_top1: 0.5,
            eval: None,
        }
    }

    #[test]
    fn damaged_lines_are_named_and_old_ones_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let path = run.join(EpochRecord::FILE);
        let records = [epoch(1), epoch(2)];
        EpochRecord::write_all(&records, run).unwrap();
        assert_eq!(EpochRecord::read_all(run).unwrap(), records);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            match EpochRecord::read_all(run) {
                Err(error) => assert!(error.to_string().contains(EpochRecord::FILE), "{error}"),
                // The end of the last line says nothing.
                Ok(read) => assert!(read == records && at + 1 == bytes.len(), "byte {at}"),
            }
        }
        // A line that went missing, and lines of a version that knew no digests.
        let lines = |records: &[EpochRecord]| -> String {
            let lines = records
                .iter()
                .map(|r| serde_json::to_string(r).unwrap() + "\n");
            lines.collect()
        };
        std::fs::write(&path, lines(&[epoch(2)])).unwrap();
        let error = EpochRecord::read_all(run).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && error.contains("epoch 2"),
            "{error}"
        );
        std::fs::write(&path, lines(&records)).unwrap();
        assert_eq!(EpochRecord::read_all(run).unwrap(), records);
    }

    #[test]
    fn times_are_believed_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let times = Times {
            train_seconds: 12.5,
            ..Times::default()
        };
        times.write(folder.path()).unwrap();
        assert_eq!(Times::read(folder.path()).unwrap(), times);
        let path = folder.path().join(Times::FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("12.5", "13.5")).unwrap();
        let error = Times::read(folder.path()).unwrap_err();
        assert!(matches!(error, StudentError::Damaged { .. }), "{error}");
        std::fs::write(&path, serde_json::to_string_pretty(&times).unwrap() + "\n").unwrap();
        assert_eq!(Times::read(folder.path()).unwrap(), times, "an old one");
    }
}
