//! `trivial_augment`: one operation of any strength.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::operations::{self, Reach};
use super::options::{Built, canonical, parse};
use crate::{ImageSize, Step};

/// torchvision's `TrivialAugmentWide` with 31 bins and nearest interpolation: one operation at any magnitude.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrivialAugment {
    #[serde(default)]
    fill: u8,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    Ok(Box::new(parse::<TrivialAugment>(options)?))
}

impl Augment for TrivialAugment {
    fn options(&self) -> String {
        operations::identity(canonical(self), None)
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let Choice::Drawn(stream) = choice else {
            return;
        };
        let reach = Reach {
            shear: 0.99,
            translate: [32.0, 32.0],
            rotate: 135.0,
            color: 0.99,
            posterize: 6.0,
        };
        operations::draw(stream, &reach, None, self.fill, input, steps);
    }
}
