//! Stochastic gradient descent as PyTorch computes it.

use std::collections::HashMap;

use candle_core::{Tensor, Var, backprop::GradStore};
use logitcask_layers::{SgdSpec, Velocity};
use serde::{Deserialize, Serialize};

use crate::StudentError;

/// `optimizer = { ... }` of a recipe's `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerSpec {
    /// Momentum SGD; every field but `lr` may be left out.
    Sgd {
        /// Learning rate before the schedule, above 0.
        lr: f64,
        /// Share of the last update that is kept, in [0, 1).
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// L2 penalty added to every gradient, batch norms and biases included, as mdistiller does.
        #[serde(default)]
        weight_decay: f64,
        /// Look ahead by one momentum step.
        #[serde(default)]
        nesterov: bool,
    },
}

fn default_momentum() -> f64 {
    0.9
}

impl OptimizerSpec {
    /// The learning rate before the schedule.
    pub fn lr(&self) -> f64 {
        match self {
            OptimizerSpec::Sgd { lr, .. } => *lr,
        }
    }
}

/// SGD with momentum over a fixed list of parameters:
/// `g += decay * w`, `v = momentum * v + g` (the first time `v = g`), `w -= lr * v`, or with Nesterov
/// `w -= lr * (g + momentum * v)`. The same as `torch.optim.SGD`; the arithmetic is in [`Velocity`].
pub struct Sgd {
    velocity: Velocity,
    momentum: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Sgd {
    /// Velocities start at zero, which makes the first update the plain gradient.
    pub fn new(parameters: Vec<(String, Var)>, spec: &OptimizerSpec) -> Self {
        let OptimizerSpec::Sgd {
            momentum,
            weight_decay,
            nesterov,
            ..
        } = *spec;
        Self {
            velocity: Velocity::new(parameters),
            momentum,
            weight_decay,
            nesterov,
        }
    }

    /// One step down the gradient. A parameter without a gradient is left as it is, weight decay included.
    ///
    /// # Errors
    /// What the layers report.
    pub fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<(), StudentError> {
        let spec = SgdSpec {
            lr,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            nesterov: self.nesterov,
        };
        Ok(self.velocity.step(gradients, spec)?)
    }

    /// The velocities by parameter name, for a checkpoint.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>, StudentError> {
        Ok(self.velocity.to_tensors()?)
    }

    /// Takes over a checkpoint's velocities.
    ///
    /// # Errors
    /// If a parameter's velocity is missing or has another shape.
    pub fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), StudentError> {
        Ok(self.velocity.load(tensors)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Two steps on f(w) = w^2 / 2 summed (gradient w) from w = (1, -2), lr 0.1, momentum 0.9, decay 0.01, by hand:
    /// g = 1.01 w; plain: m1 = 1.01 w0, w1 = w0 - 0.1 m1 = 0.899 w0; m2 = 0.9 m1 + 1.01 w1 = 1.81699 w0,
    /// w2 = w1 - 0.1 m2 = 0.717301 w0. Nesterov: w1 = w0 - 0.1 (1.01 + 0.909) w0 = 0.8081 w0;
    /// m2 = 0.909 w0 + 1.01 w1 = 1.725181 w0, w2 = w1 - 0.1 (0.816181 + 1.5526629) w0 = 0.57121561 w0.
    #[test]
    fn two_steps_by_hand() {
        for (nesterov, factor) in [(false, 0.717_301), (true, 0.571_215_61)] {
            let var = Var::new(&[1f32, -2.0], &Device::Cpu).unwrap();
            let spec = OptimizerSpec::Sgd {
                lr: 0.1,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov,
            };
            let mut sgd = Sgd::new(vec![("w".into(), var.clone())], &spec);
            for _ in 0..2 {
                let loss = (var.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
                sgd.step(&loss.backward().unwrap(), 0.1).unwrap();
            }
            let w = var.to_vec1::<f32>().unwrap();
            assert!((w[0] - factor).abs() < 1e-6, "{w:?}, expected {factor}");
            assert!((w[1] + 2.0 * factor).abs() < 2e-6);
        }
    }
}
