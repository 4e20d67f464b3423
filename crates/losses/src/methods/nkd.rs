//! Normalised knowledge distillation.
//!
//! Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
//! and Customized Soft Labels", arXiv:2303.13005, equation 6.
//!
//! - `target = mean over B of -q_y log p_y`: cross-entropy with the label, weighted by the teacher's own confidence in
//!   it, at temperature 1
//! - `non_target = T^2 * mean over B of -sum over c != y of q'_c log p'_c`, the softmaxes over the C - 1 other classes at
//!   temperature T. A cross-entropy, not a KL: it does not vanish where the networks agree, and its gradient is that of KL.
//!
//! Total in the paper: `ce + target + gamma * non_target`. Defaults are the authors' for CIFAR-100 (T 3, gamma
//! 3.5); for ImageNet they take T 1, gamma 1.5. A published version of their code (`nkd.py` of yzd-v/cls_KD) builds
//! its mask such that class y stays in both softmaxes; we follow the equation, which leaves it out.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup,
};
use crate::ops::real::{self, Real};
use crate::ops::softmax::{against_rest, softmax};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "nkd",
    title: "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
    paper: "arXiv:2303.13005",
    components: &[
        ComponentSpec::new(
            "target",
            "cross-entropy with the label, weighted by the teacher's confidence",
        ),
        ComponentSpec::new(
            "non_target",
            "cross-entropy with the teacher among the other classes",
        )
        .weight(3.5)
        .weight_key("gamma"),
    ],
    options: &[OptionRow::new(
        "temperature",
        "3",
        "divides both networks' logits in `non_target`; authors, CIFAR-100",
    )],
    build,
};

struct Nkd {
    temperature: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Nkd {
        temperature: options.positive("temperature", 3.0)?,
    }))
}

impl LogitLoss for Nkd {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(
            self,
            batch.student(),
            batch.teacher("nkd")?,
            batch.single_labels("nkd")?,
        )?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Nkd {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student,
            teacher,
            labels,
        } = rows;
        let temperature = self.temperature;
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [by_target, by_rest]| {
                let (s, t, label) = (student.row(i), teacher.row(i), labels[i] as usize);

                softmax(by_target, t, 1.0);
                let confidence = by_target[label];
                let log_sum = softmax(by_target, s, 1.0);
                by_target[label] -= F::one();
                real::scale(by_target, confidence);
                let target = confidence.to_f64() * (log_sum - s[label].to_f64());

                let p = against_rest(s, label, temperature);
                let q = against_rest(t, label, temperature).rest;
                let rest = p.log_sum_rest - real::dot(&q, s).to_f64() / temperature;
                real::zip_into(by_rest, &p.rest, &q, |p, q| F::of(temperature) * (p - q));

                [target, temperature * temperature * rest]
            },
        ))
    }
}
