//! Winograd's F(4x4, 3x3) for 3x3 convolutions of stride 1 (Lavin and Gray, arXiv:1509.09308): a tile of 4x4 outputs
//! from 6x6 inputs with 36 products per pair of channels where the definition has 144.
//!
//! With `Bt`, `G` and `At` below, and `.` element by element, for a tile d of x and a kernel g:
//!
//! ```text
//! y  = At [ sum over inputs of (G g Gt) . (Bt d B) ] A
//! dg = Gt [ sum over tiles  of (Bt d B) . (A dy At) ] G
//! ```
//!
//! The gradient of the input is the convolution of dy with the kernel turned by 180 degrees. The sums are 36 matrix
//! products of independent size, done by the same register tiles as everything else.
//!
//! The price is digits: the transforms multiply by up to 8 and the sums cancel. Measured with 64 and 256 channels, values
//! are off by up to 9e-6 of the largest, input gradients by 1.3e-5 and weight gradients by 4e-6, where sums in order are
//! off by 1e-7 to 1.3e-6; `errors_are_as_documented` measures it again.

mod tiling;
mod transforms;
mod weight_gradient;
mod weights;

use rayon::prelude::*;

use super::{
    ConvShape,
    simd::{Kernel, Level, Simd, dispatch},
    tile::{self, Rows},
};
use crate::buffer::Buffer;
use tiling::{POINTS, Points, Tiling, check_points};
use transforms::{InputTransform, OutputTransform, Transformed};
pub(crate) use weight_gradient::backward_weight;
use weights::transform_kernels;

/// `y = conv(x, weight)`, for 3x3 kernels, stride 1, one group and padding of at most 2.
pub(crate) fn forward(level: Level, shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let kernels = transform_kernels(level, weight, shape.ci, shape.co);
    let tiling = Tiling::new(
        [shape.h, shape.w, shape.ci],
        shape.padding,
        [shape.oh, shape.ow],
    );
    correlate(
        level,
        tiling,
        x,
        &kernels,
        [shape.oh, shape.ow, shape.co],
        y,
    );
}

/// `dx`, the gradient of the input.
pub(crate) fn backward_input(
    level: Level,
    shape: &ConvShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let mut turned = Buffer::brief(weight.len());
    let tap_len = shape.ci * shape.co;
    turned
        .par_chunks_mut(tap_len)
        .zip(weight.par_chunks(tap_len).rev())
        .for_each(|(turned, weight)| {
            for (o, turned) in turned.chunks_exact_mut(shape.ci).enumerate() {
                for (turned, weight) in turned.iter_mut().zip(weight[o..].iter().step_by(shape.co))
                {
                    *turned = *weight;
                }
            }
        });
    let kernels = transform_kernels(level, &turned, shape.co, shape.ci);
    let tiling = Tiling::new(
        [shape.oh, shape.ow, shape.co],
        2 - shape.padding,
        [shape.h, shape.w],
    );
    correlate(
        level,
        tiling,
        dy,
        &kernels,
        [shape.h, shape.w, shape.ci],
        dx,
    );
}

fn correlate(
    level: Level,
    tiling: Tiling,
    x: &[f32],
    kernels: &[f32],
    [oh, ow, co]: [usize; 3],
    y: &mut [f32],
) {
    let per_image = tiling.per_image();
    // Whole images are one piece of work, so that pieces write to separate memory; a piece is done in blocks. Each block
    // reads all transformed kernels: while these fit the second level of cache, blocks are small, so that their tiles
    // do too; when they do not, blocks are large, so that they are read seldom. No value depends on this cut, so it
    // may look at the number of threads.
    let block = if size_of_val(kernels) > 2 << 20 {
        96
    } else {
        let bytes_per_tile = POINTS * (tiling.channels + co) * size_of::<f32>();
        ((600 << 10) / bytes_per_tile).clamp(24, 96)
    };
    let batch = x.len() / tiling.image_len();
    let threads = rayon::current_num_threads();
    let pieces = batch
        .div_ceil((block / per_image).max(1))
        .next_multiple_of(threads);
    let images = batch.div_ceil(pieces);
    let tiles = images * per_image;
    let block = tiles
        .div_ceil(tiles.div_ceil(block))
        .next_multiple_of(4)
        .min(tiles);
    let v = Points::new(level, block, tiling.channels);
    let m = Points::new(level, block, co);
    let zeros = vec![0.0; v.channels];
    let pieces = y
        .par_chunks_mut(images * oh * ow * co)
        .zip(x.par_chunks(images * tiling.image_len()));
    pieces.for_each(|(y, x)| {
        let (mut v_values, mut m_values) = (Buffer::brief(v.len()), Buffer::brief(m.len()));
        let tiles = x.len() / tiling.image_len() * per_image;
        let mut first = 0;
        while first < tiles {
            let n = block.min(tiles - first);
            let to = Transformed {
                points: v,
                values: &mut v_values,
            };
            dispatch(
                level,
                InputTransform {
                    tiling,
                    x,
                    zeros: &zeros,
                    first,
                    n,
                    to,
                },
            );
            dispatch(
                level,
                Products {
                    n,
                    inputs: tiling.channels,
                    v,
                    x: &v_values,
                    kernels,
                    m,
                    y: &mut m_values,
                    co,
                },
            );
            dispatch(
                level,
                OutputTransform {
                    tiling,
                    m,
                    values: &m_values,
                    first,
                    n,
                    dims: [oh, ow, co],
                    y,
                },
            );
            first += n;
        }
    });
}

/// For each point, tiles times inputs times outputs.
struct Products<'a> {
    n: usize,
    inputs: usize,
    v: Points,
    x: &'a [f32],
    kernels: &'a [f32],
    m: Points,
    y: &'a mut [f32],
    co: usize,
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            n,
            inputs,
            v,
            x,
            kernels,
            m,
            y,
            co,
        } = self;
        check_points::<S>(&v, n, inputs, x.len());
        check_points::<S>(&m, n, co, y.len());
        assert!(kernels.len() >= POINTS * tile::packed_len(S::LANES, inputs, co));
        for point in 0..POINTS {
            for (first, _, vectors) in tile::panels(S::LANES, co) {
                let panel = first * POINTS * inputs + point * inputs * vectors * S::LANES;
                // SAFETY: the assertions saw n rows of `inputs` values in x and of whole vectors in y at each point, and
                // the panels' lengths add up to that of `kernels`.
                unsafe {
                    tile::rows(
                        s,
                        Rows {
                            n,
                            x: x.as_ptr().add(point * v.stride),
                            x_row: v.channels,
                            taps: &[0],
                            depth: inputs,
                            panel: kernels.as_ptr().add(panel),
                            vectors,
                            y: y.as_mut_ptr().add(point * m.stride + first),
                            y_row: m.channels,
                            outputs: vectors * S::LANES,
                        },
                    );
                }
            }
        }
    }
}
