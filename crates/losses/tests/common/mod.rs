//! Batches for tests, and evaluating recipe entries on them.
#![allow(dead_code, reason = "each test binary uses its part")]

use candle_core::{DType, Device, Tensor, Var};
use logitcask_losses::{
    BankRows, LogitBatch, LossError, LossSpec, MixedLabels, Objective, Setup, StrongView,
};
use proptest::prelude::*;
use serde_json::Value;

/// Logits and labels of both networks, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) n_classes: usize,
    pub(crate) student: Vec<f64>,
    pub(crate) teacher: Vec<f64>,
    pub(crate) labels: Vec<u32>,
    pub(crate) mixed: Option<(Vec<u32>, Vec<f64>)>,
    pub(crate) bank: Option<(Vec<f64>, Vec<u32>)>,
}

/// What an objective says of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) total: f64,
    pub(crate) terms: Vec<(String, f64)>,
    pub(crate) gradient: Vec<f64>,
}

impl Outcome {
    pub(crate) fn term(&self, name: &str) -> f64 {
        self.terms
            .iter()
            .find(|(term, _)| term == name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
            .1
    }

    pub(crate) fn assert_finite(&self, what: &str) {
        assert!(self.total.is_finite(), "{what}: total {}", self.total);
        assert!(
            self.terms.iter().all(|(_, value)| value.is_finite()),
            "{what}: {:?}",
            self.terms
        );
        assert!(
            self.gradient.iter().all(|g| g.is_finite()),
            "{what}: gradient {:?}",
            self.gradient
        );
    }
}

/// Entries of a recipe; a single one may stand without brackets.
pub(crate) fn entries(json: Value) -> Vec<LossSpec> {
    match json {
        Value::Array(_) => serde_json::from_value(json).unwrap(),
        entry => vec![serde_json::from_value(entry).unwrap()],
    }
}

impl Batch {
    pub(crate) fn n_rows(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn objective(&self, entry: &Value, dtype: DType) -> Result<Objective, LossError> {
        let setup = Setup {
            n_classes: self.n_classes,
            epochs: 240,
            dtype,
            device: &Device::Cpu,
        };
        Objective::new(&entries(entry.clone()), &setup)
    }

    /// In the 240th of 240 epochs. The strong view is the batch with its logits turned round by one class.
    pub(crate) fn try_evaluate(&self, entry: &Value, dtype: DType) -> Result<Outcome, LossError> {
        let objective = self.objective(entry, dtype)?;
        self.evaluate_with(&objective, dtype)
    }

    pub(crate) fn evaluate_with(
        &self,
        objective: &Objective,
        dtype: DType,
    ) -> Result<Outcome, LossError> {
        let device = Device::Cpu;
        let matrix = |data: &[f64]| {
            let shape = (data.len() / self.n_classes, self.n_classes);
            Tensor::from_slice(data, shape, &device)?.to_dtype(dtype)
        };
        let vector = |labels: &[u32]| Tensor::from_slice(labels, labels.len(), &device);
        let student = Var::from_tensor(&matrix(&self.student)?)?;
        let teacher = matrix(&self.teacher)?;
        let labels = vector(&self.labels)?;
        let mut batch = LogitBatch::new(&student, Some(&teacher), &labels);
        let strong = (student.roll(1, 1)?, teacher.roll(1, 1)?);
        batch.strong = Some(StrongView {
            student_logits: &strong.0,
            teacher_logits: &strong.1,
        });
        let mixed = match &self.mixed {
            Some((partner, lambda)) => Some((
                vector(partner)?,
                Tensor::from_slice(lambda, lambda.len(), &device)?,
            )),
            None => None,
        };
        batch.mixed = mixed
            .as_ref()
            .map(|(partner, lambda)| MixedLabels { partner, lambda });
        let bank = match &self.bank {
            Some((rows, labels)) => Some((matrix(rows)?, vector(labels)?)),
            None => None,
        };
        batch.bank = bank.as_ref().map(|(teacher_logits, labels)| BankRows {
            teacher_logits,
            labels,
        });

        let value = objective.forward(&batch, 240)?;
        let scalar = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_scalar::<f64>();
        let gradients = value.total.backward()?;
        let gradient = match gradients.get(&student) {
            Some(gradient) => gradient.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?,
            None => vec![0.0; self.student.len()],
        };
        let terms = value
            .terms
            .iter()
            .map(|term| Ok((term.name.clone(), scalar(&term.value)?)));
        Ok(Outcome {
            total: scalar(&value.total)?,
            terms: terms.collect::<candle_core::Result<_>>()?,
            gradient,
        })
    }

    pub(crate) fn evaluate(&self, entry: &Value, dtype: DType) -> Outcome {
        self.try_evaluate(entry, dtype)
            .unwrap_or_else(|error| panic!("{entry}: {error}"))
    }

    /// The rows in another order.
    pub(crate) fn permuted(&self, order: &[usize]) -> Batch {
        let rows = |data: &[f64]| {
            let row = |&i: &usize| data[i * self.n_classes..(i + 1) * self.n_classes].to_vec();
            order.iter().flat_map(row).collect()
        };
        Batch {
            student: rows(&self.student),
            teacher: rows(&self.teacher),
            labels: order.iter().map(|&i| self.labels[i]).collect(),
            ..self.clone()
        }
    }

    /// Every row of the teacher moved by its own constant.
    pub(crate) fn with_shifted_teacher(&self) -> Batch {
        let shift = |(index, z): (usize, &f64)| z + 0.7 + 0.3 * (index / self.n_classes) as f64;
        Batch {
            teacher: self.teacher.iter().enumerate().map(shift).collect(),
            ..self.clone()
        }
    }

    /// Every row of the student moved by its own constant.
    pub(crate) fn with_shifted_student(&self) -> Batch {
        let shift = |(index, z): (usize, &f64)| z - 0.9 + 0.4 * (index / self.n_classes) as f64;
        Batch {
            student: self.student.iter().enumerate().map(shift).collect(),
            ..self.clone()
        }
    }

    pub(crate) fn with_labels(&self, labels: Vec<u32>) -> Batch {
        Batch {
            labels,
            ..self.clone()
        }
    }
}

/// So many cases, and no file of failures: what fails here deserves a test of its own.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Batches of up to 7 samples and 8 classes, with a bank of 3, logits of the given scale.
pub(crate) fn batches(scale: f64) -> impl Strategy<Value = Batch> {
    (1usize..=7, 2usize..=8)
        .prop_flat_map(move |(n_rows, n_classes)| sized(n_rows, n_classes, scale))
}

pub(crate) fn sized(n_rows: usize, n_classes: usize, scale: f64) -> impl Strategy<Value = Batch> {
    let logits = move |rows: usize| prop::collection::vec(-scale..scale, rows * n_classes);
    let labels = move |rows: usize| prop::collection::vec(0..n_classes as u32, rows);
    (
        logits(n_rows),
        logits(n_rows),
        labels(n_rows),
        logits(3),
        labels(3),
    )
        .prop_map(move |(student, teacher, labels, bank, bank_labels)| Batch {
            n_classes,
            student,
            teacher,
            labels,
            mixed: None,
            bank: Some((bank, bank_labels)),
        })
}

pub(crate) fn assert_close(a: f64, b: f64, relative: f64, what: &str) {
    assert!(
        (a - b).abs() <= relative * a.abs().max(b.abs()).max(1.0),
        "{what}: {a} and {b}"
    );
}

pub(crate) fn assert_all_close(a: &[f64], b: &[f64], relative: f64, what: &str) {
    let scale = b.iter().fold(1e-6, |scale: f64, x| scale.max(x.abs()));
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= relative * scale,
            "{what}, entry {index}: {a} and {b}"
        );
    }
}
