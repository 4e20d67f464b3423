//! Matrix products for losses that compare every row (or every class) with every other.
//!
//! An entry of the product is one chain of fused multiply-adds along the inner dimension, in order. So its bytes
//! depend neither on the number of threads nor on the processor, which no tuned library promises. The price is small:
//! the kernel keeps a tile of the result in registers, and works on packed panels that stay in the first-level cache.

use rayon::prelude::*;

use super::real::{Real, vectorized};
use super::rows::{Matrix, View};

/// Rows of the result per register tile.
const TILE_ROWS: usize = 4;
/// Rows of the result per task.
const TASK_ROWS: usize = 32;
/// Steps along the inner dimension per panel.
const DEPTH: usize = 256;
/// Multiply-adds from which on the tasks go to other threads.
const PARALLEL_FROM: usize = 1 << 20;

/// `a b'`: (M, K) and (N, K) give (M, N).
pub(crate) fn times_transposed<F: Real>(a: View<'_, F>, b: View<'_, F>) -> Matrix<F> {
    debug_assert_eq!(a.n_cols, b.n_cols);
    multiply(
        a.n_rows,
        b.n_rows,
        a.n_cols,
        Operand::rows(a),
        Operand::rows(b),
    )
}

/// `a b`: (M, K) and (K, N) give (M, N).
pub(crate) fn times<F: Real>(a: View<'_, F>, b: View<'_, F>) -> Matrix<F> {
    debug_assert_eq!(a.n_cols, b.n_rows);
    multiply(
        a.n_rows,
        b.n_cols,
        a.n_cols,
        Operand::rows(a),
        Operand::columns(b),
    )
}

/// `a' b`: (K, M) and (K, N) give (M, N).
pub(crate) fn transposed_times<F: Real>(a: View<'_, F>, b: View<'_, F>) -> Matrix<F> {
    debug_assert_eq!(a.n_rows, b.n_rows);
    multiply(
        a.n_cols,
        b.n_cols,
        a.n_rows,
        Operand::columns(a),
        Operand::columns(b),
    )
}

/// One side of a product: `n` vectors that are either the rows or the columns of a matrix.
#[derive(Clone, Copy)]
struct Operand<'a, F> {
    matrix: View<'a, F>,
    by_rows: bool,
}

impl<'a, F: Real> Operand<'a, F> {
    fn rows(matrix: View<'a, F>) -> Self {
        Self {
            matrix,
            by_rows: true,
        }
    }

    fn columns(matrix: View<'a, F>) -> Self {
        Self {
            matrix,
            by_rows: false,
        }
    }

    /// Steps `depth` of the vectors `first..first + WIDTH`, step by step, 0 where there is no such vector.
    fn pack<const WIDTH: usize>(
        &self,
        panel: &mut Vec<F>,
        first: usize,
        n: usize,
        depth: std::ops::Range<usize>,
    ) {
        let start = panel.len();
        panel.resize(start + depth.len() * WIDTH, F::zero());
        let (steps, _) = panel[start..].as_chunks_mut::<WIDTH>();
        let present = WIDTH.min(n - first);
        if self.by_rows {
            for lane in 0..present {
                let vector = &self.matrix.row(first + lane)[depth.clone()];
                for (step, &x) in steps.iter_mut().zip(vector) {
                    step[lane] = x;
                }
            }
        } else {
            for (step, k) in steps.iter_mut().zip(depth) {
                step[..present].copy_from_slice(&self.matrix.row(k)[first..first + present]);
            }
        }
    }
}

fn multiply<F: Real>(
    m: usize,
    n: usize,
    depth: usize,
    a: Operand<'_, F>,
    b: Operand<'_, F>,
) -> Matrix<F> {
    // A tile is two of the widest registers across.
    match (pulp::Arch::new(), size_of::<F>()) {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        (pulp::Arch::V4(_), 4) => tiled::<F, 32>(m, n, depth, a, b),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        (pulp::Arch::V4(_), _) => tiled::<F, 16>(m, n, depth, a, b),
        (_, 4) => tiled::<F, 16>(m, n, depth, a, b),
        _ => tiled::<F, 8>(m, n, depth, a, b),
    }
}

