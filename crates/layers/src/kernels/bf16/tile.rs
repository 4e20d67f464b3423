//! The products of pairs, held in registers: as the f32 tiles, with a `vdpbf16ps` where those have a multiplication.
//!
//! A *word* is two bf16: two channels of a pixel, or the same channel of two pixels. Each lane of an accumulator gets both
//! products of a word of x and a word of weights.

use std::arch::x86_64::*;

use super::Native;

pub(super) const LANES: usize = 16;
/// Vectors of outputs in a panel of packed weights.
const PANEL: usize = 2;

/// The panels that `width` outputs are cut into, as (first output, outputs, vectors).
pub(super) fn panels(width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..width).step_by(PANEL * LANES).map(move |first| {
        let outputs = (width - first).min(PANEL * LANES);
        (first, outputs, outputs.div_ceil(LANES))
    })
}

/// `y[line][column][o] = sum over taps and k of x[line][column][tap + k] * panel[tap][k][o]`, k in pairs.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub lines: usize,
    pub line: usize,
    pub x: *const u16,
    pub x_line: usize,
    pub x_step: usize,
    pub taps: &'a [usize],
    pub pairs: usize,
    pub panel: *const u32,
    pub vectors: usize,
    pub y: *mut f32,
    pub y_line: usize,
    pub y_step: usize,
    pub outputs: usize,
}

