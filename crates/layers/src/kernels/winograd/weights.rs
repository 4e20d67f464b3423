//! Kernels, transformed.

use rayon::prelude::*;

use super::tiling::{IN, POINTS};
use crate::{
    buffer::Buffer,
    kernels::{
        simd::{Kernel, Level, Simd, dispatch},
        tile::{self, lanes_of},
    },
};

/// `G g Gt` for every pair of channels, as `[panel][point][input][output]`.
pub(super) fn transform_kernels(
    level: Level,
    weight: &[f32],
    inputs: usize,
    outputs: usize,
) -> Buffer {
    let lanes = level.lanes();
    let mut kernels = Buffer::brief(POINTS * tile::packed_len(lanes, inputs, outputs));
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
