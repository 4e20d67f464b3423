//! The batch that losses judge: student and teacher logits, labels, and what some losses want besides.

use candle_core::{DType, Device, Tensor};

use crate::LossError;
use crate::error::Need;

/// One batch as the training loop holds it. Losses are computed where the student's logits lie; other tensors are
/// brought there.
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
    /// (B,), u32, each below C: the label of the image that was mixed in.
    pub partner: &'a Tensor,
    /// (B,), f32 or f64, in 0..=1.
    pub lambda: &'a Tensor,
}

/// The logits of the strong views.
#[derive(Clone, Copy, Debug)]
pub struct StrongView<'a> {
    /// (B, C), tracked by autograd.
    pub student_logits: &'a Tensor,
    /// (B, C), raw: the teacher's rows of the strong views. Never receives a gradient.
    pub teacher_logits: &'a Tensor,
}

/// Teacher rows of samples outside the batch.
#[derive(Clone, Copy, Debug)]
pub struct BankRows<'a> {
    /// (K, C), raw, for K samples of any number. Never receives a gradient.
    pub teacher_logits: &'a Tensor,
    /// (K,), u32, each below C: the labels of those samples.
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

    /// Checks shapes, labels and finiteness, and brings everything to the student's device and type.
    ///
    /// What must be looked at (are all logits finite, all labels classes) is reduced to one number a tensor on the
    /// device, and read back once.
    ///
    /// # Errors
    /// Names the tensor and the first offending row.
    pub fn prepare(&self, n_classes: usize) -> Result<PreparedBatch, LossError> {
        let student = floating(self.student_logits)?;
        let (n_rows, found) = student.dims2()?;
        if found != n_classes || n_rows == 0 {
            let expected = format!("(B, {n_classes}) with B > 0");
            return Err(shape("student logits", expected, &student));
        }
        let mut checks = Checks::default();
        checks.finite("student logits", &student)?;
        let constant = |checks: &mut Checks, what, logits: &Tensor, n_rows: usize| {
            let logits = like(logits, &student)?.contiguous()?;
            rows_of(what, &logits, n_rows, n_classes)?;
            checks.finite(what, &logits)?;
            Ok::<_, LossError>(logits)
        };
        let teacher = match self.teacher_logits {
            Some(teacher) => Some(constant(&mut checks, "teacher logits", teacher, n_rows)?),
            None => None,
        };
        let strong = match &self.strong {
            Some(view) => {
                let what = "student logits of the strong view";
                let strong = view.student_logits.to_device(student.device())?;
                let strong = strong.to_dtype(student.dtype())?.contiguous()?;
                rows_of(what, &strong, n_rows, n_classes)?;
                checks.finite(what, &strong)?;
                let what = "teacher logits of the strong view";
                Some((
                    strong,
                    constant(&mut checks, what, view.teacher_logits, n_rows)?,
                ))
            }
            None => None,
        };
        let bank = match &self.bank {
            Some(bank) => {
                let n_rows = bank.teacher_logits.dim(0)?;
                let what = "teacher logits of the bank";
                let rows = constant(&mut checks, what, bank.teacher_logits, n_rows)?;
                let labels = on(student.device(), bank.labels)?;
                checks.labels("bank label", &labels, n_rows, n_classes)?;
                Some((rows, labels))
            }
            None => None,
        };
        let mixed = match &self.mixed {
            Some(mixed) => {
                let partner = on(student.device(), mixed.partner)?;
                checks.labels("partner label", &partner, n_rows, n_classes)?;
                let lambda = like(mixed.lambda, &student)?;
                if lambda.dims() != [n_rows] {
                    return Err(shape("lambda", format!("({n_rows},)"), &lambda));
                }
                Some((partner, lambda))
            }
            None => None,
        };
        let sample_weights = match self.sample_weights {
            Some(weights) => {
                let weights = like(weights, &student)?;
                checks.weights(&weights, n_rows)?;
                Some(weights)
            }
            None => None,
        };
        let labels = on(student.device(), self.labels)?;
        checks.labels("label", &labels, n_rows, n_classes)?;
        checks.pass()?;
        Ok(PreparedBatch {
            sample_weights,
            labels,
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

impl TopKLogits {
    /// A copy, once shapes, classes and numbers have turned out to be right.
    fn checked(&self, n_rows: usize, n_classes: usize) -> Result<TopKLogits, LossError> {
        self.check_lengths(n_rows)?;
        self.check_classes(n_classes)?;
        self.check_finite()?;
        Ok(self.clone())
    }

    /// Refuses lists that are not rows of k, or of a value for each temperature.
    fn check_lengths(&self, n_rows: usize) -> Result<(), LossError> {
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
        Ok(())
    }

    /// Refuses a row that lists a class twice or one that does not exist.
    fn check_classes(&self, n_classes: usize) -> Result<(), LossError> {
        let mut last_row = vec![usize::MAX; n_classes];
        for (row, classes) in self.classes.chunks_exact(self.k).enumerate() {
            for &label in classes {
                match last_row.get_mut(label as usize) {
                    Some(seen) if *seen == row => {
                        return Err(LossError::ClassTwice { class: label, row });
                    }
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
        Ok(())
    }

    /// Refuses a row with a NaN or an infinity among its logits or the rest.
    fn check_finite(&self) -> Result<(), LossError> {
        let all = self.logits.chunks_exact(self.k);
        let all = all.zip(self.rest.chunks_exact(self.temperatures.len()));
        for (row, (logits, rest)) in all.enumerate() {
            if !logits.iter().chain(rest).all(|z| z.is_finite()) {
                let what = "teacher logits of the top k";
                return Err(LossError::NotFinite { what, row });
            }
        }
        Ok(())
    }
}

/// A batch that has been checked, on the student's device and in its type: what a [`LogitLoss`](crate::LogitLoss) is
/// given.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    student: Tensor,
    teacher: Option<Tensor>,
    labels: Tensor,
    mixed: Option<(Tensor, Tensor)>,
    strong: Option<(Tensor, Tensor)>,
    bank: Option<(Tensor, Tensor)>,
    top_k: Option<TopKLogits>,
    sample_weights: Option<Tensor>,
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

    /// One label per sample, (B,), u32.
    ///
    /// # Errors
    /// [`LossError::Unserved`] where samples are mixed.
    pub fn single_labels(&self, loss: &str) -> Result<&Tensor, LossError> {
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

    /// Labels (B,) and, where views are mixed, the partners' (B,) and the share of the first (B,).
    pub fn labels(&self) -> (&Tensor, Option<(&Tensor, &Tensor)>) {
        let mixed = self.mixed.as_ref();
        (
            &self.labels,
            mixed.map(|(partner, lambda)| (partner, lambda)),
        )
    }

    /// The first `wanted` rows of the bank, (wanted, C), and their labels.
    ///
    /// # Errors
    /// [`LossError::Unserved`] where the batch has fewer.
    pub fn bank(&self, loss: &str, wanted: usize) -> Result<(Tensor, Tensor), LossError> {
        match &self.bank {
            Some((rows, labels)) if rows.dim(0)? >= wanted => {
                Ok((rows.narrow(0, 0, wanted)?, labels.narrow(0, 0, wanted)?))
            }
            _ => Err(LossError::Unserved {
                loss: loss.to_owned(),
                needs: Need::Bank(wanted),
                supplied: "the batch brings fewer",
            }),
        }
    }

    /// The teacher's largest logits, where that is what the cache holds.
    pub fn top_k(&self) -> Option<&TopKLogits> {
        self.top_k.as_ref()
    }

    /// How much each sample counts, (B,).
    pub fn sample_weights(&self) -> Option<&Tensor> {
        self.sample_weights.as_ref()
    }
}

/// f32 or f64, contiguous. `to_dtype` passes gradients back.
fn floating(tensor: &Tensor) -> Result<Tensor, LossError> {
    Ok(match tensor.dtype() {
        DType::F32 | DType::F64 => tensor.contiguous()?,
        _ => tensor.to_dtype(DType::F32)?.contiguous()?,
    })
}

/// A constant, on the device and in the type of `other`.
fn like(tensor: &Tensor, other: &Tensor) -> Result<Tensor, LossError> {
    let tensor = tensor.detach().to_device(other.device())?;
    Ok(tensor.to_dtype(other.dtype())?)
}

/// Labels on a device.
fn on(device: &Device, labels: &Tensor) -> Result<Tensor, LossError> {
    Ok(labels
        .to_device(device)?
        .to_dtype(DType::U32)?
        .contiguous()?)
}

fn rows_of(
    what: &'static str,
    found: &Tensor,
    n_rows: usize,
    n_classes: usize,
) -> Result<(), LossError> {
    match found.dims() == [n_rows, n_classes] {
        true => Ok(()),
        false => Err(shape(what, format!("({n_rows}, {n_classes})"), found)),
    }
}

fn shape(what: &'static str, expected: String, found: &Tensor) -> LossError {
    LossError::Shape {
        what,
        expected,
        found: format!("{:?}", found.dims()),
    }
}

/// What must hold of the values of a batch. Each check is one number on the device; all are read back together, and
/// only a failed one looks at its rows.
#[derive(Default)]
struct Checks {
    what: Vec<(&'static str, Tensor, Rule)>,
    /// One f32 scalar for each of `what`, in its order: what the rule looks at first.
    numbers: Vec<Tensor>,
}

#[derive(Clone, Copy)]
enum Rule {
    Finite,
    BelowClasses(usize),
    NotNegative,
}

impl Checks {
    /// The sum of finite logits is finite, but for an overflow, which the rows then tell from the real thing.
    fn finite(&mut self, what: &'static str, logits: &Tensor) -> Result<(), LossError> {
        let logits = logits.detach();
        self.numbers.push(logits.sum_all()?.to_dtype(DType::F32)?);
        self.what.push((what, logits, Rule::Finite));
        Ok(())
    }

    /// The largest label; as an f32 it is exact to 16 million classes.
    fn labels(
        &mut self,
        what: &'static str,
        labels: &Tensor,
        n_rows: usize,
        n_classes: usize,
    ) -> Result<(), LossError> {
        if labels.dims() != [n_rows] {
            return Err(shape(what, format!("({n_rows},)"), labels));
        }
        if n_rows > 0 {
            self.numbers.push(labels.max(0)?.to_dtype(DType::F32)?);
            self.what
                .push((what, labels.clone(), Rule::BelowClasses(n_classes)));
        }
        Ok(())
    }

    /// A negative weight makes the sum of their negative parts negative; one that is not finite makes it so.
    fn weights(&mut self, weights: &Tensor, n_rows: usize) -> Result<(), LossError> {
        if weights.dims() != [n_rows] {
            return Err(negative(weights));
        }
        let negative_part = (weights - weights.abs()?)?;
        self.numbers
            .push(negative_part.sum_all()?.to_dtype(DType::F32)?);
        self.what
            .push(("sample weights", weights.clone(), Rule::NotNegative));
        Ok(())
    }

    fn pass(&self) -> Result<(), LossError> {
        let numbers: Vec<f32> = Tensor::stack(&self.numbers, 0)?.to_vec1()?;
        for (number, (what, tensor, rule)) in numbers.into_iter().zip(&self.what) {
            match *rule {
                Rule::Finite if !number.is_finite() => finite(what, tensor)?,
                Rule::BelowClasses(n_classes) if number >= n_classes as f32 => {
                    return Err(first_beyond(what, tensor, n_classes)?);
                }
                Rule::NotNegative if number != 0.0 => return Err(negative(tensor)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn negative(weights: &Tensor) -> LossError {
    let expected = "(B,), each 0 or more".to_owned();
    shape("sample weights", expected, weights)
}

fn finite(what: &'static str, logits: &Tensor) -> Result<(), LossError> {
    let rows: Vec<Vec<f64>> = logits.to_dtype(DType::F64)?.to_vec2()?;
    let bad = rows
        .iter()
        .position(|row| !row.iter().all(|z| z.is_finite()));
    bad.map_or(Ok(()), |row| Err(LossError::NotFinite { what, row }))
}

fn first_beyond(
    what: &'static str,
    labels: &Tensor,
    n_classes: usize,
) -> Result<LossError, LossError> {
    let labels: Vec<u32> = labels.to_vec1()?;
    let row = labels.iter().position(|&label| label as usize >= n_classes);
    let row = row.unwrap_or_default();
    Ok(LossError::Label {
        what,
        label: labels[row],
        row,
        n_classes,
    })
}
