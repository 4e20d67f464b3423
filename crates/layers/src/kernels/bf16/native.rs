//! Convolutions by AVX512-BF16: any kernel, stride, padding and groups.

use rayon::prelude::*;

use super::{
    Native, round,
    tile::{self, LANES, Outer, Rows, panels},
};
use crate::{
    buffer::Buffer,
    kernels::{
        ConvShape,
        direct::InputPlan,
        simd::{Level, vectorized},
    },
};

/// `y = conv(x, weight)`.
pub(super) fn forward(native: Native, shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let shape = &shape.flat();
    let (inputs, outputs) = shape.per_group();
    // With one group the taps of a kernel's row read consecutive values, and count as one tap of greater depth.
    let (columns, depth) = if shape.groups == 1 {
        (1, shape.kernel * inputs)
    } else {
        (shape.kernel, inputs)
    };
    let width = shape.w + 2 * shape.padding;
    let taps: Vec<usize> = (0..shape.kernel * columns)
        .map(|tap| ((tap / columns) * width + tap % columns) * shape.ci)
        .collect();
    let packed: Vec<Panels> = (0..shape.groups)
        .map(|group| {
            let row = |k: usize| k * shape.co + group * outputs;
            Panels::pack(taps.len(), depth, outputs, weight, 1, row)
        })
        .collect();
    let source = Source {
        dims: [shape.h, shape.w, shape.ci],
        margin: [shape.padding; 4],
        values: x,
    };
    each_piece(source, y, shape.oh * shape.ow * shape.co, |x, y| {
        for (group, packed) in packed.iter().enumerate() {
            let from = Grid {
                start: group * inputs,
                image: source.padded_len(),
                line: shape.stride * width * shape.ci,
                step: shape.stride * shape.ci,
            };
            let to = Grid {
                start: group * outputs,
                image: shape.oh * shape.ow * shape.co,
                line: shape.ow * shape.co,
                step: shape.co,
            };
            correlate(
                native,
                packed,
                &taps,
                [shape.oh, shape.ow],
                (x, from),
                (y, to),
            );
        }
    });
}

/// `dx`, the gradient of the input: a convolution of dy for each class of pixels, see [`InputPlan`].
pub(super) fn backward_input(
    native: Native,
    shape: &ConvShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let shape = &shape.flat();
    let (inputs, outputs) = shape.per_group();
    let plan = InputPlan::new(shape);
    let packed: Vec<Vec<Panels>> = plan
        .parts
        .iter()
        .map(|part| {
            let of_group = |group| {
                let row = |k: usize| {
                    part.kernel_taps[k / outputs] * inputs * shape.co
                        + group * outputs
                        + k % outputs
                };
                Panels::pack(part.taps.len(), outputs, inputs, weight, shape.co, row)
            };
            (0..shape.groups).map(of_group).collect()
        })
        .collect();
    let source = Source {
        dims: [shape.oh, shape.ow, shape.co],
        margin: plan.margin,
        values: dy,
    };
    each_piece(source, dx, shape.h * shape.w * shape.ci, |dy, dx| {
        for (part, packed) in plan.parts.iter().zip(&packed) {
            for (group, packed) in packed.iter().enumerate() {
                let from = Grid {
                    start: group * outputs,
                    image: source.padded_len(),
                    line: source.line_len(),
                    step: shape.co,
                };
                let to = Grid {
                    start: (part.y.first * shape.w + part.x.first) * shape.ci + group * inputs,
                    image: shape.h * shape.w * shape.ci,
                    line: shape.stride * shape.w * shape.ci,
                    step: shape.stride * shape.ci,
                };
                correlate(
                    native,
                    packed,
                    &part.taps,
                    [part.y.len, part.x.len],
                    (dy, from),
                    (dx, to),
                );
            }
        }
    });
}

/// `dw`, the gradient of the weight: a sum for each of a number of parts of the batch that the shape alone decides,
/// added in order.
pub(super) fn backward_weight(
    native: Native,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let shape = &shape.flat();
    let n_parts = match dw.len() {
        0..=0x1_0000 => 16,
        0x1_0001..=0x4_0000 => 8,
        _ => 4,
    };
    let images = shape.batch.div_ceil(n_parts);
    let (x_image, y_image) = (shape.h * shape.w * shape.ci, shape.oh * shape.ow * shape.co);
    let parts: Vec<Buffer> = x
        .par_chunks(images * x_image)
        .zip(dy.par_chunks(images * y_image))
        .map(|(x, dy)| {
            let mut part = Buffer::for_overwrite(dw.len());
            part.fill(0.0);
            let mut pairs = PixelPairs::new(shape);
            for (x, dy) in x.chunks_exact(x_image).zip(dy.chunks_exact(y_image)) {
                pairs.fill(shape, x, dy);
                weight_gradient(native, shape, &pairs, &mut part);
            }
            part
        })
        .collect();
    const CHUNK: usize = 1 << 13;
    dw.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, dw)| {
            dw.fill(0.0);
            for part in &parts {
                for (dw, part) in dw.iter_mut().zip(&part[chunk * CHUNK..]) {
                    *dw += part;
                }
            }
        });
}

