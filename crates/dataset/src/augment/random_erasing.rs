use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Augment, Built, Choice, canonical, parse, refuse, uniform};
use crate::{ImageSize, Step};

/// torchvision's `RandomErasing(p, scale, ratio, value)`. There it comes after normalisation, where a value of 0 means
/// the mean colour; here it comes before, so `value` is a colour: one byte, or one per channel.
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
    let erasing: RandomErasing = parse(options)?;
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
    Ok(Box::new(erasing))
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
