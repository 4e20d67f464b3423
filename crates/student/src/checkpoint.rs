//! A training run between two steps, as one safetensors file.
//!
//! Weights and running statistics stand under PyTorch's names with the prefix `student.`, their moving average under
//! `ema.`, the optimiser's state under `optimizer.`, parameters of losses under `loss.`; the metadata holds the position
//! and what the run was started with. All randomness is a function of the recipe's seed, the epoch and the step, so
//! nothing else has to be saved. Equal states are equal files: times are kept elsewhere.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::record::EpochSums;
use crate::{StudentError, StudentShape};

/// Where a run stands.
pub struct Checkpoint {
    /// What is saved beside the tensors.
    pub position: Position,
    /// Every tensor by its prefixed name.
    pub tensors: HashMap<String, Tensor>,
}

/// The metadata of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), position)]);
        // In the order of names, so that equal states are equal files.
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort();
        let views: Vec<(&String, &Tensor)> =
            names.into_iter().map(|n| (n, &self.tensors[n])).collect();
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| StudentError::io("write", path)(std::io::Error::other(e)))?;
        logitcask_durable::write_atomic(path, |w| w.write_all(&bytes))
            .map_err(StudentError::io("write", path))
    }

    /// Reads a checkpoint; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a checkpoint of ours.
    pub fn read(path: &Path) -> Result<Option<Self>, StudentError> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StudentError::io("read", path))?,
        };
        let refuse = |problem: String| StudentError::Checkpoint {
            path: path.into(),
            problem,
        };
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|e| refuse(format!("is not a safetensors file ({e})")))?;
        let position = metadata
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(METADATA_KEY))
            .ok_or_else(|| refuse("holds weights, but no training position of logitcask".into()))?;
        let position = serde_json::from_str(position)
            .map_err(|e| refuse(format!("has an unreadable training position ({e})")))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| refuse(format!("cannot be read ({e})")))?;
        Ok(Some(Self { position, tensors }))
    }
}
