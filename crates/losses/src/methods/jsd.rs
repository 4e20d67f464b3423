//! Jensen-Shannon divergence.
//!
//! Lin, "Divergence Measures Based on the Shannon Entropy" (1991); for distillation Agarwal et al., "On-Policy
//! Distillation of Language Models", arXiv:2306.13649, with beta 1/2.
//!
//! With p, q the softmaxes at temperature T and `m = (p + q) / 2`:
//! `jsd = T^2 * mean over B of (KL(p || m) + KL(q || m)) / 2`
//!
//! Never above `T^2 log 2`, however far apart the networks are. T^2 and T 4 as in `kd`.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::real::{self, Real};
use crate::ops::softmax::{softmax, softmax_pull_back, softplus};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "jsd",
    title: "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
    paper: "arXiv:2306.13649",
    components: &[ComponentSpec::new(
        "jsd",
        "Jensen-Shannon divergence over all classes",
    )],
    options: &[OptionRow::new(
        "temperature",
        "4",
        "divides both networks' logits; as kd",
    )],
    build,
};

struct Jsd {
    temperature: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Jsd {
        temperature: options.positive("temperature", 4.0)?,
    }))
}

impl LogitLoss for Jsd {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(self, batch.student(), batch.teacher("jsd")?, &batch.labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Jsd {
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
                let (mut p, mut q) = (vec![F::zero(); s.len()], vec![F::zero(); s.len()]);
                let lse_s = softmax(&mut p, s, temperature);
                let lse_t = softmax(&mut q, t, temperature);
                let mut value = 0.0;
                for class in 0..s.len() {
                    // log(p / m) = log 2 - log(1 + q / p), and likewise for q.
                    let log_ratio = (t[class] - s[class]).to_f64() / temperature - (lse_t - lse_s);
                    let log_p_over_m = std::f64::consts::LN_2 - softplus(log_ratio);
                    let log_q_over_m = log_p_over_m + log_ratio;
                    value += p[class].to_f64() * log_p_over_m + q[class].to_f64() * log_q_over_m;
                    gradient[class] = F::of(log_p_over_m / 2.0);
                }
                softmax_pull_back(gradient, &p, temperature);
                real::scale(gradient, F::of(squared));
                [squared * value / 2.0]
            },
        ))
    }
}
