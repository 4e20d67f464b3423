//! Stochastic gradient descent with momentum, as PyTorch computes it, in one pass over each parameter.

use std::cell::RefCell;

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;

use crate::{Error, Result, tape::with_values};

/// `v = momentum * v + g + weight_decay * p`, then `p -= lr * v`, or `p -= lr * (g + weight_decay * p + momentum * v)`
/// with Nesterov's momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSpec {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
    /// Nesterov's momentum.
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
    velocity: Vec<f32>,
}

impl Velocity {
    /// For these parameters, in this order: usually [`crate::Params::parameters`], and those of the losses.
    pub fn new(parameters: Vec<(String, Var)>) -> Self {
        let still = |(name, var): (String, Var)| Parameter {
            velocity: vec![0.0; var.elem_count()],
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
    /// If a parameter or its gradient is no f32 tensor on the CPU.
    pub fn step(&mut self, gradients: &GradStore, spec: SgdSpec) -> Result<()> {
        for Parameter { var, velocity, .. } in &mut self.of {
            if let Some(gradient) = gradients.get(var) {
                let gradient = gradient.contiguous()?;
                var.inplace_op2(
                    &gradient,
                    &Step {
                        spec,
                        velocity: RefCell::new(velocity),
                    },
                )?;
            }
        }
        Ok(())
    }

    /// The velocities by parameter name, for a checkpoint. Each has the shape that its parameter has inside.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |p: &Parameter| {
            Ok((
                p.name.clone(),
                Tensor::from_slice(&p.velocity, p.var.shape(), &Device::Cpu)?,
            ))
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
            with_values(&tensor.contiguous()?, |values| {
                velocity.copy_from_slice(values)
            })?;
        }
        Ok(())
    }
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
