//! `center_crop`: the middle of an image; nothing random.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `CenterCrop(size)`, of images that are large enough.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CenterCrop {
    size: u32,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let crop: CenterCrop = parse(options)?;
    if crop.size == 0 {
        return refuse("`size` is 0: expected at least 1".into());
    }
    Ok(Box::new(crop))
}

/// Half of what is left over, a half pixel rounded to the even one as Python's `round` does.
pub(super) fn centered(length: u32, window: u32) -> u32 {
    let rest = length - window;
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 {
        half + 1
    } else {
        half
    }
}

impl Augment for CenterCrop {
    fn options(&self) -> String {
        canonical(self)
    }

    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        let side = self.size as usize;
        let fits = input.height >= side && input.width >= side;
        fits.then_some(ImageSize {
            height: side,
            width: side,
            ..input
        })
    }

    fn is_window(&self) -> bool {
        true
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        Some(1)
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn draw(&self, _: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        steps.push(Step::Crop {
            padding: 0,
            fill: 0,
            top: centered(input.height as u32, self.size),
            left: centered(input.width as u32, self.size),
            height: self.size,
            width: self.size,
        });
    }
}
