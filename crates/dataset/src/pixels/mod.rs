//! Pixel operations with every parameter decided. Augmentations draw parameters and leave the doing to these.
//!
//! Each does what PIL does (through torchvision's PIL backend), to the byte wherever PIL computes in integers or in
//! single precision without room for interpretation.

use serde::{Deserialize, Serialize};

use crate::{Image, ImageSize};

mod affine;
mod blend;
mod channels;
mod crop;
mod hue;
mod lookup;
mod mix;
mod resize;

pub(crate) use affine::rotation;
pub(crate) use channels::{clip_16_bits, drop_alpha, repeat_grey, to_grey};
pub(crate) use mix::{blend as mix_blend, paste as mix_paste};
pub use resize::{Interpolation, Pillow, Resampling};

/// One pixel operation of a [`View`](crate::View), with every parameter decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// A window of the image after `padding` has been put around it; what lies outside the image is `fill`.
    Crop {
        /// Pixels added on each side.
        padding: u32,
        /// The value of added pixels, in every channel.
        fill: u8,
        /// The window's first row, in the padded image.
        top: u32,
        /// The window's first column, in the padded image.
        left: u32,
        /// Rows of the window, and of the result.
        height: u32,
        /// Columns of the window, and of the result.
        width: u32,
    },
    /// Mirrored: left becomes right.
    HorizontalFlip,
    /// The whole image, resized.
    Resize {
        /// Rows of the result.
        height: u32,
        /// Columns of the result.
        width: u32,
        /// The filter, and the order of its passes.
        #[serde(default, skip_serializing_if = "is_default")]
        resampling: Resampling,
    },
    /// A window of the image, resized.
    ResizedCrop {
        /// The window's first row.
        top: u32,
        /// The window's first column.
        left: u32,
        /// Rows of the window, before it is resized.
        height: u32,
        /// Columns of the window, before it is resized.
        width: u32,
        /// Rows and columns of the result.
        size: u32,
        /// Whether a JPEG may be decoded at a fraction of its resolution for it. Pixels that are decoded already have
        /// theirs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reduced: bool,
        /// The filter, and the order of its passes.
        #[serde(default, skip_serializing_if = "is_default")]
        resampling: Resampling,
    },
    /// Black at 0, unchanged at 1.
    Brightness(f32),
    /// Grey of the mean brightness at 0, unchanged at 1.
    Contrast(f32),
    /// Grey at 0, unchanged at 1. Does nothing to grey images.
    Saturation(f32),
    /// Smoothed at 0, unchanged at 1.
    Sharpness(f32),
    /// A turn of the colour circle, -0.5 to 0.5. Does nothing to grey images.
    Hue(f32),
    /// Keeps so many upper bits of each value.
    Posterize(u8),
    /// Inverts the values at this one and above.
    Solarize(f32),
    /// Stretches each channel to 0..255.
    AutoContrast,
    /// Gives each channel an even histogram.
    Equalize,
    /// Each pixel (x, y) of the result is the input's nearest to (a x + b y + c, d x + e y + f); outside is `fill`.
    Affine {
        /// `[a, b, c, d, e, f]`, of pixel centres.
        matrix: [f64; 6],
        /// The value outside the image, in every channel.
        fill: u8,
    },
    /// A rectangle becomes one colour.
    Erase {
        /// The rectangle's first row.
        top: u32,
        /// The rectangle's first column.
        left: u32,
        /// Rows that the rectangle covers.
        height: u32,
        /// Columns that the rectangle covers.
        width: u32,
        /// Red, green, blue; grey images take the first.
        value: [u8; 3],
    },
}

/// Buffers that pixel operations write to before they change places with the image.
#[derive(Default)]
pub(crate) struct Scratch {
    image: Image,
    resize: resize::Buffers,
}

