//! Operations that map each byte by a table, which may depend on the image's histogram.

use crate::Image;

pub(super) fn posterize(image: &mut Image, bits: u8) {
    let mask = (0xFF00_u16 >> bits.min(8)) as u8;
    image
        .pixels_mut()
        .iter_mut()
        .for_each(|value| *value &= mask);
}

pub(super) fn solarize(image: &mut Image, threshold: f32) {
    for value in image.pixels_mut() {
        if f32::from(*value) >= threshold {
            *value = 255 - *value;
        }
    }
}

pub(super) fn auto_contrast(image: &mut Image) {
    per_channel(image, |histogram| {
        let low = histogram.iter().position(|&n| n > 0)?;
        let high = histogram.iter().rposition(|&n| n > 0)?;
        if high == low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        // A cast truncates towards zero and saturates: `int`, then clipping, as PIL has it.
        Some(std::array::from_fn(|value| {
            (value as f64 * scale + offset) as u8
        }))
    });
}

pub(super) fn equalize(image: &mut Image) {
    per_channel(image, |histogram| {
        let last = histogram.iter().rfind(|&&n| n > 0)?;
        let step = (histogram.iter().sum::<u64>() - last) / 255;
        if step == 0 {
            return None;
        }
        let mut sum = step / 2;
        Some(histogram.map(|n| {
            let mapped = (sum / step).min(255) as u8;
            sum += n;
            mapped
        }))
    });
}

/// Maps each channel by the table that its histogram gives; `None` leaves it.
fn per_channel(image: &mut Image, table: impl Fn([u64; 256]) -> Option<[u8; 256]>) {
    let channels = image.size().channels;
    for channel in 0..channels {
        let mut histogram = [0u64; 256];
        for &value in image.pixels()[channel..].iter().step_by(channels) {
            histogram[usize::from(value)] += 1;
        }
        if let Some(table) = table(histogram) {
            for value in image.pixels_mut()[channel..].iter_mut().step_by(channels) {
                *value = table[usize::from(*value)];
            }
        }
    }
}
