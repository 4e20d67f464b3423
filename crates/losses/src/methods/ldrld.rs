//! Local dense relational logit distillation (LDRLD).
//!
//! Xu et al., "Local Dense Logit Relations for Enhanced Knowledge Distillation", ICCV 2025, arXiv:2507.15911; as in the
//! authors' code (`distiller_zoo/LDRLD.py` of yema-web/LDRLD).
//!
//! Let pi order the classes by the *student's* logits, largest first, d be the depth and `n = d (d - 1) / 2` the pairs
//! among the d first. The order is a constant for the gradient. All KL at temperature tau, times tau^2, teacher values
//! taken at the student's classes:
//!
//! - `pairs`: sum over ranks i < j <= d of `weight(i, j)` times the KL between the two networks' choices between the classes
//!   of rank i and j, with `weight = delta e^(-lambda (i + j)) / (|i - j| + epsilon)`, divided by n + 1;
//!   `pairs.reading = "unweighted"` takes all weights as 1
//! - `llki`: KL between the softmaxes over the d first classes, divided by n + 1
//! - `rntk`: KL between the softmaxes over the other C - d classes; 0 if there are none
//!
//! Total: `gamma ce + alpha (pairs + llki) + beta rntk`. Defaults are the authors' for ResNet32x4 to ResNet8x4: gamma 1,
//! alpha 10.5, beta 7, tau 4, d 7; for other pairs of networks they published none. Two corners of their code are not
//! followed: at d = 2 it gives `llki` the pair's weight too, and at d = C its `rntk` becomes a KL over all classes.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::allowed::{ABOVE_0, COUNT, FLAG, FROM_0, word};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, Setup};
use crate::spec::{Spec, spec};
use crate::{LossError, Options, PreparedBatch, loss, ops};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "ldrld",
    title: "Local Dense Logit Relations for Enhanced Knowledge Distillation",
    paper: "arXiv:2507.15911",
    components: &[
        ComponentSpec::new("pairs", "pairs among the student's first classes")
            .weight(10.5)
            .weight_key("alpha"),
        ComponentSpec::new("llki", "the student's first classes together")
            .weight(10.5)
            .weight_key("alpha"),
        ComponentSpec::new("rntk", "the remaining classes together")
            .weight(7.0)
            .weight_key("beta"),
    ],
    options: loss::rows::<LdrldSpec>,
    build,
};

spec! {
    /// Options of [`ldrld`].
    LdrldSpec of "ldrld" {
        /// d: the student's first classes that are compared, at most C (with fewer classes the default is C); authors' README
        depth: usize = 7, COUNT;
        /// tau: divides both networks' logits; authors' README
        temperature: f64 = 4.0, ABOVE_0;
        /// epsilon of the pairs' weight; authors' code
        irw_epsilon: f64 = 1.5, ABOVE_0;
        /// delta of the pairs' weight; authors' code
        erd_delta: f64 = 2.0, FROM_0;
        /// lambda of the pairs' weight, per rank; authors' code
        erd_lambda: f64 = 0.05, FROM_0;
        /// whether the parts are multiplied by tau^2, as in the authors' code
        tau_squared: bool = true, FLAG;
        in /// The pairs' own.
        pairs: PairsSpec;
    }
}

spec! {
    /// Options of the pairs of [`ldrld`].
    PairsSpec of "ldrld" {
        /// `weighted` or `unweighted`
        reading: PairsReading = PairsReading::Weighted, word();
    }
}

/// Whether pairs of [`ldrld`] count by rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairsReading {
    /// By rank and distance.
    Weighted,
    /// Every pair counts 1.
    Unweighted,
}

fn build(options: &mut Options, setup: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let fewer = !options.gives("depth");
    let mut spec = LdrldSpec::read(options, "")?;
    if fewer {
        spec.depth = spec.depth.min(setup.n_classes);
    }
    spec.fits(setup.n_classes)?;
    Ok(Box::new(spec))
}

impl LdrldSpec {
    fn fits(&self, n_classes: usize) -> Result<(), LossError> {
        match (1..=n_classes).contains(&self.depth) {
            true => Ok(()),
            false => Err(LossError::BadOption {
                loss: "ldrld".to_owned(),
                key: "depth".to_owned(),
                expected: format!("1 to {n_classes} classes"),
                found: self.depth.to_string(),
            }),
        }
    }

