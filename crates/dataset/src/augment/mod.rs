//! What can be done to an image at random. An augmentation is a file here and a row in [`AUGMENTATIONS`]; it draws the
//! parameters of [pixel operations](Step).

use std::fmt::Debug;

use logitcask_philox::Stream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::view::Mix;
use crate::{DatasetError, ImageSize, Step};

mod center_crop;
mod color_jitter;
mod fixmatch;
mod horizontal_flip;
mod mix;
mod operations;
mod rand_augment;
mod random_crop;
mod random_erasing;
mod random_resized_crop;
mod resize;
mod trivial_augment;

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

/// What building an augmentation comes to. The options that the parser refuses are refused in the parser's words.
pub type Built = Result<Box<dyn Augment>, serde_json::Error>;

/// One entry of `views.augment`: a name, and the options that [`augmentations`] lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AugmentSpec {
    /// Which augmentation.
    pub name: String,
    /// Its options.
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

    /// Sets one option.
    pub fn with(mut self, option: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(option.into(), value.into());
        self
    }
}

/// The augmentations that can be named in `views.augment`.
pub fn augmentations() -> &'static [AugmentRow] {
    AUGMENTATIONS
}

/// Draws the parameters of one augmentation: which [`Step`]s it adds to a view. A view is a function of (seed, sample, view):
/// what is drawn must follow from the [`Choice`] and the size alone.
pub trait Augment: Debug + Send + Sync {
    /// Every option with its value, as canonical JSON: a cache is keyed by it. What a program's own augmentation draws must not
    /// change under the same name and options; where it does, the pixels that a cache remembers of its capture are not the same
    /// any more, and the cache is refused.
    fn options(&self) -> String;

    /// The size of the result, given that of the input;
    /// `None` where that is too small.
    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        Some(input)
    }

    /// The number of different, equally likely results, where they can be counted out.
    fn n_elements(&self, input: ImageSize) -> Option<u64>;

    /// Whether its step cuts a window out of the image.
    fn is_window(&self) -> bool {
        false
    }

    /// Whether it lets JPEGs be decoded at a reduced resolution.
    fn reduces(&self) -> bool {
        false
    }

    /// Whether it does the same to every image, with nothing drawn at all.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Whether it mixes in a second image. Then it comes last, adds no steps, and [`Self::mix`] draws.
    fn is_mix(&self) -> bool {
        false
    }

    /// Draws the partner, among all samples of the split, and how it is mixed in; none where it is not.
    fn mix(&self, _stream: &mut Stream, _size: ImageSize, _n_samples: u32) -> Option<Mix> {
        None
    }

    /// Adds the steps of one draw. `input` is large enough: `output_size` said so.
    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>);
}

/// What an augmentation draws from.
pub enum Choice<'a> {
    /// This one of its `n_elements`.
    Element(u64),
    /// Its own stream.
    Drawn(&'a mut Stream),
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

/// An augmentation's options out of a recipe.
fn parse<T: DeserializeOwned>(options: Map<String, Value>) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::Object(options))
}

/// Options as canonical JSON: the fields in their order, defaults written out.
fn canonical<T: Serialize>(options: &T) -> String {
    serde_json::to_string(options).expect("options are numbers and strings under string keys")
}

/// An error about a value, in the shape that the parser reports its own in.
fn refuse<T>(message: String) -> Result<T, serde_json::Error> {
    Err(serde::de::Error::custom(message))
}

/// A uniform number between two.
fn uniform(stream: &mut Stream, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * stream.uniform()
}
