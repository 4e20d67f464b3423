//! Batch normalisation with residual and ReLU.

use candle_core::{Tensor, Var};

use super::ops::gate;
use super::pixels::{column_sums, pixels};
use super::record::{made, put};
use crate::{Activation, FeatureMap, Mode, Result};

/// What a batch norm is made of, all of it `(C)`.
pub(crate) struct Norm<'a> {
    pub(crate) gamma: &'a Var,
    pub(crate) beta: &'a Var,
    pub(crate) running_mean: &'a Var,
    pub(crate) running_var: &'a Var,
    pub(crate) eps: f64,
    pub(crate) momentum: f64,
}

/// `activation(gamma * (x - mean) / sqrt(var + eps) + beta + residual)`; in training, running statistics move.
pub(crate) fn batch_norm(
    norm: &Norm,
    x: (&FeatureMap, &Tensor),
    mode: Mode,
    activation: Activation,
    residual: Option<(&FeatureMap, &Tensor)>,
) -> Result<FeatureMap> {
    let (map, values) = x;
    let x = pixels(values)?;
    let (mean, var) = match mode {
        Mode::Train => {
            let moments = moments(&x)?;
            update_running(norm, &moments, x.dims2()?.0)?;
            moments
        }
        Mode::Eval => (
            detached_row(norm.running_mean)?,
            detached_row(norm.running_var)?,
        ),
    };
    let gamma = detached_row(norm.gamma)?;
    let inverse = (var + norm.eps)?.sqrt()?.recip()?;
    let scale = (&gamma * &inverse)?;
    let shift = (detached_row(norm.beta)? - (&mean * &scale)?)?;
    let mut y = x
        .broadcast_mul(&scale)?
        .broadcast_add(&shift)?
        .reshape(values.shape())?;
    if let Some((_, residual)) = residual {
        y = (y + residual)?;
    }
    let relu = activation == Activation::Relu;
    if relu {
        y = y.relu()?;
    }

    let dims = values.shape().clone();
    let answered = relu.then(|| y.clone());
    let dx = map.slot();
    let dresidual = residual.and_then(|(map, _)| map.slot());
    let inputs: Vec<&FeatureMap> = std::iter::once(map)
        .chain(residual.map(|(map, _)| map))
        .collect();
    let parameters: [&Tensor; 2] = [norm.gamma, norm.beta];
    made(&y, &inputs, &parameters, "batch_norm", move |dy| {
        let dy = match &answered {
            Some(y) => gate(y, &dy)?,
            None => dy,
        };
        if let Some(slot) = dresidual {
            slot.put_tensor(dy.clone())?;
        }
        let dy = pixels(&dy)?;
        let sum = column_sums(&dy)?;
        let dot = column_sums(&(x.broadcast_sub(&mean)? * &dy)?)?;
        put(dx, || {
            // As in the kernels: dx = a * dy + b * x + c, per channel.
            let dx = dy.broadcast_mul(&scale)?;
            let dx = match mode {
                Mode::Eval => dx,
                Mode::Train => {
                    let n = x.dims2()?.0 as f64;
                    let b = ((&scale * inverse.sqr()?)? * &dot)?.affine(-1.0 / n, 0.0)?;
                    let c = ((&scale * &sum)?.affine(-1.0 / n, 0.0)? - (&b * &mean)?)?;
                    (dx + x.broadcast_mul(&b)?.broadcast_add(&c)?)?
                }
            };
            Ok(dx.reshape(&dims)?)
        })?;
        Ok(vec![(dot * &inverse)?.squeeze(0)?, sum.squeeze(0)?])
    })
}

/// Mean and biased variance of each column, (1, C). In two passes, so that a large mean does not cost the variance its
/// digits.
fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let share = 1.0 / x.dims2()?.0 as f64;
    let mean = column_sums(x)?.affine(share, 0.0)?;
    let var = column_sums(&x.broadcast_sub(&mean)?.sqr()?)?.affine(share, 0.0)?;
    Ok((mean, var))
}

fn update_running(norm: &Norm, (mean, var): &(Tensor, Tensor), n: usize) -> Result<()> {
    let unbias = n as f64 / (n - 1) as f64;
    for (running, new, factor) in [
        (norm.running_mean, mean, 1.0),
        (norm.running_var, var, unbias),
    ] {
        let kept = running
            .as_detached_tensor()
            .affine(1.0 - norm.momentum, 0.0)?;
        let added = new.squeeze(0)?.affine(norm.momentum * factor, 0.0)?;
        running.set(&(kept + added)?)?;
    }
    Ok(())
}

/// (1, C) of (C).
fn detached_row(var: &Var) -> Result<Tensor> {
    Ok(var.as_detached_tensor().unsqueeze(0)?)
}
