//! AdamW's arithmetic, and its state.

use std::collections::HashMap;

use candle_core::{Tensor, Var, backprop::GradStore};

use crate::StudentError;

/// What one step obeys: the rate that the schedule gives it, and the optimiser's constants.
#[derive(Clone, Copy)]
pub(crate) struct AdamStep {
    pub(crate) lr: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
}

/// The running first and second moments of each gradient, and the number of steps that made them.
pub(crate) struct Moments {
    n_steps: u32,
    of: Vec<Parameter>,
}

struct Parameter {
    name: String,
    var: Var,
    first: Vec<f32>,
    second: Vec<f32>,
}

const N_STEPS: &str = "adamw_steps";

impl Moments {
    pub(crate) fn new(parameters: Vec<(String, Var)>) -> Self {
        let zero = |(name, var): (String, Var)| Parameter {
            first: vec![0.0; var.elem_count()],
            second: vec![0.0; var.elem_count()],
            name,
            var,
        };
        Self {
            n_steps: 0,
            of: parameters.into_iter().map(zero).collect(),
        }
    }

    /// `w -= lr * weight_decay * w`, then `w -= lr * m' / (sqrt(v') + eps)` with the moments freed of their start at
    /// zero. Bias corrections are computed in f64, everything else in f32, as PyTorch does.
    ///
    /// It is computed on the host, also for parameters on a GPU: of the largest student that is 23 MB each way per step,
    /// as much time as a dozen operations for each of its 150 parameters would take to start.
    pub(crate) fn step(
        &mut self,
        gradients: &GradStore,
        spec: AdamStep,
    ) -> Result<(), StudentError> {
        self.n_steps += 1;
        let [beta1, beta2] = spec.betas;
        let n = self.n_steps as i32;
        let step = (spec.lr / (1.0 - beta1.powi(n))) as f32;
        let root = (1.0 - beta2.powi(n)).sqrt() as f32;
        let kept = (1.0 - spec.lr * spec.weight_decay) as f32;
        let [new1, new2] = [(1.0 - beta1) as f32, (1.0 - beta2) as f32];
        let (beta2, eps) = (beta2 as f32, spec.eps as f32);
        for parameter in &mut self.of {
            let Some(gradient) = gradients.get(&parameter.var) else {
                continue;
            };
            let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            let mut values = parameter.var.flatten_all()?.to_vec1::<f32>()?;
            let moments = parameter.first.iter_mut().zip(&mut parameter.second);
            for ((w, g), (m, v)) in values.iter_mut().zip(gradient).zip(moments) {
                *m += new1 * (g - *m);
                *v = beta2 * *v + new2 * g * g;
                *w = kept * *w - step * *m / (v.sqrt() / root + eps);
            }
            let var = &parameter.var;
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }

    pub(crate) fn to_tensors(&self) -> Result<Vec<(String, Tensor)>, StudentError> {
        let device = candle_core::Device::Cpu;
        let mut tensors = vec![(N_STEPS.to_owned(), Tensor::new(self.n_steps, &device)?)];
        for Parameter {
            name,
            var,
            first,
            second,
        } in &self.of
        {
            for (moment, values) in [("moment1", first), ("moment2", second)] {
                let tensor = Tensor::from_slice(values, var.shape(), &device)?;
                tensors.push((format!("{moment}.{name}"), tensor));
            }
        }
        Ok(tensors)
    }

    pub(crate) fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<(), StudentError> {
        let find = |name: &str| {
            let missing = || logitcask_layers::Error::Names {
                missing: vec![name.to_owned()],
                unexpected: vec![],
            };
            tensors.get(name).ok_or_else(missing)
        };
        self.n_steps = find(N_STEPS)?.to_scalar()?;
        for parameter in &mut self.of {
            for (moment, values) in [
                ("moment1", &mut parameter.first),
                ("moment2", &mut parameter.second),
            ] {
                let name = format!("{moment}.{}", parameter.name);
                let tensor = find(&name)?;
                if tensor.dims() != parameter.var.dims() {
                    return Err(logitcask_layers::Error::WeightShape {
                        name,
                        expected: parameter.var.dims().to_vec(),
                        found: tensor.dims().to_vec(),
                    }
                    .into());
                }
                *values = tensor.flatten_all()?.to_vec1()?;
            }
        }
        Ok(())
    }
}
