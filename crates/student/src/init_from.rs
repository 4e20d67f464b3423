use std::path::Path;

use candle_core::Device;

use crate::{Checkpoint, Network, StudentError};

impl Network {
    /// Starts from the weights of a safetensors file: PyTorch's state under the names that mdistiller, torchvision and
    /// timm give it, or a checkpoint of ours. A head for another number of classes stays as it was drawn; the names of
    /// what so stays are returned.
    ///
    /// # Errors
    /// If the file cannot be read, or anything but the head differs in name or shape.
    pub fn init_from(&self, path: &Path) -> Result<Vec<String>, StudentError> {
        let bytes = std::fs::read(path).map_err(StudentError::io("read", path))?;
        let found = match Checkpoint::read(path) {
            Ok(Some(checkpoint)) => checkpoint.student(),
            _ => candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|source| {
                StudentError::WeightsFile {
                    path: path.into(),
                    source,
                }
            })?,
        };
        let mut tensors = found;
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
