//! A training run between two steps, as one safetensors file.
//!
//! Weights and running statistics stand under PyTorch's names with the prefix `student.`, their moving average under
//! `ema.`, the optimiser's state under `optimizer.`, parameters of losses under `loss.`; the metadata holds the position
//! and what the run was started with. All randomness is a function of the recipe's seed, the epoch and the step, so
//! nothing else has to be saved. Equal states are equal files: times are kept elsewhere. The metadata also hold the file's
//! own digest, which is compared whenever a checkpoint is read: weights with a flipped bit train on without a word.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::record::EpochSums;
use crate::{StudentError, StudentShape, sealed_tensors};

/// Where a run stands.
pub struct Checkpoint {
    /// What is saved beside the tensors.
    pub position: Position,
    /// Every tensor by its prefixed name.
    pub tensors: HashMap<String, Tensor>,
}

/// The metadata of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epochs that are done.
    pub epochs_done: usize,
    /// Steps of the next epoch that are done too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps_done: usize,
    /// What those steps add to the epoch's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sums: Option<EpochSums>,
    /// BLAKE3 of what decides the run (recipe, data and cache identity), in hex.
    pub run_digest: String,
    /// Whose weights these are.
    pub student: StudentShape,
}

impl Position {
    pub(crate) fn start(run_digest: &str, student: &StudentShape) -> Self {
        Self {
            student: student.clone(),
            epochs_done: 0,
            steps_done: 0,
            sums: None,
            run_digest: run_digest.to_owned(),
        }
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

pub(crate) const STUDENT: &str = "student.";
pub(crate) const EMA: &str = "ema.";
pub(crate) const OPTIMIZER: &str = "optimizer.";
pub(crate) const LOSS: &str = "loss.";
const METADATA_KEY: &str = "logitcask";

impl Checkpoint {
    /// The newest checkpoint of a run.
    pub const LAST: &'static str = "last.safetensors";
    /// The checkpoint of the best epoch.
    pub const BEST: &'static str = "best.safetensors";

    /// Where the checkpoint of an epoch, from 1, is kept if the recipe asks for it.
    pub fn of_epoch(epoch: usize) -> String {
        format!("epoch-{epoch:04}.safetensors")
    }

    /// The student to evaluate and export, under PyTorch's names: the moving average of its weights where there is one,
    /// else the weights.
    pub fn student(&self) -> HashMap<String, Tensor> {
        let mut average = self.part(EMA);
        average.remove("ema_steps");
        match average.is_empty() {
            true => self.part(STUDENT),
            false => average,
        }
    }

    /// The tensors of one prefix, without it.
    pub(crate) fn part(&self, prefix: &str) -> HashMap<String, Tensor> {
        let named = self.tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
        });
        named.collect()
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, path: &Path) -> Result<(), StudentError> {
        let position = serde_json::to_string(&self.position)
            .map_err(|e| StudentError::io("write", path)(e.into()))?;
        let tensors = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor));
        let bytes = sealed_tensors::to_bytes(METADATA_KEY, &position, tensors.collect())
            .map_err(|e| StudentError::io("write", path)(std::io::Error::other(e)))?;
        logitcask_durable::write_atomic(path, |w| w.write_all(&bytes))
            .map_err(StudentError::io("write", path))
    }

    /// Reads a checkpoint; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, is not a checkpoint of ours, or is not as it was written.
    pub fn read(path: &Path) -> Result<Option<Self>, StudentError> {
        let bytes = match logitcask_durable::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StudentError::io("read", path))?,
        };
        let found = Self::parse(path, &bytes)?;
        found.map(Some).ok_or_else(|| StudentError::Checkpoint {
            path: path.into(),
            problem: "holds weights, but no training position of logitcask".into(),
        })
    }

    /// The checkpoint that a safetensors file's bytes are; `None` if they are another's weights.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Option<Self>, StudentError> {
        let refuse = |problem: String| StudentError::Checkpoint {
            path: path.into(),
            problem,
        };
        let Some(position) = sealed_tensors::facts(METADATA_KEY, bytes).map_err(refuse)? else {
            return Ok(None);
        };
        let position: Position = serde_json::from_str(&position)
            .map_err(|e| refuse(format!("has an unreadable training position ({e})")))?;
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|e| refuse(format!("cannot be read ({e})")))?;
        let found = Self { position, tensors };
        found.check_student().map_err(refuse)?;
        Ok(Some(found))
    }

    /// Refuses a student that these tensors cannot be: it would be built, at whatever size, before its weights are missed.
    fn check_student(&self) -> Result<(), String> {
        let StudentShape {
            image, n_classes, ..
        } = &self.position.student;
        let has_rows = |n: usize| self.tensors.values().any(|t| t.dims().first() == Some(&n));
        if *n_classes > MAX_CLASSES || !has_rows(*n_classes) {
            return Err(format!(
                "claims {n_classes} classes, for which it holds no weights; at most {MAX_CLASSES} are read"
            ));
        }
        let n_pixels = image.height.checked_mul(image.width);
        if image.channels > MAX_CHANNELS || n_pixels.is_none_or(|n| n > MAX_PIXELS) {
            return Err(format!(
                "claims images of {} x {} pixels in {} channels; at most {MAX_PIXELS} pixels in {MAX_CHANNELS} are read",
                image.height, image.width, image.channels
            ));
        }
        Ok(())
    }
}

/// More classes than any classifier has.
const MAX_CLASSES: usize = 1 << 20;
/// More rows times columns than any student is built for: 4096 x 4096.
const MAX_PIXELS: usize = 1 << 24;
const MAX_CHANNELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageShape;

    fn checkpoint(n_classes: usize, side: usize) -> Checkpoint {
        let student = StudentShape {
            name: "resnet8".to_owned(),
            image: ImageShape {
                channels: 3,
                height: side,
                width: side,
            },
            n_classes,
        };
        let bias = Tensor::new(&[0.5f32, -0.25], &Device::Cpu).unwrap();
        Checkpoint {
            position: Position::start("0123", &student),
            tensors: HashMap::from([(format!("{STUDENT}fc.bias"), bias)]),
        }
    }

    fn refusal(path: &Path) -> String {
        Checkpoint::read(path).err().unwrap().to_string()
    }

    #[test]
    fn a_flipped_bit_is_refused_with_the_files_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Checkpoint::LAST);
        checkpoint(2, 8).write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap().unwrap();
        assert_eq!(read.position, checkpoint(2, 8).position);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert!(refusal(&path).contains(Checkpoint::LAST), "byte {at}");
        }
    }

    /// As versions wrote them that knew no digests.
    #[test]
    fn an_old_checkpoint_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Checkpoint::LAST);
        let new = checkpoint(2, 8);
        let position = serde_json::to_string(&new.position).unwrap();
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), position)]);
        let old = safetensors::serialize(&new.tensors, Some(metadata)).unwrap();
        std::fs::write(&path, old).unwrap();
        let read = Checkpoint::read(&path).unwrap().unwrap();
        assert_eq!(read.position, new.position);
    }

    #[test]
    fn a_student_that_the_weights_cannot_be_is_refused_before_it_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Checkpoint::LAST);
        for (n_classes, side, limit) in [
            (1_000_000_000_000, 8, "at most 1048576"),
            (3, 8, "holds no weights"),
            (2, 1 << 40, "at most 16777216 pixels"),
        ] {
            checkpoint(n_classes, side).write(&path).unwrap();
            let refusal = refusal(&path);
            assert!(refusal.contains(limit), "{refusal}");
        }
    }
}
