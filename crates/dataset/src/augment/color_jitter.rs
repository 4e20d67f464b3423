//! `color_jitter`: brightness, contrast, saturation and hue, in random order.

use logitcask_philox::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice, uniform};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Step};

/// torchvision's `ColorJitter(brightness, contrast, saturation, hue)`. Drawn are the order of the four (a shuffle of
/// brightness, contrast, saturation, hue), then the four values in the order just named,
/// also of those that are off.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColorJitter {
    #[serde(default)]
    brightness: f64,
    #[serde(default)]
    contrast: f64,
    #[serde(default)]
    saturation: f64,
    #[serde(default)]
    hue: f64,
}

pub(super) fn build(options: Map<String, Value>) -> Built {
    let jitter: ColorJitter = parse(options)?;
    for (key, strength) in [
        ("brightness", jitter.brightness),
        ("contrast", jitter.contrast),
        ("saturation", jitter.saturation),
    ] {
        if !(strength.is_finite() && strength >= 0.0) {
            return refuse(format!("`{key}` is {strength}: expected at least 0"));
        }
    }
    if !(0.0..=0.5).contains(&jitter.hue) {
        return refuse(format!("`hue` is {}: expected 0 to 0.5", jitter.hue));
    }
    Ok(Box::new(jitter))
}

impl ColorJitter {
    fn values(&self, stream: &mut Stream) -> [f64; 4] {
        let around_one = |stream: &mut Stream, strength: f64| {
            uniform(stream, [(1.0 - strength).max(0.0), 1.0 + strength])
        };
        [
            around_one(stream, self.brightness),
            around_one(stream, self.contrast),
            around_one(stream, self.saturation),
            uniform(stream, [-self.hue, self.hue]),
        ]
    }
}

impl Augment for ColorJitter {
    fn options(&self) -> String {
        canonical(self)
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, choice: Choice<'_>, _: ImageSize, steps: &mut Vec<Step>) {
        let Choice::Drawn(stream) = choice else {
            return;
        };
        let mut order = [0, 1, 2, 3];
        stream.shuffle(&mut order);
        let values = self.values(stream).map(|value| value as f32);
        for which in order {
            match which {
                0 if self.brightness > 0.0 => steps.push(Step::Brightness(values[0])),
                1 if self.contrast > 0.0 => steps.push(Step::Contrast(values[1])),
                2 if self.saturation > 0.0 => steps.push(Step::Saturation(values[2])),
                3 if self.hue > 0.0 => steps.push(Step::Hue(values[3])),
                _ => {}
            }
        }
    }
}
