//! `random_erasing`: a rectangle of one colour.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice, uniform};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `RandomErasing(p, scale, ratio, value)`. There, and in timm, it comes after normalisation, where a value of
/// 0 means the mean colour; here it comes before, so `value` is a colour: one byte, or one per channel. `mean`, in the words
/// of a model's preprocessing (0 to 1), stands for their value of 0: the nearest bytes. It is said here once more because a
/// view does not know which of several teachers, or the student, will look at it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RandomErasing {
    #[serde(default = "half")]
    p: f64,
    #[serde(default = "scale")]
    scale: [f64; 2],
    #[serde(default = "ratio")]
    ratio: [f64; 2],
    #[serde(default)]
    value: Colour,
    /// In the canonical form it is the `value` that comes of it.
    #[serde(default, skip_serializing)]
    mean: Option<Vec<f64>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Colour {
    Grey(u8),
    Rgb([u8; 3]),
}

impl Default for Colour {
    fn default() -> Self {
        Self::Grey(0)
    }
}

fn half() -> f64 {
    0.5
}

fn scale() -> [f64; 2] {
    [0.02, 0.33]
}

fn ratio() -> [f64; 2] {
    [0.3, 3.3]
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let has_value = options.contains_key("value");
    let mut erasing: RandomErasing = parse(options)?;
    if !(0.0..=1.0).contains(&erasing.p) {
        return refuse(format!("`p` is {}: expected 0 to 1", erasing.p));
    }
    let [low, high] = erasing.scale;
    if !(0.0 <= low && low <= high && high <= 1.0) {
        return refuse(format!(
            "`scale` is [{low}, {high}]: expected [low, high] within 0 to 1"
        ));
    }
    let [low, high] = erasing.ratio;
    if !(0.0 < low && low <= high && high.is_finite()) {
        return refuse(format!(
            "`ratio` is [{low}, {high}]: expected [low, high] above 0"
        ));
    }
    if let Some(mean) = erasing.mean.take() {
        erasing.value = mean_colour(&mean, has_value)?;
    }
    Ok(Box::new(erasing))
}

/// The bytes nearest to a mean.
fn mean_colour(mean: &[f64], has_value: bool) -> Result<Colour, serde_json::Error> {
    if has_value {
        return refuse("`mean` and `value` are both given: expected one of them".into());
    }
    let byte = |share: f64| (share * 255.0).round_ties_even() as u8;
    match *mean {
        _ if !mean.iter().all(|share| (0.0..=1.0).contains(share)) => refuse(format!(
            "`mean` is {mean:?}: expected numbers from 0 to 1, as in `[[teacher]]`"
        )),
        [grey] => Ok(Colour::Grey(byte(grey))),
        [red, green, blue] => Ok(Colour::Rgb([red, green, blue].map(byte))),
        _ => refuse(format!("`mean` has {} values: expected 1 or 3", mean.len())),
    }
}

impl Augment for RandomErasing {
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
        if stream.uniform() >= self.p {
            return;
        }
        let area = input.height as f64 * input.width as f64;
        let log_ratio = self.ratio.map(libm::log);
        for _ in 0..10 {
            let area = area * uniform(stream, self.scale);
            let ratio = libm::exp(uniform(stream, log_ratio));
            let height = libm::sqrt(area * ratio).round_ties_even();
            let width = libm::sqrt(area / ratio).round_ties_even();
            if height < input.height as f64 && width < input.width as f64 {
                let (height, width) = (height as u32, width as u32);
                let top = stream.below(input.height as u64 - u64::from(height) + 1) as u32;
                let left = stream.below(input.width as u64 - u64::from(width) + 1) as u32;
                let value = match self.value {
                    Colour::Grey(grey) => [grey; 3],
                    Colour::Rgb(rgb) => rgb,
                };
                steps.push(Step::Erase {
                    top,
                    left,
                    height,
                    width,
                    value,
                });
                return;
            }
        }
    }
}
