//! KL the other way round: the student's distribution against the teacher's.
//!
//! Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", arXiv:2306.08543, use it to keep a small
//! student from covering modes it cannot hold.
//!
//! `reverse_kl = T^2 * mean over B of KL(softmax(s/T) || softmax(t/T))`
//!
//! T^2 and T 4 as in `kd`, so that the two can be exchanged.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::real::{self, Real};
use crate::ops::softmax::{softmax, softmax_pull_back};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "reverse_kl",
    title: "MiniLLM: Knowledge Distillation of Large Language Models",
    paper: "arXiv:2306.08543",
    components: &[ComponentSpec::new(
        "reverse_kl",
        "KL(student || teacher) over all classes",
    )],
    options: &[OptionRow::new(
        "temperature",
        "4",
        "divides both networks' logits; as kd",
    )],
    build,
};

struct ReverseKl {
    temperature: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(ReverseKl {
        temperature: options.positive("temperature", 4.0)?,
    }))
}

impl LogitLoss for ReverseKl {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(
            self,
            batch.student(),
            batch.teacher("reverse_kl")?,
            &batch.labels,
        )?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for ReverseKl {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student, teacher, ..
        } = rows;
        let temperature = self.temperature;
        let squared = temperature * temperature;
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [gradient]| {
                let (s, t) = (student.row(i), teacher.row(i));
                let mut p = vec![F::zero(); s.len()];
                let lse_t = softmax(&mut p, t, temperature);
                let lse_s = softmax(&mut p, s, temperature);
                let value = real::dot_difference(&p, s, t).to_f64() / temperature - (lse_s - lse_t);
                // d KL / d p = log p - log q, up to a constant that the softmax takes away.
                real::zip_into(gradient, s, t, |s, t| F::of(temperature) * (s - t));
                softmax_pull_back(gradient, &p, temperature);
                [squared * value]
            },
        ))
    }
}
