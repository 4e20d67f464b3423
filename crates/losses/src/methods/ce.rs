//! Cross-entropy with the labels.
//!
//! `ce = mean over B of -log softmax(s)[label]`, and `lambda` times that of the label plus `1 - lambda` times that of
//! the partner on mixed views. Temperature 1, always on the raw student logits.

use crate::fused::{Closed, Outcome, Rows, fused, per_sample};
use crate::loss::{
    Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup, TeacherNeed,
};
use crate::ops::real::Real;
use crate::ops::softmax::softmax;
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "ce",
    title: "Cross-entropy with the labels",
    paper: "no paper: the classification loss",
    components: &[ComponentSpec::new("ce", "student against label")],
    options: &[OptionRow::new(
        "strong",
        "false",
        "also on the strong view, and added (MLKD's two-view setting)",
    )],
    build,
};

struct CrossEntropy {
    strong: bool,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(CrossEntropy {
        strong: options.flag("strong", false)?,
    }))
}

impl LogitLoss for CrossEntropy {
    fn needs(&self) -> Needs {
        Needs {
            teacher: TeacherNeed::Nothing,
            labels: LabelNeed::Mixable,
            strong_view: self.strong,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let method = OnLabels {
            mixed: batch.mixed.as_ref(),
        };
        let on = |student| -> Result<_, LossError> {
            Ok(fused(&method, student, student, &batch.labels)?.swap_remove(0))
        };
        let mut losses = on(batch.student())?;
        if self.strong {
            losses = (losses + on(batch.strong("ce")?.0)?)?;
        }
        Ok(vec![Component::mean_of(losses)?])
    }
}

struct OnLabels<'a> {
    mixed: Option<&'a (Vec<u32>, Vec<f64>)>,
}

impl Closed for OnLabels<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let student = rows.student;
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [gradient]| {
                let (row, label) = (student.row(i), rows.labels[i] as usize);
                let log_sum_exp = softmax(gradient, row, 1.0);
                match self.mixed {
                    None => {
                        gradient[label] -= F::one();
                        [log_sum_exp - row[label].to_f64()]
                    }
                    Some((partners, lambdas)) => {
                        let (partner, lambda) = (partners[i] as usize, lambdas[i]);
                        gradient[label] -= F::of(lambda);
                        gradient[partner] -= F::of(1.0 - lambda);
                        [log_sum_exp
                            - lambda * row[label].to_f64()
                            - (1.0 - lambda) * row[partner].to_f64()]
                    }
                }
            },
        ))
    }
}
