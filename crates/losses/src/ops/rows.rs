//! Matrices of logits in row-major order, and walking their rows, several at a time when the batch is large.
//!
//! Whatever the number of threads, a row is computed alone and lands in its own place, so the bytes are the same.

use rayon::prelude::*;

use super::real::Real;

/// A (rows, columns) matrix that someone else holds.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, F> {
    pub(crate) data: &'a [F],
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
}

impl<'a, F: Real> View<'a, F> {
    pub(crate) fn row(&self, index: usize) -> &'a [F] {
        &self.data[index * self.n_cols..(index + 1) * self.n_cols]
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &'a [F]> + use<'a, F> {
        self.data.chunks_exact(self.n_cols)
    }

    pub(crate) fn to_matrix(self) -> Matrix<F> {
        Matrix {
            data: self.data.to_vec(),
            n_rows: self.n_rows,
            n_cols: self.n_cols,
        }
    }

    /// Rows become columns, block by block so that both sides stay in the cache.
    pub(crate) fn transposed(&self) -> Matrix<F> {
        const BLOCK: usize = 16;
        let mut out = Matrix::zeros(self.n_cols, self.n_rows);
        for first in (0..self.n_rows).step_by(BLOCK) {
            let rows = first..self.n_rows.min(first + BLOCK);
            for (column, out_row) in out.data.chunks_exact_mut(self.n_rows).enumerate() {
                for row in rows.clone() {
                    out_row[row] = self.data[row * self.n_cols + column];
                }
            }
        }
        out
    }
}

/// A (rows, columns) matrix.
#[derive(Clone)]
pub(crate) struct Matrix<F> {
    pub(crate) data: Vec<F>,
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
}

impl<F: Real> Matrix<F> {
    pub(crate) fn zeros(n_rows: usize, n_cols: usize) -> Self {
        Self {
            data: vec![F::zero(); n_rows * n_cols],
            n_rows,
            n_cols,
        }
    }

    pub(crate) fn view(&self) -> View<'_, F> {
        View {
            data: &self.data,
            n_rows: self.n_rows,
            n_cols: self.n_cols,
        }
    }

    pub(crate) fn row(&self, index: usize) -> &[F] {
        self.view().row(index)
    }

    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [F] {
        &mut self.data[index * self.n_cols..(index + 1) * self.n_cols]
    }

    pub(crate) fn transposed(&self) -> Self {
        self.view().transposed()
    }
}

/// Rows go to other threads from this many numbers on: waking a thread costs as much as some ten thousand of them.
const PARALLEL_FROM: usize = 1 << 16;
/// Numbers per task: a part of the work that is worth handing over.
const TASK: usize = 1 << 14;

/// Calls `f(row_index, row)` for every row of `data`, and returns what it returned, in row order.
pub(crate) fn for_each_row<F: Real, R: Send + Clone + Default>(
    data: &mut [F],
    n_cols: usize,
    f: impl Fn(usize, &mut [F]) -> R + Sync,
) -> Vec<R> {
    let mut results = vec![R::default(); data.len() / n_cols];
    let n_rows = (TASK / n_cols).max(1);
    let walk = |(task, (rows, results)): (usize, (&mut [F], &mut [R]))| {
        let rows = rows.chunks_exact_mut(n_cols).zip(results);
        for (i, (row, result)) in rows.enumerate() {
            *result = f(task * n_rows + i, row);
        }
    };
    if data.len() < PARALLEL_FROM {
        let tasks = data.chunks_mut(n_rows * n_cols);
        let tasks = tasks.zip(results.chunks_mut(n_rows));
        tasks.enumerate().for_each(walk);
    } else {
        let tasks = data.par_chunks_mut(n_rows * n_cols);
        let tasks = tasks.zip(results.par_chunks_mut(n_rows));
        tasks.enumerate().for_each(walk);
    }
    results
}
