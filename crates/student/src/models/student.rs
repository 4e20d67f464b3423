//! What a network must be to be trained, and what the zoo says of one.

use candle_core::Tensor;
use logitcask_layers::{FeatureMap, Linear, Mode, Result, Scope};
use serde::{Deserialize, Serialize};

use crate::StudentError;

/// A network that answers with logits. Its parameters are those of the [`Scope`] that it was built in: what is asked for
/// there is trained, saved, resumed, averaged and decayed under its name. One of Candle's own layers is a
/// [`CandleStudent`](crate::CandleStudent).
pub trait Student: Send + Sync {
    /// What the last layer sees, (B, features), for pixels (B, height, width, channels), normalised.
    ///
    /// # Errors
    /// If the pixels have another shape than the student was built for.
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor>;

    /// The last layer, from features to logits.
    fn head(&self) -> &dyn Head;

    /// What an evaluation holds at its peak, in multiples of the largest map: block in, block out, and what lies between.
    fn maps_at_once(&self) -> usize {
        4
    }

    /// Logits (B, classes) for pixels (B, height, width, channels).
    ///
    /// # Errors
    /// As [`Student::features`].
    fn forward(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        self.head().logits(&self.features(pixels, mode)?, mode)
    }
}

/// A student's last layer: what a linear probe replaces, and what starts anew where weights come from other classes.
pub trait Head: Send + Sync {
    /// Where its parameters are in the tree of names: `fc` of `fc.weight`.
    fn name(&self) -> &str;

    /// Logits (B, classes) for features (B, features).
    ///
    /// # Errors
    /// If there is another number of features than it was built for.
    fn logits(&self, features: &Tensor, mode: Mode) -> Result<Tensor>;
}

impl Head for Linear {
    fn name(&self) -> &str {
        Linear::name(self)
    }

    fn logits(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        match mode {
            Mode::Train => self.forward(features),
            Mode::Eval => self.without_gradient(features),
        }
    }
}

/// The images a student is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// Values per pixel: 1 or 3.
    pub channels: usize,
    /// Rows of pixels in an image.
    pub height: usize,
    /// Columns of pixels in an image.
    pub width: usize,
}

impl ImageShape {
    pub(super) fn refused_by(self, student: &str, why: &str) -> StudentError {
        StudentError::ImageSize {
            name: student.to_owned(),
            height: self.height,
            width: self.width,
            why: why.to_owned(),
        }
    }
}

/// A row of the zoo, or a program's own.
#[derive(Debug)]
pub struct ModelRow {
    /// The name in recipes.
    pub name: &'static str,
    /// Where the architecture comes from.
    pub source: &'static str,
    /// Trainable numbers in the form that was published (checked by a test): for `n_classes` classes and images of
    /// `image_size` x `image_size` pixels in three channels. These three are 0 of a program's own.
    pub n_parameters: usize,
    /// 100 for the CIFAR networks, 1000 for the ImageNet ones.
    pub n_classes: usize,
    /// Rows and columns of those images: 32 or 224.
    pub image_size: usize,
    pub(crate) build: Build,
}

/// Makes a student for images of a shape and a number of classes, with all its parameters in a scope.
pub type Build = fn(&Scope, ImageShape, usize) -> Result<Box<dyn Student>, StudentError>;

impl ModelRow {
    /// A student that a program brings, under a name that no student of the zoo has.
    pub const fn own(name: &'static str, build: Build) -> Self {
        Self {
            name,
            source: "a program's own",
            n_parameters: 0,
            n_classes: 0,
            image_size: 0,
            build,
        }
    }

    pub(super) const fn cifar(
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

    pub(super) const fn imagenet(
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
