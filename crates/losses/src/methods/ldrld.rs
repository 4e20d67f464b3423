//! Local dense relational logit distillation (LDRLD).
//!
//! Xu et al., "Local Dense Logit Relations for Enhanced Knowledge Distillation", ICCV 2025, arXiv:2507.15911; known
//! by way of two written notes, no code is published.
//!
//! Let pi order the classes by the *student's* logits, largest first (equal ones by class index), and d be the
//! depth. The order is a constant for the gradient. All KL at temperature tau, teacher values taken at the
//! student's classes:
//!
//! - `pairs`: sum over ranks i < j <= d of `weight(i, j)` times the KL between the two networks' choices between the classes
//!   of rank i and j, with `weight = delta e^(-lambda (i + j)) / (|i - j| + epsilon)`; `pairs.reading = "unweighted"`
//!   takes all weights as 1
//! - `llki`: KL between the softmaxes over the d first classes
//! - `rntk`: KL between the softmaxes over the other C - d classes; 0 if there are none
//!
//! each averaged over B and (our assumption) multiplied by tau^2. Total: `ce + alpha (pairs + llki) + beta rntk`.
//! Epsilon 1.5, delta 2 and lambda 0.05 come from the notes; depth, tau, alpha and beta, and that ranks are the
//! student's, are ours.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::real::{self, Real};
use crate::ops::softmax::{binary_divergence, divergence, softmax_where};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "ldrld",
    title: "Local Dense Logit Relations for Enhanced Knowledge Distillation",
    paper: "arXiv:2507.15911",
    components: &[
        ComponentSpec::new("pairs", "pairs among the student's first classes"),
        ComponentSpec::new("llki", "the student's first classes together"),
        ComponentSpec::new("rntk", "the remaining classes together").weight_key("beta"),
    ],
    options: &[
        OptionRow::new("depth", "5", "classes, at most C; ours"),
        OptionRow::new(
            "temperature",
            "4",
            "tau: divides both networks' logits; ours",
        ),
        OptionRow::new("pairs.reading", "weighted", "`weighted` or `unweighted`"),
        OptionRow::new(
            "irw_epsilon",
            "1.5",
            "epsilon of the pairs' weight; notes on the paper",
        ),
        OptionRow::new(
            "erd_delta",
            "2",
            "delta of the pairs' weight; notes on the paper",
        ),
        OptionRow::new(
            "erd_lambda",
            "0.05",
            "lambda of the pairs' weight, per rank; notes on the paper",
        ),
        OptionRow::new(
            "tau_squared",
            "true",
            "whether the parts are multiplied by tau^2; ours",
        ),
    ],
    build,
};

struct Ldrld {
    depth: usize,
    temperature: f64,
    factor: f64,
    /// One weight per pair of ranks i < j, row by row.
    weights: Vec<f64>,
}

fn build(options: &mut Options, setup: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let depth = options.count("depth", 5.min(setup.n_classes))?;
    if depth == 0 || depth > setup.n_classes {
        return Err(options.bad("depth", &format!("1 to {} classes", setup.n_classes), depth));
    }
    let temperature = options.positive("temperature", 4.0)?;
    let weighted = options
        .choice(
            "pairs.reading",
            &[("weighted", true), ("unweighted", false)],
        )?
        .unwrap_or(true);
    let epsilon = options.positive("irw_epsilon", 1.5)?;
    let delta = options.not_negative("erd_delta", 2.0)?;
    let lambda = options.not_negative("erd_lambda", 0.05)?;
    let weight = |(i, j): (usize, usize)| match weighted {
        true => delta * (-lambda * (i + j) as f64).exp() / ((j - i) as f64 + epsilon),
        false => 1.0,
    };
    let squared = options.flag("tau_squared", true)?;
    Ok(Box::new(Ldrld {
        depth,
        temperature,
        factor: if squared {
            temperature * temperature
        } else {
            1.0
        },
        weights: pairs(depth).map(|(i, j)| weight((i + 1, j + 1))).collect(),
    }))
}

/// `i < j < depth`, row by row.
fn pairs(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..depth).flat_map(move |i| (i + 1..depth).map(move |j| (i, j)))
}

impl LogitLoss for Ldrld {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(
            self,
            batch.student(),
            batch.teacher("ldrld")?,
            &batch.labels,
        )?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Ldrld {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student, teacher, ..
        } = rows;
        let (tau, factor) = (self.temperature, self.factor);
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [by_pairs, by_llki, by_rntk]| {
                let (s, t) = (student.row(i), teacher.row(i));
                let first = largest(s, self.depth);

                let mut of_pairs = 0.0;
                for ((i, j), weight) in pairs(self.depth).zip(&self.weights) {
                    let (i, j) = (first[i], first[j]);
                    let log_odds = |z: &[F]| (z[i].to_f64() - z[j].to_f64()) / tau;
                    let (value, slope) = binary_divergence(log_odds(t), log_odds(s));
                    of_pairs += weight * value;
                    let slope = F::of(factor * weight * slope / tau);
                    by_pairs[i] += slope;
                    by_pairs[j] -= slope;
                }

                let mut is_first = vec![false; s.len()];
                first.iter().for_each(|&class| is_first[class] = true);
                let llki = divergence_where(s, t, tau, by_llki, |class| is_first[class]);
                let rntk = match self.depth == s.len() {
                    true => 0.0,
                    false => divergence_where(s, t, tau, by_rntk, |class| !is_first[class]),
                };
                real::scale(by_llki, F::of(factor));
                real::scale(by_rntk, F::of(factor));
                [factor * of_pairs, factor * llki, factor * rntk]
            },
        ))
    }
}

/// KL over the classes of `keep`; writes its gradient.
fn divergence_where<F: Real>(
    s: &[F],
    t: &[F],
    tau: f64,
    gradient: &mut [F],
    keep: impl Fn(usize) -> bool,
) -> f64 {
    let mut q = vec![F::zero(); t.len()];
    let lse_t = softmax_where(&mut q, t, tau, &keep);
    let lse_s = softmax_where(gradient, s, tau, &keep);
    real::update(gradient, &q, |p, q| F::of(1.0 / tau) * (p - q));
    divergence(&q, (t, lse_t), (s, lse_s), tau)
}

/// The classes of the `depth` largest logits, largest first, equal ones by index.
fn largest<F: Real>(row: &[F], depth: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..row.len()).collect();
    let order = |a: &usize, b: &usize| {
        let by_logit = row[*b]
            .partial_cmp(&row[*a])
            .unwrap_or(std::cmp::Ordering::Equal);
        by_logit.then(a.cmp(b))
    };
    if depth < classes.len() {
        classes.select_nth_unstable_by(depth, order);
        classes.truncate(depth);
    }
    classes.sort_unstable_by(order);
    classes
}
