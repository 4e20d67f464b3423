//! `random_crop`: a window at every offset of the padded image, which can be counted out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `RandomCrop(size, padding, fill)`: every offset is equally likely. Rows are drawn before columns.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomCrop {
    size: u32,
    #[serde(default)]
    padding: u32,
    #[serde(default)]
    fill: u8,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let crop: RandomCrop = parse(options)?;
    if crop.size == 0 {
        return refuse("`size` is 0: expected at least 1".into());
    }
    if crop.padding > u32::from(u16::MAX) {
        return refuse(format!(
            "`padding` is {}: expected at most 65535",
            crop.padding
        ));
    }
    Ok(Box::new(crop))
}

impl RandomCrop {
    /// The number of offsets along a side of `length` pixels; 0 where the window does not fit.
    fn n_offsets(&self, length: usize) -> u64 {
        let padded = length as u64 + 2 * u64::from(self.padding);
        (padded + 1).saturating_sub(self.size.into())
    }
}

impl Augment for RandomCrop {
    fn options(&self) -> String {
        canonical(self)
    }

    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        let fits = self.n_offsets(input.height) > 0 && self.n_offsets(input.width) > 0;
        let side = self.size as usize;
        fits.then_some(ImageSize {
            height: side,
            width: side,
            ..input
        })
    }

    fn is_window(&self) -> bool {
        true
    }

    fn n_elements(&self, input: ImageSize) -> Option<u64> {
        Some(self.n_offsets(input.height) * self.n_offsets(input.width))
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let (rows, columns) = (self.n_offsets(input.height), self.n_offsets(input.width));
        let (top, left) = match choice {
            Choice::Element(element) => (element / columns, element % columns),
            Choice::Drawn(stream) => (stream.below(rows), stream.below(columns)),
        };
        steps.push(Step::Crop {
            padding: self.padding,
            fill: self.fill,
            top: top as u32,
            left: left as u32,
            height: self.size,
            width: self.size,
        });
    }
}
