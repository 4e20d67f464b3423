//! Decoupled knowledge distillation.
//!
//! Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679, equations 5 to 7.
//!
//! KL splits into what is said of the target class against all others, and what is said among the others. With
//! `b = [p_y, 1 - p_y]` at temperature T, of either network at the true label y:
//!
//! - `tckd = T^2 * mean over B of KL(b_t || b_s)`
//! - `nckd = T^2 * mean over B of KL` between the softmaxes over the C - 1 classes other than y.
//!
//! The authors' code removes class y by adding -1000 to its logit, and takes logarithms of summed probabilities:
//! NaN in f32 for logits of scale 50 at T 1. Here both parts come from the log-sum-exp over the other classes; in
//! float64 the two agree. Defaults are mdistiller's for CIFAR-100: T 4, alpha 1, beta 8 (2 for ResNet-56 to
//! ResNet-20), a warm-up of 20 epochs; ImageNet T 1, beta 0.5, no warm-up. The LSKD setting is `standardize =
//! true`, T 2, alpha 9, beta 72.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup, Warmup,
};
use crate::methods::STANDARDIZE;
use crate::ops::real::{self, Real};
use crate::ops::softmax::{against_rest, binary_divergence, divergence};
use crate::ops::standardize::standardize_if;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "dkd",
    title: "Decoupled Knowledge Distillation",
    paper: "arXiv:2203.08679",
    components: &[
        ComponentSpec::new("tckd", "KL of target against non-target")
            .weight_key("alpha")
            .warmup(Warmup::Epochs(20.0)),
        ComponentSpec::new("nckd", "KL among the non-target classes")
            .weight(8.0)
            .weight_key("beta")
            .warmup(Warmup::Epochs(20.0)),
    ],
    options: &[
        OptionRow::new(
            "temperature",
            "4",
            "divides both networks' logits; mdistiller, CIFAR-100",
        ),
        STANDARDIZE,
    ],
    build,
};

struct Dkd {
    temperature: f64,
    standardize: bool,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Dkd {
        temperature: options.positive("temperature", 4.0)?,
        standardize: options.flag("standardize", false)?,
    }))
}

impl LogitLoss for Dkd {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) =
            standardize_if(self.standardize, batch.student(), batch.teacher("dkd")?)?;
        let values = fused(self, &student, &teacher, batch.single_labels("dkd")?)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Dkd {
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
            |i, [by_tckd, by_nckd]| {
                let (s, t, label) = (student.row(i), teacher.row(i), labels[i] as usize);
                let of_student = against_rest(s, label, temperature);
                let of_teacher = against_rest(t, label, temperature);

                let (tckd, slope) = binary_divergence(of_teacher.log_odds, of_student.log_odds);
                of_student.gradient_of_log_odds(by_tckd, temperature * slope);

                let (p, q) = (&of_student.rest, &of_teacher.rest);
                let nckd = divergence(
                    q,
                    (t, of_teacher.log_sum_rest),
                    (s, of_student.log_sum_rest),
                    temperature,
                );
                real::zip_into(by_nckd, p, q, |p, q| F::of(temperature) * (p - q));

                let squared = temperature * temperature;
                [squared * tckd, squared * nckd]
            },
        ))
    }
}
