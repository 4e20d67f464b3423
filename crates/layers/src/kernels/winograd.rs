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
//! The price is digits: the transforms multiply by up to 8 and the sums cancel. Measured on unit normal data the error
//! is some 1e-6 of the largest value against 2e-7 for sums in order; tests hold it to 1e-5... see `tests/reference.rs`.

use rayon::prelude::*;

use super::{
    ConvShape,
    simd::{Kernel, Level, Simd, dispatch},
    tile::{self, Outer, Rows, lanes_of},
};
use crate::buffer::Buffer;

/// Outputs of a tile, along one axis.
const OUT: usize = 4;
/// Inputs of a tile, along one axis.
const IN: usize = 6;
/// Elements of a transformed tile, and so the number of matrix products.
const POINTS: usize = IN * IN;

/// `Bt d`
#[inline(always)]
fn bt<S: Simd>(s: S, d: [S::V; IN]) -> [S::V; IN] {
    let (four, minus_four, minus_five, two) =
        (s.splat(4.0), s.splat(-4.0), s.splat(-5.0), s.splat(2.0));
    let even = s.mul_add(minus_four, d[2], d[4]);
    let odd = s.mul_add(minus_four, d[1], d[3]);
    let difference = s.sub(d[4], d[2]);
    let twice = s.mul(two, s.sub(d[3], d[1]));
    [
        s.mul_add(four, d[0], s.mul_add(minus_five, d[2], d[4])),
        s.add(even, odd),
        s.sub(even, odd),
        s.add(difference, twice),
        s.sub(difference, twice),
        s.mul_add(four, d[1], s.mul_add(minus_five, d[3], d[5])),
    ]
}

/// `At m`
#[inline(always)]
fn at<S: Simd>(s: S, m: [S::V; IN]) -> [S::V; OUT] {
    let (sum1, difference1) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(sum1, sum2)),
        s.mul_add(s.splat(2.0), difference2, difference1),
        s.mul_add(s.splat(4.0), sum2, sum1),
        s.add(m[5], s.mul_add(s.splat(8.0), difference2, difference1)),
    ]
}

/// `A y`
#[inline(always)]
fn a<S: Simd>(s: S, y: [S::V; OUT]) -> [S::V; IN] {
    let (even, odd) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
    let even2 = s.mul_add(s.splat(4.0), y[2], y[0]);
    let odd2 = s.mul(s.splat(2.0), s.mul_add(s.splat(4.0), y[3], y[1]));
    [
        y[0],
        s.add(even, odd),
        s.sub(even, odd),
        s.add(even2, odd2),
        s.sub(even2, odd2),
        y[3],
    ]
}

/// `G g`
#[inline(always)]
fn g_of<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; IN] {
    let (sixth, minus_sixth) = (s.splat(1.0 / 6.0), s.splat(-1.0 / 6.0));
    let (twelfth, twenty_fourth) = (s.splat(1.0 / 12.0), s.splat(1.0 / 24.0));
    let outer = s.mul(minus_sixth, s.add(g[0], g[2]));
    let wide = s.mul_add(twenty_fourth, g[0], s.mul(sixth, g[2]));
    [
        s.mul(s.splat(0.25), g[0]),
        s.mul_add(minus_sixth, g[1], outer),
        s.mul_add(sixth, g[1], outer),
        s.mul_add(twelfth, g[1], wide),
        s.sub(wide, s.mul(twelfth, g[1])),
        g[2],
    ]
}

