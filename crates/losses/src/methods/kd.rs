//! Knowledge distillation.
//!
//! Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
//!
//! `kd = T^2 * mean over B of KL(softmax(t/T) || softmax(s/T))`
//!
//! As the authors of mdistiller compute it (`distillers/KD.py`). Defaults are mdistiller's for CIFAR-100 (T 4, and
//! weight 0.9 beside 0.1 of `ce`); for ImageNet they take T 1 and weights 0.5. With `standardize = true` this is LSKD
//! (arXiv:2403.01427), whose own defaults are T 2 and weight 9. Labels are ignored.
//!
//! From a top-k cache the divergence runs over k + 1 outcomes: the teacher's k largest classes, and all others as one.
//! Their shares follow exactly from the listed logits and the stored log-sum-exp of the others; the cache keeps that at
//! three temperatures, and another one is refused. By the log-sum inequality it is never more than the loss over all
//! classes. `standardize` divides each row by a number of its own, for which no log-sum-exp is kept: it wants all classes.

use crate::error::Need;
use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup, TeacherNeed,
};
use crate::methods::STANDARDIZE;
use crate::ops::real::{self, Real};
use crate::ops::softmax::{divergence, softmax, softmax_where};
use crate::ops::standardize::standardize_if;
use crate::{LossError, Options, PreparedBatch, TopKLogits};

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
        let temperature = self.temperature;
        Needs {
            teacher: match self.standardize {
                false => TeacherNeed::TopK { temperature },
                true => TeacherNeed::Dense,
            },
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        if let Some(top_k) = &batch.top_k {
            return self.over_buckets(top_k, batch);
        }
        let (student, teacher) =
            standardize_if(self.standardize, batch.student(), batch.teacher("kd")?)?;
        let losses = fused(self, &student, &teacher, &batch.labels)?;
        losses.into_iter().map(Component::from_values).collect()
    }
}

impl Kd {
    fn over_buckets(
        &self,
        top_k: &TopKLogits,
        batch: &PreparedBatch,
    ) -> Result<Vec<Component>, LossError> {
        let unserved = |needs, supplied| LossError::Unserved {
            loss: "kd".to_owned(),
            needs,
            supplied,
        };
        if self.standardize {
            return Err(unserved(Need::DenseLogits, "the batch holds the top k"));
        }
        let is_ours = |kept: &f32| f64::from(*kept) == self.temperature;
        let at = top_k.temperatures.iter().position(is_ours);
        let at = at.ok_or_else(|| {
            let supplied = "the batch holds the rest at other temperatures";
            unserved(Need::RestAt(self.temperature), supplied)
        })?;
        let buckets = Buckets {
            temperature: self.temperature,
            top_k,
            at,
        };
        // The method reads the teacher from the buckets; the student stands in for the matrix that there is none of.
        let student = batch.student();
        let losses = fused(&buckets, student, &student.detach(), &batch.labels)?;
        losses.into_iter().map(Component::from_values).collect()
    }
}

/// KD over the listed classes and the rest as one.
struct Buckets<'a> {
    temperature: f64,
    top_k: &'a TopKLogits,
    /// Which of the kept temperatures is ours.
    at: usize,
}

impl Closed for Buckets<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let (temperature, student) = (self.temperature, rows.student);
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [gradient]| {
                let s = student.row(i);
                let listed = self.top_k.listed(i);
                let rest_t =
                    f64::from(self.top_k.rest[i * self.top_k.temperatures.len() + self.at]);
                let lse_t =
                    log_sum_exp(listed.clone().map(|(_, t)| t / temperature).chain([rest_t]));
                let mut is_listed = vec![false; s.len()];
                listed
                    .clone()
                    .for_each(|(class, _)| is_listed[class] = true);
                let mut within_rest = vec![F::zero(); s.len()];
                let rest_s =
                    softmax_where(&mut within_rest, s, temperature, |class| !is_listed[class]);
                let lse_s = softmax(gradient, s, temperature);
                // `gradient` holds p. Of the rest, each class gets the share of the bucket that the student gives it.
                let q_rest = (rest_t - lse_t).exp();
                real::update(gradient, &within_rest, |p, share| {
                    F::of(temperature) * (p - F::of(q_rest) * share)
                });
                let mut value = lse_s - lse_t;
                if q_rest > 0.0 {
                    value += q_rest * (rest_t - rest_s);
                }
                for (class, t) in listed {
                    let q = (t / temperature - lse_t).exp();
                    value += q * (t - s[class].to_f64()) / temperature;
                    gradient[class] -= F::of(temperature * q);
                }
                [temperature * temperature * value]
            },
        ))
    }
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    max + values.map(|z| (z - max).exp()).sum::<f64>().ln()
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
