//! The batch that losses judge: student and teacher logits, labels, and what some losses want besides.

use candle_core::{DType, Device, Tensor};

use crate::LossError;
use crate::error::Need;
use crate::ops::real;

/// One batch as the training loop holds it. Tensors may lie on any device; losses are computed on the host (see
/// [`Objective::forward`](crate::Objective::forward)).
///
/// `B` is the number of samples, `C` the number of classes.
#[derive(Clone, Copy, Debug)]
pub struct LogitBatch<'a> {
    /// (B, C), f32 or f64 (narrower ones are widened to f32), tracked by autograd.
    pub student_logits: &'a Tensor,
    /// (B, C), raw, at temperature 1; None where no loss needs a teacher. Never receives a gradient.
    pub teacher_logits: Option<&'a Tensor>,
    /// (B,), u32, each below C.
    pub labels: &'a Tensor,
    /// The second label of mixed views.
    pub mixed: Option<MixedLabels<'a>>,
    /// The strong view of the same samples in the same order.
    pub strong: Option<StrongView<'a>>,
    /// Further teacher rows from the whole cache, shared by the batch; see [`bank`](crate::bank).
    pub bank: Option<BankRows<'a>>,
    /// What the cache holds in place of `teacher_logits` where rows are the k largest.
    pub top_k: Option<&'a TopKLogits>,
    /// (B,), f32 or f64, 0 or more: how much each sample counts in components that are a mean over samples.
    pub sample_weights: Option<&'a Tensor>,
}

/// The teacher's k largest logits of each sample, and what the other classes add up to. On the host, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopKLogits {
    /// k, below C.
    pub k: usize,
    /// (B, k): which classes, none twice in a row.
    pub classes: Vec<u32>,
    /// (B, k): their logits, raw.
    pub logits: Vec<f32>,
    /// The temperatures T at which `rest` is known.
    pub temperatures: Vec<f32>,
    /// (B, temperatures): log of the sum of exp(logit / T) over the classes that are not listed.
    pub rest: Vec<f32>,
}

/// What mixup and cutmix add: sample i counts as `lambda_i` of its label and `1 - lambda_i` of its partner.
#[derive(Clone, Copy, Debug)]
pub struct MixedLabels<'a> {
    /// (B,), u32.
    pub partner: &'a Tensor,
    /// (B,), f32 or f64, in 0..=1.
    pub lambda: &'a Tensor,
}

/// The logits of the strong views.
#[derive(Clone, Copy, Debug)]
pub struct StrongView<'a> {
    /// (B, C), tracked by autograd.
    pub student_logits: &'a Tensor,
    /// (B, C).
    pub teacher_logits: &'a Tensor,
}

/// Teacher rows of samples outside the batch.
#[derive(Clone, Copy, Debug)]
pub struct BankRows<'a> {
    /// (K, C).
    pub teacher_logits: &'a Tensor,
    /// (K,), u32.
    pub labels: &'a Tensor,
}

impl<'a> LogitBatch<'a> {
    /// A plain batch: one view, one label per sample, no bank.
    pub fn new(
        student_logits: &'a Tensor,
        teacher_logits: Option<&'a Tensor>,
        labels: &'a Tensor,
    ) -> Self {
        Self {
            student_logits,
            teacher_logits,
            labels,
            mixed: None,
            strong: None,
            bank: None,
            top_k: None,
            sample_weights: None,
        }
    }

