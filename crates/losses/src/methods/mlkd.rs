//! Multi-level logit distillation.
//!
//! Jin et al., "Multi-level Logit Distillation", CVPR 2023; equations known by way of the authors' code
//! (`distillers/KD_ours.py`) and of its one-view form by the authors of RLD (`distillers/MLKD_NOAUG.py`).
//!
//! At each of several temperatures, with `P`, `Q` the (B, C) matrices of the student's and teacher's probabilities:
//!
//! - `kd = m_b * sum over T of T^2 * mean over B of KL(Q || P)`
//! - `cc = m_c * sum over T of |Q'Q - P'P|^2 / C`: which classes go together, (C, C)
//! - `bc = m_b * sum over T of |QQ' - PP'|^2 / B`: which samples go together, (B, B)
//!
//! `m_b` is the share of samples whose teacher confidence at T 1 is at most the batch's median, `m_c` the share of classes
//! whose summed probability is at most the median over classes. The paper means masks per sample and class; the
//! code multiplies a reduced scalar by the mask and averages, so only these shares remain. We keep to the code,
//! whose numbers are the published ones.
//!
//! With `two_view = true` the above is on the weak view, and `kd` gains `KL` on the strong view at the first three
//! temperatures and once more on the *weak* view at the others (apparently a slip in the code, kept). The strong
//! view's
//! `cc` and `bc`, which the code computes and drops, are left out.
//!
//! Defaults are the code's for CIFAR: temperatures 4, 3, 5, 2, 6, weight 0.9 for each part beside `ce` 0.1 (with
//! `strong = true` in the two-view form). `standardize` (LSKD's setting: first temperature 2, weight 9) touches `kd` alone.

use candle_core::{DType, Tensor};

use crate::fused::{Closed, Outcome, Rows, Values, fused, with_view};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::methods::STANDARDIZE;
use crate::methods::kd::kd;
use crate::ops::gram::GramDifference;
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, View, for_each_row};
use crate::ops::softmax::{softmax_pull_back, softmax_rows};
use crate::ops::standardize::standardize_if;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "mlkd",
    title: "Multi-level Logit Distillation",
    paper: "CVPR 2023, Jin et al. (no arXiv version)",
    components: &[
        ComponentSpec::new("kd", "KL of each sample at several temperatures").weight(0.9),
        ComponentSpec::new("cc", "Gram matrices of classes")
            .weight(0.9)
            .whole_batch("classes are compared over the whole batch"),
        ComponentSpec::new("bc", "Gram matrices of samples")
            .weight(0.9)
            .whole_batch("every sample is compared with every other"),
    ],
    options: &[
        OptionRow::new(
            "temperatures",
            "[4, 3, 5, 2, 6]",
            "summed over; authors' code, CIFAR (ImageNet: the first is 1)",
        ),
        OptionRow::new(
            "two_view",
            "false",
            "the authors' own form, on a weak and a strong view; false is the RLD authors' fair one-view form",
        ),
        STANDARDIZE,
    ],
    build,
};

/// How many of the temperatures the code applies to the strong view.
const ON_STRONG_VIEW: usize = 3;

struct Mlkd {
    temperatures: Vec<f64>,
    two_view: bool,
    standardize: bool,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Mlkd {
        temperatures: options.positive_list("temperatures", &[4.0, 3.0, 5.0, 2.0, 6.0])?,
        two_view: options.flag("two_view", false)?,
        standardize: options.flag("standardize", false)?,
    }))
}

