//! Two images in one. Both have the same size: whoever calls has checked.

use crate::Image;

/// `share / 65536` of `image` and the rest of `partner`, rounded half up.
pub(crate) fn blend(image: &mut Image, partner: &Image, share: u32) {
    let rest = 65_536 - share;
    for (value, &other) in image.pixels_mut().iter_mut().zip(partner.pixels()) {
        *value = ((u32::from(*value) * share + u32::from(other) * rest + 0x8000) >> 16) as u8;
    }
}

/// Pastes the window [top, left, height, width] of `partner` over `image`.
pub(crate) fn paste(image: &mut Image, partner: &Image, [top, left, height, width]: [u32; 4]) {
    let size = image.size();
    let stride = size.width * size.channels;
    let [top, left, height, width] = [top, left, height, width].map(|n| n as usize);
    for y in top..top + height {
        let columns = left * size.channels..(left + width) * size.channels;
        let row = &mut image.pixels_mut()[y * stride..(y + 1) * stride];
        row[columns.clone()].copy_from_slice(&partner.row(y)[columns]);
    }
}