/// `Gt u`
#[inline(always)]
fn gt<S: Simd>(s: S, u: [S::V; IN]) -> [S::V; 3] {
    let (sum1, difference1) = (s.add(u[1], u[2]), s.sub(u[2], u[1]));
    let (sum2, difference2) = (s.add(u[3], u[4]), s.sub(u[3], u[4]));
    let (sixth, minus_sixth) = (s.splat(1.0 / 6.0), s.splat(-1.0 / 6.0));
    let centre = s.mul(minus_sixth, sum1);
    [
        s.mul_add(
            s.splat(0.25),
            u[0],
            s.mul_add(s.splat(1.0 / 24.0), sum2, centre),
        ),
        s.mul_add(sixth, difference1, s.mul(s.splat(1.0 / 12.0), difference2)),
        s.add(u[5], s.mul_add(sixth, sum2, centre)),
    ]
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
    let mut turned = Buffer::for_overwrite(weight.len());
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

/// `G g Gt` for every pair of channels, as `[panel][point][input][output]`.
fn transform_kernels(level: Level, weight: &[f32], inputs: usize, outputs: usize) -> Buffer {
    let lanes = level.lanes();
    let mut kernels = Buffer::for_overwrite(POINTS * tile::packed_len(lanes, inputs, outputs));
    let panel_len = POINTS * inputs * tile::PANEL * lanes;
    kernels
        .par_chunks_mut(panel_len)
        .enumerate()
        .for_each(|(panel, kernels)| {
            dispatch(
                level,
                KernelTransform {
                    weight,
                    inputs,
                    outputs,
                    first: panel * tile::PANEL * lanes,
                    kernels,
                },
            );
        });
    kernels
}

struct KernelTransform<'a> {
    weight: &'a [f32],
    inputs: usize,
    outputs: usize,
    /// The panel's first output.
    first: usize,
    kernels: &'a mut [f32],
}

impl Kernel for KernelTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            weight,
            inputs,
            outputs,
            first,
            kernels,
        } = self;
        let width = kernels.len() / (POINTS * inputs);
        assert!(
            weight.len() == 9 * inputs * outputs
                && width.is_multiple_of(S::LANES)
                && first < outputs
        );
        for i in 0..inputs {
            for j in 0..width / S::LANES {
                let lanes = lanes_of::<S>(j, outputs - first);
                let from = i * outputs + (first + j * S::LANES).min(outputs - 1);
                // Columns first: t[point down][kx], then along the rows.
                let mut t = [[s.splat(0.0); 3]; IN];
                for kx in 0..3 {
                    let tap = |ky: usize| (ky * 3 + kx) * inputs * outputs + from;
                    // SAFETY: `lanes` outputs from `from` on lie in row i of each of the 9 taps.
                    let g = [0, 1, 2]
                        .map(|ky| unsafe { s.load_first(lanes, weight.as_ptr().add(tap(ky))) });
                    for (t, u) in t.iter_mut().zip(g_of(s, g)) {
                        t[kx] = u;
                    }
                }
                for (down, t) in t.into_iter().enumerate() {
                    for (across, u) in g_of(s, t).into_iter().enumerate() {
                        let to = ((down * IN + across) * inputs + i) * width + j * S::LANES;
                        // SAFETY: `to` is vector j of row i of a point; the panel holds 36 points of `inputs` rows.
                        unsafe { s.store(u, kernels.as_mut_ptr().add(to)) };
                    }
                }
            }
        }
    }
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
    // Whole images are one piece of work, so that pieces write to separate memory: enough of them for the register tiles
    // to have rows. A piece is done in blocks whose transformed tiles stay in the second level of cache.
    let images = 32usize.div_ceil(per_image);
    let bytes_per_tile = POINTS * (tiling.channels + co) * size_of::<f32>();
    let block = ((600 << 10) / bytes_per_tile / 12 * 12)
        .clamp(24, 96)
        .min(images * per_image);
    let v = Points::new(level, block, tiling.channels);
    let m = Points::new(level, block, co);
    let zeros = vec![0.0; v.channels];
    let pieces = y
        .par_chunks_mut(images * oh * ow * co)
        .zip(x.par_chunks(images * tiling.image_len()));
    pieces.for_each(|(y, x)| {
        let (mut v_values, mut m_values) = (
            Buffer::for_overwrite(v.len()),
            Buffer::for_overwrite(m.len()),
        );
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

struct Transformed<'a> {
    points: Points,
    values: &'a mut [f32],
}

/// `Bt d B` of `n` tiles from `first` on.
struct InputTransform<'a> {
    tiling: Tiling,
    x: &'a [f32],
    zeros: &'a [f32],
    first: usize,
    n: usize,
    to: Transformed<'a>,
}

