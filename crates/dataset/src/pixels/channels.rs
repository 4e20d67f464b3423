//! How many values a pixel has, changed in place.

use crate::{Image, ImageSize};

/// Grey pixels of two bytes, the upper first, to pixels of one, in place: what is above 255 becomes 255.
pub(crate) fn clip_16_bits(image: &mut Image) {
    let size = ImageSize {
        channels: 1,
        ..image.size()
    };
    let pixels = image.pixels_mut();
    for i in 0..size.height * size.width {
        let [upper, lower] = [pixels[2 * i], pixels[2 * i + 1]];
        pixels[i] = if upper == 0 { lower } else { 255 };
    }
    image.reshape(size);
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

pub(super) fn luma(rgb: &[u8]) -> u8 {
    let weighed =
        u32::from(rgb[0]) * 19_595 + u32::from(rgb[1]) * 38_470 + u32::from(rgb[2]) * 7_471;
    ((weighed + 0x8000) >> 16) as u8
}
