use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Augment, Built, Choice, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `Resize(size)`: the shorter side becomes `size`, the other follows in proportion, rounded down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    size: u32,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let resize: Resize = parse(options)?;
    if resize.size == 0 {
        return refuse("`size` is 0: expected at least 1".into());
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
            });
        }
    }
}
