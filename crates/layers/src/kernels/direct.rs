//! Convolution as sums of products over a zero-padded image: any kernel, stride, padding and groups.

use rayon::prelude::*;

use super::{
    ConvShape,
    simd::{Kernel, Level, Simd, dispatch},
    tile::{self, Outer, Rows},
};
use crate::buffer::Buffer;

/// `y = conv(x, weight)`.
pub(crate) fn forward(level: Level, shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let shape = &shape.flat();
    let (inputs, outputs) = shape.per_group();
    // With one group the taps of a kernel's row read consecutive values, and count as one tap of greater depth.
    let merged = shape.groups == 1;
    let (columns, depth) = if merged {
        (1, shape.kernel * inputs)
    } else {
        (shape.kernel, inputs)
    };
    let width = shape.w + 2 * shape.padding;
    let taps: Vec<usize> = (0..shape.kernel * columns)
        .map(|tap| ((tap / columns) * width + tap % columns) * shape.ci)
        .collect();
    let rows = taps.len() * depth;
    let lanes = level.lanes();
    let group_len = tile::packed_len(lanes, rows, outputs);
    let mut packed = Buffer::brief(group_len * shape.groups);
    packed
        .par_chunks_mut(group_len)
        .enumerate()
        .for_each(|(group, packed)| {
            tile::pack(
                lanes,
                rows,
                outputs,
                weight,
                1,
                |k| k * shape.co + group * outputs,
                packed,
            );
        });
    let packed = &packed[..];
    let images = y
        .par_chunks_mut(shape.oh * shape.ow * shape.co)
        .zip(x.par_chunks(shape.h * shape.w * shape.ci));
    images.for_each(|(y, x)| {
        let mut margin = None;
        let x = with_margin(
            x,
            [shape.h, shape.w, shape.ci],
            [shape.padding; 4],
            &mut margin,
        );
        for group in 0..shape.groups {
            dispatch(
                level,
                Correlate {
                    x,
                    x_start: group * inputs,
                    x_line: shape.stride * width * shape.ci,
                    x_step: shape.stride * shape.ci,
                    taps: &taps,
                    depth,
                    packed: &packed[group * group_len..][..group_len],
                    y: &mut *y,
                    y_start: group * outputs,
                    y_line: shape.ow * shape.co,
                    y_step: shape.co,
                    lines: shape.oh,
                    line: shape.ow,
                    outputs,
                },
            );
        }
    });
}

/// `dx`, the gradient of the input: a convolution of dy for each class of pixels, see [`InputPlan`].
pub(crate) fn backward_input(
    level: Level,
    shape: &ConvShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let shape = &shape.flat();
    let (inputs, outputs) = shape.per_group();
    let lanes = level.lanes();
    let InputPlan {
        margin: sides,
        width,
        parts,
    } = InputPlan::new(shape);
    let packed: Vec<(Buffer, usize)> = parts
        .par_iter()
        .map(|part| {
            let rows = part.taps.len() * outputs;
            let group_len = tile::packed_len(lanes, rows, inputs);
            let mut packed = Buffer::brief(group_len * shape.groups);
            for group in 0..shape.groups {
                // Row (tap, o) of this panel are the weights from every input to output o.
                let row = |k: usize| {
                    part.kernel_taps[k / outputs] * inputs * shape.co
                        + group * outputs
                        + k % outputs
                };
                let packed = &mut packed[group * group_len..][..group_len];
                tile::pack(lanes, rows, inputs, weight, shape.co, row, packed);
            }
            (packed, group_len)
        })
        .collect();

    let images = dx
        .par_chunks_mut(shape.h * shape.w * shape.ci)
        .zip(dy.par_chunks(shape.oh * shape.ow * shape.co));
    images.for_each(|(dx, dy)| {
        let mut margin = None;
        let dy = with_margin(dy, [shape.oh, shape.ow, shape.co], sides, &mut margin);
        for (part, (packed, group_len)) in parts.iter().zip(&packed) {
            for group in 0..shape.groups {
                dispatch(
                    level,
                    Correlate {
                        x: dy,
                        x_start: group * outputs,
                        x_line: width * shape.co,
                        x_step: shape.co,
                        taps: &part.taps,
                        depth: outputs,
                        packed: &packed[group * group_len..][..*group_len],
                        y: &mut *dx,
                        y_start: (part.y.first * shape.w + part.x.first) * shape.ci
                            + group * inputs,
                        y_line: shape.stride * shape.w * shape.ci,
                        y_step: shape.stride * shape.ci,
                        lines: part.y.len,
                        line: part.x.len,
                        outputs: inputs,
                    },
                );
            }
        }
    });
}

/// How the gradient of the input is computed.
///
/// With stride s, the pixels of `dx` fall into s * s classes by their position modulo s. The pixels of one class see
/// the same taps, at fixed distances in `dy`: each class is a convolution of `dy` of its own.
pub(super) struct InputPlan {
    /// Zeros that dy needs, `[top, bottom, left, right]`, and the pixels of a line with them.
    pub(super) margin: [usize; 4],
    width: usize,
    pub(super) parts: Vec<InputPart>,
}

