//! mixup and cutmix: the augmentations that need a second image. They come last, and what they draw comes from streams
//! of their own purpose.

use logitcask_philox::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::drawing::{Augment, Choice};
use super::options::{Built, canonical, parse, refuse};
use crate::{ImageSize, Mix, MixHow, Step};

/// With probability `p`, a share lambda ~ Beta(alpha, alpha) of the image and the rest of its partner. Drawn are: a
/// uniform number against `p`, the partner (any sample of the whole split), lambda.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mixup(Options);

/// With probability `p`, a rectangle of about 1 - lambda of the area shows the partner. Drawn are: a uniform number
/// against `p`, the partner, lambda, then the column and the row of the rectangle's centre.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cutmix(Options);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default = "one")]
    alpha: f64,
    #[serde(default = "one")]
    p: f64,
}

fn one() -> f64 {
    1.0
}

pub(super) fn build_mixup(options: Map<String, Value>) -> Built {
    Ok(Box::new(Mixup(checked(parse(options)?)?)))
}

pub(super) fn build_cutmix(options: Map<String, Value>) -> Built {
    Ok(Box::new(Cutmix(checked(parse(options)?)?)))
}

fn checked(options: Options) -> Result<Options, serde_json::Error> {
    if !(options.alpha > 0.0 && options.alpha.is_finite()) {
        return refuse(format!("`alpha` is {}: expected above 0", options.alpha));
    }
    if !(0.0..=1.0).contains(&options.p) {
        return refuse(format!("`p` is {}: expected 0 to 1", options.p));
    }
    Ok(options)
}

impl Options {
    /// The partner and lambda, or none where nothing is mixed in.
    fn draw(&self, stream: &mut Stream, n_samples: u32) -> Option<(u32, f64)> {
        if stream.uniform() >= self.p {
            return None;
        }
        let partner = stream.below(n_samples.into()) as u32;
        Some((partner, beta(stream, self.alpha)))
    }
}

impl Augment for Mixup {
    fn options(&self) -> String {
        canonical(self)
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, _: Choice<'_>, _: ImageSize, _: &mut Vec<Step>) {}

    fn is_mix(&self) -> bool {
        true
    }

    fn mix(&self, stream: &mut Stream, _: ImageSize, n_samples: u32) -> Option<Mix> {
        let (partner, lambda) = self.0.draw(stream, n_samples)?;
        // The share is a number of 65536ths, so that pixels and labels are mixed by exactly the same one.
        let share = (lambda * 65_536.0).round_ties_even() as u32;
        Some(Mix {
            partner,
            lambda: share as f32 / 65_536.0,
            how: MixHow::Blend { share },
        })
    }
}

impl Augment for Cutmix {
    fn options(&self) -> String {
        canonical(self)
    }

    fn n_elements(&self, _: ImageSize) -> Option<u64> {
        None
    }

    fn draw(&self, _: Choice<'_>, _: ImageSize, _: &mut Vec<Step>) {}

    fn is_mix(&self) -> bool {
        true
    }

    fn mix(&self, stream: &mut Stream, size: ImageSize, n_samples: u32) -> Option<Mix> {
        let (partner, lambda) = self.0.draw(stream, n_samples)?;
        let half_part = 0.5 * libm::sqrt(1.0 - lambda);
        let mut side = |length: usize| {
            let center = stream.below(length as u64) as i64;
            let half = (half_part * length as f64) as i64;
            let first = (center - half).max(0);
            let last = (center + half).min(length as i64);
            (first as u32, (last - first) as u32)
        };
        let (left, width) = side(size.width);
        let (top, height) = side(size.height);
        let shown = f64::from(width) * f64::from(height) / (size.width as f64 * size.height as f64);
        let how = MixHow::Paste {
            top,
            left,
            height,
            width,
        };
        Some(Mix {
            partner,
            lambda: (1.0 - shown) as f32,
            how,
        })
    }
}

/// Beta(alpha, alpha) as x / (x + y) of two Gamma(alpha) draws.
fn beta(stream: &mut Stream, alpha: f64) -> f64 {
    let (x, y) = (gamma(stream, alpha), gamma(stream, alpha));
    // Both vanish together only for tiny alpha, where the weight is all on the ends.
    if x + y > 0.0 { x / (x + y) } else { 1.0 }
}

/// Marsaglia and Tsang (2000): exact, by rejection; below 1 by way of Gamma(alpha + 1) and one more uniform number.
fn gamma(stream: &mut Stream, alpha: f64) -> f64 {
    if alpha < 1.0 {
        let larger = gamma(stream, alpha + 1.0);
        return larger * libm::exp(libm::log(1.0 - stream.uniform()) / alpha);
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = normal(stream);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        let u = 1.0 - stream.uniform();
        if libm::log(u) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

/// The cosine half of Box and Muller.
fn normal(stream: &mut Stream) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - stream.uniform()));
    radius * libm::cos(2.0 * std::f64::consts::PI * stream.uniform())
}