impl Kernel for InputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            x,
            zeros,
            first,
            n,
            to,
        } = self;
        let channels = tiling.channels;
        check_points::<S>(&to.points, n, channels, to.values.len());
        assert!(zeros.len() >= channels);
        for t in 0..n {
            let pixels = tiling.pixels::<IN>(first + t, x, zeros);
            for c in (0..channels).step_by(S::LANES) {
                let lanes = (channels - c).min(S::LANES);
                let mut z = [[s.splat(0.0); IN]; IN];
                for j in 0..IN {
                    // SAFETY: each pixel is a slice of `channels` values, of the image or of `zeros`.
                    let d = std::array::from_fn(|i| unsafe {
                        load::<S>(s, lanes, pixels[i][j].add(c))
                    });
                    for (z, d) in z.iter_mut().zip(bt(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate() {
                    for (j, v) in bt(s, z).into_iter().enumerate() {
                        let at = (i * IN + j) * to.points.stride + t * to.points.channels + c;
                        // SAFETY: `check_points` saw room for n tiles of whole vectors at each point.
                        unsafe { s.store(v, to.values.as_mut_ptr().add(at)) };
                    }
                }
            }
        }
    }
}

/// `A dy At` of `n` tiles from `first` on.
struct GradientTransform<'a> {
    tiling: Tiling,
    dy: &'a [f32],
    zeros: &'a [f32],
    first: usize,
    n: usize,
    to: Transformed<'a>,
}

