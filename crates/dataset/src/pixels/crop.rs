//! Pixel operations that move or cover bytes and compute nothing: windows, flips, erasing.

use crate::{Image, ImageSize};

/// Copies the window of `size` whose first pixel is (`top`, `left`) of `image` to `into`. Either may be negative; what
/// lies outside the image becomes `fill`.
pub(super) fn window(
    image: &Image,
    top: i64,
    left: i64,
    fill: u8,
    size: ImageSize,
    into: &mut Image,
) {
    let from = image.size();
    let channels = from.channels;
    // The columns of the window that lie inside the image, and where they begin there.
    let first = (-left).clamp(0, size.width as i64) as usize;
    let last = (from.width as i64 - left).clamp(first as i64, size.width as i64) as usize;
    let source = (left + first as i64).max(0) as usize;
    let rows = into
        .reshape(size)
        .chunks_exact_mut((size.width * channels).max(1));
    for (y, row) in (top..).zip(rows) {
        if y < 0 || y >= from.height as i64 || first == last {
            row.fill(fill);
            continue;
        }
        row[..first * channels].fill(fill);
        row[last * channels..].fill(fill);
        let inside = &image.row(y as usize)[source * channels..][..(last - first) * channels];
        row[first * channels..last * channels].copy_from_slice(inside);
    }
}

/// Turns left into right, in place.
pub(super) fn flip(image: &mut Image) {
    let size = image.size();
    let stride = (size.width * size.channels).max(1);
    for row in image.pixels_mut().chunks_exact_mut(stride) {
        match size.channels {
            1 => row.reverse(),
            _ => row.as_chunks_mut::<3>().0.reverse(),
        }
    }
}

/// Makes the window [top, left, height, width], which lies in the image, one colour.
pub(super) fn erase(image: &mut Image, [top, left, height, width]: [usize; 4], value: [u8; 3]) {
    let size = image.size();
    let stride = size.width * size.channels;
    for row in image
        .pixels_mut()
        .chunks_exact_mut(stride)
        .skip(top)
        .take(height)
    {
        let window = &mut row[left * size.channels..(left + width) * size.channels];
        for pixel in window.chunks_exact_mut(size.channels) {
            pixel.copy_from_slice(&value[..size.channels]);
        }
    }
}
