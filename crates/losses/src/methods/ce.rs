//! Cross-entropy with the labels.
//!
//! `ce = mean over B of -log softmax(s)[label]`, and `lambda` times that of the label plus `1 - lambda` times that of
//! the partner on mixed views. Temperature 1, always on the raw student logits. With label smoothing e (Szegedy et al.,
//! arXiv:1512.00567, section 7) the target is `(1 - e)` times the label plus `e / C` for every class, as in PyTorch.

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
    options: &[
        OptionRow::new(
            "strong",
            "false",
            "also on the strong view, and added (MLKD's two-view setting)",
        ),
        OptionRow::new(
            "label_smoothing",
            "0",
            "share of the target that is spread evenly over all classes (arXiv:1512.00567)",
        ),
    ],
    build,
};

struct CrossEntropy {
    strong: bool,
    smoothing: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(CrossEntropy {
        strong: options.flag("strong", false)?,
        smoothing: options.number(
            "label_smoothing",
            0.0,
            "a number from 0 to just below 1",
            |x| (0.0..1.0).contains(&x),
        )?,
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
            smoothing: self.smoothing,
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
    smoothing: f64,
}

impl Closed for OnLabels<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let student = rows.student;
        // The target is one hot but for its smoothed share: `kept` goes to labels, `each` to every class.
        let kept = 1.0 - self.smoothing;
        let each = self.smoothing / student.n_cols as f64;
        Ok(per_sample(
            student.n_rows,
            student.n_cols,
            |i, [gradient]| {
                let (row, label) = (student.row(i), rows.labels[i] as usize);
                let mut loss = softmax(gradient, row, 1.0);
                let mut towards = |class: usize, share: f64| {
                    gradient[class] -= F::of(share);
                    loss -= share * row[class].to_f64();
                };
                match self.mixed {
                    None => towards(label, kept),
                    Some((partners, lambdas)) => {
                        towards(label, kept * lambdas[i]);
                        towards(partners[i] as usize, kept * (1.0 - lambdas[i]));
                    }
                }
                if each > 0.0 {
                    (0..row.len()).for_each(|class| towards(class, each));
                }
                [loss]
            },
        ))
    }
}