/// Applies all `steps` to `original` and leaves the result in `image`. A first step that reads one image and writes
/// another spares the copy, which for a small window of a large image costs more than the window.
pub(crate) fn apply_all(
    steps: &[Step],
    original: &Image,
    image: &mut Image,
    scratch: &mut Scratch,
) {
    let rest = match steps {
        [
            Step::Crop {
                padding,
                fill,
                top,
                left,
                height,
                width,
            },
            rest @ ..,
        ] => {
            let size = ImageSize {
                height: *height as usize,
                width: *width as usize,
                ..original.size()
            };
            let offset = |n: u32| i64::from(n) - i64::from(*padding);
            crop::window(original, offset(*top), offset(*left), *fill, size, image);
            rest
        }
        [
            Step::ResizedCrop {
                top,
                left,
                height,
                width,
                size,
                resampling,
                ..
            },
            rest @ ..,
        ] => {
            let window = [*top, *left, *height, *width].map(|n| n as usize);
            let to = [*size as usize; 2];
            let buffers = &mut scratch.resize;
            resize::resize_window(original, window, to, *resampling, image, buffers);
            rest
        }
        steps => {
            image.copy_from(original);
            steps
        }
    };
    for step in rest {
        apply(step, image, scratch);
    }
}

/// The part of an encoded image that a view begins by looking at.
pub(crate) struct Part {
    /// 1, or the fraction of the resolution that is decoded: 2, 4, 8.
    pub(crate) reduction: usize,
    /// [top, left, height, width] in the reduced image.
    pub(crate) window: [usize; 4],
}

impl Part {
    /// None where the first step looks at the whole image, or at nothing of it. `reduced_size` tells the rows and columns of
    /// the image at 1/n of its resolution, n being 1, 2, 4 or 8.
    pub(crate) fn of(
        step: Option<&Step>,
        reduced_size: impl Fn(usize) -> [usize; 2],
    ) -> Option<Self> {
        let [image_height, image_width] = reduced_size(1);
        match *step? {
            Step::Crop {
                padding,
                top,
                left,
                height,
                width,
                ..
            } => {
                let span = |first: u32, n: u32, all: usize| {
                    let begin = i64::from(first) - i64::from(padding);
                    let end = (begin + i64::from(n)).clamp(0, all as i64);
                    let begin = begin.clamp(0, all as i64);
                    (begin < end).then_some((begin as usize, (end - begin) as usize))
                };
                let (top, height) = span(top, height, image_height)?;
                let (left, width) = span(left, width, image_width)?;
                Some(Self {
                    reduction: 1,
                    window: [top, left, height, width],
                })
            }
            Step::ResizedCrop {
                top,
                left,
                height,
                width,
                size,
                reduced,
                ..
            } => {
                // A reduced window may have 7 tenths of the result's resolution, the rest being interpolated: of crops
                // to 224 from images of 500 x 375, hardly any would be reduced otherwise.
                let shorter = height.min(width) as usize;
                let fits = |by: &usize| 10 * shorter >= 7 * size as usize * by;
                let reduction = [8, 4, 2].into_iter().find(fits).filter(|_| reduced);
                let reduction = reduction.unwrap_or(1);
                let [image_height, image_width] = reduced_size(reduction);
                let span = |first: u32, n: u32, all: usize| {
                    let end = (first as usize + n as usize).div_ceil(reduction).min(all);
                    let begin = first as usize / reduction;
                    (begin, end - begin)
                };
                let (top, height) = span(top, height, image_height);
                let (left, width) = span(left, width, image_width);
                Some(Self {
                    reduction,
                    window: [top, left, height, width],
                })
            }
            _ => None,
        }
    }
}

