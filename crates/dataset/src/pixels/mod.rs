//! Pixel operations with every parameter decided. Augmentations draw parameters and leave the doing to these.

use crate::{Image, ImageSize};

mod crop;
mod resize;

pub(crate) use resize::resize;

/// One pixel operation of a [`View`](crate::View), with every parameter decided.
#[derive(Clone, Debug, PartialEq)]
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
        /// The window's rows.
        height: u32,
        /// The window's columns.
        width: u32,
    },
    /// Left becomes right.
    HorizontalFlip,
}

/// Buffers that pixel operations write to before they change places with the image.
#[derive(Default)]
pub(crate) struct Scratch {
    image: Image,
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
    }
}

/// Exchanges two images and leaves each its encoded bytes, so that an image decoded once keeps its buffer.
fn swap_pixels(a: &mut Image, b: &mut Image) {
    std::mem::swap(a, b);
    std::mem::swap(&mut a.encoded, &mut b.encoded);
}

/// (H, W, C + 1) to (H, W, C), in place.
pub(crate) fn drop_alpha(image: &mut Image) {
    let size = image.size();
    let kept = size.channels - 1;
    let pixels = image.pixels_mut();
    for i in 0..size.height * size.width {
        pixels.copy_within(i * (kept + 1)..i * (kept + 1) + kept, i * kept);
    }
    image.reshape(ImageSize {
        channels: kept,
        ..size
    });
}

/// (H, W, 1) to (H, W, 3), in place, from the last pixel down.
pub(crate) fn repeat_grey(image: &mut Image) {
    let size = ImageSize {
        channels: 3,
        ..image.size()
    };
    let pixels = image.reshape(size);
    for i in (0..size.height * size.width).rev() {
        let grey = pixels[i];
        pixels[i * 3..i * 3 + 3].fill(grey);
    }
}

/// (H, W, 3) to (H, W, 1), in place: ITU-R 601 luma in the fixed-point form of PIL's `convert("L")`.
pub(crate) fn to_grey(image: &mut Image) {
    let size = ImageSize {
        channels: 1,
        ..image.size()
    };
    let pixels = image.pixels_mut();
    for i in 0..size.height * size.width {
        pixels[i] = luma(&pixels[i * 3..i * 3 + 3]);
    }
    image.reshape(size);
}

pub(crate) fn luma(rgb: &[u8]) -> u8 {
    let weighed =
        u32::from(rgb[0]) * 19_595 + u32::from(rgb[1]) * 38_470 + u32::from(rgb[2]) * 7_471;
    ((weighed + 0x8000) >> 16) as u8
}