impl LogitLoss for Mlkd {
    fn needs(&self) -> Needs {
        Needs {
            strong_view: self.two_view,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (weak, teacher) = (batch.student(), batch.teacher("mlkd")?);
        // In f64: near certainty f32 rounds different confidences to equal ones, and moves the median.
        let (share_of_samples, share_of_classes) =
            with_view::<f64, _>(&teacher.to_dtype(DType::F64)?, shares_below_median)?;

        let (student, standard_teacher) = standardize_if(self.standardize, weak, teacher)?;
        let divergences = |temperatures: &[f64],
                           student: &Tensor,
                           teacher: &Tensor|
         -> Result<Tensor, LossError> {
            let method = Divergences(temperatures.to_vec());
            Ok(fused(&method, student, teacher, &batch.labels)?.swap_remove(0))
        };
        let mut kd =
            (divergences(&self.temperatures, &student, &standard_teacher)? * share_of_samples)?;
        if self.two_view {
            let (strong, strong_teacher) = batch.strong("mlkd")?;
            let (strong, strong_teacher) =
                standardize_if(self.standardize, strong, strong_teacher)?;
            let (first, last) = self
                .temperatures
                .split_at(ON_STRONG_VIEW.min(self.temperatures.len()));
            kd = (kd + divergences(first, &strong, &strong_teacher)?)?;
            kd = (kd + divergences(last, &student, &standard_teacher)?)?;
        }

        let relations = Relations {
            temperatures: &self.temperatures,
        };
        let values = fused(&relations, weak, teacher, &batch.labels)?;
        Ok(vec![
            Component::mean_of(kd)?,
            Component::from_values((&values[0] * share_of_classes)?)?,
            Component::from_values((&values[1] * share_of_samples)?)?,
        ])
    }
}

/// `kd` summed over temperatures, per sample.
struct Divergences(Vec<f64>);

impl Closed for Divergences {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let mut sums = vec![F::zero(); rows.student.n_rows];
        let mut pullbacks = Vec::with_capacity(self.0.len());
        for &temperature in &self.0 {
            let outcome = kd(rows, temperature);
            if let Some(Values::PerSample(losses)) = outcome.components.first() {
                real::add_scaled(&mut sums, F::one(), losses);
            }
            pullbacks.push(outcome.pullback);
        }
        Ok(Outcome {
            components: vec![Values::PerSample(sums)],
            pullback: Box::new(move |upstream, gradient| {
                pullbacks.iter().for_each(|pull| pull(upstream, gradient))
            }),
        })
    }
}

/// `cc` and `bc` without their masks.
struct Relations<'a> {
    temperatures: &'a [f64],
}

impl Closed for Relations<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Rows {
            student, teacher, ..
        } = rows;
        let (n_rows, n_cols) = (student.n_rows as f64, student.n_cols as f64);
        let (mut cc, mut bc) = (0.0, 0.0);
        let mut kept = Vec::with_capacity(self.temperatures.len());
        for &temperature in self.temperatures {
            let p = softmax_rows(student, |_| temperature);
            let q = softmax_rows(teacher, |_| temperature);
            let classes = GramDifference::of_columns(p.view(), q.view());
            let samples = GramDifference::of_rows(p.view(), q.view());
            cc += classes.squared_norm() / n_cols;
            bc += samples.squared_norm() / n_rows;
            kept.push((temperature, p, classes, samples));
        }
        Ok(Outcome {
            components: vec![Values::Whole(F::of(cc)), Values::Whole(F::of(bc))],
            pullback: Box::new(move |upstream, gradient| {
                let (by_cc, by_bc) = (upstream[0][0].to_f64(), upstream[1][0].to_f64());
                for (temperature, p, classes, samples) in &kept {
                    let mut by_p = Matrix::zeros(p.n_rows, p.n_cols);
                    if by_cc != 0.0 {
                        classes.add_gradient(p.view(), by_cc / n_cols, &mut by_p);
                    }
                    if by_bc != 0.0 {
                        samples.add_gradient(p.view(), by_bc / n_rows, &mut by_p);
                    }
                    for_each_row(&mut by_p.data, p.n_cols, |i, row| {
                        softmax_pull_back(row, p.row(i), *temperature)
                    });
                    real::add_scaled(&mut gradient.data, F::one(), &by_p.data);
                }
            }),
        })
    }
}

/// `m_b` and `m_c` from the teacher's logits.
fn shares_below_median(teacher: View<'_, f64>) -> (f64, f64) {
    let probabilities = softmax_rows(teacher, |_| 1.0);
    let confidences: Vec<f64> = probabilities.view().rows().map(real::max).collect();
    let mut sums = vec![0.0; teacher.n_cols];
    for row in probabilities.view().rows() {
        real::add_scaled(&mut sums, 1.0, row);
    }
    (share_below_median(&confidences), share_below_median(&sums))
}

/// The share of values up to the median, which lies halfway between the middle two of an even number.
fn share_below_median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    values.iter().filter(|&&value| value <= median).count() as f64 / n as f64
}
