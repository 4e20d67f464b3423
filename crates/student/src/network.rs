//! A student of the zoo with its parameters.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use logitcask_layers::{FeatureMap, Mode, Params, release_memory, trace::trace};
use serde::{Deserialize, Serialize};

use crate::models::{ImageShape, ModelRow, Student, find};
use crate::{Checkpoint, StudentError, StudentShape};

/// `[student]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentSpec {
    /// A name of the zoo: `logitcask list students`.
    pub name: String,
    /// A safetensors file of weights to start from, under PyTorch's names; fresh ones where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Channel means of the student's own normalisation, in units of 0..1; the first teacher's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Channel standard deviations, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
}

/// A student with its parameters.
pub struct Network {
    shape: StudentShape,
    params: Params,
    student: Box<dyn Student>,
    images_at_once: OnceLock<usize>,
}

/// As many images as are evaluated at once where each of them is small.
const MOST_AT_ONCE: usize = 256;

/// What the feature maps of images that are evaluated at once may take together.
const BYTES_AT_ONCE: usize = 256 << 20;

impl Network {
    /// Builds a student of the zoo with fresh weights, all drawn from `seed`.
    ///
    /// # Errors
    /// If there is no such student, or it cannot take images of that shape.
    pub fn build(
        name: &str,
        image: ImageShape,
        n_classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, StudentError> {
        Self::of_row(find(name, &[])?, image, n_classes, seed, device)
    }

    /// The same of a row, which may be a program's own.
    ///
    /// # Errors
    /// If the student cannot take images of that shape, or gives one name to two parameters.
    pub fn of_row(
        row: &ModelRow,
        image: ImageShape,
        n_classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, StudentError> {
        let params = Params::new(seed, DType::F32, device)?;
        let student = (row.build)(&params.root(), image, n_classes)?;
        Ok(Self {
            shape: StudentShape {
                name: row.name.to_owned(),
                image,
                n_classes,
            },
            params,
            student,
            images_at_once: OnceLock::new(),
        })
    }

    /// Logits (B, classes), on the host, for pixels (B, height, width, channels) on the network's device.
    ///
    /// Losses and metrics are computed on the host whatever the device: they are a walk over B x C numbers, which travel
    /// there and back in less time than a GPU takes to start the dozens of small operations that a loss consists of.
    ///
    /// In training the pass can be walked back. In evaluation nothing is kept for that, and each layer's memory serves the
    /// layers behind it.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn forward(&self, pixels: &Tensor, mode: Mode) -> Result<Tensor, StudentError> {
        let logits = self.student.forward(&self.begin(pixels, mode)?, mode)?;
        Ok(logits.to_device(&Device::Cpu)?)
    }

    /// What the last layer sees, (B, features), for pixels (B, height, width, channels).
    ///
    /// # Errors
    /// What Candle reports.
    pub fn features(&self, pixels: &Tensor, mode: Mode) -> Result<Tensor, StudentError> {
        Ok(self.student.features(&self.begin(pixels, mode)?, mode)?)
    }

    fn begin(&self, pixels: &Tensor, mode: Mode) -> Result<FeatureMap, StudentError> {
        Ok(match mode {
            Mode::Train => FeatureMap::new(pixels)?,
            Mode::Eval => FeatureMap::without_gradient(pixels)?,
        })
    }

    /// How many images are evaluated at once, in 1..=256: as many as their feature maps find room for in 256 MiB. It follows
    /// from the student and the size of its images alone, so that two machines take the same batches.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn images_at_once(&self) -> Result<usize, StudentError> {
        if let Some(known) = self.images_at_once.get() {
            return Ok(*known);
        }
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape.image;
        let image = Tensor::zeros(
            (1, height, width, channels),
            DType::F32,
            self.params.device(),
        )?;
        let (made, trace) = trace(|| self.forward(&image, Mode::Eval));
        made?;
        // One image fits into memory that 256 of them cannot use.
        release_memory();
        let lengths = trace.dims.iter().map(|dims| dims.iter().product());
        let largest: usize = lengths.max().unwrap_or(1);
        let bytes = self.student.maps_at_once() * largest * size_of::<f32>();
        let n_images = (BYTES_AT_ONCE / bytes).clamp(1, MOST_AT_ONCE);
        Ok(*self.images_at_once.get_or_init(|| n_images))
    }

    /// The student of a checkpoint, to evaluate and export: the moving average of its weights where there is one. It is one
    /// of the zoo or of `own`.
    ///
    /// # Errors
    /// If there is no such student, or the checkpoint's tensors are not those of it.
    pub fn of_checkpoint(
        checkpoint: &Checkpoint,
        own: &'static [ModelRow],
        device: &Device,
    ) -> Result<Self, StudentError> {
        let StudentShape {
            name,
            image,
            n_classes,
        } = &checkpoint.position.student;
        let network = Self::of_row(find(name, own)?, *image, *n_classes, 0, device)?;
        network.load(&checkpoint.student())?;
        Ok(network)
    }

    /// Whether a parameter belongs to the last layer, whose size is the number of classes.
    pub(crate) fn is_of_head(&self, name: &str) -> bool {
        let inside = name.strip_prefix(self.student.head().name());
        inside.is_some_and(|rest| rest.starts_with('.'))
    }

    /// The student's name in the zoo.
    pub fn name(&self) -> &str {
        &self.shape.name
    }

    /// Name, images and classes.
    pub fn shape(&self) -> &StudentShape {
        &self.shape
    }

    /// Parameters and running statistics.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// How many numbers training moves; running statistics are none of them.
    pub fn n_parameters(&self) -> usize {
        self.params.n_parameters()
    }

    /// Every weight and running statistic under PyTorch's names and in PyTorch's layout.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, StudentError> {
        Ok(self.params.to_tensors()?)
    }

    /// Takes over weights and running statistics under PyTorch's names.
    ///
    /// # Errors
    /// If one is missing, unexpected, or of another shape.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<(), StudentError> {
        Ok(self.params.load(tensors)?)
    }
}
