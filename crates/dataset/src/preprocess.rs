//! From a view to a model's input: resolution, channels, their order, and the normalisation, which a cache is keyed by.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::pixels::is_default;
use crate::{
    DatasetError, Image, ImageSize, Interpolation, Pillow, PixelLayout, Resampling, Scale,
};

/// How a model wants its pixels: `(x / 255 - mean) / std`, per channel. Teacher and student each have their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessSpec {
    /// One per channel, in the order the model sees; empty stands for zeros.
    pub mean: Vec<f32>,
    /// One per channel, in the order the model sees; empty stands for ones.
    pub std: Vec<f32>,
    /// The model's own resolution: views of another one are resized to `size` x `size`.
    pub size: Option<u32>,
    /// The filter that `size` resizes with.
    #[serde(skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
    /// The order of passes that `size` resizes in.
    #[serde(skip_serializing_if = "is_default")]
    pub pillow: Pillow,
    /// Red first or blue first.
    pub channel_order: ChannelOrder,
    /// Whether the model sees 0..1 or 0..255, before mean and std.
    pub scale: Scale,
    /// 1 or 3, where the model wants other than the dataset has. Without it, as many as `mean` has.
    pub channels: Option<usize>,
}

/// The order of a colour image's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red, green, blue: as images are stored.
    #[default]
    Rgb,
    /// Blue, green, red: as OpenCV and Caffe have it.
    Bgr,
}

impl PreprocessSpec {
    /// Mean and std per channel, everything else as it is by default.
    pub fn new(mean: impl Into<Vec<f32>>, std: impl Into<Vec<f32>>) -> Self {
        Self {
            mean: mean.into(),
            std: std.into(),
            ..Self::default()
        }
    }

