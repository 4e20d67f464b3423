//! Knowledge distillation from a stronger teacher.
//!
//! Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536, equations 8 to 10.
//!
//! With `a`, `b` the student's and teacher's probabilities at temperature tau, and
//! `rho(u, v) = <u - mean u, v - mean v> / (|u - mean u| |v - mean v| + 1e-8)`:
//!
//! - `inter = tau^2 * (1 - mean over samples of rho(a_i, b_i))`
//! - `intra = tau^2 * (1 - mean over classes of rho(a_:c, b_:c))`
//!
//! Defaults are the authors' code's (`dist_kd.py` of hunto/image_classification_sota): tau 4 for CIFAR (1 for
//! ImageNet), and a weight of 2 for both beside `ce` 1. On a batch of one, `intra` is tau^2 with gradient 0, as in
//! the code.

use crate::fused::{Closed, Outcome, Rows, Values, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, for_each_row};
use crate::ops::similarity::correlation;
use crate::ops::softmax::{softmax, softmax_pull_back, softmax_rows};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "dist",
    title: "Knowledge Distillation from A Stronger Teacher",
    paper: "arXiv:2205.10536",
    components: &[
        ComponentSpec::new(
            "inter",
            "correlation of the two networks' probabilities of one sample",
        )
        .weight(2.0)
        .weight_key("beta"),
        ComponentSpec::new(
            "intra",
            "correlation of their probabilities of one class over the batch",
        )
        .weight(2.0)
        .weight_key("gamma")
        .whole_batch("a class is compared over the whole batch"),
    ],
    options: &[OptionRow::new(
        "temperature",
        "4",
        "tau: divides both networks' logits; authors' code, CIFAR",
    )],
    build,
};

struct Dist {
    temperature: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Dist {
        temperature: options.positive("temperature", 4.0)?,
    }))
}

impl LogitLoss for Dist {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(self, batch.student(), batch.teacher("dist")?, &batch.labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Dist {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        Ok(inter(rows, self.temperature).join(intra(rows, self.temperature)))
    }
}

fn inter<F: Real>(rows: Rows<'_, F>, tau: f64) -> Outcome<F> {
    let Rows {
        student, teacher, ..
    } = rows;
    per_sample(student.n_rows, student.n_cols, |i, [gradient]| {
        let mut a = vec![F::zero(); student.n_cols];
        let mut b = a.clone();
        softmax(&mut a, student.row(i), tau);
        softmax(&mut b, teacher.row(i), tau);
        let p = a.clone();
        let rho = correlation(&mut a, &mut b, gradient);
        softmax_pull_back(gradient, &p, tau);
        real::scale(gradient, F::of(tau * tau));
        [tau * tau * (1.0 - rho)]
    })
}

fn intra<F: Real>(rows: Rows<'_, F>, tau: f64) -> Outcome<F> {
    let a = softmax_rows(rows.student, |_| tau);
    let b = softmax_rows(rows.teacher, |_| tau).transposed();
    let a_columns = a.transposed();
    let n_samples = a.n_rows;
    let mut by_columns = Matrix::zeros(a.n_cols, n_samples);
    let correlations = for_each_row(&mut by_columns.data, n_samples, |class, gradient| {
        let (mut a, mut b) = (a_columns.row(class).to_vec(), b.row(class).to_vec());
        correlation(&mut a, &mut b, gradient)
    });
    let n_classes = correlations.len() as f64;
    let value = tau * tau * (1.0 - correlations.iter().sum::<f64>() / n_classes);
    let factor = tau * tau / n_classes;
    Outcome {
        components: vec![Values::Whole(F::of(value))],
        pullback: Box::new(move |upstream, gradient| {
            let mut by_logits = by_columns.transposed();
            for_each_row(&mut by_logits.data, a.n_cols, |i, row| {
                softmax_pull_back(row, a.row(i), tau)
            });
            real::add_scaled(
                &mut gradient.data,
                upstream[0][0] * F::of(factor),
                &by_logits.data,
            );
        }),
    }
}