/// One class of pixels.
pub(super) struct InputPart {
    pub(super) y: Class,
    pub(super) x: Class,
    /// Where each tap reads, from the place of the class's first pixel in dy and its margin.
    pub(super) taps: Vec<usize>,
    /// Which tap of the kernel that is.
    pub(super) kernel_taps: Vec<usize>,
}

impl InputPlan {
    pub(super) fn new(shape: &ConvShape) -> Self {
        let axis = |len: usize| -> Vec<Class> {
            (0..shape.stride.min(len))
                .map(|first| Class::new(shape, first, len))
                .collect()
        };
        let (classes_y, classes_x) = (axis(shape.h), axis(shape.w));
        // How far any class reaches beyond dy, on either side.
        let reach = |classes: &[Class], len: usize| {
            let low = classes
                .iter()
                .map(|class| -class.low())
                .max()
                .unwrap_or(0)
                .max(0) as usize;
            let high = classes
                .iter()
                .map(|class| class.high() - (len as isize - 1))
                .max()
                .unwrap_or(0)
                .max(0) as usize;
            (low, high)
        };
        let ((top, bottom), (left, right)) =
            (reach(&classes_y, shape.oh), reach(&classes_x, shape.ow));
        let width = shape.ow + left + right;
        let mut parts = vec![];
        for y in &classes_y {
            for x in &classes_x {
                let mut taps = vec![];
                let mut kernel_taps = vec![];
                for &(ky, oy) in &y.taps {
                    for &(kx, ox) in &x.taps {
                        let (oy, ox) =
                            ((oy + top as isize) as usize, (ox + left as isize) as usize);
                        taps.push((oy * width + ox) * shape.co);
                        kernel_taps.push(ky * shape.kernel + kx);
                    }
                }
                parts.push(InputPart {
                    y: y.clone(),
                    x: x.clone(),
                    taps,
                    kernel_taps,
                });
            }
        }
        Self {
            margin: [top, bottom, left, right],
            width,
            parts,
        }
    }
}

/// One class of positions `first + stride * j` of an axis of `dx`: which kernel taps reach it, and from where in `dy`
/// for j = 0.
#[derive(Clone)]
pub(super) struct Class {
    pub(super) first: usize,
    pub(super) len: usize,
    taps: Vec<(usize, isize)>,
}

impl Class {
    fn new(shape: &ConvShape, first: usize, len: usize) -> Self {
        let stride = shape.stride as isize;
        let distance = |k: usize| (first + shape.padding) as isize - k as isize;
        let reaches = |k: &usize| distance(*k).rem_euclid(stride) == 0;
        Self {
            first,
            len: (len - first).div_ceil(shape.stride),
            taps: (0..shape.kernel)
                .filter(reaches)
                .map(|k| (k, distance(k) / stride))
                .collect(),
        }
    }

    fn low(&self) -> isize {
        self.taps.iter().map(|&(_, from)| from).min().unwrap_or(0)
    }

    fn high(&self) -> isize {
        self.taps.iter().map(|&(_, from)| from).max().unwrap_or(0) + self.len as isize - 1
    }
}

/// `dw`, the gradient of the weight.
///
/// The batch is cut into a number of parts that the shape alone decides; each has its own sum, and sums are added in
/// order.
pub(crate) fn backward_weight(
    level: Level,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let shape = &shape.flat();
    let n_parts = if dw.len() <= 1 << 16 {
        16
    } else if dw.len() <= 1 << 18 {
        8
    } else {
        4
    };
    let images = shape.batch.div_ceil(n_parts);
    let (x_image, y_image) = (shape.h * shape.w * shape.ci, shape.oh * shape.ow * shape.co);
    let parts: Vec<Buffer> = x
        .par_chunks(images * x_image)
        .zip(dy.par_chunks(images * y_image))
        .map(|(x, dy)| {
            let mut part = Buffer::brief(dw.len());
            part.fill(0.0);
            let mut margin = None;
            for (x, dy) in x.chunks_exact(x_image).zip(dy.chunks_exact(y_image)) {
                let x = with_margin(
                    x,
                    [shape.h, shape.w, shape.ci],
                    [shape.padding; 4],
                    &mut margin,
                );
                dispatch(
                    level,
                    WeightGradient {
                        shape,
                        x,
                        dy,
                        dw: &mut part,
                    },
                );
            }
            part
        })
        .collect();
    const CHUNK: usize = 1 << 13;
    dw.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, dw)| {
            let from = chunk * CHUNK;
            dw.fill(0.0);
            for part in &parts {
                for (dw, part) in dw.iter_mut().zip(&part[from..]) {
                    *dw += part;
                }
            }
        });
}

/// `y[line][pixel][o] = sum over taps and k of x[pixel + tap + k] * packed[(tap, k)][o]`
struct Correlate<'a> {
    x: &'a [f32],
    x_start: usize,
    x_line: usize,
    x_step: usize,
    taps: &'a [usize],
    depth: usize,
    packed: &'a [f32],
    y: &'a mut [f32],
    y_start: usize,
    y_line: usize,
    y_step: usize,
    lines: usize,
    line: usize,
    outputs: usize,
}