    /// Canonical text: equal exactly where the pixels are made equal. It is part of a cache's key.
    pub fn identity(&self) -> String {
        let mut text = String::new();
        let numbers = |values: &[f32]| -> String {
            values
                .iter()
                .map(f32::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        if let Some(size) = self.size {
            let interpolation = self.interpolation.name();
            let _ = write!(text, "resize {size} {interpolation}");
            if self.pillow != Pillow::default() {
                let _ = write!(text, " pillow {}", u32::from(self.pillow));
            }
            text.push_str("; ");
        }
        if let Some(channels) = self.channels {
            let _ = write!(text, "channels {channels}; ");
        }
        text.push_str(match self.channel_order {
            ChannelOrder::Rgb => "rgb; ",
            ChannelOrder::Bgr => "bgr; ",
        });
        text.push_str(match self.scale {
            Scale::Unit => "x/255",
            Scale::Byte => "x",
        });
        if !self.mean.is_empty() {
            let _ = write!(text, "; mean {}", numbers(&self.mean));
        }
        if !self.std.is_empty() {
            let _ = write!(text, "; std {}", numbers(&self.std));
        }
        text
    }

    /// What an [`identity`](Self::identity) says, and what follows it; `None` where it is none.
    pub fn of_identity(text: &str) -> Option<(Self, Vec<&str>)> {
        let mut spec = Self::default();
        let mut rest = Vec::new();
        let numbers = |values: &str| -> Option<Vec<f32>> {
            values.split(',').map(|value| value.parse().ok()).collect()
        };
        for part in text.split("; ") {
            match part.split(' ').collect::<Vec<_>>()[..] {
                ["resize", size, ref how @ ..] => {
                    let (name, pillow) = match *how {
                        [name] => (name, Pillow::default()),
                        [name, "pillow", pillow] => {
                            (name, Pillow::try_from(pillow.parse::<u32>().ok()?).ok()?)
                        }
                        _ => return None,
                    };
                    spec.size = Some(size.parse().ok()?);
                    spec.interpolation = serde_json::from_value(name.into()).ok()?;
                    spec.pillow = pillow;
                }
                ["channels", n] => spec.channels = Some(n.parse().ok()?),
                ["rgb"] => spec.channel_order = ChannelOrder::Rgb,
                ["bgr"] => spec.channel_order = ChannelOrder::Bgr,
                ["x/255"] => spec.scale = Scale::Unit,
                ["x"] => spec.scale = Scale::Byte,
                ["mean", values] => spec.mean = numbers(values)?,
                ["std", values] => spec.std = numbers(values)?,
                _ => rest.push(part),
            }
        }
        Some((spec, rest))
    }
}

/// Numbers for pixels of 0..255 beside a scale of 0..1, or the other way round: each image would be one even grey.
fn check_scale(spec: &PreprocessSpec) -> Result<(), DatasetError> {
    let wrong = |key: &'static str, value: f32| DatasetError::WrongScale {
        key,
        value,
        scale: spec.scale,
    };
    let is_off = |mean: f32| match spec.scale {
        Scale::Unit => mean.abs() > 1.0,
        Scale::Byte => mean != 0.0 && mean.abs() <= 1.0,
    };
    if let Some(&mean) = spec.mean.iter().find(|mean| is_off(**mean)) {
        return Err(wrong("mean", mean));
    }
    // A number beyond 255 belongs to neither scale, and is meant as it stands.
    // Half of 0..1 is the largest deviation that pixels can have, and no images' bytes deviate by less than one.
    let is_off = |std: f32| match spec.scale {
        Scale::Unit => std > 10.0 && std <= 255.0,
        Scale::Byte => std < 1.0,
    };
    match spec.std.first() {
        Some(&std) if spec.std.iter().all(|std| is_off(*std)) => Err(wrong("std", std)),
        _ => Ok(()),
    }
}

/// A [`PreprocessSpec`] made ready: what each byte of each channel becomes.
#[derive(Clone, Debug)]
pub struct Preprocess {
    spec: PreprocessSpec,
    /// Per channel in the image's order, the value of every byte. A look-up is exactly what the arithmetic gives.
    tables: Vec<[f32; 256]>,
}

impl Preprocess {
    /// Checks the lengths and values.
    ///
    /// # Errors
    /// Means and stds of different number, neither 1 nor 3 of them, a std that is not a positive number, or numbers of
    /// another scale than the one that is set.
    pub fn new(spec: &PreprocessSpec) -> Result<Self, DatasetError> {
        let wrong = |key: &str, found: String| DatasetError::Setting {
            key: key.into(),
            found,
        };
        if spec.size == Some(0) {
            return Err(wrong("size", "is 0: expected at least 1".into()));
        }
        for (key, is_set) in [
            ("interpolation", !is_default(&spec.interpolation)),
            ("pillow", !is_default(&spec.pillow)),
        ] {
            if is_set && spec.size.is_none() {
                let found = "is given without `size`, so that nothing is resized by it";
                return Err(wrong(key, found.into()));
            }
        }
        let n = match (spec.mean.len(), spec.std.len()) {
            (0, n) | (n, 0) => n,
            (n, m) if n == m => n,
            (n, m) => return Err(wrong("std", format!("has {m} values, but `mean` has {n}"))),
        };
        if !matches!(n, 0 | 1 | 3) {
            return Err(wrong("mean", format!("has {n} values: expected 1 or 3")));
        }
        if let Some(channels) = spec.channels
            && (!matches!(channels, 1 | 3) || (n != 0 && n != channels))
        {
            return Err(wrong(
                "channels",
                format!("is {channels}: expected 1 or 3, as many as `mean` has"),
            ));
        }
        if let Some(std) = spec
            .std
            .iter()
            .find(|std| !(std.is_finite() && **std > 0.0))
        {
            return Err(wrong(
                "std",
                format!("holds `{std}`: expected positive numbers"),
            ));
        }
        if let Some(mean) = spec.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(wrong(
                "mean",
                format!("holds `{mean}`: expected finite numbers"),
            ));
        }
        check_scale(spec)?;
        let channels = spec.channels.unwrap_or(n);
        let table = |channel: usize| -> [f32; 256] {
            let mean = spec.mean.get(channel).copied().unwrap_or(0.0);
            let std = spec.std.get(channel).copied().unwrap_or(1.0);
            std::array::from_fn(|byte| {
                let x = byte as f32;
                let x = if spec.scale == Scale::Unit {
                    x / 255.0
                } else {
                    x
                };
                (x - mean) / std
            })
        };
        Ok(Self {
            spec: spec.clone(),
            tables: (0..channels.max(1)).map(table).collect(),
        })
    }

    /// What it was made from.
    pub fn spec(&self) -> &PreprocessSpec {
        &self.spec
    }

    /// Canonical text, see [`PreprocessSpec::identity`].
    pub fn identity(&self) -> String {
        self.spec.identity()
    }

    /// The size of what this makes of a view.
    ///
    /// # Errors
    /// A colour image for a model of one channel that does not say `channels = 1`.
    pub fn output_size(&self, view: ImageSize) -> Result<ImageSize, DatasetError> {
        let wanted = self
            .spec
            .channels
            .or(match self.spec.mean.len().max(self.spec.std.len()) {
                0 => None,
                n => Some(n),
            });
        let channels = wanted.unwrap_or(view.channels);
        if channels < view.channels && self.spec.channels.is_none() {
            return Err(DatasetError::Setting {
                key: "mean".into(),
                found: format!(
                    "has {channels} value, but the images have {} channels; to turn them grey say `channels = 1`",
                    view.channels
                ),
            });
        }
        let side = |length: usize| self.spec.size.map_or(length, |size| size as usize);
        Ok(ImageSize {
            height: side(view.height),
            width: side(view.width),
            channels,
        })
    }

