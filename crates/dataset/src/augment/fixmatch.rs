//! `fixmatch_rand_augment`: the strong view of MLKD and LSKD.

use logitcask_philox::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice, uniform};
use super::options::{Built, canonical, parse, refuse};
use crate::pixels::rotation;
use crate::{ImageSize, Step};

/// FixMatch's RandAugment as MLKD's and LSKD's code has it (`RandAugment(2, 10)` of `mdistiller/dataset/cifar100.py`; the 10
/// is used by nothing): each operation's strength is drawn from its whole range, and a cutout always follows. Drawn are, per
/// operation, which of fourteen and how strong; then the side, the column and the row of the cutout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixMatchRandAugment {
    #[serde(default = "two")]
    n_ops: u32,
    /// The largest side of the cutout, as a part of the image's width.
    #[serde(default = "half")]
    cutout: f64,
}

/// The colour of the cutout: about the mean of ImageNet.
const GREY: [u8; 3] = [125, 123, 114];

fn two() -> u32 {
    2
}

fn half() -> f64 {
    0.5
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let augment: FixMatchRandAugment = parse(options)?;
    if !(1..=32).contains(&augment.n_ops) {
        return refuse(format!("`n_ops` is {}: expected 1 to 32", augment.n_ops));
    }
    if !(0.0..=1.0).contains(&augment.cutout) {
        return refuse(format!("`cutout` is {}: expected 0 to 1", augment.cutout));
    }
    Ok(Box::new(augment))
}

impl Augment for FixMatchRandAugment {
    fn options(&self) -> String {
        canonical(self)
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let Choice::Drawn(stream) = choice else {
            return;
        };
        for _ in 0..self.n_ops {
            let operation = stream.below(14);
            let strength = stream.uniform();
            steps.extend(step(operation, strength, input));
        }
        let side = uniform(stream, [0.0, self.cutout]) * input.width as f64;
        if side > 0.0 {
            steps.push(cutout(stream, side, input));
        }
    }
}

/// One operation of the authors' list, in its order; `strength` is 0 to 1 of its range. None leaves the image.
fn step(operation: u64, strength: f64, input: ImageSize) -> Option<Step> {
    let within = |low: f64, high: f64| low + (high - low) * strength;
    let factor = within(0.05, 0.95) as f32;
    let affine = |matrix: [f64; 6]| Step::Affine { matrix, fill: 0 };
    let (height, width) = (input.height, input.width);
    Some(match operation {
        0 => Step::AutoContrast,
        1 => Step::Brightness(factor),
        2 => Step::Saturation(factor),
        3 => Step::Contrast(factor),
        4 => Step::Equalize,
        6 => Step::Posterize(within(4.0, 8.0) as u8),
        7 => affine(rotation(within(-30.0, 30.0), height, width)),
        8 => Step::Sharpness(factor),
        9 => affine([1.0, within(-0.3, 0.3), 0.0, 0.0, 1.0, 0.0]),
        10 => affine([1.0, 0.0, 0.0, within(-0.3, 0.3), 1.0, 0.0]),
        // Values at the threshold and above are inverted: those from the next whole number on.
        11 => Step::Solarize(within(0.0, 256.0).ceil() as f32),
        12 => affine([1.0, 0.0, within(-0.3, 0.3) * width as f64, 0.0, 1.0, 0.0]),
        13 => affine([1.0, 0.0, 0.0, 0.0, 1.0, within(-0.3, 0.3) * height as f64]),
        _ => return None,
    })
}

/// A square of `side` pixels about a centre anywhere in the image, cut off at its edges. PIL's rectangles hold their last
/// row and column, so that it is a pixel larger than it says.
fn cutout(stream: &mut Stream, side: f64, input: ImageSize) -> Step {
    let mut span = |length: usize| {
        let center = uniform(stream, [0.0, length as f64]);
        let first = (center - side / 2.0).max(0.0).trunc();
        let last = (first + side).min(length as f64 - 1.0).trunc();
        (first as u32, (last - first) as u32 + 1)
    };
    let (left, width) = span(input.width);
    let (top, height) = span(input.height);
    Step::Erase {
        top,
        left,
        height,
        width,
        value: GREY,
    }
}