impl Kernel for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.lines == 0 || self.line == 0 {
            return;
        }
        let rows = self.taps.len() * self.depth;
        let last = |start: usize, line: usize, step: usize| {
            start + (self.lines - 1) * line + (self.line - 1) * step
        };
        if let Some(&tap) = self.taps.iter().max() {
            assert!(
                last(self.x_start, self.x_line, self.x_step) + tap + self.depth <= self.x.len()
            );
        }
        assert!(last(self.y_start, self.y_line, self.y_step) + self.outputs <= self.y.len());
        assert!(tile::packed_len(S::LANES, rows, self.outputs) <= self.packed.len());
        for (first, outputs, vectors) in tile::panels(S::LANES, self.outputs) {
            for line in 0..self.lines {
                // SAFETY: the assertions above bound the last pixel of the last line, its last tap and depth, and the
                // last output; all other addresses lie before them. Pixels without taps read nothing and become 0.
                unsafe {
                    tile::rows(
                        simd,
                        Rows {
                            n: self.line,
                            x: self.x.as_ptr().add(self.x_start + line * self.x_line),
                            x_row: self.x_step,
                            taps: self.taps,
                            depth: self.depth,
                            panel: self.packed.as_ptr().add(first * rows),
                            vectors,
                            y: self
                                .y
                                .as_mut_ptr()
                                .add(self.y_start + line * self.y_line + first),
                            y_row: self.y_step,
                            outputs,
                        },
                    );
                }
            }
        }
    }
}

/// Adds one image's share to `dw`.
struct WeightGradient<'a> {
    shape: &'a ConvShape,
    /// With its margin of zeros.
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'a mut [f32],
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = self.shape;
        let (inputs, outputs) = shape.per_group();
        let (height, width) = (shape.h + 2 * shape.padding, shape.w + 2 * shape.padding);
        assert!((shape.oh - 1) * shape.stride + shape.kernel <= height);
        assert!((shape.ow - 1) * shape.stride + shape.kernel <= width);
        assert_eq!(self.x.len(), height * width * shape.ci);
        assert_eq!(self.dy.len(), shape.oh * shape.ow * shape.co);
        assert_eq!(self.dw.len(), shape.weight_len());
        // As in `forward`: with one group, a row of the kernel counts as one tap.
        let (columns, depth) = if shape.groups == 1 {
            (1, shape.kernel * inputs)
        } else {
            (shape.kernel, inputs)
        };
        // About 128 pixels: what they need of x and dy stays in the first level of cache.
        let lines = (128 / shape.ow).clamp(1, shape.oh);
        let mut first_line = 0;
        while first_line < shape.oh {
            let lines = lines.min(shape.oh - first_line);
            for group in 0..shape.groups {
                for (first, outputs_of_panel, _) in tile::panels(S::LANES, outputs) {
                    let output = group * outputs + first;
                    for tap in 0..shape.kernel * columns {
                        let (ky, kx) = (tap / columns, tap % columns);
                        let x = ((first_line * shape.stride + ky) * width + kx) * shape.ci
                            + group * inputs;
                        // SAFETY: the assertions above say that the last pixel's last tap lies in x; `depth` values
                        // from a tap are the rest of a kernel's row, or a group's channels. dw holds kernel * columns
                        // blocks of depth rows of co values, of which this is block `tap`, from `output` on.
                        unsafe {
                            tile::outer(
                                simd,
                                Outer {
                                    lines,
                                    line: shape.ow,
                                    x: self.x.as_ptr().add(x),
                                    x_line: shape.stride * width * shape.ci,
                                    x_step: shape.stride * shape.ci,
                                    inputs: depth,
                                    dy: self
                                        .dy
                                        .as_ptr()
                                        .add(first_line * shape.ow * shape.co + output),
                                    dy_line: shape.ow * shape.co,
                                    dy_step: shape.co,
                                    outputs: outputs_of_panel,
                                    dw: self.dw.as_mut_ptr().add(tap * depth * shape.co + output),
                                    dw_row: shape.co,
                                },
                            );
                        }
                    }
                }
            }
            first_line += lines;
        }
    }
}

/// The image with zeros around it, `[top, bottom, left, right]` pixels of them, in `buffer`; the image itself if none.
fn with_margin<'a>(
    image: &'a [f32],
    [h, w, channels]: [usize; 3],
    [top, bottom, left, right]: [usize; 4],
    buffer: &'a mut Option<Buffer>,
) -> &'a [f32] {
    if [top, bottom, left, right] == [0; 4] {
        return image;
    }
    let line = (left + w + right) * channels;
    let padded = buffer.get_or_insert_with(|| Buffer::brief((top + h + bottom) * line));
    padded[..top * line].fill(0.0);
    padded[(top + h) * line..].fill(0.0);
    let lines = padded[top * line..].chunks_exact_mut(line);
    for (to, from) in lines.zip(image.chunks_exact(w * channels)) {
        to[..left * channels].fill(0.0);
        to[left * channels..(left + w) * channels].copy_from_slice(from);
        to[(left + w) * channels..].fill(0.0);
    }
    padded
}
