//! What can be done to an image at random. An augmentation is a file here and a row in [`AUGMENTATIONS`]; it draws the
//! parameters of [pixel operations](crate::Step).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::DatasetError;

mod center_crop;
mod color_jitter;
mod drawing;
mod fixmatch;
mod horizontal_flip;
mod mix;
mod operations;
mod options;
mod rand_augment;
mod random_crop;
mod random_erasing;
mod random_resized_crop;
mod resize;
mod trivial_augment;

pub use drawing::{Augment, Choice};
pub use options::Built;

/// Every augmentation: what the recipe calls it, what it does, and how it is made from its options.
pub(crate) const AUGMENTATIONS: &[AugmentRow] = &[
    AugmentRow {
        name: "random_crop",
        summary: "size, padding = 0, fill = 0: a window at a random offset of the padded image",
        build: random_crop::build,
    },
    AugmentRow {
        name: "horizontal_flip",
        summary: "p = 0.5: left becomes right",
        build: horizontal_flip::build,
    },
    AugmentRow {
        name: "random_resized_crop",
        summary: "size, scale = [0.08, 1], ratio = [3/4, 4/3], interpolation = \"bilinear\", pillow = 12, reduced = false: a window of random area and shape, resized (interpolation and pillow as in `resize`); reduced: JPEGs are decoded at 1/2, 1/4 or 1/8 where the window allows it",
        build: random_resized_crop::build,
    },
    AugmentRow {
        name: "color_jitter",
        summary: "brightness = 0, contrast = 0, saturation = 0, hue = 0: each changed by a random factor, in random order",
        build: color_jitter::build,
    },
    AugmentRow {
        name: "rand_augment",
        summary: "n_ops = 2, magnitude = 9, fill = 0: so many random operations of one strength",
        build: rand_augment::build,
    },
    AugmentRow {
        name: "trivial_augment",
        summary: "fill = 0: one random operation of random strength",
        build: trivial_augment::build,
    },
    AugmentRow {
        name: "fixmatch_rand_augment",
        summary: "n_ops = 2, cutout = 0.5: so many random operations of any strength, then a square of up to that part of the width becomes grey; MLKD's strong view",
        build: fixmatch::build,
    },
    AugmentRow {
        name: "random_erasing",
        summary: "p = 0.5, scale = [0.02, 0.33], ratio = [0.3, 3.3], value = 0: a rectangle becomes one colour, a byte or three; or mean = [0.485, 0.456, 0.406]: the nearest bytes to a model's mean, which is torchvision's and timm's value of 0 after normalisation",
        build: random_erasing::build,
    },
    AugmentRow {
        name: "mixup",
        summary: "alpha = 1, p = 1: a blend with another sample; comes last",
        build: mix::build_mixup,
    },
    AugmentRow {
        name: "cutmix",
        summary: "alpha = 1, p = 1: a rectangle shows another sample; comes last",
        build: mix::build_cutmix,
    },
    AugmentRow {
        name: "resize",
        summary: "size, crop_pct = 1, interpolation = \"bilinear\" (or bicubic, lanczos, nearest, box, hamming), pillow = 12 (or 13: its order of passes): the shorter side becomes floor(size / crop_pct), as in timm's evaluation before a `center_crop` of `size`; nothing random",
        build: resize::build,
    },
    AugmentRow {
        name: "center_crop",
        summary: "size: the middle of the image; nothing random",
        build: center_crop::build,
    },
];

/// One augmentation of the table, or a program's own.
#[derive(Clone, Copy, Debug)]
pub struct AugmentRow {
    /// What `views.augment` calls it.
    pub name: &'static str,
    /// Its options with their defaults, and what it does.
    pub summary: &'static str,
    /// Makes it from its options.
    pub build: fn(Map<String, Value>) -> Built,
}

/// One entry of `views.augment`: a name, and the options that [`augmentations`] lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AugmentSpec {
    /// One of [`augmentations`], or a program's own.
    pub name: String,
    /// Its options; those left out are as they are by default.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl AugmentSpec {
    /// An augmentation with every option at its default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            options: Map::new(),
        }
    }

    /// Sets one option, in place of what was set before.
    pub fn with(mut self, option: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(option.into(), value.into());
        self
    }
}

/// The augmentations that can be named in `views.augment`.
pub fn augmentations() -> &'static [AugmentRow] {
    AUGMENTATIONS
}

pub(crate) fn build(
    spec: &AugmentSpec,
    own: &[AugmentRow],
) -> Result<Box<dyn Augment>, DatasetError> {
    let rows = || AUGMENTATIONS.iter().chain(own);
    let row = rows().find(|row| row.name == spec.name);
    let row = row.ok_or_else(|| DatasetError::UnknownAugment {
        name: spec.name.clone(),
        known: rows().map(|row| row.name).collect(),
    })?;
    (row.build)(spec.options.clone()).map_err(|source| DatasetError::AugmentOptions {
        name: spec.name.clone(),
        takes: row.summary,
        source,
    })
}
