//! Weighing samples by how far the teacher can be trusted on them, and leaving out the worst.

use candle_core::{DType, Tensor};

use crate::error::Need;
use crate::ops::real::Real;
use crate::ops::softmax;
use crate::{LossError, Options, PreparedBatch, fused};

/// How the losses of the samples of a batch become one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Adaptive {
    weight: SampleWeight,
    /// The share of the samples, those with the largest losses, that are left out.
    trim: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleWeight {
    /// 1.
    Uniform,
    /// The teacher's probability of the label at temperature 1.
    Confidence,
    /// 1 where the label is the teacher's first choice, else 0.
    Correctness,
}

impl Adaptive {
    /// The plain mean.
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
        let trim = options.number(
            &format!("{prefix}trim"),
            default.trim,
            "a share from 0 to below 1",
            |x| (0.0..1.0).contains(&x),
        )?;
        Ok(Self {
            weight: weight.unwrap_or(default.weight),
            trim,
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
        let losses: Vec<f64> = per_sample.to_dtype(DType::F64)?.to_vec1()?;
        let mut factors = match self.weight {
            SampleWeight::Uniform => vec![1.0; losses.len()],
            _ => self.trust(batch, name)?,
        };
        for (factor, weight) in factors
            .iter_mut()
            .zip(batch.sample_weights.iter().flatten())
        {
            *factor *= weight;
        }
        let mut by_loss: Vec<usize> = (0..losses.len()).collect();
        by_loss.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        let n_kept = losses.len() - (self.trim * losses.len() as f64) as usize;
        for &left_out in &by_loss[n_kept..] {
            factors[left_out] = 0.0;
        }
        let factors: Vec<f64> = factors
            .iter()
            .map(|factor| factor / n_kept as f64)
            .collect();
        let factors = Tensor::new(factors, per_sample.device())?.to_dtype(per_sample.dtype())?;
        Ok((per_sample * factors)?.sum_all()?)
    }

    fn trust(&self, batch: &PreparedBatch, name: &str) -> Result<Vec<f64>, LossError> {
        let labels = batch.single_labels(name)?;
        let teacher = batch.teacher.as_ref().ok_or_else(|| LossError::Unserved {
            loss: name.to_owned(),
            needs: Need::Teacher,
            supplied: "its `sample_weight` has no teacher to ask",
        })?;
        let correctness = self.weight == SampleWeight::Correctness;
        match teacher.dtype() {
            DType::F64 => trust_of_rows::<f64>(teacher, labels, correctness),
            _ => trust_of_rows::<f32>(teacher, labels, correctness),
        }
    }
}

fn trust_of_rows<F: Real>(
    teacher: &Tensor,
    labels: &[u32],
    correctness: bool,
) -> Result<Vec<f64>, LossError> {
    fused::with_view::<F, _>(teacher, |teacher| {
        let mut probabilities = vec![F::zero(); teacher.n_cols];
        let rows = teacher.rows().zip(labels);
        rows.map(|(row, &label)| {
            softmax::softmax(&mut probabilities, row, 1.0);
            match correctness {
                true => f64::from(u8::from(crate::ops::first_largest(row) == label as usize)),
                false => probabilities[label as usize].to_f64(),
            }
        })
        .collect()
    })
}
