//! One row of a component at the resolution of the image, as libjpeg's jdsample.c makes it.

use crate::planes::Plane;

/// Columns `left` to `left + width` of row `y` of the image. `row` and `sums` are memory to work in.
///
/// What is halved is interpolated: three parts of the nearest sample and one of the next nearest, in each direction. Where
/// there is hardly a sample to go by, and at all other ratios, samples are repeated.
#[inline(always)]
pub(crate) fn row<'a>(
    plane: &'a Plane,
    is_eighth: bool,
    [y, left]: [usize; 2],
    width: usize,
    row: &'a mut Vec<u8>,
    sums: &mut Vec<u16>,
) -> &'a [u8] {
    let [down, across] = plane.scale;
    let near = plane.row(y / down);
    if [down, across] == [1, 1] {
        return &near[left - plane.first_column()..][..width];
    }
    row.resize(width, 0);
    match [down, across] {
        [2, 1] if !is_eighth => between_rows(plane, [y, left], row),
        [1 | 2, 2] if !is_eighth && plane.width > 2 => between_columns(plane, [y, left], sums, row),
        _ => {
            for (x, out) in (left..).zip(&mut *row) {
                *out = near[x / across - plane.first_column()];
            }
        }
    }
    row
}

/// The row of samples that is next nearest to row `y` of the image, where there are two of its rows to a sample.
fn next_nearest(plane: &Plane, y: usize) -> &[u8] {
    let y_far = match y % 2 {
        0 => (y / 2).saturating_sub(1),
        _ => (y / 2 + 1).min(plane.height - 1),
    };
    plane.row(y_far)
}

/// libjpeg's h1v2: three parts of the nearer row and one of the other, rounded up and down in turn.
#[inline(always)]
fn between_rows(plane: &Plane, [y, left]: [usize; 2], out: &mut [u8]) {
    let bias = if y.is_multiple_of(2) { 1 } else { 2 };
    let start = left - plane.first_column();
    let near = &plane.row(y / 2)[start..];
    let far = &next_nearest(plane, y)[start..];
    for (out, (&near, &far)) in out.iter_mut().zip(near.iter().zip(far)) {
        *out = ((u16::from(near) * 3 + u16::from(far) + bias) >> 2) as u8;
    }
}

/// libjpeg's h2v1 and h2v2.
#[inline(always)]
fn between_columns(plane: &Plane, [y, left]: [usize; 2], sums: &mut Vec<u16>, out: &mut [u8]) {
    let down = plane.scale[0];
    let first_column = plane.first_column();
    let near = plane.row(y / down);
    let far = match down {
        2 => next_nearest(plane, y),
        _ => near,
    };
    // Sums of the column above and below each sample of the row, with a neighbour on each side.
    let (begin, end) = (left / 2, (left + out.len()).div_ceil(2).min(plane.width));
    let weigh = |x: usize| {
        let (near, far) = (
            u16::from(near[x - first_column]),
            u16::from(far[x - first_column]),
        );
        if down == 2 { near * 3 + far } else { near }
    };
    sums.clear();
    sums.push(weigh(begin.saturating_sub(1)));
    let kept = begin - first_column..end - first_column;
    let pairs = near[kept.clone()].iter().zip(&far[kept]);
    match down {
        2 => sums.extend(pairs.map(|(&near, &far)| u16::from(near) * 3 + u16::from(far))),
        _ => sums.extend(pairs.map(|(&near, _)| u16::from(near))),
    }
    sums.push(weigh(end.min(plane.width - 1)));
    let (round_left, round_right, shift) = if down == 2 { (8, 7, 4) } else { (1, 2, 2) };
    let left_one =
        |((&last, &this), _): ((&u16, &u16), &u16)| ((this * 3 + last + round_left) >> shift) as u8;
    let right_one = |((_, &this), &next): ((&u16, &u16), &u16)| {
        ((this * 3 + next + round_right) >> shift) as u8
    };
    // A window may begin in the middle of a pair.
    let (odd, out) = out.split_at_mut(left % 2);
    let mut triples = sums.iter().zip(&sums[1..]).zip(&sums[2..]);
    if let [first] = odd
        && let Some(triple) = triples.next()
    {
        *first = right_one(triple);
    }
    let mut pairs = out.chunks_exact_mut(2);
    for (pair, triple) in pairs.by_ref().zip(triples.by_ref()) {
        pair[0] = left_one(triple);
        pair[1] = right_one(triple);
    }
    if let ([last], Some(triple)) = (pairs.into_remainder(), triples.next()) {
        *last = left_one(triple);
    }
}
