//! Comparing two matrices by their Gram matrices: rows with rows (B, B), or columns with columns (C, C).

use super::product;
use super::real::{self, Real};
use super::rows::{Matrix, View};

/// `G(teacher) - G(student)`, where G(z) is `z z'` or `z' z`.
pub(crate) struct GramDifference<F> {
    difference: Matrix<F>,
    of_rows: bool,
}

impl<F: Real> GramDifference<F> {
    /// `z z'` of both, (B, B).
    pub(crate) fn of_rows(student: View<'_, F>, teacher: View<'_, F>) -> Self {
        Self::new(student, teacher, true)
    }

    /// `z' z` of both, (C, C).
    pub(crate) fn of_columns(student: View<'_, F>, teacher: View<'_, F>) -> Self {
        Self::new(student, teacher, false)
    }

    /// With mean `m` and difference `d` of the two matrices, `t t' - s s' = m d' + (m d')'`: one product instead of
    /// two, and equal matrices give exactly 0.
    fn new(student: View<'_, F>, teacher: View<'_, F>, of_rows: bool) -> Self {
        let (mut mean, mut difference) = (teacher.to_matrix(), teacher.to_matrix());
        let half = F::of(0.5);
        real::update(&mut mean.data, student.data, |t, s| half * (t + s));
        real::update(&mut difference.data, student.data, |t, s| t - s);
        let product = match of_rows {
            true => product::times_transposed(mean.view(), difference.view()),
            false => product::transposed_times(mean.view(), difference.view()),
        };
        let mut sum = product.transposed();
        real::add_scaled(&mut sum.data, F::one(), &product.data);
        Self {
            difference: sum,
            of_rows,
        }
    }

    /// The sum of the squared entries.
    pub(crate) fn squared_norm(&self) -> f64 {
        let rows = self.difference.view();
        rows.rows().map(|row| real::dot(row, row).to_f64()).sum()
    }

    /// Adds `factor` times the derivative of [`squared_norm`](Self::squared_norm) by the student's matrix.
    pub(crate) fn add_gradient(&self, student: View<'_, F>, factor: f64, gradient: &mut Matrix<F>) {
        let product = match self.of_rows {
            true => product::times(self.difference.view(), student),
            false => product::times(student, self.difference.view()),
        };
        real::add_scaled(&mut gradient.data, F::of(-4.0 * factor), &product.data);
    }
}
