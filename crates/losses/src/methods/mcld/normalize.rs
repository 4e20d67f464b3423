//! The vectors that MCLD compares: rows or columns of logits, raw, of unit length, or as probabilities.

use crate::ops::real::Real;
use crate::ops::rows::{Matrix, View, for_each_row};
use crate::ops::softmax::{softmax, softmax_pull_back};
use crate::ops::unit::UnitRows;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Normalize {
    /// Both networks' vectors have unit length.
    Unit,
    /// Raw logits: temperatures must be of the order of their squared length.
    Raw,
    /// Unit length after a softmax over the classes.
    Softmax { temperature: f64 },
    /// The teacher's vectors have unit length, the student's are raw.
    TeacherOnly,
}

/// Vectors ready to be compared, and the way back to the logits they came from.
pub(super) struct Vectors<F> {
    vectors: Held<F>,
    softmax: Option<(Matrix<F>, f64)>,
    columns: bool,
}

enum Held<F> {
    Raw(Matrix<F>),
    Unit(UnitRows<F>),
}

impl<F: Real> Vectors<F> {
    /// The rows of the student's logits, (B, C).
    pub(super) fn student_rows(logits: View<'_, F>, normalize: Normalize) -> Self {
        Self::new(
            logits,
            normalize,
            normalize == Normalize::TeacherOnly,
            false,
        )
    }

    /// The rows of the teacher's logits, (B, C).
    pub(super) fn teacher_rows(logits: View<'_, F>, normalize: Normalize) -> Self {
        Self::new(logits, normalize, false, false)
    }

    /// The columns of the student's logits as rows, (C, B).
    pub(super) fn student_columns(logits: View<'_, F>, normalize: Normalize) -> Self {
        Self::new(logits, normalize, normalize == Normalize::TeacherOnly, true)
    }

    /// The columns of the teacher's logits as rows, (C, B).
    pub(super) fn teacher_columns(logits: View<'_, F>, normalize: Normalize) -> Self {
        Self::new(logits, normalize, false, true)
    }

    fn new(logits: View<'_, F>, normalize: Normalize, raw: bool, columns: bool) -> Self {
        let mut matrix = Matrix {
            data: logits.data.to_vec(),
            n_rows: logits.n_rows,
            n_cols: logits.n_cols,
        };
        let mut probabilities = None;
        if let Normalize::Softmax { temperature } = normalize {
            for_each_row(&mut matrix.data, logits.n_cols, |i, row| {
                softmax(row, logits.row(i), temperature);
            });
            probabilities = Some((matrix.clone(), temperature));
        }
        if columns {
            matrix = matrix.transposed();
        }
        let vectors = match raw || normalize == Normalize::Raw {
            true => Held::Raw(matrix),
            false => Held::Unit(UnitRows::new(matrix.view())),
        };
        Self {
            vectors,
            softmax: probabilities,
            columns,
        }
    }

    pub(super) fn view(&self) -> View<'_, F> {
        match &self.vectors {
            Held::Raw(matrix) => matrix.view(),
            Held::Unit(unit) => unit.rows.view(),
        }
    }

    /// Takes derivatives by the vectors to derivatives by the (B, C) logits.
    pub(super) fn pull_back(&self, mut gradient: Matrix<F>) -> Matrix<F> {
        if let Held::Unit(unit) = &self.vectors {
            unit.pull_back(&mut gradient);
        }
        if self.columns {
            gradient = gradient.transposed();
        }
        if let Some((probabilities, temperature)) = &self.softmax {
            let n_cols = probabilities.n_cols;
            for_each_row(&mut gradient.data, n_cols, |i, row| {
                softmax_pull_back(row, probabilities.row(i), *temperature);
            });
        }
        gradient
    }
}