/// Weights of one group as words, `[panel][tap][pair][output]`: a panel is two vectors of outputs wide, or one if that
/// will do for the last. Zeros stand after the last output, and after the last of an odd number of rows.
struct Panels {
    outputs: usize,
    /// Per tap.
    depth: usize,
    n_taps: usize,
    words: Buffer,
}

impl Panels {
    /// Row k, tap by tap `depth` of them, begins at `row(k)`, and its `outputs` weights are `step` apart.
    fn pack(
        n_taps: usize,
        depth: usize,
        outputs: usize,
        weight: &[f32],
        step: usize,
        row: impl Fn(usize) -> usize + Sync,
    ) -> Self {
        let level = Level::current();
        let pairs = depth.div_ceil(2);
        let rows = n_taps * pairs;
        let mut words = Buffer::for_overwrite(rows * outputs.next_multiple_of(LANES));
        let wide = 2 * LANES;
        let pack_panel = |(panel, to): (usize, &mut [f32])| {
            let first = panel * wide;
            let width = to.len() / rows;
            let n = width.min(outputs - first);
            for (r, to) in as_words_mut(to).chunks_exact_mut(width).enumerate() {
                let k = r / pairs * depth + r % pairs * 2;
                let low = &weight[row(k) + first * step..];
                let high = if r % pairs * 2 + 1 < depth {
                    &weight[row(k + 1) + first * step..]
                } else {
                    &[]
                };
                to.fill(0);
                vectorized(level, || {
                    for (to, low) in to[..n].iter_mut().zip(low.iter().step_by(step)) {
                        *to = round(*low);
                    }
                    for (to, high) in to[..n].iter_mut().zip(high.iter().step_by(step)) {
                        *to |= round(*high) << 16;
                    }
                });
            }
        };
        if rows > 0 {
            words
                .par_chunks_mut(rows * wide)
                .enumerate()
                .for_each(pack_panel);
        }
        Self {
            outputs,
            depth,
            n_taps,
            words,
        }
    }
}

/// Images that are read, `[h, w, channels]` of each, and the zeros to put around them: `[top, bottom, left, right]`.
#[derive(Clone, Copy)]
struct Source<'a> {
    dims: [usize; 3],
    margin: [usize; 4],
    values: &'a [f32],
}

impl Source<'_> {
    fn line_len(&self) -> usize {
        (self.margin[2] + self.dims[1] + self.margin[3]) * self.dims[2]
    }

    fn padded_len(&self) -> usize {
        (self.margin[0] + self.dims[0] + self.margin[1]) * self.line_len()
    }

    fn image_len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Rounds an image into its place among zeros.
fn pad(source: &Source, image: &[f32], padded: &mut [u16]) {
    let level = Level::current();
    let (line, channels) = (source.line_len(), source.dims[2]);
    let [top, _, left, _] = source.margin;
    let inner = left * channels..left * channels + source.dims[1] * channels;
    let (before, rest) = padded.split_at_mut(top * line);
    let (lines, after) = rest.split_at_mut(source.dims[0] * line);
    before.fill(0);
    after.fill(0);
    for (to, from) in lines
        .chunks_exact_mut(line)
        .zip(image.chunks_exact(inner.len()))
    {
        to[..inner.start].fill(0);
        to[inner.end..].fill(0);
        vectorized(level, || {
            for (to, from) in to[inner.clone()].iter_mut().zip(from) {
                *to = round(*from) as u16;
            }
        });
    }
}

/// Calls `work(padded images, what is made of them)` for pieces of the batch, in parallel.
///
/// Small images are taken together, so that a panel of weights serves them all while it is in the cache. No value
/// depends on this cut, so it may look at the number of threads.
fn each_piece(
    source: Source,
    to: &mut [f32],
    to_image: usize,
    work: impl Fn(&[u16], &mut [f32]) + Sync,
) {
    let batch = source.values.len() / source.image_len();
    let pixels = source.dims[0] * source.dims[1];
    let images = (256 / pixels)
        .min(batch.div_ceil(rayon::current_num_threads()))
        .max(1);
    let pieces = to
        .par_chunks_mut(images * to_image)
        .zip(source.values.par_chunks(images * source.image_len()));
    pieces.for_each(|(to, from)| {
        let n = from.len() / source.image_len();
        // One more, because the last of an odd number of channels is read as half of a word.
        let mut buffer = Buffer::for_overwrite((n * source.padded_len() + 1).div_ceil(2));
        let padded = as_halves_mut(&mut buffer);
        padded[n * source.padded_len()..].fill(0);
        for (padded, image) in padded
            .chunks_exact_mut(source.padded_len())
            .zip(from.chunks_exact(source.image_len()))
        {
            pad(&source, image, padded);
        }
        work(padded, to);
    });
}

