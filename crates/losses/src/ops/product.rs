//! Matrix products for losses that compare every row (or every class) with every other.
//!
//! An entry of the product is one chain of fused multiply-adds along the inner dimension, in order. So its bytes
//! depend neither on the number of threads nor on the processor, which no tuned library promises. The price is small:
//! the kernel keeps a tile of the result in registers, and works on packed panels that stay in the first-level cache.

use rayon::prelude::*;

use super::real::Real;
use super::rows::{Matrix, View};

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
        (pulp::Arch::V4(_), 4) => tiled::<F, 8, 32>(m, n, depth, a, b),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        (pulp::Arch::V4(_), _) => tiled::<F, 8, 16>(m, n, depth, a, b),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        (pulp::Arch::V3(_), 4) => tiled::<F, 4, 16>(m, n, depth, a, b),
        (_, 4) => tiled::<F, 4, 8>(m, n, depth, a, b),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        (pulp::Arch::V3(_), _) => tiled::<F, 4, 8>(m, n, depth, a, b),
        _ => tiled::<F, 4, 4>(m, n, depth, a, b),
    }
}

fn tiled<F: Real, const ROWS: usize, const WIDTH: usize>(
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
            for row in (first_row..end_row).step_by(ROWS) {
                a.pack::<ROWS>(&mut packed_a, row, m, block.clone());
            }
            for first in (0..n).step_by(WIDTH) {
                let (panel_b, rest) = rest_b.split_at(block.len() * WIDTH);
                rest_b = rest;
                pulp::Arch::new().dispatch(Column::<F, ROWS, WIDTH> {
                    panels_a: &packed_a,
                    panel_b,
                    rows,
                    n,
                    first,
                });
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

/// Adds, for every panel of `a`, its product with one panel of `b` to the tile of `rows` that starts at column
/// `first`.
struct Column<'a, F, const ROWS: usize, const WIDTH: usize> {
    panels_a: &'a [F],
    panel_b: &'a [F],
    rows: &'a mut [F],
    n: usize,
    first: usize,
}

impl<F: Real, const ROWS: usize, const WIDTH: usize> pulp::WithSimd for Column<'_, F, ROWS, WIDTH> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let depth = self.panel_b.len() / WIDTH;
        let columns = self.first..self.n.min(self.first + WIDTH);
        let panels = self.panels_a.chunks_exact(depth * ROWS);
        for (panel_a, rows) in panels.zip(self.rows.chunks_mut(ROWS * self.n)) {
            let mut sums = [[F::zero(); WIDTH]; ROWS];
            for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(self.n)) {
                sums[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
            tile::<S, F, ROWS, WIDTH>(simd, panel_a, self.panel_b, &mut sums);
            for (sums, row) in sums.iter().zip(rows.chunks_exact_mut(self.n)) {
                row[columns.clone()].copy_from_slice(&sums[..columns.len()]);
            }
        }
    }
}

#[inline(always)]
fn tile<S: pulp::Simd, F: Real, const ROWS: usize, const WIDTH: usize>(
    simd: S,
    panel_a: &[F],
    panel_b: &[F],
    sums: &mut [[F; WIDTH]; ROWS],
) {
    let (a, _) = panel_a.as_chunks::<ROWS>();
    let (b, _) = panel_b.as_chunks::<WIDTH>();
    if size_of::<F::Vector<S>>() * 2 == size_of::<[F; WIDTH]>() {
        // The sums stay in registers; the compiler needs to be shown them as such.
        let mut registers = [[F::splat(simd, F::zero()); 2]; ROWS];
        for (registers, sums) in registers.iter_mut().zip(sums.iter()) {
            let (vectors, _) = F::as_vectors::<S>(sums);
            registers.copy_from_slice(vectors);
        }
        for (a, b) in a.iter().zip(b) {
            let (b, _) = F::as_vectors::<S>(b);
            let (left, right) = (b[0], b[1]);
            for (registers, &a) in registers.iter_mut().zip(a) {
                let a = F::splat(simd, a);
                registers[0] = F::multiply_add(simd, a, left, registers[0]);
                registers[1] = F::multiply_add(simd, a, right, registers[1]);
            }
        }
        for (registers, sums) in registers.iter().zip(sums) {
            let (vectors, _) = F::as_vectors_mut::<S>(sums);
            vectors.copy_from_slice(registers);
        }
    } else {
        for (a, b) in a.iter().zip(b) {
            for (sums, &a) in sums.iter_mut().zip(a) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = a.fused_multiply_add(b, *sum);
                }
            }
        }
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