/// Computes all lines.
///
/// # Safety
/// For all lines, columns and taps, `2 * pairs` values can be read at `x[line * x_line + column * x_step + tap]`; the panel
/// holds `taps * pairs * vectors` vectors; `outputs` values, at most `vectors` vectors of them, can be written at
/// `y[line * y_line + column * y_step]`.
pub(super) unsafe fn rows(_: Native, rows: Rows<'_>) {
    // SAFETY: `Native` proves the instructions; the rest is the caller's promise, handed down.
    unsafe {
        if rows.vectors == PANEL {
            rows_of::<PANEL>(rows)
        } else {
            rows_of::<1>(rows)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_of<const N: usize>(all: Rows<'_>) {
    let mut line = 0;
    while line < all.lines {
        // Four columns would leave most registers empty, and read the panel for each line.
        let lines = if all.line == 4 && all.lines - line >= 2 {
            2
        } else {
            1
        };
        let mut column = 0;
        while column < all.line {
            let left = all.line - column;
            // SAFETY: lines and columns within what the caller vouches for.
            unsafe {
                let rest = Rows {
                    x: all.x.add(line * all.x_line + column * all.x_step),
                    y: all.y.add(line * all.y_line + column * all.y_step),
                    ..all
                };
                column += if lines == 2 {
                    some_rows::<2, 4, N>(rest)
                } else if left >= 20 || left == 12 {
                    some_rows::<1, 12, N>(rest)
                } else if left >= 8 {
                    some_rows::<1, 8, N>(rest)
                } else if left >= 4 {
                    some_rows::<1, 4, N>(rest)
                } else if left >= 2 {
                    some_rows::<1, 2, N>(rest)
                } else {
                    some_rows::<1, 1, N>(rest)
                };
            }
        }
        line += lines;
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn some_rows<const L: usize, const C: usize, const N: usize>(rows: Rows<'_>) -> usize {
    let mut sums = [[[_mm512_setzero_ps(); N]; C]; L];
    let mut panel = rows.panel;
    // SAFETY: every address is one that the caller of `rows` vouches for. Words of x need not be aligned.
    unsafe {
        for &tap in rows.taps {
            let mut x = rows.x.add(tap);
            for _ in 0..rows.pairs {
                let mut w = [bh(_mm512_setzero_si512()); N];
                for (j, w) in w.iter_mut().enumerate() {
                    *w = bh(_mm512_loadu_epi32(panel.add(j * LANES).cast()));
                }
                panel = panel.add(N * LANES);
                for (l, sums) in sums.iter_mut().enumerate() {
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let word = x.add(l * rows.x_line + c * rows.x_step);
                        let word = bh(_mm512_set1_epi32(word.cast::<i32>().read_unaligned()));
                        for (sum, &w) in sums.iter_mut().zip(&w) {
                            *sum = _mm512_dpbf16_ps(*sum, word, w);
                        }
                    }
                }
                x = x.wrapping_add(2);
            }
        }
        for (l, sums) in sums.into_iter().enumerate() {
            for (c, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    let to = rows.y.add(l * rows.y_line + c * rows.y_step + j * LANES);
                    _mm512_mask_storeu_ps(to, first(rows.outputs - j * LANES), sum);
                }
            }
        }
    }
    C
}

/// The products of a weight gradient: `dw[i][o] += sum over p of x[p][i] * dy[p][o]`, for pixels p in pairs, in lines of
/// `pairs` of them.
#[derive(Clone, Copy)]
pub(super) struct Outer {
    pub lines: usize,
    pub pairs: usize,
    pub x: *const u32,
    pub x_line: usize,
    pub x_step: usize,
    pub inputs: usize,
    pub dy: *const u32,
    pub dy_line: usize,
    pub dy_step: usize,
    pub outputs: usize,
    pub dw: *mut f32,
    pub dw_row: usize,
}

/// Adds all products, for one panel's worth of outputs.
///
/// # Safety
/// For all lines l and pairs p, `inputs` words can be read at `x[l * x_line + p * x_step]` and `outputs` words, at most a
/// panel's, at `dy[l * dy_line + p * dy_step]`; `outputs` values can be read and written at each of `inputs` rows of `dw`.
pub(super) unsafe fn outer(_: Native, all: Outer) {
    // SAFETY: `Native` proves the instructions; the rest is the caller's promise, handed down.
    unsafe {
        if all.outputs > LANES {
            outer_of::<PANEL>(all)
        } else {
            outer_of::<1>(all)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn outer_of<const N: usize>(all: Outer) {
    let mut done = 0;
    while done < all.inputs {
        let left = all.inputs - done;
        // SAFETY: inputs `done..` of what the caller vouches for.
        unsafe {
            let rest = Outer {
                x: all.x.add(done),
                dw: all.dw.add(done * all.dw_row),
                ..all
            };
            done += if left >= 20 || left == 12 {
                some_outer::<12, N>(rest)
            } else if left >= 8 {
                some_outer::<8, N>(rest)
            } else if left >= 4 {
                some_outer::<4, N>(rest)
            } else if left >= 2 {
                some_outer::<2, N>(rest)
            } else {
                some_outer::<1, N>(rest)
            };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn some_outer<const T: usize, const N: usize>(all: Outer) -> usize {
    let mut sums = [[_mm512_setzero_ps(); N]; T];
    let lanes: [__mmask16; N] = std::array::from_fn(|j| first(all.outputs - j * LANES));
    // SAFETY: every address is one that the caller of `outer` vouches for; masked lanes are neither read nor written.
    unsafe {
        for l in 0..all.lines {
            let (mut x, mut dy) = (all.x.add(l * all.x_line), all.dy.add(l * all.dy_line));
            for _ in 0..all.pairs {
                let mut d = [bh(_mm512_setzero_si512()); N];
                for (j, d) in d.iter_mut().enumerate() {
                    *d = bh(_mm512_maskz_loadu_epi32(
                        lanes[j],
                        dy.wrapping_add(j * LANES).cast(),
                    ));
                }
                for (t, sums) in sums.iter_mut().enumerate() {
                    let word = bh(_mm512_set1_epi32(x.add(t).read() as i32));
                    for (sum, &d) in sums.iter_mut().zip(&d) {
                        *sum = _mm512_dpbf16_ps(*sum, word, d);
                    }
                }
                x = x.wrapping_add(all.x_step);
                dy = dy.wrapping_add(all.dy_step);
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let to = all.dw.add(t * all.dw_row).wrapping_add(j * LANES);
                let before = _mm512_maskz_loadu_ps(lanes[j], to);
                _mm512_mask_storeu_ps(to, lanes[j], _mm512_add_ps(before, sum));
            }
        }
    }
    T
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn bh(words: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without any meaning of their own.
    unsafe { std::mem::transmute(words) }
}

/// A mask of the first `n` lanes; of all, if there are not so many.
#[inline]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(LANES)) - 1) as __mmask16
}
