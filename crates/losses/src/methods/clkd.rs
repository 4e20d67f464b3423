//! Class-aware logit knowledge distillation.
//!
//! Zhang et al., "Class-aware Information for Logit-based Knowledge Distillation" (CLKD), arXiv:2211.14773. The
//! paper's own equations were not at hand; two independent reimplementations agree but for the correlation, of
//! which both readings are here.
//!
//! On raw logits, no softmax and no temperature, with rows or columns divided by `max(length, 1e-12)`:
//!
//! - `instance = mean over B and C of (unit rows of s - unit rows of t)^2`
//! - `class = mean over B and C of (unit columns of s - unit columns of t)^2`, a column being a class over the batch
//! - `correlation = |M(s) - M(t)|^2 / C^2`, with `Zc = z - column mean` and
//!   `correlation.reading = "nxn"`: `M = Zc Zc' / (C - 1)`, (B, B), or `"cxc"`: `M = Zc' Zc / (B - 1)`, (C, C).
//!
//! The name and the 1/C^2 speak for cxc, the 1/(C - 1) of the constants' source for nxn, which is the default. On a
//! batch of one cxc has no meaning (0/0), and is 0. Total there: `0.1 ce + 0.5 (instance + 2 class) + 0.4
//! correlation`.

use crate::fused::{Closed, Outcome, Rows, Values, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::gram::GramDifference;
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, View};
use crate::ops::unit::UnitRows;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "clkd",
    title: "Class-aware Information for Logit-based Knowledge Distillation",
    paper: "arXiv:2211.14773",
    components: &[
        ComponentSpec::new("instance", "unit rows of logits").weight(0.5),
        ComponentSpec::new("class", "unit columns of logits")
            .weight(1.0)
            .whole_batch("a class is compared over the whole batch"),
        ComponentSpec::new("correlation", "inner products of centred logits")
            .weight(0.4)
            .weight_key("nu")
            .whole_batch("it compares all pairs of the batch"),
    ],
    options: &[OptionRow::new(
        "correlation.reading",
        "nxn",
        "`nxn`: samples with samples, or `cxc`: classes with classes; a public reimplementation, whose weights these are",
    )],
    build,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Correlation {
    Samples,
    Classes,
}

struct Clkd {
    correlation: Correlation,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let readings = [("nxn", Correlation::Samples), ("cxc", Correlation::Classes)];
    let correlation = options
        .choice("correlation.reading", &readings)?
        .unwrap_or(Correlation::Samples);
    Ok(Box::new(Clkd { correlation }))
}

impl LogitLoss for Clkd {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(self, batch.student(), batch.teacher("clkd")?, &batch.labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Clkd {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        Ok(instance(rows)
            .join(class(rows))
            .join(correlation(rows, self.correlation)))
    }
}

fn instance<F: Real>(rows: Rows<'_, F>) -> Outcome<F> {
    let Rows {
        student, teacher, ..
    } = rows;
    let (a, b) = (UnitRows::new(student), UnitRows::new(teacher));
    let n_classes = student.n_cols as f64;
    per_sample(student.n_rows, student.n_cols, |i, [gradient]| {
        let (unit_s, unit_t) = (a.rows.row(i), b.rows.row(i));
        let twice = F::of(2.0 / n_classes);
        real::zip_into(gradient, unit_s, unit_t, |s, t| twice * (s - t));
        a.pull_back_row(i, gradient);
        [real::squared_distance(unit_s, unit_t).to_f64() / n_classes]
    })
}

fn class<F: Real>(rows: Rows<'_, F>) -> Outcome<F> {
    let a = UnitRows::new(rows.student.transposed().view());
    let b = UnitRows::new(rows.teacher.transposed().view());
    let mut difference = a.rows.clone();
    real::update(&mut difference.data, &b.rows.data, |s, t| s - t);
    let n = difference.data.len() as f64;
    let squares = difference
        .view()
        .rows()
        .map(|row| real::dot(row, row).to_f64());
    let value = squares.sum::<f64>() / n;
    Outcome {
        components: vec![Values::Whole(F::of(value))],
        pullback: Box::new(move |upstream, gradient| {
            let mut by_columns = difference.clone();
            a.pull_back(&mut by_columns);
            real::add_scaled(
                &mut gradient.data,
                upstream[0][0] * F::of(2.0 / n),
                &by_columns.transposed().data,
            );
        }),
    }
}

fn correlation<F: Real>(rows: Rows<'_, F>, reading: Correlation) -> Outcome<F> {
    let (student, teacher) = (centred_columns(rows.student), centred_columns(rows.teacher));
    let (n_rows, n_cols) = (student.n_rows as f64, student.n_cols as f64);
    let (gram, divisor) = match reading {
        Correlation::Samples => (
            GramDifference::of_rows(student.view(), teacher.view()),
            n_cols - 1.0,
        ),
        // Centred, a batch of one is 0: any divisor gives the 0 that we define.
        Correlation::Classes => (
            GramDifference::of_columns(student.view(), teacher.view()),
            (n_rows - 1.0).max(1.0),
        ),
    };
    let factor = 1.0 / (divisor * n_cols).powi(2);
    Outcome {
        components: vec![Values::Whole(F::of(factor * gram.squared_norm()))],
        pullback: Box::new(move |upstream, gradient| {
            let mut by_centred = Matrix::zeros(student.n_rows, student.n_cols);
            gram.add_gradient(
                student.view(),
                factor * upstream[0][0].to_f64(),
                &mut by_centred,
            );
            let by_logits = centred_columns(by_centred.view());
            real::add_scaled(&mut gradient.data, F::one(), &by_logits.data);
        }),
    }
}

/// `z - column mean`; also the way back, as the projection is its own adjoint.
fn centred_columns<F: Real>(z: View<'_, F>) -> Matrix<F> {
    let mut means = vec![F::zero(); z.n_cols];
    for row in z.rows() {
        real::add_scaled(&mut means, F::one(), row);
    }
    real::scale(&mut means, F::of(1.0 / z.n_rows as f64));
    let mut centred = z.to_matrix();
    for i in 0..z.n_rows {
        real::add_scaled(centred.row_mut(i), -F::one(), &means);
    }
    centred
}