impl Kernel for GradientTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            dy,
            zeros,
            first,
            n,
            to,
        } = self;
        let channels = tiling.channels;
        check_points::<S>(&to.points, n, channels, to.values.len());
        assert!(zeros.len() >= channels);
        for t in 0..n {
            let pixels = tiling.pixels::<OUT>(first + t, dy, zeros);
            for c in (0..channels).step_by(S::LANES) {
                let lanes = (channels - c).min(S::LANES);
                let mut z = [[s.splat(0.0); OUT]; IN];
                for j in 0..OUT {
                    // SAFETY: each pixel is a slice of `channels` values, of the image or of `zeros`.
                    let d = std::array::from_fn(|i| unsafe {
                        load::<S>(s, lanes, pixels[i][j].add(c))
                    });
                    for (z, d) in z.iter_mut().zip(a(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate() {
                    for (j, w) in a(s, z).into_iter().enumerate() {
                        let at = (i * IN + j) * to.points.stride + t * to.points.channels + c;
                        // SAFETY: `check_points` saw room for n tiles of whole vectors at each point.
                        unsafe { s.store(w, to.values.as_mut_ptr().add(at)) };
                    }
                }
            }
        }
    }
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

/// `At m A` of `n` tiles from `first` on, as far as they lie in the image.
struct OutputTransform<'a> {
    tiling: Tiling,
    m: Points,
    values: &'a [f32],
    first: usize,
    n: usize,
    dims: [usize; 3],
    y: &'a mut [f32],
}

impl Kernel for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            tiling,
            m,
            values,
            first,
            n,
            dims: [oh, ow, co],
            y,
        } = self;
        check_points::<S>(&m, n, co, values.len());
        for t in 0..n {
            let (image, row, column) = tiling.place(first + t);
            let y = &mut y[image * oh * ow * co..][..oh * ow * co];
            let (rows, columns) = (OUT.min(oh - row * OUT), OUT.min(ow - column * OUT));
            for c in (0..co).step_by(S::LANES) {
                let lanes = (co - c).min(S::LANES);
                let mut z = [[s.splat(0.0); IN]; OUT];
                for j in 0..IN {
                    let at_point = |i: usize| (i * IN + j) * m.stride + t * m.channels + c;
                    // SAFETY: `check_points` saw n tiles of whole vectors at each point.
                    let d = std::array::from_fn(|i| unsafe {
                        s.load(values.as_ptr().add(at_point(i)))
                    });
                    for (z, d) in z.iter_mut().zip(at(s, d)) {
                        z[j] = d;
                    }
                }
                for (i, z) in z.into_iter().enumerate().take(rows) {
                    let line = &mut y[((row * OUT + i) * ow + column * OUT) * co..][..columns * co];
                    for (j, value) in at(s, z).into_iter().enumerate().take(columns) {
                        // SAFETY: `lanes` of the channels from c on lie in pixel j of the line.
                        unsafe {
                            let to = line.as_mut_ptr().add(j * co + c);
                            if lanes == S::LANES {
                                s.store(value, to)
                            } else {
                                s.store_first(lanes, value, to)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `dw`, the gradient of the weight.
///
/// The batch is walked in blocks. In each, tiles are transformed, images in parallel; then the 36 products over tiles
/// are added up, points in parallel. So there is one sum per weight, in the order of tiles.
pub(crate) fn backward_weight(
    level: Level,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let &ConvShape { ci, co, .. } = shape;
    let x_tiling = Tiling::new([shape.h, shape.w, ci], shape.padding, [shape.oh, shape.ow]);
    let dy_tiling = Tiling::new([shape.oh, shape.ow, co], 0, [shape.oh, shape.ow]);
    let per_image = x_tiling.per_image();
    let group = 32usize.div_ceil(per_image); // images that are transformed as one piece of work
    let (v, w) = (
        Points::new(level, group * per_image, ci),
        Points::new(level, group * per_image, co),
    );
    let group_len = v.len() + w.len();
    let groups =
        ((6 << 20) / (group_len * size_of::<f32>())).clamp(2, shape.batch.div_ceil(group).max(2));
    let mut tiles = Buffer::for_overwrite(groups * group_len);
    let zeros = vec![0.0; v.channels.max(w.channels)];
    let mut sums = Buffer::for_overwrite(POINTS * ci * co);
    sums.fill(0.0);

    let blocks = x
        .chunks(groups * group * x_tiling.image_len())
        .zip(dy.chunks(groups * group * dy_tiling.image_len()));
    for (x, dy) in blocks {
        let pieces = x
            .par_chunks(group * x_tiling.image_len())
            .zip(dy.par_chunks(group * dy_tiling.image_len()));
        pieces
            .zip(tiles.par_chunks_mut(group_len))
            .for_each(|((x, dy), tiles)| {
                let (v_values, w_values) = tiles.split_at_mut(v.len());
                let n = x.len() / x_tiling.image_len() * per_image;
                let to = Transformed {
                    points: v,
                    values: v_values,
                };
                dispatch(
                    level,
                    InputTransform {
                        tiling: x_tiling,
                        x,
                        zeros: &zeros,
                        first: 0,
                        n,
                        to,
                    },
                );
                let to = Transformed {
                    points: w,
                    values: w_values,
                };
                dispatch(
                    level,
                    GradientTransform {
                        tiling: dy_tiling,
                        dy,
                        zeros: &zeros,
                        first: 0,
                        n,
                        to,
                    },
                );
            });
        let n_tiles = x.len() / x_tiling.image_len() * per_image;
        sums.par_chunks_mut(ci * co)
            .enumerate()
            .for_each(|(point, sums)| {
                dispatch(
                    level,
                    PointGradient {
                        point,
                        n_tiles,
                        per_group: group * per_image,
                        v,
                        w,
                        ci,
                        co,
                        tiles: &tiles,
                        sums,
                    },
                );
            });
    }

    // Back from 36 points to 9 taps: by input, in parallel, and then into the order of weights.
    let mut by_input = Buffer::for_overwrite(9 * ci * co);
    by_input
        .par_chunks_mut(9 * co)
        .enumerate()
        .for_each(|(input, taps)| {
            dispatch(
                level,
                KernelGradient {
                    input,
                    ci,
                    co,
                    sums: &sums,
                    taps,
                },
            );
        });
    dw.par_chunks_mut(ci * co)
        .enumerate()
        .for_each(|(tap, dw)| {
            for (dw, taps) in dw.chunks_exact_mut(co).zip(by_input.chunks_exact(9 * co)) {
                dw.copy_from_slice(&taps[tap * co..][..co]);
            }
        });
}

/// Adds the products of one point over all tiles of a block.
struct PointGradient<'a> {
    point: usize,
    n_tiles: usize,
    per_group: usize,
    v: Points,
    w: Points,
    ci: usize,
    co: usize,
    tiles: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for PointGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            point,
            n_tiles,
            per_group,
            v,
            w,
            ci,
            co,
            tiles,
            sums,
        } = self;
        assert_eq!(sums.len(), ci * co);
        for (group, tiles) in tiles.chunks_exact(v.len() + w.len()).enumerate() {
            let Some(left) = n_tiles
                .checked_sub(group * per_group)
                .filter(|&left| left > 0)
            else {
                break;
            };
            let n = per_group.min(left);
            let (v_values, w_values) = tiles.split_at(v.len());
            check_points::<S>(&v, n, ci, v_values.len());
            check_points::<S>(&w, n, co, w_values.len());
            for (first, outputs, _) in tile::panels(S::LANES, co) {
                // SAFETY: the assertions saw n rows of ci and co values at each point, and ci rows of co sums.
                unsafe {
                    tile::outer(
                        s,
                        Outer {
                            lines: 1,
                            line: n,
                            x: v_values.as_ptr().add(point * v.stride),
                            x_line: 0,
                            x_step: v.channels,
                            inputs: ci,
                            dy: w_values.as_ptr().add(point * w.stride + first),
                            dy_line: 0,
                            dy_step: w.channels,
                            outputs,
                            dw: sums.as_mut_ptr().add(first),
                            dw_row: co,
                        },
                    );
                }
            }
        }
    }
}

/// `Gt u G` for one input and all outputs.
struct KernelGradient<'a> {
    input: usize,
    ci: usize,
    co: usize,
    sums: &'a [f32],
    taps: &'a mut [f32],
}

impl Kernel for KernelGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            input,
            ci,
            co,
            sums,
            taps,
        } = self;
        assert!(sums.len() == POINTS * ci * co && taps.len() == 9 * co && input < ci);
        for c in (0..co).step_by(S::LANES) {
            let lanes = (co - c).min(S::LANES);
            let mut z = [[s.splat(0.0); IN]; 3];
            for j in 0..IN {
                let at_point = |i: usize| ((i * IN + j) * ci + input) * co + c;
                // SAFETY: `lanes` outputs from c on lie in row `input` of each point.
                let u = std::array::from_fn(|i| unsafe {
                    load::<S>(s, lanes, sums.as_ptr().add(at_point(i)))
                });
                for (z, u) in z.iter_mut().zip(gt(s, u)) {
                    z[j] = u;
                }
            }
            for (ky, z) in z.into_iter().enumerate() {
                for (kx, value) in gt(s, z).into_iter().enumerate() {
                    // SAFETY: `lanes` outputs from c on lie in each of 9 taps.
                    unsafe {
                        s.store_first(lanes, value, taps.as_mut_ptr().add((ky * 3 + kx) * co + c))
                    };
                }
            }
        }
    }
}

/// Panics unless `len` values hold `n` tiles at every point, and a tile whole vectors of its channels.
#[inline(always)]
fn check_points<S: Simd>(points: &Points, n: usize, channels: usize, len: usize) {
    assert!(channels.next_multiple_of(S::LANES) <= points.channels);
    assert!(n * points.channels <= points.stride && POINTS * points.stride <= len);
}

/// # Safety
/// `lanes` values, at most a vector, can be read from `from`.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, lanes: usize, from: *const f32) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        if lanes == S::LANES {
            s.load(from)
        } else {
            s.load_first(lanes, from)
        }
    }
}