    /// Checks shapes, labels and finiteness, and brings everything to the host.
    ///
    /// # Errors
    /// Names the tensor and the first offending row.
    pub fn prepare(&self, n_classes: usize) -> Result<PreparedBatch, LossError> {
        let student = on_host(self.student_logits)?;
        let (n_rows, found) = student.dims2()?;
        let wide = |rows: usize| format!("({rows}, {n_classes})");
        if found != n_classes || n_rows == 0 {
            return Err(shape(
                "student logits",
                format!("(B, {n_classes}) with B > 0"),
                &student,
            ));
        }
        finite("student logits", &student)?;
        let constant = |what, tensor: &Tensor, n_rows: usize| {
            let tensor = on_host(tensor)?.detach().to_dtype(student.dtype())?;
            if tensor.dims() != [n_rows, n_classes] {
                return Err(shape(what, wide(n_rows), &tensor));
            }
            finite(what, &tensor)?;
            Ok(tensor)
        };
        let teacher = match self.teacher_logits {
            Some(teacher) => Some(constant("teacher logits", teacher, n_rows)?),
            None => None,
        };
        let strong = match &self.strong {
            Some(view) => {
                let strong = on_host(view.student_logits)?.to_dtype(student.dtype())?;
                if strong.dims() != [n_rows, n_classes] {
                    return Err(shape(
                        "student logits of the strong view",
                        wide(n_rows),
                        &strong,
                    ));
                }
                finite("student logits of the strong view", &strong)?;
                Some((
                    strong,
                    constant(
                        "teacher logits of the strong view",
                        view.teacher_logits,
                        n_rows,
                    )?,
                ))
            }
            None => None,
        };
        let bank = match &self.bank {
            Some(bank) => {
                let n_rows = bank.teacher_logits.dim(0)?;
                let labels = class_labels("bank label", bank.labels, n_rows, n_classes)?;
                Some((
                    constant("teacher logits of the bank", bank.teacher_logits, n_rows)?,
                    labels,
                ))
            }
            None => None,
        };
        let mixed = match &self.mixed {
            Some(mixed) => {
                let partner = class_labels("partner label", mixed.partner, n_rows, n_classes)?;
                let lambda = mixed.lambda.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
                if lambda.dims() != [n_rows] {
                    return Err(shape("lambda", format!("({n_rows},)"), &lambda));
                }
                Some((partner, lambda.to_vec1()?))
            }
            None => None,
        };
        let sample_weights = match self.sample_weights {
            Some(weights) => Some(weights_of_samples(weights, n_rows)?),
            None => None,
        };
        Ok(PreparedBatch {
            sample_weights,
            labels: class_labels("label", self.labels, n_rows, n_classes)?,
            student,
            teacher,
            mixed,
            strong,
            bank,
            top_k: match self.top_k {
                Some(top_k) => Some(top_k.checked(n_rows, n_classes)?),
                None => None,
            },
        })
    }
}

fn weights_of_samples(weights: &Tensor, n_rows: usize) -> Result<Vec<f64>, LossError> {
    let weights = weights.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let values: Vec<f64> = weights.flatten_all()?.to_vec1()?;
    let is_weight = |value: &f64| value.is_finite() && *value >= 0.0;
    if weights.dims() != [n_rows] || !values.iter().all(is_weight) {
        let expected = format!("({n_rows},), each 0 or more");
        return Err(shape("sample weights", expected, &weights));
    }
    Ok(values)
}

impl TopKLogits {
    /// A copy, once shapes, classes and numbers have turned out to be right.
    fn checked(&self, n_rows: usize, n_classes: usize) -> Result<TopKLogits, LossError> {
        let lengths = [
            ("classes of the top k", self.classes.len(), self.k),
            ("teacher logits of the top k", self.logits.len(), self.k),
            (
                "rest of the top k",
                self.rest.len(),
                self.temperatures.len(),
            ),
        ];
        for (what, found, each) in lengths {
            if found != n_rows * each || each == 0 {
                return Err(LossError::Shape {
                    what,
                    expected: format!("({n_rows}, {each}) with at least one column"),
                    found: format!("{found} numbers"),
                });
            }
        }
        let mut last_row = vec![usize::MAX; n_classes];
        for (row, classes) in self.classes.chunks_exact(self.k).enumerate() {
            for &label in classes {
                // A class listed twice is refused like one that does not exist.
                let seen = last_row.get_mut(label as usize);
                match seen.filter(|seen| **seen != row) {
                    Some(seen) => *seen = row,
                    None => {
                        return Err(LossError::Label {
                            what: "class of the top k",
                            label,
                            row,
                            n_classes,
                        });
                    }
                }
            }
        }
        let all = self.logits.chunks_exact(self.k);
        let all = all.zip(self.rest.chunks_exact(self.temperatures.len()));
        for (row, (logits, rest)) in all.enumerate() {
            if !logits.iter().chain(rest).all(|z| z.is_finite()) {
                let what = "teacher logits of the top k";
                return Err(LossError::NotFinite { what, row });
            }
        }
        Ok(self.clone())
    }

