//! Rows and columns of unit length.

use super::real::{self, Real};
use super::rows::{Matrix, View, for_each_row};

/// A length below this counts as this, so that a row of zeros stays one.
const SHORTEST: f64 = 1e-12;

/// The rows of a matrix divided by their lengths, and those lengths.
#[derive(Clone)]
pub(crate) struct UnitRows<F> {
    pub(crate) rows: Matrix<F>,
    lengths: Vec<f64>,
}

impl<F: Real> UnitRows<F> {
    pub(crate) fn new(matrix: View<'_, F>) -> Self {
        let mut rows = Matrix {
            data: matrix.data.to_vec(),
            n_rows: matrix.n_rows,
            n_cols: matrix.n_cols,
        };
        let lengths = for_each_row(&mut rows.data, matrix.n_cols, |_, row| {
            let length = length(row);
            real::scale(row, F::of(1.0 / length.max(SHORTEST)));
            length
        });
        Self { rows, lengths }
    }

    /// Takes derivatives by the unit rows, in place, to derivatives by the rows: `(g - <g, a> a) / |x|`, orthogonal
    /// to the row. A row shorter than 1e-12 has no direction to learn, and gets 0 (PyTorch's `normalize` gives
    /// `1e12 g` there).
    pub(crate) fn pull_back(&self, gradient: &mut Matrix<F>) {
        for_each_row(&mut gradient.data, self.rows.n_cols, |index, g| {
            self.pull_back_row(index, g)
        });
    }

    /// [`pull_back`](Self::pull_back) of one row.
    pub(crate) fn pull_back_row(&self, index: usize, g: &mut [F]) {
        let (a, length) = (self.rows.row(index), self.lengths[index]);
        if length < SHORTEST {
            return g.fill(F::zero());
        }
        let along = real::dot(g, a);
        real::add_scaled(g, -along, a);
        real::scale(g, F::of(1.0 / length));
    }
}

/// The length of a row; scaled first, so that squares neither overflow nor vanish.
fn length<F: Real>(row: &[F]) -> f64 {
    let largest = row.iter().fold(F::zero(), |largest, &x| {
        largest.larger(if x < F::zero() { -x } else { x })
    });
    if largest == F::zero() {
        return 0.0;
    }
    let squares = real::dot(row, row).to_f64();
    // Far from both ends of f32 the plain sum is as good.
    if (1e-30..1e30).contains(&squares) {
        return squares.sqrt();
    }
    let largest = largest.to_f64();
    largest
        * row
            .iter()
            .map(|x| (x.to_f64() / largest).powi(2))
            .sum::<f64>()
            .sqrt()
}
