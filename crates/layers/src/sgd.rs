//! Stochastic gradient descent with momentum, as PyTorch computes it, in one pass over each parameter.

use std::cell::RefCell;

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;

use crate::{Backend, Error, Result, tape::with_values};

/// `v = momentum * v + g + weight_decay * p`, then `p -= lr * v`, or `p -= lr * (g + weight_decay * p + momentum * v)`
/// with Nesterov's momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSpec {
    /// Learning rate, which the schedule may change from step to step.
    pub lr: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
    /// Whether to go by Nesterov's momentum, the second formula.
    pub nesterov: bool,
}

/// The optimiser's state: the velocity of each parameter, zero at the start.
#[derive(Clone, Debug)]
pub struct Velocity {
    of: Vec<Parameter>,
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    var: Var,
    velocity: State,
}

/// Where it lies depends on what computes.
#[derive(Clone, Debug)]
enum State {
    Kernels(Vec<f32>),
    /// `None` for zero: before the first step.
    Tensors(Option<Tensor>),
}

impl Velocity {
    /// For these parameters, in this order: usually [`crate::Params::parameters`], and those of the losses.
    pub fn new(parameters: Vec<(String, Var)>) -> Self {
        let still = |(name, var): (String, Var)| Parameter {
            velocity: match Backend::of(var.device()) {
                Backend::Kernels => State::Kernels(vec![0.0; var.elem_count()]),
                Backend::Tensors => State::Tensors(None),
            },
            name,
            var,
        };
        Self {
            of: parameters.into_iter().map(still).collect(),
        }
    }

    /// One step. A parameter without a gradient stays as it is, as in PyTorch.
    ///
    /// # Errors
    /// If a parameter or its gradient is no f32 tensor, or they lie on different devices.
    pub fn step(&mut self, gradients: &GradStore, spec: SgdSpec) -> Result<()> {
        for Parameter { var, velocity, .. } in &mut self.of {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            match velocity {
                State::Kernels(velocity) => {
                    let velocity = RefCell::new(velocity);
                    var.inplace_op2(&gradient.contiguous()?, &Step { spec, velocity })?;
                }
                State::Tensors(velocity) => step_tensors(var, gradient, velocity, spec)?,
            }
        }
        Ok(())
    }

    /// The velocities by parameter name, for a checkpoint. Each has the shape that its parameter has inside.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |p: &Parameter| {
            let velocity = match &p.velocity {
                State::Kernels(values) => Tensor::from_slice(values, p.var.shape(), &Device::Cpu)?,
                State::Tensors(Some(tensor)) => tensor.to_device(&Device::Cpu)?,
                State::Tensors(None) => {
                    Tensor::zeros(p.var.shape(), candle_core::DType::F32, &Device::Cpu)?
                }
            };
            Ok((p.name.clone(), velocity))
        };
        self.of.iter().map(tensor).collect()
    }

    /// Takes the velocities back from [`Velocity::to_tensors`].
    ///
    /// # Errors
    /// If one is missing, or has another shape than its parameter.
    pub fn load(&mut self, tensors: &std::collections::HashMap<String, Tensor>) -> Result<()> {
        for Parameter {
            name,
            var,
            velocity,
        } in &mut self.of
        {
            let Some(tensor) = tensors.get(name.as_str()) else {
                return Err(Error::Names {
                    missing: vec![name.clone()],
                    unexpected: vec![],
                });
            };
            if tensor.dims() != var.dims() {
                return Err(Error::WeightShape {
                    name: name.clone(),
                    expected: var.dims().to_vec(),
                    found: tensor.dims().to_vec(),
                });
            }
            match velocity {
                State::Kernels(velocity) => with_values(&tensor.contiguous()?, |values| {
                    velocity.copy_from_slice(values)
                })?,
                State::Tensors(velocity) => *velocity = Some(tensor.to_device(var.device())?),
            }
        }
        Ok(())
    }
}

/// The same in Candle's operations.
fn step_tensors(
    var: &Var,
    gradient: &Tensor,
    velocity: &mut Option<Tensor>,
    spec: SgdSpec,
) -> Result<()> {
    let SgdSpec {
        lr,
        momentum,
        weight_decay,
        nesterov,
    } = spec;
    let value = var.as_detached_tensor();
    // Each operation is a kernel of its own, and most parameters are small: one that changes nothing is left out.
    let gradient = match weight_decay {
        0.0 => gradient.detach(),
        decay => (gradient.detach() + value.affine(decay, 0.0)?)?,
    };
    let moved = match velocity.take() {
        Some(velocity) if momentum != 0.0 => (velocity.affine(momentum, 0.0)? + &gradient)?,
        _ => gradient.clone(),
    };
    let step = match nesterov {
        true => (gradient + moved.affine(momentum, 0.0)?)?,
        false => moved.clone(),
    };
    *velocity = Some(moved);
    Ok(var.set(&(value - step.affine(lr, 0.0)?)?)?)
}

struct Step<'a> {
    spec: SgdSpec,
    velocity: RefCell<&'a mut Vec<f32>>,
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        p_layout: &Layout,
        g: &CpuStorage,
        g_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(p), CpuStorage::F32(g)) = (p, g) else {
            return Err(Error::Unsupported {
                supported: "f32 parameters",
                found: "another number format".into(),
            }
            .into());
        };
        let (Some((p_start, p_end)), Some((g_start, g_end))) =
            (p_layout.contiguous_offsets(), g_layout.contiguous_offsets())
        else {
            return Err(Error::Unsupported {
                supported: "contiguous parameters",
                found: format!("{p_layout:?}"),
            }
            .into());
        };
        const CHUNK: usize = 1 << 14;
        let SgdSpec {
            lr,
            momentum,
            weight_decay,
            nesterov,
        } = self.spec;
        let (lr, momentum, weight_decay) = (lr as f32, momentum as f32, weight_decay as f32);
        let mut velocity = self.velocity.borrow_mut();
        let values = p[p_start..p_end]
            .par_chunks_mut(CHUNK)
            .zip(g[g_start..g_end].par_chunks(CHUNK));
        values
            .zip(velocity.par_chunks_mut(CHUNK))
            .for_each(|((p, g), v)| {
                for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
                    let g = g + weight_decay * *p;
                    *v = momentum * *v + g;
                    *p -= lr * if nesterov { g + momentum * *v } else { *v };
                }
            });
        Ok(())
    }
}
