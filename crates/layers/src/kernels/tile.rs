//! The two products that every dense convolution comes down to, held in registers.
//!
//! Output channels lie along vectors. Weights are packed into *panels* two vectors wide: all taps and input channels of
//! those outputs in the order of use, zeros beyond the last channel. The last panel is one vector wide if that will do.

use super::simd::Simd;

/// Vectors in a panel.
pub(crate) const PANEL: usize = 2;

/// The panels that `width` outputs are cut into, as (first output, outputs, vectors).
#[inline(always)]
pub(crate) fn panels(
    lanes: usize,
    width: usize,
) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    let wide = PANEL * lanes;
    (0..width.div_ceil(wide)).map(move |panel| {
        let first = panel * wide;
        let outputs = wide.min(width - first);
        (first, outputs, outputs.div_ceil(lanes))
    })
}

/// How long `depth` rows of weights are once packed. A panel that begins at output `first` begins at `first * depth`.
pub(crate) fn packed_len(lanes: usize, depth: usize, width: usize) -> usize {
    width.next_multiple_of(lanes) * depth
}

/// Packs rows of `width` weights; row `k` begins at `row(k)`, and its values are `step` apart.
pub(crate) fn pack(
    lanes: usize,
    depth: usize,
    width: usize,
    weight: &[f32],
    step: usize,
    row: impl Fn(usize) -> usize,
    packed: &mut [f32],
) {
    for (first, outputs, vectors) in panels(lanes, width) {
        let panel = &mut packed[first * depth..][..depth * vectors * lanes];
        for (k, to) in panel.chunks_exact_mut(vectors * lanes).enumerate() {
            let from = &weight[row(k) + first * step..];
            for (to, from) in to.iter_mut().zip(from.iter().step_by(step)).take(outputs) {
                *to = *from;
            }
            to[outputs..].fill(0.0);
        }
    }
}

/// What a run of output rows needs: `y[t][o] = sum over taps and k of x[t * x_row + tap + k] * panel[(tap, k)][o]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub n: usize,
    pub x: *const f32,
    pub x_row: usize,
    pub taps: &'a [usize],
    pub depth: usize,
    pub panel: *const f32,
    pub vectors: usize,
    pub y: *mut f32,
    pub y_row: usize,
    pub outputs: usize,
}

/// Computes all rows.
///
/// # Safety
/// For all t below n, all taps and all k below depth, `x[t * x_row + tap + k]` can be read; the panel holds
/// `taps * depth * vectors` vectors; `outputs` values, at most `vectors` vectors of them, can be written at
/// `y[t * y_row]`.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd>(simd: S, rows: Rows<'_>) {
    // SAFETY: the caller's promise, handed down.
    unsafe {
        if rows.vectors == PANEL {
            rows_of::<S, PANEL>(simd, rows)
        } else {
            rows_of::<S, 1>(simd, rows)
        }
    }
}

#[inline(always)]
unsafe fn rows_of<S: Simd, const N: usize>(simd: S, all: Rows<'_>) {
    let mut done = 0;
    while done < all.n {
        let left = all.n - done;
        // SAFETY: rows `done..` of what the caller vouches for.
        unsafe {
            let rest = Rows {
                x: all.x.add(done * all.x_row),
                y: all.y.add(done * all.y_row),
                ..all
            };
            // Twenty are better done as 12 + 8 than as 12 + 4 + 4, sixteen as 8 + 8 than as 12 + 4.
            done += if S::ROWS >= 12 && (left >= 20 || left == 12) {
                some_rows::<S, 12, N>(simd, rest)
            } else if S::ROWS >= 8 && left >= 8 {
                some_rows::<S, 8, N>(simd, rest)
            } else if S::ROWS >= 6 && (left == 6 || left >= 10) {
                some_rows::<S, 6, N>(simd, rest)
            } else if left >= 4 {
                some_rows::<S, 4, N>(simd, rest)
            } else if left >= 2 {
                some_rows::<S, 2, N>(simd, rest)
            } else {
                some_rows::<S, 1, N>(simd, rest)
            };
        }
    }
}

#[inline(always)]
unsafe fn some_rows<S: Simd, const T: usize, const N: usize>(simd: S, rows: Rows<'_>) -> usize {
    let Rows {
        x,
        x_row,
        taps,
        depth,
        panel,
        y,
        y_row,
        outputs,
        ..
    } = rows;
    let mut sums = [[simd.splat(0.0); N]; T];
    let mut panel = panel;
    // SAFETY: every address is one that the caller of `rows` vouches for.
    unsafe {
        for &tap in taps {
            let x = x.add(tap);
            for k in 0..depth {
                let mut w = [simd.splat(0.0); N];
                for (j, w) in w.iter_mut().enumerate() {
                    *w = simd.load(panel.add(j * S::LANES));
                }
                panel = panel.add(N * S::LANES);
                for (t, sums) in sums.iter_mut().enumerate() {
                    let x = simd.splat(*x.add(t * x_row + k));
                    for (sum, &w) in sums.iter_mut().zip(&w) {
                        *sum = simd.mul_add(x, w, *sum);
                    }
                }
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                store_outputs(simd, sum, y.add(t * y_row), j, outputs);
            }
        }
    }
    T
}

