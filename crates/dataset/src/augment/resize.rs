//! `resize`: the shorter side to a length, for images of many sizes; nothing random.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::options::{Built, canonical, parse, refuse};
use crate::pixels::is_default;
use crate::{ImageSize, Interpolation, Pillow, Resampling, Step};

/// torchvision's `Resize(size)`: the shorter side becomes `size`, the other follows in proportion, rounded down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    size: u32,
    /// timm's: the share of the resized side that a crop of `size` afterwards keeps. The canonical form has the size that
    /// comes of it, so that a key does not depend on the way it was written.
    #[serde(default, skip_serializing)]
    crop_pct: Option<f64>,
    /// Absent from the canonical form where it is the default, so that it moves no old key; `pillow` likewise.
    #[serde(default, skip_serializing_if = "is_default")]
    interpolation: Interpolation,
    #[serde(default, skip_serializing_if = "is_default")]
    pillow: Pillow,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let mut resize: Resize = parse(options)?;
    if resize.size == 0 {
        return refuse("`size` is 0: expected at least 1".into());
    }
    if let Some(share) = resize.crop_pct {
        if !(share > 0.0 && share <= 1.0) {
            return refuse(format!(
                "`crop_pct` is {share}: expected above 0, at most 1"
            ));
        }
        resize.size = (f64::from(resize.size) / share).floor() as u32;
    }
    Ok(Box::new(resize))
}

impl Augment for Resize {
    fn options(&self) -> String {
        canonical(self)
    }

    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        let short = input.height.min(input.width);
        let side = |length: usize| self.size as usize * length / short;
        Some(ImageSize {
            height: side(input.height),
            width: side(input.width),
            ..input
        })
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        Some(1)
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn draw(&self, _: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        if let Some(output) = self.output_size(input)
            && output != input
        {
            steps.push(Step::Resize {
                height: output.height as u32,
                width: output.width as u32,
                resampling: Resampling {
                    interpolation: self.interpolation,
                    pillow: self.pillow,
                },
            });
        }
    }
}
