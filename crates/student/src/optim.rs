//! Optimisers as PyTorch computes them, and what happens to gradients before they reach one.

use std::collections::HashMap;

use candle_core::{Tensor, Var, backprop::GradStore};
use logitcask_layers::{SgdSpec, Velocity};
use serde::{Deserialize, Serialize};

use crate::StudentError;
use crate::adam::{AdamStep, Moments};

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
        /// L2 penalty added to the gradients that `decay` names.
        #[serde(default)]
        weight_decay: f64,
        /// Look ahead by one momentum step.
        #[serde(default)]
        nesterov: bool,
        /// Which parameters the penalty is on.
        #[serde(default, skip_serializing_if = "Decay::is_default")]
        decay: Decay,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101); every field but `lr` may be left out.
    Adamw {
        /// Learning rate before the schedule, above 0.
        lr: f64,
        /// How slowly the two moments forget.
        #[serde(default = "default_betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "default_eps")]
        eps: f64,
        /// Share of a parameter that is taken off per step, times the learning rate.
        #[serde(default = "default_adam_decay")]
        weight_decay: f64,
        /// Which parameters it is taken off.
        #[serde(default, skip_serializing_if = "Decay::is_default")]
        decay: Decay,
    },
}

/// Which parameters `weight_decay` acts on, by their number of dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// All, batch norms and biases included, as in mdistiller.
    #[default]
    All,
    /// Those of two and more dimensions: neither norms nor biases.
    Weights,
}

impl Decay {
    fn is_default(&self) -> bool {
        *self == Decay::default()
    }
}

fn default_momentum() -> f64 {
    0.9
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_adam_decay() -> f64 {
    1e-2
}

impl OptimizerSpec {
    /// The learning rate before the schedule.
    pub fn lr(&self) -> f64 {
        match self {
            OptimizerSpec::Sgd { lr, .. } | OptimizerSpec::Adamw { lr, .. } => *lr,
        }
    }

    fn decay(&self) -> Decay {
        match self {
            OptimizerSpec::Sgd { decay, .. } | OptimizerSpec::Adamw { decay, .. } => *decay,
        }
    }
}

/// An optimiser over a fixed list of parameters.
///
/// SGD is `torch.optim.SGD`: `g += decay * w`, `v = momentum * v + g` (the first time `v = g`), `w -= lr * v`, or with
/// Nesterov `w -= lr * (g + momentum * v)`. AdamW is `torch.optim.AdamW`.
pub struct Optimizer {
    spec: OptimizerSpec,
    /// What decays, and what does not.
    groups: [State; 2],
}

enum State {
    Sgd(Velocity),
    Adamw(Moments),
}

impl Optimizer {
    /// All state starts at zero, which makes SGD's first update the plain gradient.
    pub fn new(parameters: Vec<(String, Var)>, spec: &OptimizerSpec) -> Self {
        let (decaying, fixed) = parameters
            .into_iter()
            .partition(|(_, var)| spec.decay() == Decay::All || var.rank() > 1);
        let state = |parameters: Vec<(String, Var)>| match spec {
            OptimizerSpec::Sgd { .. } => State::Sgd(Velocity::new(parameters)),
            OptimizerSpec::Adamw { .. } => State::Adamw(Moments::new(parameters)),
        };
        Self {
            spec: spec.clone(),
            groups: [state(decaying), state(fixed)],
        }
    }

    /// One step down the gradient. A parameter without a gradient is left as it is, weight decay included.
    ///
    /// # Errors
    /// What the layers report.
    pub fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<(), StudentError> {
        for (group, decays) in self.groups.iter_mut().zip([1.0, 0.0]) {
            match (&self.spec, group) {
                (
                    &OptimizerSpec::Sgd {
                        momentum,
                        weight_decay,
                        nesterov,
                        ..
                    },
                    State::Sgd(velocity),
                ) => velocity.step(
                    gradients,
                    SgdSpec {
                        lr,
                        momentum,
                        weight_decay: decays * weight_decay,
                        nesterov,
                    },
                )?,
                (
                    &OptimizerSpec::Adamw {
                        betas,
                        eps,
                        weight_decay,
                        ..
                    },
                    State::Adamw(moments),
                ) => moments.step(
                    gradients,
                    AdamStep {
                        lr,
                        betas,
                        eps,
                        weight_decay: decays * weight_decay,
                    },
                )?,
                _ => unreachable!("state is made by the spec beside it"),
            }
        }
        Ok(())
    }

    /// The state by name, for a checkpoint: SGD's velocities as `velocity.NAME`, AdamW's moments as `moment1.NAME` and
    /// `moment2.NAME` with its count of steps.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>, StudentError> {
        let mut tensors = Vec::new();
        for group in &self.groups {
            match group {
                State::Sgd(velocity) => tensors.extend(
                    velocity
                        .to_tensors()?
                        .into_iter()
                        .map(|(name, tensor)| (format!("velocity.{name}"), tensor)),
                ),
                State::Adamw(moments) => tensors.extend(moments.to_tensors()?),
            }
        }
        Ok(tensors)
    }

    /// Takes over a checkpoint's state.
    ///
    /// # Errors
    /// If a parameter's state is missing or has another shape.
    pub fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), StudentError> {
        for group in &mut self.groups {
            match group {
                State::Sgd(velocity) => {
                    let velocities = tensors.iter().filter_map(|(name, tensor)| {
                        Some((name.strip_prefix("velocity.")?.to_owned(), tensor.clone()))
                    });
                    velocity.load(&velocities.collect())?;
                }
                State::Adamw(moments) => moments.load(tensors)?,
            }
        }
        Ok(())
    }
}