fn tiled<F: Real, const WIDTH: usize>(
    m: usize,
    n: usize,
    depth: usize,
    a: Operand<'_, F>,
    b: Operand<'_, F>,
) -> Matrix<F> {
    let mut out = Matrix::zeros(m, n);
    if m * n == 0 {
        return out;
    }
    let blocks: Vec<_> = (0..depth)
        .step_by(DEPTH)
        .map(|start| start..depth.min(start + DEPTH))
        .collect();
    let mut packed_b = Vec::with_capacity(depth * n.next_multiple_of(WIDTH));
    for block in &blocks {
        for first in (0..n).step_by(WIDTH) {
            b.pack::<WIDTH>(&mut packed_b, first, n, block.clone());
        }
    }
    let task = |(task, rows): (usize, &mut [F])| {
        let first_row = task * TASK_ROWS;
        let end_row = first_row + rows.len() / n;
        let mut rest_b = packed_b.as_slice();
        let mut packed_a = Vec::with_capacity(TASK_ROWS * DEPTH);
        for block in &blocks {
            packed_a.clear();
            for row in (first_row..end_row).step_by(TILE_ROWS) {
                a.pack::<TILE_ROWS>(&mut packed_a, row, m, block.clone());
            }
            for first in (0..n).step_by(WIDTH) {
                let (panel_b, rest) = rest_b.split_at(block.len() * WIDTH);
                rest_b = rest;
                let panels_a = packed_a.chunks_exact(block.len() * TILE_ROWS);
                for (panel_a, rows) in panels_a.zip(rows.chunks_mut(TILE_ROWS * n)) {
                    vectorized(
                        #[inline(always)]
                        || tile::<F, WIDTH>(panel_a, panel_b, rows, n, first),
                    );
                }
            }
        }
    };
    if m * n * depth < PARALLEL_FROM {
        out.data
            .chunks_mut(TASK_ROWS * n)
            .enumerate()
            .for_each(task);
    } else {
        out.data
            .par_chunks_mut(TASK_ROWS * n)
            .enumerate()
            .for_each(task);
    }
    out
}

/// Adds the product of two panels to the tile of `rows` that starts at column `first`.
#[inline(always)]
fn tile<F: Real, const WIDTH: usize>(
    panel_a: &[F],
    panel_b: &[F],
    rows: &mut [F],
    n: usize,
    first: usize,
) {
    let width = WIDTH.min(n - first);
    let mut sums = [[F::zero(); WIDTH]; TILE_ROWS];
    for (sums, row) in sums.iter_mut().zip(rows.chunks(n)) {
        sums[..width].copy_from_slice(&row[first..first + width]);
    }
    let (a, _) = panel_a.as_chunks::<TILE_ROWS>();
    let (b, _) = panel_b.as_chunks::<WIDTH>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..TILE_ROWS {
            for j in 0..WIDTH {
                sums[i][j] = a[i].fused_multiply_add(b[j], sums[i][j]);
            }
        }
    }
    for (sums, row) in sums.iter().zip(rows.chunks_mut(n)) {
        row[first..first + width].copy_from_slice(&sums[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logitcask_philox::{Purpose, Stream};

    fn random(n_rows: usize, n_cols: usize) -> Matrix<f64> {
        let mut stream = Stream::new(1, Purpose::Bench, [n_rows as u64, n_cols as u64, 0]);
        let data = (0..n_rows * n_cols)
            .map(|_| stream.uniform() - 0.5)
            .collect();
        Matrix {
            data,
            n_rows,
            n_cols,
        }
    }

    fn check(m: usize, n: usize, k: usize) {
        let (a, b) = (random(m, k), random(n, k));
        let (at, bt) = (a.transposed(), b.transposed());
        let products = [
            times_transposed(a.view(), b.view()),
            times(a.view(), bt.view()),
            transposed_times(at.view(), bt.view()),
        ];
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = a.row(i).iter().zip(b.row(j)).map(|(a, b)| a * b).sum();
                for product in &products {
                    assert!(
                        (product.row(i)[j] - exact).abs() < 1e-12,
                        "{m} {n} {k} at {i} {j}"
                    );
                }
            }
        }
        assert!(
            products
                .iter()
                .all(|product| product.data == products[0].data)
        );
    }

    #[test]
    fn products_are_the_sums_that_define_them() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 2),
            (4, 32, 7),
            (33, 31, 300),
            (65, 64, 100),
            (7, 130, 513),
        ] {
            check(m, n, k);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let (a, b) = (random(150, 300), random(90, 300));
        let product = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| times_transposed(a.view(), b.view()).data)
        };
        assert_eq!(product(1), product(3));
    }
}
