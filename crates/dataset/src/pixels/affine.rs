//! Affine maps by the nearest pixel, in PIL's arithmetic: sixteen bits of fraction, or plain truncation where the map
//! only shifts.

use crate::Image;

/// The matrix of PIL's `rotate(degrees)` about the centre of an image.
pub(crate) fn rotation(degrees: f64, height: usize, width: usize) -> [f64; 6] {
    let angle = -(degrees.rem_euclid(360.0)).to_radians();
    // PIL rounds to fifteen places, so that right angles are exact.
    let round = |x: f64| (x * 1e15).round_ties_even() / 1e15;
    let (cos, sin) = (round(libm::cos(angle)), round(libm::sin(angle)));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    [
        cos,
        sin,
        cos * -x + sin * -y + x,
        -sin,
        cos,
        -sin * -x + cos * -y + y,
    ]
}

pub(super) fn affine(image: &Image, matrix: [f64; 6], fill: u8, into: &mut Image) {
    into.reshape(image.size()).fill(fill);
    if matrix[1] == 0.0 && matrix[3] == 0.0 {
        shift(image, matrix, into);
    } else {
        turn(image, matrix, into);
    }
}

/// No coordinate depends on the other: each is computed once.
fn shift(image: &Image, [a, _, c, _, e, f]: [f64; 6], into: &mut Image) {
    let size = image.size();
    let positions = |first: f64, scale: f64, n: usize| {
        (0..n).scan(first + scale * 0.5, move |at, _| {
            let here = *at;
            *at += scale;
            Some(if here >= 0.0 && here < n as f64 {
                Some(here as usize)
            } else {
                None
            })
        })
    };
    let stride = size.width * size.channels;
    for (out, y) in into
        .pixels_mut()
        .chunks_exact_mut(stride)
        .zip(positions(f, e, size.height))
    {
        let Some(y) = y else { continue };
        let pixels = out.chunks_exact_mut(size.channels);
        for (out, x) in pixels.zip(positions(c, a, size.width)) {
            if let Some(x) = x {
                out.copy_from_slice(&image.row(y)[x * size.channels..][..size.channels]);
            }
        }
    }
}

fn turn(image: &Image, [a, b, c, d, e, f]: [f64; 6], into: &mut Image) {
    let size = image.size();
    // i64 where PIL has int: what would wrap around there lies far outside the image.
    let fix = |x: f64| (x * 65_536.0 + 0.5).floor() as i64;
    let mut start = (fix(c + a * 0.5 + b * 0.5), fix(f + d * 0.5 + e * 0.5));
    let (a, b, d, e) = (fix(a), fix(b), fix(d), fix(e));
    let stride = size.width * size.channels;
    for out in into.pixels_mut().chunks_exact_mut(stride) {
        let (mut x, mut y) = start;
        for out in out.chunks_exact_mut(size.channels) {
            let (column, row) = (x >> 16, y >> 16);
            if (0..size.width as i64).contains(&column) && (0..size.height as i64).contains(&row) {
                let from = &image.row(row as usize)[column as usize * size.channels..];
                out.copy_from_slice(&from[..size.channels]);
            }
            x += a;
            y += d;
        }
        start.0 += b;
        start.1 += e;
    }
}
