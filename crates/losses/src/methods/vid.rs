//! Variational information distillation, on logits.
//!
//! Ahn et al., "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835, equation 6. The
//! paper works on features through learned regressors; on logits the two networks share their axes, and the
//! regressor is the identity.
//!
//! `vid = mean over B and C of ((s - t)^2 / v_c + log v_c) / 2` with `v_c = log(1 + e^a_c) + 1e-5`
//!
//! `a` (`log_scale`, length C) is trained with the student. In the official code it never reaches the optimiser, so that v
//! stays at its initial 5 there, and the loss is a tenth of the squared error plus a constant; here it is declared
//! as a parameter, and learned.

use candle_core::{Device, Tensor, Var};

use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "vid",
    title: "Variational Information Distillation for Knowledge Transfer",
    paper: "arXiv:1904.05835",
    components: &[ComponentSpec::new(
        "vid",
        "squared difference of raw logits under a learned variance per class",
    )],
    options: &[
        OptionRow::new(
            "initial_variance",
            "5",
            "of every class, in squared logits; mdistiller",
        ),
        OptionRow::new("epsilon", "1e-5", "the least variance; mdistiller"),
    ],
    build,
};

struct Vid {
    log_scale: Var,
    epsilon: f64,
}

fn build(options: &mut Options, setup: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    let epsilon = options.positive("epsilon", 1e-5)?;
    let expected = "a number above `epsilon`";
    let variance = options.number("initial_variance", 5.0, expected, |variance| {
        variance > epsilon
    })?;
    // The inverse of v = log(1 + e^a) + epsilon; expm1 and the split keep it finite for large variances.
    let x = variance - epsilon;
    let start = if x > 30.0 { x } else { x.exp_m1().ln() };
    let log_scale = Tensor::full(start, setup.n_classes, &Device::Cpu)?.to_dtype(setup.dtype)?;
    Ok(Box::new(Vid {
        log_scale: Var::from_tensor(&log_scale.to_device(setup.device)?)?,
        epsilon,
    }))
}

impl LogitLoss for Vid {
    fn needs(&self) -> Needs {
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        vec![("log_scale".to_owned(), self.log_scale.clone())]
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let (student, teacher) = (batch.student(), batch.teacher("vid")?);
        let n_classes = student.dim(1)?;
        let a = self
            .log_scale
            .as_tensor()
            .to_device(&Device::Cpu)?
            .to_dtype(student.dtype())?;
        let variance = (softplus(&a)? + self.epsilon)?;
        // Written as a product with 1 / (2 C v), so that only two (B, C) tensors are made.
        let squares = (student - teacher)?.sqr()?;
        let per_class = (variance.recip()? / (2.0 * n_classes as f64))?.unsqueeze(1)?;
        let fit = squares.matmul(&per_class)?.squeeze(1)?;
        let spread = (variance.log()?.mean_all()? / 2.0)?;
        Ok(vec![Component::mean_of(fit.broadcast_add(&spread)?)?])
    }
}

/// `log(1 + e^a)` as `max(a, 0) + log(1 + e^-|a|)`.
fn softplus(a: &Tensor) -> Result<Tensor, LossError> {
    Ok((a.relu()? + (a.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}