/// Gradients of several batches on their way to one step.
#[derive(Default)]
pub struct Gradients {
    sum: Option<GradStore>,
    n_batches: usize,
}

impl Gradients {
    /// Adds a batch's.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn add(
        &mut self,
        gradients: GradStore,
        parameters: &[(String, Var)],
    ) -> Result<(), StudentError> {
        self.n_batches += 1;
        let Some(sum) = &mut self.sum else {
            self.sum = Some(gradients);
            return Ok(());
        };
        for (_, parameter) in parameters {
            if let Some(gradient) = gradients.get(parameter) {
                let total = match sum.get(parameter) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.clone(),
                };
                sum.insert(parameter, total);
            }
        }
        Ok(())
    }

    /// The parameters that none of them reaches.
    pub fn lacks<'a>(&self, parameters: &'a [(String, Var)]) -> impl Iterator<Item = &'a str> {
        let has = move |var: &Var| self.sum.as_ref().is_some_and(|sum| sum.get(var).is_some());
        let lacking = parameters.iter().filter(move |(_, var)| !has(var));
        lacking.map(|(name, _)| name.as_str())
    }

    /// Their mean over the batches, no longer than `clip_norm`; nothing stays behind. `None` before the first batch.
    ///
    /// # Errors
    /// What Candle reports.
    pub fn take(
        &mut self,
        parameters: &[(String, Var)],
        clip_norm: Option<f64>,
    ) -> Result<Option<GradStore>, StudentError> {
        let n_batches = std::mem::take(&mut self.n_batches);
        let Some(mut gradients) = self.sum.take() else {
            return Ok(None);
        };
        let mut scale = 1.0 / n_batches as f64;
        if let Some(longest) = clip_norm {
            // PyTorch's `clip_grad_norm_`, epsilon included.
            let norm = scale * norm(&gradients, parameters)?;
            scale *= (longest / (norm + 1e-6)).min(1.0);
        }
        if scale != 1.0 {
            for (_, parameter) in parameters {
                if let Some(gradient) = gradients.get(parameter) {
                    let scaled = (gradient * scale)?;
                    gradients.insert(parameter, scaled);
                }
            }
        }
        Ok(Some(gradients))
    }
}