/// As [`apply_all`], where only `part` of the original was decoded.
pub(crate) fn apply_to_part(
    steps: &[Step],
    decoded: &Image,
    part: &Part,
    image: &mut Image,
    scratch: &mut Scratch,
) {
    let [first, rest @ ..] = steps else { return };
    let [part_top, part_left, ..] = part.window;
    match *first {
        Step::Crop {
            padding,
            fill,
            top,
            left,
            height,
            width,
        } => {
            let size = ImageSize {
                height: height as usize,
                width: width as usize,
                ..decoded.size()
            };
            let offset = |n: u32, part: usize| i64::from(n) - i64::from(padding) - part as i64;
            let (top, left) = (offset(top, part_top), offset(left, part_left));
            crop::window(decoded, top, left, fill, size, image);
        }
        Step::ResizedCrop {
            top,
            left,
            height,
            width,
            size,
            resampling,
            ..
        } => {
            // The window's edges may lie between the pixels of the reduced image.
            let reduced = |n: u32| f64::from(n) / part.reduction as f64;
            let rows = [reduced(top) - part_top as f64, reduced(height)];
            let columns = [reduced(left) - part_left as f64, reduced(width)];
            let to = [size as usize; 2];
            let buffers = &mut scratch.resize;
            resize::resize_box(decoded, [rows, columns], to, resampling, image, buffers);
        }
        // A part is taken of these two only.
        _ => return,
    }
    for step in rest {
        apply(step, image, scratch);
    }
}

/// Applies `step` to `image`, in place.
pub(crate) fn apply(step: &Step, image: &mut Image, scratch: &mut Scratch) {
    match *step {
        Step::Crop {
            padding,
            fill,
            top,
            left,
            height,
            width,
        } => {
            let size = ImageSize {
                height: height as usize,
                width: width as usize,
                ..image.size()
            };
            let top = i64::from(top) - i64::from(padding);
            let left = i64::from(left) - i64::from(padding);
            crop::window(image, top, left, fill, size, &mut scratch.image);
            swap_pixels(image, &mut scratch.image);
        }
        Step::HorizontalFlip => crop::flip(image),
        Step::Resize {
            height,
            width,
            resampling,
        } => resize(
            image,
            [height as usize, width as usize],
            resampling,
            scratch,
        ),
        Step::ResizedCrop {
            top,
            left,
            height,
            width,
            size,
            resampling,
            ..
        } => {
            let window = [top, left, height, width].map(|n| n as usize);
            resize_window(image, window, [size as usize; 2], resampling, scratch);
        }
        Step::Brightness(factor) => blend::brightness(image, factor),
        Step::Contrast(factor) => blend::contrast(image, factor),
        Step::Saturation(factor) => blend::saturation(image, factor),
        Step::Sharpness(factor) => blend::sharpness(image, factor, &mut scratch.image),
        Step::Hue(turn) => hue::turn(image, turn),
        Step::Posterize(bits) => lookup::posterize(image, bits),
        Step::Solarize(threshold) => lookup::solarize(image, threshold),
        Step::AutoContrast => lookup::auto_contrast(image),
        Step::Equalize => lookup::equalize(image),
        Step::Affine { matrix, fill } => {
            affine::affine(image, matrix, fill, &mut scratch.image);
            swap_pixels(image, &mut scratch.image);
        }
        Step::Erase {
            top,
            left,
            height,
            width,
            value,
        } => {
            let window = [top, left, height, width].map(|n| n as usize);
            crop::erase(image, window, value);
        }
    }
}

/// Resizes `image` to [height, width], in place.
pub(crate) fn resize(
    image: &mut Image,
    to: [usize; 2],
    resampling: Resampling,
    scratch: &mut Scratch,
) {
    let size = image.size();
    resize_window(
        image,
        [0, 0, size.height, size.width],
        to,
        resampling,
        scratch,
    );
}

fn resize_window(
    image: &mut Image,
    window: [usize; 4],
    to: [usize; 2],
    resampling: Resampling,
    scratch: &mut Scratch,
) {
    let Scratch {
        image: into,
        resize: buffers,
    } = scratch;
    resize::resize_window(image, window, to, resampling, into, buffers);
    swap_pixels(image, into);
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Exchanges two images and leaves each its encoded bytes, so that an image decoded once keeps its buffer.
fn swap_pixels(a: &mut Image, b: &mut Image) {
    std::mem::swap(a, b);
    std::mem::swap(&mut a.encoded, &mut b.encoded);
}
