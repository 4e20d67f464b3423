//! Weights from elsewhere: PyTorch's under its names, or a checkpoint of ours; a head of other classes starts anew.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use crate::export_onnx::WEIGHTS;
use crate::{Checkpoint, Network, StudentError, sealed_tensors};

impl Network {
    /// Starts from the weights of a safetensors file: PyTorch's state under the names that mdistiller, torchvision and
    /// timm give it, or a checkpoint of ours. A head for another number of classes stays as it was drawn; the names of
    /// what so stays are returned.
    ///
    /// # Errors
    /// If the file cannot be read, one of ours is not as it was written, or anything but the head differs in name or shape.
    pub fn init_from(&self, path: &Path) -> Result<Vec<String>, StudentError> {
        let bytes = logitcask_durable::read(path).map_err(StudentError::io("read", path))?;
        let mut tensors = tensors_of(path, &bytes)?;
        let mut fresh = Vec::new();
        for (name, own) in self.state()? {
            if !self.is_of_head(&name) {
                continue;
            }
            let is_resized = |theirs: &candle_core::Tensor| {
                theirs.rank() == own.rank()
                    && theirs.dims()[0] != own.dims()[0]
                    && theirs.dims()[1..] == own.dims()[1..]
            };
            if tensors.get(&name).is_some_and(is_resized) {
                tensors.insert(name.clone(), own);
                fresh.push(name);
            }
        }
        self.params()
            .load(&tensors)
            .map_err(|source| StudentError::Weights {
                path: path.into(),
                source,
            })?;
        Ok(fresh)
    }
}

/// The weights in a file: the student of a checkpoint, or whatever is there.
fn tensors_of(path: &Path, bytes: &[u8]) -> Result<HashMap<String, Tensor>, StudentError> {
    let foreign = |source| StudentError::WeightsFile {
        path: path.into(),
        source,
    };
    SafeTensors::read_metadata(bytes).map_err(|error| foreign(error.into()))?;
    if let Some(checkpoint) = Checkpoint::parse(path, bytes)? {
        return Ok(checkpoint.student());
    }
    sealed_tensors::facts(WEIGHTS, bytes).map_err(|problem| StudentError::Damaged {
        path: path.into(),
        problem,
    })?;
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(foreign)
}