/// Where pixels lie: image by image, line by line, step by step.
#[derive(Clone, Copy)]
struct Grid {
    start: usize,
    image: usize,
    line: usize,
    step: usize,
}

impl Grid {
    /// Where the last pixel of `images` images of `[lines, line]` pixels lies.
    fn last(&self, images: usize, [lines, line]: [usize; 2]) -> usize {
        self.start + (images - 1) * self.image + (lines - 1) * self.line + (line - 1) * self.step
    }
}

/// `y[pixel][o] = sum over taps and k of x[pixel + tap + k] * packed[tap][k][o]`. Where the depth is odd, the value after
/// the last is read too, and multiplied by 0: unless it is infinite or no number, that changes nothing.
fn correlate(
    native: Native,
    packed: &Panels,
    taps: &[usize],
    [lines, line]: [usize; 2],
    (x, from): (&[u16], Grid),
    (y, to): (&mut [f32], Grid),
) {
    if lines == 0 || line == 0 {
        return;
    }
    let images = y.len() / to.image;
    let pairs = packed.depth.div_ceil(2);
    let rows = taps.len() * pairs;
    assert_eq!(taps.len(), packed.n_taps);
    if let Some(&tap) = taps.iter().max() {
        assert!(from.last(images, [lines, line]) + tap + 2 * pairs <= x.len());
    }
    assert!(to.last(images, [lines, line]) + packed.outputs <= y.len());
    assert_eq!(
        packed.words.len(),
        rows * packed.outputs.next_multiple_of(LANES)
    );
    for (first, outputs, vectors) in panels(packed.outputs) {
        for image in 0..images {
            // SAFETY: the assertions above bound the last pixel of the last image, its last tap and depth, its last
            // output, and the last panel; all other addresses lie before them. Without taps nothing is read.
            unsafe {
                tile::rows(
                    native,
                    Rows {
                        lines,
                        line,
                        x: x.as_ptr().add(from.start + image * from.image),
                        x_line: from.line,
                        x_step: from.step,
                        taps,
                        pairs,
                        panel: packed.words.as_ptr().cast::<u32>().add(first * rows),
                        vectors,
                        y: y.as_mut_ptr().add(to.start + image * to.image + first),
                        y_line: to.line,
                        y_step: to.step,
                        outputs,
                    },
                );
            }
        }
    }
}

/// One image's x and dy as words of two pixels: outputs 2j and 2j + 1 of a line, with 0 after an odd last one, and for
/// each pixel that a tap reads for output 2j, the one it reads for 2j + 1.
struct PixelPairs {
    /// Rounded, with its margin of zeros; not needed for kernels of one pixel.
    padded: Buffer,
    x: Buffer,
    dy: Buffer,
    /// From one line of outputs to the next, from one pair to the next, and from a kernel's tap to that below it.
    x_line: usize,
    x_step: usize,
    tap_line: usize,
}

impl PixelPairs {
    fn new(shape: &ConvShape) -> Self {
        let pairs = shape.ow.div_ceil(2);
        let dy = Buffer::for_overwrite(shape.oh * pairs * shape.co);
        if (shape.kernel, shape.padding) == (1, 0) {
            return Self {
                padded: Buffer::for_overwrite(0),
                x: Buffer::for_overwrite(shape.oh * pairs * shape.ci),
                dy,
                x_line: pairs * shape.ci,
                x_step: shape.ci,
                tap_line: 0,
            };
        }
        let line = (shape.w + 2 * shape.padding) * shape.ci;
        let len = (shape.h + 2 * shape.padding) * line;
        Self {
            padded: Buffer::for_overwrite((len + shape.stride * shape.ci).div_ceil(2)),
            x: Buffer::for_overwrite(len),
            dy,
            x_line: shape.stride * line,
            x_step: 2 * shape.stride * shape.ci,
            tap_line: line,
        }
    }