/// The products of a weight gradient: `dw[i][o] += sum over p of x[pixel(p) + i] * dy[p * dy_step + o]`, for pixels in
/// `lines` of `line` pixels each.
#[derive(Clone, Copy)]
pub(crate) struct Outer {
    pub lines: usize,
    pub line: usize,
    pub x: *const f32,
    pub x_line: usize,
    pub x_step: usize,
    pub inputs: usize,
    pub dy: *const f32,
    pub dy_line: usize,
    pub dy_step: usize,
    pub outputs: usize,
    pub dw: *mut f32,
    pub dw_row: usize,
}

/// Adds all products, for one panel's worth of outputs.
///
/// # Safety
/// For all lines l and pixels p, `inputs` values can be read at `x[l * x_line + p * x_step]` and `outputs` values, at
/// most a panel's, at `dy[l * dy_line + p * dy_step]`; `outputs` values can be read and written at each of `inputs`
/// rows of `dw`.
#[inline(always)]
pub(crate) unsafe fn outer<S: Simd>(simd: S, all: Outer) {
    // SAFETY: the caller's promise, handed down. Whole vectors are read only where all their lanes are outputs.
    unsafe {
        match (all.outputs > S::LANES, all.outputs.is_multiple_of(S::LANES)) {
            (true, true) => outer_of::<S, PANEL, true>(simd, all),
            (true, false) => outer_of::<S, PANEL, false>(simd, all),
            (false, true) => outer_of::<S, 1, true>(simd, all),
            (false, false) => outer_of::<S, 1, false>(simd, all),
        }
    }
}

#[inline(always)]
unsafe fn outer_of<S: Simd, const N: usize, const WHOLE: bool>(simd: S, all: Outer) {
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
            done += if S::ROWS >= 12 && (left >= 20 || left == 12) {
                some_outer::<S, 12, N, WHOLE>(simd, rest)
            } else if S::ROWS >= 8 && left >= 8 {
                some_outer::<S, 8, N, WHOLE>(simd, rest)
            } else if S::ROWS >= 6 && (left == 6 || left >= 10) {
                some_outer::<S, 6, N, WHOLE>(simd, rest)
            } else if left >= 4 {
                some_outer::<S, 4, N, WHOLE>(simd, rest)
            } else if left >= 2 {
                some_outer::<S, 2, N, WHOLE>(simd, rest)
            } else {
                some_outer::<S, 1, N, WHOLE>(simd, rest)
            };
        }
    }
}

#[inline(always)]
unsafe fn some_outer<S: Simd, const T: usize, const N: usize, const WHOLE: bool>(
    simd: S,
    all: Outer,
) -> usize {
    let mut sums = [[simd.splat(0.0); N]; T];
    // SAFETY: every address is one that the caller of `outer` vouches for.
    unsafe {
        for l in 0..all.lines {
            let (mut x, mut dy) = (all.x.add(l * all.x_line), all.dy.add(l * all.dy_line));
            for _ in 0..all.line {
                let mut d = [simd.splat(0.0); N];
                for (j, d) in d.iter_mut().enumerate() {
                    let from = dy.wrapping_add(j * S::LANES);
                    *d = if WHOLE {
                        simd.load(from)
                    } else {
                        simd.load_first(lanes_of::<S>(j, all.outputs), from)
                    };
                }
                for (t, sums) in sums.iter_mut().enumerate() {
                    let x = simd.splat(*x.add(t));
                    for (sum, &d) in sums.iter_mut().zip(&d) {
                        *sum = simd.mul_add(x, d, *sum);
                    }
                }
                x = x.wrapping_add(all.x_step);
                dy = dy.wrapping_add(all.dy_step);
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let to = all.dw.add(t * all.dw_row + j * S::LANES);
                if WHOLE {
                    simd.store(simd.add(simd.load(to), sum), to);
                } else {
                    let n = lanes_of::<S>(j, all.outputs);
                    simd.store_first(n, simd.add(simd.load_first(n, to), sum), to);
                }
            }
        }
    }
    T
}

/// Lanes of vector `j` that are outputs.
#[inline(always)]
pub(crate) fn lanes_of<S: Simd>(j: usize, outputs: usize) -> usize {
    outputs.saturating_sub(j * S::LANES).min(S::LANES)
}

/// # Safety
/// `outputs` values can be written at `y`.
#[inline(always)]
unsafe fn store_outputs<S: Simd>(simd: S, value: S::V, y: *mut f32, j: usize, outputs: usize) {
    let n = lanes_of::<S>(j, outputs);
    // SAFETY: the first n lanes of vector j are among the outputs.
    unsafe {
        let to = y.add(j * S::LANES);
        if n == S::LANES {
            simd.store(value, to)
        } else {
            simd.store_first(n, value, to)
        }
    }
}
