//! Hue, by way of PIL's eight-bit HSV: the conversions below are its C code's arithmetic.

use crate::Image;

pub(super) fn turn(image: &mut Image, turn: f32) {
    if image.size().channels != 3 {
        return;
    }
    // torchvision adds the byte `uint8(turn * 255)` to the hue, which wraps around.
    let shift = (f64::from(turn) * 255.0) as i32 as u8;
    for pixel in image.pixels_mut().chunks_exact_mut(3) {
        let [hue, saturation, value] = to_hsv([pixel[0], pixel[1], pixel[2]]);
        pixel.copy_from_slice(&to_rgb([hue.wrapping_add(shift), saturation, value]));
    }
}

fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let [rc, gc, bc] = [r, g, b].map(|value| f32::from(max - value) / range);
    // The constants are doubles in C, and so is what they meet.
    let hue = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = (f64::from(hue) / 6.0 + 1.0) % 1.0;
    [
        (f64::from(hue as f32) * 255.0) as u8,
        (f64::from(saturation) * 255.0) as u8,
        max,
    ]
}

fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let six = (f64::from(hue) * 6.0 / 255.0) as f32;
    let sector = f64::from(six).floor() as i32;
    let rest = (f64::from(six) - f64::from(sector)) as f32;
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let byte = |x: f64| (f64::from(value) * x + 0.5).floor().clamp(0.0, 255.0) as u8;
    let (s, f) = (f64::from(saturation), f64::from(rest));
    let p = byte(1.0 - s);
    let q = byte(1.0 - f64::from(saturation * rest));
    let t = byte(1.0 - s * (1.0 - f));
    match sector % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}