    /// First and second rank of each pair i < j, from 0, and its weight.
    fn pairs(&self) -> (Vec<u32>, Vec<u32>, Vec<f64>) {
        let d = self.depth as u32;
        let pairs = (0..d).flat_map(|i| (i + 1..d).map(move |j| (i, j)));
        let weight = |i: u32, j: u32| match self.pairs.reading {
            PairsReading::Weighted => {
                let ranks = f64::from(i + j + 2);
                self.erd_delta * (-self.erd_lambda * ranks).exp()
                    / (f64::from(j - i) + self.irw_epsilon)
            }
            PairsReading::Unweighted => 1.0,
        };
        let weights = pairs.clone().map(|(i, j)| weight(i, j)).collect();
        let (first, second) = pairs.unzip();
        (first, second, weights)
    }
}

/// What [`ldrld`] returns: each (B,), unweighted; a loss is their mean.
#[derive(Clone, Debug)]
pub struct LdrldParts {
    /// Choices between two of the student's first classes, divided by n + 1.
    pub pairs: Tensor,
    /// The student's first classes together, divided by n + 1.
    pub llki: Tensor,
    /// The remaining classes together.
    pub rntk: Tensor,
}

/// Local dense relational logit distillation.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Of equal student logits the CPU puts the first class first.
///
/// # Errors
/// An option out of range, a depth above C, or shapes that do not fit.
pub fn ldrld(
    student: &Tensor,
    teacher: &Tensor,
    spec: &LdrldSpec,
) -> Result<LdrldParts, LossError> {
    spec.check("")?;
    let n_classes = student.dim(1)?;
    spec.fits(n_classes)?;
    let s = (student / spec.temperature)?;
    let t = (teacher.detach() / spec.temperature)?;
    let first = first_classes(student, spec.depth)?;
    let (s_first, t_first) = (s.gather(&first, 1)?, t.gather(&first, 1)?);

    let factor = match spec.tau_squared {
        true => spec.temperature * spec.temperature,
        false => 1.0,
    };
    let n_pairs = spec.depth * (spec.depth - 1) / 2;
    let share = factor / (n_pairs + 1) as f64;
    let rntk = match spec.depth == n_classes {
        true => Tensor::zeros(student.dim(0)?, student.dtype(), student.device())?,
        false => {
            let removal = ops::removal(&s, &first)?;
            (ops::divergence(&(t + &removal)?, &(s + &removal)?)? * factor)?
        }
    };
    Ok(LdrldParts {
        pairs: (pairs(&s_first, &t_first, spec)? * share)?,
        llki: (ops::divergence(&t_first, &s_first)? * share)?,
        rntk,
    })
}

/// The weighted sum over pairs, (B,), from the logits of the first classes, (B, depth).
fn pairs(student: &Tensor, teacher: &Tensor, spec: &LdrldSpec) -> candle_core::Result<Tensor> {
    let (first, second, weights) = spec.pairs();
    if weights.is_empty() {
        return Tensor::zeros(student.dim(0)?, student.dtype(), student.device());
    }
    let ranks = |ranks: Vec<u32>| Tensor::new(ranks, student.device());
    let (first, second) = (ranks(first)?, ranks(second)?);
    let weights = Tensor::new(weights, student.device())?.to_dtype(student.dtype())?;
    // (B, pairs, 2)
    let choices = |z: &Tensor| {
        let one = z.index_select(&first, 1)?;
        Tensor::stack(&[one, z.index_select(&second, 1)?], 2)
    };
    let each = ops::divergence(&choices(teacher)?, &choices(student)?)?;
    each.broadcast_mul(&weights)?.sum(1)
}

/// The classes of the `depth` largest logits, (B, depth), largest first. One at a time: Candle's argsort on CUDA ends at
/// some thousand classes, and `depth` is small.
fn first_classes(student: &Tensor, depth: usize) -> candle_core::Result<Tensor> {
    let mut left = student.detach();
    let mut found = Vec::with_capacity(depth);
    let lowest = Tensor::full(f64::NEG_INFINITY, (left.dim(0)?, 1), left.device())?;
    let lowest = lowest.to_dtype(left.dtype())?;
    for _ in 0..depth {
        let largest = ops::largest(&left)?.unsqueeze(1)?;
        left = left.scatter(&largest, &lowest, 1)?;
        found.push(largest);
    }
    Tensor::cat(&found, 1)
}

impl LogitLoss for LdrldSpec {
    fn needs(&self) -> Needs {
        Needs::DENSE
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let parts = ldrld(batch.student(), batch.teacher("ldrld")?, self)?;
        let parts = [parts.pairs, parts.llki, parts.rntk];
        parts.into_iter().map(Component::new).collect()
    }
}
