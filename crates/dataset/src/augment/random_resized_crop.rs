//! `random_resized_crop`: ImageNet's window of random area and shape, of a JPEG decoded no further than it is seen.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice, uniform};
use super::options::{Built, canonical, parse, refuse};
use crate::pixels::is_default;
use crate::{ImageSize, Interpolation, Pillow, Resampling, Step};

/// torchvision's `RandomResizedCrop(size, scale, ratio)`: a window of random area and shape, resized. Up to ten windows
/// are tried, two draws each, and two more for the place of the first that fits; then the largest central window of a
/// permitted shape is taken.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomResizedCrop {
    size: u32,
    #[serde(default = "whole")]
    scale: [f64; 2],
    #[serde(default = "shapes")]
    ratio: [f64; 2],
    /// Decode JPEGs at 1/2, 1/4 or 1/8 of their resolution where the window then has at least 7 tenths of the result's
    /// resolution. Faster, and other pixels: a little softer ones. Absent from the canonical form where it is off, so that it moves no old key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reduced: bool,
    /// Absent from the canonical form where it is the default, as `pillow` is.
    #[serde(default, skip_serializing_if = "is_default")]
    interpolation: Interpolation,
    #[serde(default, skip_serializing_if = "is_default")]
    pillow: Pillow,
}

fn whole() -> [f64; 2] {
    [0.08, 1.0]
}

fn shapes() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let crop: RandomResizedCrop = parse(options)?;
    if crop.size == 0 {
        return refuse("`size` is 0: expected at least 1".into());
    }
    let [low, high] = crop.scale;
    if !(0.0 < low && low <= high && high <= 1.0) {
        return refuse(format!(
            "`scale` is [{low}, {high}]: expected [low, high] within 0 to 1"
        ));
    }
    let [low, high] = crop.ratio;
    if !(0.0 < low && low <= high && high.is_finite()) {
        return refuse(format!(
            "`ratio` is [{low}, {high}]: expected [low, high] above 0"
        ));
    }
    Ok(Box::new(crop))
}

impl Augment for RandomResizedCrop {
    fn options(&self) -> String {
        canonical(self)
    }

    fn output_size(&self, input: ImageSize) -> Option<ImageSize> {
        let side = self.size as usize;
        Some(ImageSize {
            height: side,
            width: side,
            ..input
        })
    }

    fn is_window(&self) -> bool {
        true
    }

    fn reduces(&self) -> bool {
        self.reduced
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, choice: Choice<'_>, input: ImageSize, steps: &mut Vec<Step>) {
        let Choice::Drawn(stream) = choice else {
            return;
        };
        let (input_height, input_width) = (input.height as f64, input.width as f64);
        let push = |steps: &mut Vec<Step>, [top, left, height, width]: [u64; 4]| {
            steps.push(Step::ResizedCrop {
                top: top as u32,
                left: left as u32,
                height: height as u32,
                width: width as u32,
                size: self.size,
                reduced: self.reduced,
                resampling: Resampling {
                    interpolation: self.interpolation,
                    pillow: self.pillow,
                },
            });
        };
        let log_ratio = self.ratio.map(libm::log);
        for _ in 0..10 {
            let area = input_height * input_width * uniform(stream, self.scale);
            let ratio = libm::exp(uniform(stream, log_ratio));
            let width = libm::sqrt(area * ratio).round_ties_even();
            let height = libm::sqrt(area / ratio).round_ties_even();
            if 0.0 < width && width <= input_width && 0.0 < height && height <= input_height {
                let (height, width) = (height as u64, width as u64);
                let top = stream.below(input.height as u64 - height + 1);
                let left = stream.below(input.width as u64 - width + 1);
                return push(steps, [top, left, height, width]);
            }
        }
        let ratio = input_width / input_height;
        let (height, width) = if ratio < self.ratio[0] {
            ((input_width / self.ratio[0]).round_ties_even(), input_width)
        } else if ratio > self.ratio[1] {
            (
                input_height,
                (input_height * self.ratio[1]).round_ties_even(),
            )
        } else {
            (input_height, input_width)
        };
        // A sliver whose permitted window would be less than a pixel wide still has that pixel.
        let (height, width) = (height.max(1.0) as u64, width.max(1.0) as u64);
        let top = (input.height as u64 - height) / 2;
        let left = (input.width as u64 - width) / 2;
        push(steps, [top, left, height, width]);
    }
}
