//! The zoo. To add a student, write its file and add its rows to [`models`].

use candle_core::Tensor;
use logitcask_layers::{FeatureMap, Linear, Mode, Result, Scope};
use serde::{Deserialize, Serialize};

use crate::StudentError;

mod conv_bn;

mod deit;
mod mobilenet;
mod resnet;
mod shufflenet;
mod vgg;
mod wide_resnet;

/// Every student there is, family by family.
pub fn models() -> impl Iterator<Item = &'static ModelRow> {
    let families = [
        resnet::ROWS,
        wide_resnet::ROWS,
        vgg::ROWS,
        mobilenet::ROWS,
        shufflenet::ROWS,
        deit::ROWS,
    ];
    families.into_iter().flatten()
}

/// A network that answers with logits.
pub trait Student: Send + Sync {
    /// What the last layer sees, (B, features), for pixels (B, height, width, channels).
    ///
    /// # Errors
    /// If the pixels have another shape than the student was built for.
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor>;

    /// The last layer, from features to logits.
    fn head(&self) -> &Linear;

    /// What an evaluation holds at its peak, in multiples of the largest map: block in, block out, and what lies between.
    fn maps_at_once(&self) -> usize {
        4
    }

    /// Logits (B, classes) for pixels (B, height, width, channels).
    ///
    /// # Errors
    /// As [`Student::features`].
    fn forward(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let features = self.features(pixels, mode)?;
        match pixels.keeps() {
            true => self.head().forward(&features),
            false => self.head().without_gradient(&features),
        }
    }
}

/// The images a student is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// 1 or 3.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

impl ImageShape {
    fn refused_by(self, student: &str, why: &str) -> StudentError {
        StudentError::ImageSize {
            name: student.to_owned(),
            height: self.height,
            width: self.width,
            why: why.to_owned(),
        }
    }
}

/// A row of the zoo.
pub struct ModelRow {
    /// The name in recipes.
    pub name: &'static str,
    /// Where the architecture comes from.
    pub source: &'static str,
    /// Trainable numbers in the form that was published (checked by a test): for `n_classes` classes and images of
    /// `image_size` x `image_size` pixels in three channels.
    pub n_parameters: usize,
    /// 100 for the CIFAR networks, 1000 for the ImageNet ones.
    pub n_classes: usize,
    /// 32 or 224.
    pub image_size: usize,
    pub(crate) build: Build,
}

/// Makes a student for images of a shape and a number of classes.
pub(crate) type Build = fn(&Scope, ImageShape, usize) -> Result<Box<dyn Student>, StudentError>;

impl ModelRow {
    const fn cifar(
        name: &'static str,
        source: &'static str,
        n_parameters: usize,
        build: Build,
    ) -> Self {
        Self {
            name,
            source,
            n_parameters,
            n_classes: 100,
            image_size: 32,
            build,
        }
    }

    const fn imagenet(
        name: &'static str,
        source: &'static str,
        n_parameters: usize,
        build: Build,
    ) -> Self {
        Self {
            name,
            source,
            n_parameters,
            n_classes: 1000,
            image_size: 224,
            build,
        }
    }
}

/// The row of a name.
///
/// # Errors
/// If there is none, with the nearest name there is.
pub fn find(name: &str) -> Result<&'static ModelRow, StudentError> {
    models()
        .find(|row| row.name == name)
        .ok_or_else(|| StudentError::UnknownStudent {
            name: name.to_owned(),
            nearest: models()
                .map(|row| row.name)
                .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
                .filter(|&(similarity, _)| similarity > 0.5)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, known)| known),
        })
}
