//! Knowledge distillation.
//!
//! Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
//!
//! `kd = T^2 * mean over B of KL(softmax(t/T) || softmax(s/T))`
//!
//! As the authors of mdistiller compute it (`distillers/KD.py`). Defaults are mdistiller's for CIFAR-100 (T 4, and
//! weight 0.9 beside 0.1 of `ce`); for ImageNet they take T 1 and weights 0.5. With `standardize = true` this is LSKD
//! (arXiv:2403.01427), whose own defaults are T 2 and weight 9. Labels are ignored.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup, TeacherNeed,
};
use crate::methods::STANDARDIZE;
use crate::ops::real::{self, Real};
use crate::ops::softmax::{divergence, softmax};
use crate::ops::standardize::standardize_if;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "kd",
    title: "Distilling the Knowledge in a Neural Network",
    paper: "arXiv:1503.02531",
    components: &[ComponentSpec::new("kd", "KL(teacher || student) over all classes").weight(0.9)],
    options: &[
        OptionRow::new(
            "temperature",
            "4",
            "both networks' logits are divided by it; mdistiller, CIFAR-100",
        ),
        STANDARDIZE,
    ],
    build,
};

struct Kd {
    temperature: f64,
    standardize: bool,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Kd {
        temperature: options.positive("temperature", 4.0)?,
        standardize: options.flag("standardize", false)?,
    }))
}

impl LogitLoss for Kd {
    fn needs(&self) -> Needs {
        let statistic = match self.standardize {
            false => "log-sum-exp of the rest at the loss's temperature",
            true => {
                "log-sum-exp of the rest at the loss's temperature, mean and standard deviation of the row"
            }
        };
        Needs {
            teacher: TeacherNeed::TopK(statistic),
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) =
            standardize_if(self.standardize, batch.student(), batch.teacher("kd")?)?;
        let losses = fused(self, &student, &teacher, &batch.labels)?;
        losses.into_iter().map(Component::from_values).collect()
    }
}

impl Closed for Kd {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        Ok(kd(rows, self.temperature))
    }
}

/// The loss of each sample, with the factor T^2.
pub(crate) fn kd<F: Real>(rows: Rows<'_, F>, temperature: f64) -> Outcome<F> {
    let Rows {
        student, teacher, ..
    } = rows;
    per_sample(student.n_rows, student.n_cols, |i, [gradient]| {
        let (s, t) = (student.row(i), teacher.row(i));
        let mut q = vec![F::zero(); t.len()];
        let lse_t = softmax(&mut q, t, temperature);
        let lse_s = softmax(gradient, s, temperature);
        // d KL / d s = (p - q) / T, and `gradient` holds p.
        real::update(gradient, &q, |p, q| F::of(temperature) * (p - q));
        [temperature * temperature * divergence(&q, (t, lse_t), (s, lse_s), temperature)]
    })
}