    /// The classes and logits of a row.
    pub(crate) fn listed(&self, row: usize) -> impl Iterator<Item = (usize, f64)> + Clone {
        let span = row * self.k..(row + 1) * self.k;
        let classes = self.classes[span.clone()].iter();
        classes
            .zip(&self.logits[span])
            .map(|(class, z)| (*class as usize, f64::from(*z)))
    }
}

/// A batch that has been checked and lies on the host: what a [`LogitLoss`](crate::LogitLoss) is given.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    pub(crate) student: Tensor,
    pub(crate) teacher: Option<Tensor>,
    pub(crate) labels: Vec<u32>,
    pub(crate) mixed: Option<(Vec<u32>, Vec<f64>)>,
    pub(crate) strong: Option<(Tensor, Tensor)>,
    pub(crate) bank: Option<(Tensor, Vec<u32>)>,
    pub(crate) top_k: Option<TopKLogits>,
    pub(crate) sample_weights: Option<Vec<f64>>,
}

impl PreparedBatch {
    /// Student logits (B, C), tracked.
    pub fn student(&self) -> &Tensor {
        &self.student
    }

    /// Teacher logits (B, C), constant.
    ///
    /// # Errors
    /// [`LossError::Unserved`] where the batch has none.
    pub fn teacher(&self, loss: &str) -> Result<&Tensor, LossError> {
        self.teacher.as_ref().ok_or_else(|| LossError::Unserved {
            loss: loss.to_owned(),
            needs: Need::Teacher,
            supplied: "the batch has none",
        })
    }

    /// One label per sample.
    ///
    /// # Errors
    /// [`LossError::Unserved`] where samples are mixed.
    pub fn single_labels(&self, loss: &str) -> Result<&[u32], LossError> {
        match self.mixed {
            None => Ok(&self.labels),
            Some(_) => Err(LossError::Unserved {
                loss: loss.to_owned(),
                needs: Need::SingleLabel,
                supplied: "the batch holds mixed views with two",
            }),
        }
    }

    /// Student and teacher logits of the strong view, (B, C) each.
    ///
    /// # Errors
    /// [`LossError::Unserved`] where the batch has none.
    pub fn strong(&self, loss: &str) -> Result<(&Tensor, &Tensor), LossError> {
        match &self.strong {
            Some((student, teacher)) => Ok((student, teacher)),
            None => Err(LossError::Unserved {
                loss: loss.to_owned(),
                needs: Need::StrongView,
                supplied: "the batch has one view of each",
            }),
        }
    }
}

/// The tensor on the host, contiguous, f32 or f64. `to_device` and `to_dtype` pass gradients back.
fn on_host(tensor: &Tensor) -> Result<Tensor, LossError> {
    let tensor = tensor.to_device(&Device::Cpu)?;
    let tensor = match tensor.dtype() {
        DType::F32 | DType::F64 => tensor,
        _ => tensor.to_dtype(DType::F32)?,
    };
    Ok(tensor.contiguous()?)
}

fn shape(what: &'static str, expected: String, found: &Tensor) -> LossError {
    LossError::Shape {
        what,
        expected,
        found: format!("{:?}", found.dims()),
    }
}

fn finite(what: &'static str, logits: &Tensor) -> Result<(), LossError> {
    let row = match logits.dtype() {
        DType::F64 => first_bad_row::<f64>(logits)?,
        _ => first_bad_row::<f32>(logits)?,
    };
    row.map_or(Ok(()), |row| Err(LossError::NotFinite { what, row }))
}

fn first_bad_row<F: real::Real>(logits: &Tensor) -> Result<Option<usize>, LossError> {
    crate::fused::with_view(logits, |view| {
        view.rows().position(|row| !real::all_finite::<F>(row))
    })
}

fn class_labels(
    what: &'static str,
    labels: &Tensor,
    n_rows: usize,
    n_classes: usize,
) -> Result<Vec<u32>, LossError> {
    if labels.dims() != [n_rows] {
        return Err(shape(what, format!("({n_rows},)"), labels));
    }
    let labels: Vec<u32> = labels
        .to_device(&Device::Cpu)?
        .to_dtype(DType::U32)?
        .to_vec1()?;
    match labels.iter().position(|&label| label as usize >= n_classes) {
        Some(row) => Err(LossError::Label {
            what,
            label: labels[row],
            row,
            n_classes,
        }),
        None => Ok(labels),
    }
}
