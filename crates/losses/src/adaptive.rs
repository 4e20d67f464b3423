//! Weighing samples by how far the teacher can be trusted on them, and leaving out the worst.

use candle_core::{DType, Tensor};

use crate::error::Need;
use crate::{LossError, Options, PreparedBatch, ops};

/// How the losses of the samples of a batch become one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Adaptive {
    weight: SampleWeight,
    /// The share of the samples, those with the largest losses, that are left out.
    trim: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleWeight {
    /// 1 for every sample.
    Uniform,
    /// The teacher's probability of the label at temperature 1.
    Confidence,
    /// 1 where the label is the teacher's first choice, else 0.
    Correctness,
}

impl Adaptive {
    /// The plain mean over the samples: all weigh 1, and none is left out.
    pub(crate) const PLAIN: Adaptive = Adaptive {
        weight: SampleWeight::Uniform,
        trim: 0.0,
    };

    pub(crate) fn read(
        options: &mut Options,
        prefix: &str,
        default: Adaptive,
    ) -> Result<Self, LossError> {
        let choices = [
            ("uniform", SampleWeight::Uniform),
            ("confidence", SampleWeight::Confidence),
            ("correctness", SampleWeight::Correctness),
        ];
        let weight = options.choice(&format!("{prefix}sample_weight"), &choices)?;
        let trim = options.optional_number(
            &format!("{prefix}trim"),
            "a share from 0 to below 1",
            |x| (0.0..1.0).contains(&x),
        )?;
        Ok(Self {
            weight: weight.unwrap_or(default.weight),
            trim: trim.unwrap_or(default.trim),
        })
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }

    /// Whether the teacher and the labels are left alone.
    pub(crate) fn is_unweighted(&self) -> bool {
        self.weight == SampleWeight::Uniform
    }

    /// `(1/n) sum of w_i l_i` over the n samples that are kept: all but the `floor(trim * B)` with the largest `l_i`
    /// (of equal ones the later rows go first). `w_i` is the product of the component's weight and the batch's own.
    /// Weights are not rescaled to a mean of 1, so a batch on which the teacher is wrong counts for less. Weights and
    /// choice are constants for the gradient.
    pub(crate) fn mean(
        &self,
        per_sample: &Tensor,
        batch: &PreparedBatch,
        name: &str,
    ) -> Result<Tensor, LossError> {
        let losses = per_sample.detach();
        let (n, dtype) = (losses.dim(0)?, losses.dtype());
        let mut factors = match self.weight {
            SampleWeight::Uniform => losses.ones_like()?,
            _ => self.trust(batch, name)?,
        };
        if let Some(weights) = batch.sample_weights() {
            factors = (factors * weights)?;
        }
        let n_kept = n - (self.trim * n as f64) as usize;
        if n_kept < n {
            factors = (factors * rank(&losses)?.lt(n_kept as f64)?.to_dtype(dtype)?)?;
        }
        Ok(((per_sample * factors)?.sum_all()? / n_kept as f64)?)
    }

    /// (B,): how far the teacher is trusted on each sample.
    fn trust(&self, batch: &PreparedBatch, name: &str) -> Result<Tensor, LossError> {
        let labels = batch.single_labels(name)?;
        let teacher = batch.teacher(name).map_err(|_| LossError::Unserved {
            loss: name.to_owned(),
            needs: Need::Teacher,
            supplied: "its `sample_weight` has no teacher to ask",
        })?;
        Ok(match self.weight {
            SampleWeight::Correctness => {
                let is_right = ops::largest(teacher)?.eq(labels)?;
                is_right.to_dtype(teacher.dtype())?
            }
            _ => ops::pick(&ops::softmax(teacher)?, labels)?.squeeze(1)?,
        })
    }
}

/// How many come before each of `values`, (n,): smaller ones, and equal ones of earlier rows.
fn rank(values: &Tensor) -> Result<Tensor, LossError> {
    let n = values.dim(0)?;
    let (own, other) = (values.unsqueeze(1)?, values.unsqueeze(0)?);
    let smaller = other.broadcast_lt(&own)?.to_dtype(DType::F64)?;
    let equal = other.broadcast_eq(&own)?.to_dtype(DType::F64)?;
    let earlier = (Tensor::tril2(n, DType::F64, values.device())?
        - Tensor::eye(n, DType::F64, values.device())?)?;
    Ok((smaller + (equal * earlier)?)?.sum(1)?)
}