    fn fill(&mut self, shape: &ConvShape, x: &[f32], dy: &[f32]) {
        let y_line = shape.ow * shape.co;
        pair_pixels(
            [shape.oh, shape.ow, shape.co],
            [y_line, shape.co],
            dy,
            &mut self.dy,
        );
        if (shape.kernel, shape.padding) == (1, 0) {
            let (line, step) = (shape.stride * shape.w * shape.ci, shape.stride * shape.ci);
            let dims = [shape.oh, shape.ow, shape.ci];
            return pair_pixels(dims, [line, step], x, &mut self.x);
        }
        let source = Source {
            dims: [shape.h, shape.w, shape.ci],
            margin: [shape.padding; 4],
            values: x,
        };
        let padded = as_halves_mut(&mut self.padded);
        let (image, after) = padded.split_at_mut(source.padded_len());
        pad(&source, x, image);
        after.fill(0);
        // At the end of a line this takes the next line's pixels, which meet a dy of 0.
        let step = shape.stride * shape.ci;
        let words = as_words_mut(&mut self.x);
        vectorized(Level::current(), || {
            let pairs = padded.iter().zip(&padded[step..]);
            for (word, (&low, &high)) in words.iter_mut().zip(pairs) {
                *word = u32::from(low) | u32::from(high) << 16;
            }
        });
    }
}

/// Rounds `[lines, line, channels]` pixels, which lie `[line_step, step]` apart, into words of two neighbours in a line.
fn pair_pixels(
    [lines, line, channels]: [usize; 3],
    [line_step, step]: [usize; 2],
    from: &[f32],
    to: &mut [f32],
) {
    let level = Level::current();
    let mut words = as_words_mut(to).chunks_exact_mut(channels);
    for l in 0..lines {
        for p in (0..line).step_by(2) {
            let pixel = |p: usize| &from[l * line_step + p * step..][..channels];
            let (low, Some(words)) = (pixel(p), words.next()) else {
                unreachable!("`to` holds a word for each pair of pixels");
            };
            if p + 1 < line {
                let high = pixel(p + 1);
                vectorized(level, || {
                    for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
                        *word = round(*low) | round(*high) << 16;
                    }
                });
            } else {
                for (word, low) in words.iter_mut().zip(low) {
                    *word = round(*low);
                }
            }
        }
    }
}

/// Adds one image's share to `dw`.
fn weight_gradient(native: Native, shape: &ConvShape, pairs: &PixelPairs, dw: &mut [f32]) {
    let (inputs, outputs) = shape.per_group();
    // As in `forward`: with one group, a row of the kernel counts as one tap.
    let (columns, depth) = if shape.groups == 1 {
        (1, shape.kernel * inputs)
    } else {
        (shape.kernel, inputs)
    };
    let n_pairs = shape.ow.div_ceil(2);
    let last_x = (shape.oh - 1) * pairs.x_line
        + (n_pairs - 1) * pairs.x_step
        + (shape.kernel - 1) * pairs.tap_line
        + shape.kernel * shape.ci;
    assert!(last_x <= pairs.x.len());
    assert_eq!(pairs.dy.len(), shape.oh * n_pairs * shape.co);
    assert_eq!(dw.len(), shape.weight_len());
    // About 128 pixels: what they need of x and dy stays in the first level of cache.
    let block = (128 / shape.ow).clamp(1, shape.oh);
    for line in (0..shape.oh).step_by(block) {
        let lines = block.min(shape.oh - line);
        for group in 0..shape.groups {
            for (first, outputs_of_panel, _) in panels(outputs) {
                let output = group * outputs + first;
                for tap in 0..shape.kernel * columns {
                    let (ky, kx) = (tap / columns, tap % columns);
                    let x =
                        line * pairs.x_line + ky * pairs.tap_line + kx * shape.ci + group * inputs;
                    // SAFETY: the assertions bound the last tap of the last pair of pixels, the last word of dy and the
                    // weights, of which this is block `tap`, `depth` rows of co values, from `output` on.
                    unsafe {
                        tile::outer(
                            native,
                            Outer {
                                lines,
                                pairs: n_pairs,
                                x: pairs.x.as_ptr().cast::<u32>().add(x),
                                x_line: pairs.x_line,
                                x_step: pairs.x_step,
                                inputs: depth,
                                dy: pairs
                                    .dy
                                    .as_ptr()
                                    .cast::<u32>()
                                    .add(line * n_pairs * shape.co + output),
                                dy_line: n_pairs * shape.co,
                                dy_step: shape.co,
                                outputs: outputs_of_panel,
                                dw: dw.as_mut_ptr().add(tap * depth * shape.co + output),
                                dw_row: shape.co,
                            },
                        );
                    }
                }
            }
        }
    }
}

/// The memory of f32 as words of the same size.
fn as_words_mut(values: &mut [f32]) -> &mut [u32] {
    // SAFETY: f32 and u32 have one size and one alignment, and any bits are a value of either.
    let (_, words, _) = unsafe { values.align_to_mut::<u32>() };
    words
}

/// The memory of f32 as halves of their size.
fn as_halves_mut(values: &mut [f32]) -> &mut [u16] {
    // SAFETY: u16 needs less alignment than f32, and any bits are a value of either.
    let (_, halves, _) = unsafe { values.align_to_mut::<u16>() };
    halves
}
