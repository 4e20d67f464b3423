//! Antialiased bilinear resizing, to the bit as PIL does it: horizontal pass, then vertical, with 22-bit fixed-point
//! weights and rounding to bytes after each.

use crate::{Image, ImageSize};

const PRECISION_BITS: u32 = 22;

/// What resizing allocates, kept from image to image.
#[derive(Default)]
pub(crate) struct Buffers {
    columns: Weights,
    rows: Weights,
    narrowed: Image,
}

/// Resizes the window [top, left, height, width], which lies in the image, to `height` x `width`. Pixels beside the
/// window have no say, as if it had been cut out first.
pub(super) fn resize_window(
    image: &Image,
    [top, left, window_height, window_width]: [usize; 4],
    height: usize,
    width: usize,
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let whole = |n: usize| [0.0, n as f64];
    buffers
        .columns
        .set(window_width, whole(window_width), width);
    buffers
        .rows
        .set(window_height, whole(window_height), height);
    resize([top, left, window_height], image, into, buffers);
}

/// Resizes a box of the image: [first, length] of its rows and columns, which may lie between pixels.
pub(super) fn resize_box(
    image: &Image,
    rows: [f64; 2],
    columns: [f64; 2],
    [height, width]: [usize; 2],
    into: &mut Image,
    buffers: &mut Buffers,
) {
    let size = image.size();
    buffers.columns.set(size.width, columns, width);
    buffers.rows.set(size.height, rows, height);
    resize([0, 0, size.height], image, into, buffers);
}

fn resize(place: [usize; 3], image: &Image, into: &mut Image, buffers: &mut Buffers) {
    let Buffers {
        columns,
        rows,
        narrowed,
    } = buffers;
    // Compiled for each level of vector instructions and chosen at run time. The arithmetic is in integers, so every
    // level gives the same bytes.
    pulp::Arch::new().dispatch(|| {
        horizontal(image, place, columns, narrowed);
        vertical(narrowed, rows, into);
    });
}

/// For each output position, where its window of input positions begins and ends, and the weights in it.
#[derive(Default)]
struct Weights {
    /// What they were made for.
    made_for: (usize, [f64; 2], usize),
    windows: Vec<(usize, usize)>,
    values: Vec<i32>,
    /// Weights per output position, unused ones included.
    stride: usize,
}

impl Weights {
    /// From `length` positions at `first` of `from` to `to` positions.
    fn set(&mut self, from: usize, [first, length]: [f64; 2], to: usize) {
        if self.made_for == (from, [first, length], to) {
            return;
        }
        self.made_for = (from, [first, length], to);
        let scale = length / to as f64;
        // Enlarging interpolates between neighbours; shrinking widens the triangle so that no pixel is passed over.
        let support = scale.max(1.0);
        self.stride = support.ceil() as usize * 2 + 1;
        self.values.clear();
        self.values.resize(to * self.stride, 0);
        self.windows.clear();
        for (i, values) in self.values.chunks_exact_mut(self.stride).enumerate() {
            let center = first + (i as f64 + 0.5) * scale;
            let begin = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let inverse = 1.0 / support;
            let triangle =
                |at: usize| (1.0 - ((at as f64 - center + 0.5) * inverse).abs()).max(0.0);
            let sum: f64 = (begin..end).map(triangle).sum();
            for (value, at) in values.iter_mut().zip(begin..end) {
                let weight = triangle(at) / sum;
                *value = (0.5 + weight * f64::from(1 << PRECISION_BITS)) as i32;
            }
            self.windows.push((begin, end));
        }
    }

    #[inline(always)]
    fn each(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let values = self.values.chunks_exact(self.stride);
        self.windows
            .iter()
            .zip(values)
            .map(|(&(first, last), values)| (first, &values[..last - first]))
    }
}

#[inline(always)]
fn horizontal(image: &Image, [top, left, height]: [usize; 3], weights: &Weights, into: &mut Image) {
    let channels = image.size().channels;
    let width = weights.windows.len();
    into.reshape(ImageSize {
        height,
        width,
        channels,
    });
    for (y, out) in (top..).zip(into.pixels_mut().chunks_exact_mut(width * channels)) {
        // To the end of the image and not of the row, so that there is a fourth byte after nearly every pixel.
        let row = &image.pixels()[(y * image.size().width + left) * channels..];
        match channels {
            1 => horizontal_grey(row, weights, out),
            _ => horizontal_colour(row, weights, out),
        }
    }
}

#[inline(always)]
fn horizontal_grey(row: &[u8], weights: &Weights, out: &mut [u8]) {
    for (out, (first, weights)) in out.iter_mut().zip(weights.each()) {
        let values = row[first..first + weights.len()].iter().zip(weights);
        *out = to_byte(
            HALF + values
                .map(|(&value, weight)| i32::from(value) * weight)
                .sum::<i32>(),
        );
    }
}

/// Four lanes for three channels, the fourth idle: a pixel is then one load and one multiplication.
#[inline(always)]
fn horizontal_colour(row: &[u8], weights: &Weights, out: &mut [u8]) {
    for (out, (first, weights)) in out.chunks_exact_mut(3).zip(weights.each()) {
        let mut sums = [HALF; 4];
        for (at, &weight) in (first * 3..).step_by(3).zip(weights) {
            // The last pixel of the image has no fourth byte after it.
            let pixel = match row.get(at..at + 4) {
                Some(four) => [four[0], four[1], four[2], four[3]],
                None => [row[at], row[at + 1], row[at + 2], 0],
            };
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        let [red, green, blue, _] = sums.map(to_byte);
        out.copy_from_slice(&[red, green, blue]);
    }
}

/// Sums whole stretches of rows at once.
#[inline(always)]
fn vertical(image: &Image, weights: &Weights, into: &mut Image) {
    const STRETCH: usize = 64;
    let size = image.size();
    let stride = size.width * size.channels;
    into.reshape(ImageSize {
        height: weights.windows.len(),
        ..size
    });
    for (out, (first, weights)) in into
        .pixels_mut()
        .chunks_exact_mut(stride)
        .zip(weights.each())
    {
        for (stretch, out) in out.chunks_mut(STRETCH).enumerate() {
            let start = stretch * STRETCH;
            let mut sums = [HALF; STRETCH];
            for (y, &weight) in (first..).zip(weights) {
                let row = &image.row(y)[start..start + out.len()];
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = to_byte(sum);
            }
        }
    }
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
