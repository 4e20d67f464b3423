//! Rows of components to rows of grey or red, green and blue: as libjpeg converts YCbCr, and as PIL converts CMYK.

use crate::header::{Colour, Header};
use crate::planes::Plane;
use crate::upsample;

/// Rows to work in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    components: [Vec<u8>; 4],
    sums: Vec<u16>,
    rgb: [Vec<u8>; 3],
}

/// Writes the window [top, left, height, width] as (height, width, channels).
#[inline(always)]
pub(crate) fn write_pixels(
    header: &Header,
    reduction: usize,
    [top, left, _, width]: [usize; 4],
    planes: &[Plane; 4],
    rows: &mut Rows,
    out: &mut [u8],
) {
    let Rows {
        components,
        sums,
        rgb,
    } = rows;
    for row in rgb.iter_mut() {
        row.resize(width, 0);
    }
    let n = header.components.len();
    for (y, out) in (top..).zip(out.chunks_exact_mut(width * header.channels())) {
        let mut full: [&[u8]; 4] = [&[]; 4];
        let parts = full.iter_mut().zip(planes).zip(components.iter_mut());
        for ((full, plane), row) in parts.take(n) {
            *full = upsample::row(plane, reduction == 8, [y, left], width, row, sums);
        }
        match header.colour {
            Colour::Grey => out.copy_from_slice(full[0]),
            Colour::Rgb => interleave([full[0], full[1], full[2]], out),
            Colour::YCbCr => {
                to_rgb([full[0], full[1], full[2]], rgb);
                interleave([&rgb[0], &rgb[1], &rgb[2]], out);
            }
            Colour::Cmyk => {
                for (inks, rgb) in full.iter().zip(rgb.iter_mut()) {
                    for (&ink, out) in inks.iter().zip(rgb) {
                        *out = 255 - ink;
                    }
                }
                darken(rgb, full[3]);
                interleave([&rgb[0], &rgb[1], &rgb[2]], out);
            }
            Colour::Ycck => {
                to_rgb([full[0], full[1], full[2]], rgb);
                darken(rgb, full[3]);
                interleave([&rgb[0], &rgb[1], &rgb[2]], out);
            }
        }
    }
}

#[inline(always)]
fn interleave([red, green, blue]: [&[u8]; 3], out: &mut [u8]) {
    let channels = red.iter().zip(green).zip(blue);
    for (pixel, ((&r, &g), &b)) in out.chunks_exact_mut(3).zip(channels) {
        pixel.copy_from_slice(&[r, g, b]);
    }
}

/// YCbCr to RGB, as libjpeg's tables have it.
#[inline(always)]
fn to_rgb([luma, cb, cr]: [&[u8]; 3], [red, green, blue]: &mut [Vec<u8>; 3]) {
    const HALF: i32 = 1 << 15;
    let out = red.iter_mut().zip(green).zip(blue);
    let components = luma.iter().zip(cb).zip(cr);
    for (((red, green), blue), ((&y, &cb), &cr)) in out.zip(components) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        *red = (y + ((91_881 * cr + HALF) >> 16)).clamp(0, 255) as u8;
        *green = (y + ((HALF - 22_554 * cb - 46_802 * cr) >> 16)).clamp(0, 255) as u8;
        *blue = (y + ((116_130 * cb + HALF) >> 16)).clamp(0, 255) as u8;
    }
}

/// Takes the black ink's share away. Files hold inks inverted, as Adobe writes them and PIL always takes them: 255 is
/// none. What is here was inverted back, and is how much of the paper each ink covers.
#[inline(always)]
fn darken(covered: &mut [Vec<u8>; 3], no_black: &[u8]) {
    for channel in covered {
        for (value, &light) in channel.iter_mut().zip(no_black) {
            // PIL's division by 255.
            let product = u32::from(*value) * u32::from(light) + 128;
            *value = light - ((product + (product >> 8)) >> 8) as u8;
        }
    }
}