/// Over all parameters, summed in f64 and in order, so that it does not depend on the number of threads.
fn norm(gradients: &GradStore, parameters: &[(String, Var)]) -> Result<f64, StudentError> {
    let mut sum = 0.0;
    for gradient in parameters.iter().filter_map(|(_, p)| gradients.get(p)) {
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        sum += values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
    }
    Ok(sum.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Steps on f(w) = |w|^2 / 2, whose gradient is w.
    fn walk(spec: &OptimizerSpec, start: &[f32], steps: usize) -> Vec<f32> {
        let var = Var::new(start, &Device::Cpu).unwrap();
        let mut optimizer = Optimizer::new(vec![("w".into(), var.clone())], spec);
        for _ in 0..steps {
            let loss = (var.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
            optimizer
                .step(&loss.backward().unwrap(), spec.lr())
                .unwrap();
        }
        var.to_vec1().unwrap()
    }

    fn check(spec: &OptimizerSpec, steps: usize, expected: [f64; 2]) {
        let w = walk(spec, &[1.0, -2.0], steps);
        for (w, expected) in w.iter().zip(expected) {
            assert!(
                (f64::from(*w) - expected).abs() < 2e-6,
                "{w}, expected {expected}"
            );
        }
    }

    /// lr 0.1, momentum 0.9, decay 0.01, by hand:
    /// g = 1.01 w; plain: m1 = 1.01 w0, w1 = w0 - 0.1 m1 = 0.899 w0; m2 = 0.9 m1 + 1.01 w1 = 1.81699 w0,
    /// w2 = w1 - 0.1 m2 = 0.717301 w0. Nesterov: w1 = w0 - 0.1 (1.01 + 0.909) w0 = 0.8081 w0;
    /// m2 = 0.909 w0 + 1.01 w1 = 1.725181 w0, w2 = w1 - 0.1 (0.816181 + 1.5526629) w0 = 0.57121561 w0.
    #[test]
    fn two_steps_of_sgd_by_hand() {
        for (nesterov, factor) in [(false, 0.717_301), (true, 0.571_215_61)] {
            let spec = OptimizerSpec::Sgd {
                lr: 0.1,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov,
                decay: Decay::All,
            };
            check(&spec, 2, [factor, -2.0 * factor]);
        }
    }

    /// The first step of Adam has length lr whatever the gradient: w1 = w0 (1 - lr decay) - lr sign(w0). Without decay
    /// w1 = (0.9, -1.9), and the second step is lr * m / sqrt(v) with m = (0.9 * 0.1 g1 + 0.1 g2) / (1 - 0.81) and
    /// v = (0.999 * 0.001 g1^2 + 0.001 g2^2) / (1 - 0.998001).
    #[test]
    fn two_steps_of_adamw_by_hand() {
        let spec = |weight_decay| OptimizerSpec::Adamw {
            lr: 0.1,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay,
            decay: Decay::All,
        };
        check(&spec(0.5), 1, [0.95 - 0.1, -1.9 + 0.1]);
        let second = |g1: f64, g2: f64| {
            let m = (0.09 * g1 + 0.1 * g2) / 0.19;
            let v = (0.000_999 * g1 * g1 + 0.001 * g2 * g2) / 0.001_999;
            g2 - 0.1 * m / v.sqrt()
        };
        check(&spec(0.0), 2, [second(1.0, 0.9), second(-2.0, -1.9)]);
    }

    #[test]
    fn norms_and_biases_are_spared_on_request() {
        let step = |decay| {
            let [matrix, vector] = [&[1usize, 1][..], &[1]]
                .map(|shape| Var::from_vec(vec![1f32], shape, &Device::Cpu).unwrap());
            let parameters = vec![("m".into(), matrix.clone()), ("v".into(), vector.clone())];
            let spec = OptimizerSpec::Sgd {
                lr: 0.1,
                momentum: 0.0,
                weight_decay: 1.0,
                nesterov: false,
                decay,
            };
            let both = (matrix.sum_all().unwrap() + vector.sum_all().unwrap()).unwrap();
            Optimizer::new(parameters, &spec)
                .step(&both.backward().unwrap(), 0.1)
                .unwrap();
            [matrix, vector].map(|var| var.sum_all().unwrap().to_scalar::<f32>().unwrap())
        };
        assert_eq!(step(Decay::All), [0.8, 0.8]);
        assert_eq!(step(Decay::Weights), [0.8, 0.9]);
    }

    #[test]
    fn gradients_are_averaged_and_clipped() {
        let var = Var::new(&[3f32, 4.0], &Device::Cpu).unwrap();
        let parameters = [("w".to_owned(), var.clone())];
        let gradient = |factor: f64| {
            let loss = (var.sqr().unwrap().sum_all().unwrap() * (0.5 * factor)).unwrap();
            loss.backward().unwrap()
        };
        let mut gradients = Gradients::default();
        for (clip_norm, length) in [(None, 10.0), (Some(2.5), 2.5), (Some(100.0), 10.0)] {
            gradients.add(gradient(1.0), &parameters).unwrap();
            gradients.add(gradient(3.0), &parameters).unwrap();
            let mean = gradients.take(&parameters, clip_norm).unwrap().unwrap();
            let found = norm(&mean, &parameters).unwrap();
            assert!((found - length).abs() < 1e-5, "{found}, expected {length}");
            assert!(gradients.take(&parameters, None).unwrap().is_none());
        }
    }
}
