//! Relational knowledge distillation, on logits.
//!
//! Park et al., "Relational Knowledge Distillation", arXiv:1904.05068, equations 7 to 10; as in mdistiller
//! (`distillers/RKD.py`), with logits where the original has pooled features.
//!
//! - `distance = mean over pairs (i, j) of huber(D(s)_ij - D(t)_ij)`, `D_ij = |z_i - z_j|` (at least 1e-6 for i != j) divided
//!   by its mean over i != j
//! - `angle = mean over (i, j, k) of huber(A(s)_ijk - A(t)_ijk)`, `A_ijk` the cosine of the angle at i between j and k
//!
//! `huber(x)` is `x^2 / 2` up to 1, and `|x| - 1/2` beyond. Means are over B^2 and B^3, diagonals included. Weights 25 and 50
//! beside `ce` 1 are mdistiller's. On a batch of one both are 0, where the code gives NaN.
//!
//! The code forms all e_ij, (B, B, C), and all angles, (B, B, B). By the law of cosines an angle needs only the (B,
//! B) squared distances: `A_ijk = (D2_ij + D2_ik - D2_jk) / (2 D_ij D_ik)`. Everything is computed in f64, whatever the
//! logits are. On the CPU distances and angles have a form of their own ([`fast`]).

mod fast;

use candle_core::{DType, Tensor};

use crate::allowed::{ABOVE_0, FLAG};
use crate::loss::{self, Component, ComponentSpec, LogitLoss, MethodRow, Needs};
use crate::spec::{Spec, spec};
use crate::{LossError, PreparedBatch};
use fast::LEAST_LENGTH;

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "rkd",
    title: "Relational Knowledge Distillation",
    paper: "arXiv:1904.05068",
    components: &[
        ComponentSpec::new("distance", "distances between samples")
            .weight(25.0)
            .whole_batch("it compares pairs of samples"),
        ComponentSpec::new("angle", "angles between samples")
            .weight(50.0)
            .whole_batch("it compares triples of samples"),
    ],
    options: loss::rows::<RkdSpec>,
    build: loss::build::<RkdSpec>,
};

spec! {
    /// Options of [`rkd`].
    RkdSpec of "rkd" {
        /// compare squared distances in `distance`; mdistiller
        squared: bool = false, FLAG;
        /// the least squared distance of two samples in `distance`; mdistiller
        epsilon: f64 = 1e-12, ABOVE_0;
    }
}

/// What [`rkd`] returns: scalars, unweighted.
#[derive(Clone, Debug)]
pub struct RkdParts {
    /// Mean over pairs: how far the networks differ in distances between samples, in units of each one's mean.
    pub distance: Tensor,
    /// Mean over triples: how far the networks differ in cosines of the angles between samples.
    pub angle: Tensor,
}

/// Relational distillation on logits.
///
/// # Shapes
/// `student`, `teacher` (B, C), raw logits of one type. Away from the CPU memory grows with B^2 C and B^3.
///
/// # Errors
/// An option out of range, or shapes that do not fit.
pub fn rkd(student: &Tensor, teacher: &Tensor, spec: &RkdSpec) -> Result<RkdParts, LossError> {
    spec.check("")?;
    let is_fast = student.device().is_cpu();
    let squares = |z: &Tensor| -> candle_core::Result<Tensor> {
        let z = z.to_dtype(DType::F64)?.contiguous()?;
        match is_fast {
            true => fast::squares(&z),
            false => squares(&z),
        }
    };
    let (s, t) = (squares(student)?, squares(&teacher.detach())?);
    let angle = match is_fast {
        true => fast::angle(&s, &t)?,
        false => angle(&s, &t)?,
    };
    Ok(RkdParts {
        distance: distance(&s, &t, spec)?.to_dtype(student.dtype())?,
        angle: angle.to_dtype(student.dtype())?,
    })
}

/// `|z_i - z_j|^2` of (B, C) points, (B, B), from the differences themselves: equal rows give exactly 0.
fn squares(z: &Tensor) -> candle_core::Result<Tensor> {
    let differences = z.unsqueeze(1)?.broadcast_sub(&z.unsqueeze(0)?)?;
    differences.sqr()?.sum(2)
}

fn distance(student: &Tensor, teacher: &Tensor, spec: &RkdSpec) -> candle_core::Result<Tensor> {
    let (s, t) = (
        relative_lengths(student, spec)?,
        relative_lengths(teacher, spec)?,
    );
    huber(&(s - t)?)?.mean_all()
}

/// `|z_i - z_j|` (or its square), 0 on the diagonal, divided by its mean off it.
fn relative_lengths(squares: &Tensor, spec: &RkdSpec) -> candle_core::Result<Tensor> {
    let n = squares.dim(0)?;
    let off_diagonal = (1.0 - Tensor::eye(n, DType::F64, squares.device())?)?;
    // What is below the least is the least, a constant.
    let is_more = squares.detach().gt(spec.epsilon)?.to_dtype(DType::F64)?;
    let clamped = ((squares * &is_more)? + ((1.0 - is_more)? * spec.epsilon)?)?;
    let lengths = match spec.squared {
        true => clamped,
        false => clamped.sqrt()?,
    };
    let lengths = (lengths * off_diagonal)?;
    // A batch of one has no distance, and 0 / 1 stays 0.
    let mean = (lengths.sum_all()? / (n * (n - 1)).max(1) as f64)?;
    let mean = if n == 1 { mean.ones_like()? } else { mean };
    lengths.broadcast_div(&mean)
}

/// From the squared distances of both networks: by the law of cosines, over all (i, j, k).
fn angle(student: &Tensor, teacher: &Tensor) -> candle_core::Result<Tensor> {
    huber(&(cosines(student)? - cosines(teacher)?)?)?.mean_all()
}

fn cosines(squares: &Tensor) -> candle_core::Result<Tensor> {
    let is_apart = squares.detach().ge(LEAST_LENGTH * LEAST_LENGTH)?;
    let is_apart = is_apart.to_dtype(DType::F64)?;
    let together = (1.0 - &is_apart)?;
    let inverse = (is_apart / (squares + together)?.sqrt()?)?;
    let (ij, ik, jk) = (
        squares.unsqueeze(2)?,
        squares.unsqueeze(1)?,
        squares.unsqueeze(0)?,
    );
    let along = ij.broadcast_add(&ik)?.broadcast_sub(&jk)?;
    let scaled = along.broadcast_mul(&inverse.unsqueeze(2)?)?;
    scaled.broadcast_mul(&inverse.unsqueeze(1)?)? * 0.5
}

/// `x^2 / 2` up to 1, `|x| - 1/2` beyond: `w (x - w / 2)` with w the slope, a constant where it counts.
fn huber(x: &Tensor) -> candle_core::Result<Tensor> {
    let slope = x.detach().clamp(-1.0, 1.0)?;
    let value = (&slope * (x.detach() - (&slope * 0.5)?)?)?;
    // The value is that of the formula, the gradient that of `slope * x`.
    value + (slope * (x - x.detach())?)?
}

impl LogitLoss for RkdSpec {
    fn needs(&self) -> Needs {
        // Distances are between samples: a shift that differs from row to row changes them.
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let parts = rkd(batch.student(), batch.teacher("rkd")?, self)?;
        Ok(vec![
            Component::new(parts.distance)?,
            Component::new(parts.angle)?,
        ])
    }
}
