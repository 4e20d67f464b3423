//! Refined logit distillation.
//!
//! Sun et al., "Knowledge Distillation with Refined Logits", arXiv:2408.07703; equations known by way of the
//! authors' code (`distillers/RLD.py` of zju-SWJ/RLD).
//!
//! With m the teacher's own first choice (the first class on ties) and y the label:
//!
//! - `scd = Ta^2 * mean over B of KL([q_m, 1 - q_m] || [p_y, 1 - p_y])` at temperature Ta: the teacher's confidence in
//!   *its* choice is what the student should have in the *true* class
//! - `mcd = T^2 * mean over B of KL` between the softmaxes over the classes that the teacher puts strictly below y.
//!   A sample whose label is the teacher's last choice keeps no class, and counts as 0 in the mean.
//!
//! The authors mask by -1e9 and take the logarithm of a summed probability, which in f32 is infinite at logits of
//! scale 50 with Ta 1; here both come from log-sum-exp. Defaults are the code's: T 4, Ta 1, alpha 1, beta 8, a
//! warm-up of 20 epochs; the paper's beta is 4, and its README's commands set Ta to T (`--same-t`).

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup, Warmup,
};
use crate::methods::STANDARDIZE;
use crate::ops::first_largest;
use crate::ops::real::{self, Real};
use crate::ops::softmax::{against_rest, binary_divergence, divergence, softmax_where};
use crate::ops::standardize::standardize_if;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "rld",
    title: "Knowledge Distillation with Refined Logits",
    paper: "arXiv:2408.07703",
    components: &[
        ComponentSpec::new(
            "scd",
            "the teacher's confidence in its choice against the student's in the label",
        )
        .weight_key("alpha")
        .warmup(Warmup::Epochs(20.0)),
        ComponentSpec::new(
            "mcd",
            "KL among the classes that the teacher puts below the label",
        )
        .weight(8.0)
        .weight_key("beta")
        .warmup(Warmup::Epochs(20.0)),
    ],
    options: &[
        OptionRow::new(
            "temperature",
            "4",
            "divides both networks' logits in `mcd`; authors' code",
        ),
        OptionRow::new("scd_temperature", "1", "the same in `scd`; authors' code"),
        STANDARDIZE,
    ],
    build,
};

struct Rld {
    temperature: f64,
    scd_temperature: f64,
    standardize: bool,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Rld {
        temperature: options.positive("temperature", 4.0)?,
        scd_temperature: options.positive("scd_temperature", 1.0)?,
        standardize: options.flag("standardize", false)?,
    }))
}

impl LogitLoss for Rld {
    fn needs(&self) -> Needs {
        Needs {
            labels: LabelNeed::Single,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) =
            standardize_if(self.standardize, batch.student(), batch.teacher("rld")?)?;
        let values = fused(self, &student, &teacher, batch.single_labels("rld")?)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Rld {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student,
            teacher,
            labels,
        } = rows;
        let (t_mcd, t_scd) = (self.temperature, self.scd_temperature);
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [by_scd, by_mcd]| {
                let (s, t, label) = (student.row(i), teacher.row(i), labels[i] as usize);

                let of_student = against_rest(s, label, t_scd);
                let of_teacher = against_rest(t, first_largest(t), t_scd);
                let (scd, slope) = binary_divergence(of_teacher.log_odds, of_student.log_odds);
                of_student.gradient_of_log_odds(by_scd, t_scd * slope);

                let is_below_label = |class: usize| t[class] < t[label];
                let mut q = vec![F::zero(); t.len()];
                let lse_t = softmax_where(&mut q, t, t_mcd, is_below_label);
                let lse_s = softmax_where(by_mcd, s, t_mcd, is_below_label);
                let mcd = match lse_t == f64::NEG_INFINITY {
                    true => 0.0,
                    false => divergence(&q, (t, lse_t), (s, lse_s), t_mcd),
                };
                real::update(by_mcd, &q, |p, q| F::of(t_mcd) * (p - q));

                [t_scd * t_scd * scd, t_mcd * t_mcd * mcd]
            },
        ))
    }
}
