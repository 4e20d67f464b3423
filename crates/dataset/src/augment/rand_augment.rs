//! `rand_augment`: some of fourteen operations, all of one strength.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::operations::{self, N_BINS, Reach};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `RandAugment(num_ops, magnitude)` with 31 bins and nearest interpolation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandAugment {
    #[serde(default = "two")]
    n_ops: u32,
    #[serde(default = "nine")]
    magnitude: u32,
    #[serde(default)]
    fill: u8,
}

fn two() -> u32 {
    2
}

fn nine() -> u32 {
    9
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let augment: RandAugment = parse(options)?;
    if augment.magnitude >= N_BINS {
        return refuse(format!(
            "`magnitude` is {}: expected 0 to {}",
            augment.magnitude,
            N_BINS - 1
        ));
    }
    if !(1..=32).contains(&augment.n_ops) {
        return refuse(format!("`n_ops` is {}: expected 1 to 32", augment.n_ops));
    }
    Ok(Box::new(augment))
}

impl Augment for RandAugment {
    fn options(&self) -> String {
        operations::identity(canonical(self), Some(self.magnitude))
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let Choice::Drawn(stream) = choice else {
            return;
        };
        let part = 150.0 / 331.0;
        let reach = Reach {
            shear: 0.3,
            translate: [part * input.width as f64, part * input.height as f64],
            rotate: 30.0,
            color: 0.9,
            posterize: 4.0,
        };
        for _ in 0..self.n_ops {
            operations::draw(
                stream,
                &reach,
                Some(self.magnitude),
                self.fill,
                input,
                steps,
            );
        }
    }
}
