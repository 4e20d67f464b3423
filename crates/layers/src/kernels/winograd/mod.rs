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
use transforms::{InputTransform, OutputTransform, Transformed};
pub(crate) use weight_gradient::backward_weight;
use weights::transform_kernels;

/// Outputs of a tile, along one axis.
const OUT: usize = 4;
/// Inputs of a tile, along one axis.
const IN: usize = 6;
/// Elements of a transformed tile, and so the number of matrix products.
const POINTS: usize = IN * IN;

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

/// The tiles of a batch of images: how the side that is cut into 4x4 is covered, and where the values of each tile lie
/// in the image that is read.
#[derive(Clone, Copy)]
struct Tiling {
    /// Height and width of the image that is read, and its channels.
    h: usize,
    w: usize,
    channels: usize,
    /// Zeros around it, at the top and at the left.
    padding: usize,
    /// Tiles down and across.
    down: usize,
    across: usize,
}

impl Tiling {
    fn new([h, w, channels]: [usize; 3], padding: usize, [oh, ow]: [usize; 2]) -> Self {
        Self {
            h,
            w,
            channels,
            padding,
            down: oh.div_ceil(OUT),
            across: ow.div_ceil(OUT),
        }
    }

    fn per_image(&self) -> usize {
        self.down * self.across
    }

    fn image_len(&self) -> usize {
        self.h * self.w * self.channels
    }

    /// The tile's image, and its row and column of tiles.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let in_image = tile % self.per_image();
        (
            tile / self.per_image(),
            in_image / self.across,
            in_image % self.across,
        )
    }

    /// Where the pixels of a tile lie in `images`, row by row; those outside the image lie in `zeros`.
    #[inline(always)]
    fn pixels<const SIDE: usize>(
        &self,
        tile: usize,
        images: &[f32],
        zeros: &[f32],
    ) -> [[*const f32; SIDE]; SIDE] {
        let (image, row, column) = self.place(tile);
        let image = &images[image * self.image_len()..][..self.image_len()];
        let mut pixels = [[zeros.as_ptr(); SIDE]; SIDE];
        for (i, pixels) in pixels.iter_mut().enumerate() {
            let Some(y) = (row * OUT + i)
                .checked_sub(self.padding)
                .filter(|&y| y < self.h)
            else {
                continue;
            };
            let line = &image[y * self.w * self.channels..][..self.w * self.channels];
            for (j, pixel) in pixels.iter_mut().enumerate() {
                let x = (column * OUT + j)
                    .checked_sub(self.padding)
                    .filter(|&x| x < self.w);
                if let Some(x) = x {
                    *pixel = line[x * self.channels..][..self.channels].as_ptr();
                }
            }
        }
        pixels
    }
}

/// Transformed tiles, `[point][tile][channel]`. Channels are filled up to whole vectors; points are one cache line
/// further apart than they need be, because at distances of a power of two all 36 would compete for the same cache sets.
#[derive(Clone, Copy)]
struct Points {
    channels: usize,
    stride: usize,
}

impl Points {
    fn new(level: Level, tiles: usize, channels: usize) -> Self {
        let channels = channels.next_multiple_of(level.lanes());
        Self {
            channels,
            stride: tiles * channels + 16,
        }
    }

    fn len(&self) -> usize {
        POINTS * self.stride
    }
}

/// Panics unless `len` values hold `n` tiles at every point, and a tile whole vectors of its channels.
#[inline(always)]
fn check_points<S: Simd>(points: &Points, n: usize, channels: usize, len: usize) {
    assert!(channels.next_multiple_of(S::LANES) <= points.channels);
    assert!(n * points.channels <= points.stride && POINTS * points.stride <= len);
}
