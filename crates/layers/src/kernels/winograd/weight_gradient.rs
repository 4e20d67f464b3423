//! The gradient of the weight by Winograd's way.

use rayon::prelude::*;

use super::{
    tiling::{IN, POINTS, Points, Tiling, check_points},
    transforms::{GradientTransform, InputTransform, Transformed, load},
};
use crate::{
    buffer::Buffer,
    kernels::{
        ConvShape,
        simd::{Kernel, Level, Simd, dispatch},
        tile::{self, Outer},
    },
};

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

    to_taps(level, [ci, co], &sums, dw);
}

/// Back from 36 points to 9 taps: by input, in parallel, and then into the order of weights.
fn to_taps(level: Level, [ci, co]: [usize; 2], sums: &[f32], dw: &mut [f32]) {
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
                    sums,
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
