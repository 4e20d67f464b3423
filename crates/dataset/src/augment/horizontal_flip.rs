//! `horizontal_flip`: two views where the chance is even, so that they can be counted out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `RandomHorizontalFlip(p)`: left and right change places with probability `p`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HorizontalFlip {
    #[serde(default = "half")]
    p: f64,
}

fn half() -> f64 {
    0.5
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let flip: HorizontalFlip = parse(options)?;
    if !(0.0..=1.0).contains(&flip.p) {
        return refuse(format!("`p` is {}: expected 0 to 1", flip.p));
    }
    Ok(Box::new(flip))
}

impl Augment for HorizontalFlip {
    fn options(&self) -> String {
        canonical(self)
    }

    /// Two results can be counted out only if they are equally likely.
    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        (self.p == 0.5).then_some(2)
    }

    fn draw(&self, choice: Choice<'_>, _: ImageSize, steps: &mut Vec<Step>) {
        let flipped = match choice {
            Choice::Element(element) => element == 1,
            Choice::Drawn(stream) => stream.uniform() < self.p,
        };
        if flipped {
            steps.push(Step::HorizontalFlip);
        }
    }
}