    /// Brings a view to the model's resolution and channels, in place.
    pub(crate) fn fit(
        &self,
        image: &mut Image,
        scratch: &mut crate::pixels::Scratch,
    ) -> Result<(), DatasetError> {
        let wanted = self.output_size(image.size())?;
        if (wanted.height, wanted.width) != (image.size().height, image.size().width) {
            let resampling = Resampling {
                interpolation: self.spec.interpolation,
                pillow: self.spec.pillow,
            };
            let to = [wanted.height, wanted.width];
            crate::pixels::resize(image, to, resampling, scratch);
        }
        match (image.size().channels, wanted.channels) {
            (1, 3) => crate::pixels::repeat_grey(image),
            (3, 1) => crate::pixels::to_grey(image),
            _ => {}
        }
        Ok(())
    }

    /// Writes the normalised values of `image`, which [`Self::fit`] has seen, into one batch row.
    pub(crate) fn normalise(&self, image: &Image, layout: PixelLayout, row: &mut [f32]) {
        match image.size().channels {
            1 => self.normalise_channels::<1>(image.pixels(), layout, row),
            channels => {
                debug_assert_eq!(channels, 3, "images have 1 or 3 channels");
                self.normalise_channels::<3>(image.pixels(), layout, row);
            }
        }
    }

    /// The number of channels is known to the compiler, as a loop with an unknown stride takes half as long again.
    fn normalise_channels<const C: usize>(
        &self,
        pixels: &[u8],
        layout: PixelLayout,
        row: &mut [f32],
    ) {
        let (pixels, _) = pixels.as_chunks::<C>();
        // Without mean and std there is one table for all channels.
        let last = self.tables.len() - 1;
        let tables: [&[f32; 256]; C] = std::array::from_fn(|at| &self.tables[at.min(last)]);
        // The channel of the image that becomes channel `at` of the row.
        let source = |at: usize| match self.spec.channel_order {
            ChannelOrder::Rgb => at,
            ChannelOrder::Bgr => C - 1 - at,
        };
        match layout {
            PixelLayout::Nchw => {
                let planes = row.chunks_exact_mut(pixels.len());
                for (at, (plane, table)) in planes.zip(tables).enumerate() {
                    let channel = source(at);
                    for (out, pixel) in plane.iter_mut().zip(pixels) {
                        *out = table[usize::from(pixel[channel])];
                    }
                }
            }
            PixelLayout::Nhwc => {
                for (out, pixel) in row.as_chunks_mut::<C>().0.iter_mut().zip(pixels) {
                    for at in 0..C {
                        out[at] = tables[at][usize::from(pixel[source(at)])];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache says how its teacher's images were prepared; whoever has no other word for it reads it back.
    #[test]
    fn an_identity_says_what_it_is_of() {
        let sizes = [None, Some(224)];
        let words = r#"["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"]"#;
        let interpolations: Vec<Interpolation> = serde_json::from_str(words).unwrap();
        let means = [
            vec![],
            vec![0.3048],
            vec![0.485, 0.456, 0.406],
            vec![1.0e-7, 123.675, 0.1],
        ];
        for size in sizes {
            for &interpolation in &interpolations {
                for mean in &means {
                    let spec = PreprocessSpec {
                        size,
                        interpolation: size.map_or_else(Interpolation::default, |_| interpolation),
                        pillow: match size {
                            Some(_) if mean.is_empty() => Pillow::V13,
                            _ => Pillow::V12,
                        },
                        channels: (mean.len() == 1).then_some(1),
                        channel_order: match mean.len() {
                            3 => ChannelOrder::Bgr,
                            _ => ChannelOrder::Rgb,
                        },
                        scale: match mean.len() {
                            0 => Scale::Byte,
                            _ => Scale::Unit,
                        },
                        std: mean.iter().map(|mean| mean + 0.1).collect(),
                        mean: mean.clone(),
                    };
                    let text = spec.identity() + "; nchw";
                    let read = PreprocessSpec::of_identity(&text);
                    assert_eq!(read, Some((spec, vec!["nchw"])), "{text}");
                }
            }
        }
        assert_eq!(PreprocessSpec::of_identity("mean 1,x"), None);
        assert_eq!(PreprocessSpec::of_identity("resize 5 cubic; x"), None);
    }
}
