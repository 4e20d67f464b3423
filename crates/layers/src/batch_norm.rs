//! Batch normalisation with what follows it: residual and ReLU in the same pass over memory.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use crate::{
    Activation, Error, FeatureMap, Init, Mode, Result, Scope,
    buffer::Buffer,
    feature_map::note_maps,
    kernels::{self, Affine, Gate, Moments, Slope},
    tape::{self, Backward, Slot, with_values},
    tensors,
    trace::Op,
};

/// PyTorch's defaults, which every network of the CIFAR and ImageNet families uses.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// `y = activation(gamma * (x - mean) / sqrt(var + 1e-5) + beta + residual)`, per channel.
///
/// Running statistics are PyTorch's: momentum 0.1, the running variance unbiased.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    channels: usize,
    gamma: Var,
    beta: Var,
    running_mean: Var,
    running_var: Var,
    n_batches: Var,
}

impl BatchNorm {
    /// Adds `weight` (ones), `bias` (zeros) and the buffers `running_mean`, `running_var`, `num_batches_tracked`.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn new(scope: &Scope, channels: usize) -> Result<Self> {
        let device = scope.device();
        Ok(Self {
            name: scope.name().into(),
            channels,
            gamma: scope.parameter("weight", &[channels], channels, Init::Constant(1.0))?,
            beta: scope.parameter("bias", &[channels], channels, Init::Constant(0.0))?,
            running_mean: scope.buffer(
                "running_mean",
                &Tensor::zeros(channels, DType::F32, device)?,
            )?,
            running_var: scope
                .buffer("running_var", &Tensor::ones(channels, DType::F32, device)?)?,
            // Book-keeping, which stays on the host: reading it on a GPU would wait for the whole queue.
            n_batches: scope.buffer(
                "num_batches_tracked",
                &Tensor::zeros((), DType::I64, &Device::Cpu)?,
            )?,
        })
    }

    /// # Errors
    /// If `x` has other channels, `residual` another shape, or a batch to learn from holds one value per channel.
    pub fn forward(
        &self,
        x: &FeatureMap,
        mode: Mode,
        activation: Activation,
        residual: Option<&FeatureMap>,
    ) -> Result<FeatureMap> {
        self.check(x, mode, residual)?;
        let made = match &x.tensor {
            None => self.by_kernels(x, mode, activation, residual)?,
            Some(values) => self.by_tensors((x, values), mode, activation, residual)?,
        };
        let op = || Op::BatchNorm {
            layer: self.name.clone(),
            activation,
            eps: EPS,
        };
        let inputs: Vec<&FeatureMap> = std::iter::once(x).chain(residual).collect();
        note_maps(op, &inputs, &made);
        Ok(made)
    }

    fn by_tensors(
        &self,
        x: (&FeatureMap, &Tensor),
        mode: Mode,
        activation: Activation,
        residual: Option<&FeatureMap>,
    ) -> Result<FeatureMap> {
        let norm = tensors::Norm {
            gamma: &self.gamma,
            beta: &self.beta,
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            eps: EPS,
            momentum: MOMENTUM,
        };
        let residual = match residual {
            Some(map) => Some((map, map.expect_tensor()?)),
            None => None,
        };
        if mode == Mode::Train {
            self.count_batch()?;
        }
        tensors::batch_norm(&norm, x, mode, activation, residual)
    }

    fn by_kernels(
        &self,
        x: &FeatureMap,
        mode: Mode,
        activation: Activation,
        residual: Option<&FeatureMap>,
    ) -> Result<FeatureMap> {
        let moments = match mode {
            Mode::Train => {
                let moments = kernels::norm_moments(self.channels, &x.values);
                self.update_running(&moments, x.values.len() / self.channels)?;
                moments
            }
            Mode::Eval => Moments {
                mean: with_values(&self.running_mean, <[f32]>::to_vec)?,
                var: with_values(&self.running_var, <[f32]>::to_vec)?,
            },
        };
        let affine = self.affine(&moments)?;
        let relu = activation == Activation::Relu;
        let mut y = x.room(x.values.len());
        kernels::norm_forward(
            &x.values,
            &affine,
            residual.map(|r| &r.values[..]),
            relu,
            &mut y,
        );
        let mut made = FeatureMap::made(y, x.dims(), None, x.keeps());
        if x.keeps() {
            let op = NormBackward {
                x: Arc::clone(&x.values),
                relu: match (relu, residual) {
                    (false, _) => Relu::Absent,
                    (true, None) => Relu::OfX(affine),
                    (true, Some(_)) => Relu::Answered(Arc::clone(&made.values)),
                },
                moments,
                gamma: self.gamma.as_detached_tensor(),
                mode,
                dx: x.slot(),
                dresidual: residual.and_then(FeatureMap::slot),
            };
            let inputs = std::iter::once(x).chain(residual);
            let inputs: Vec<_> = inputs.map(FeatureMap::tracked).collect();
            made = made.with_tracked(tape::record(&inputs, &[&self.gamma, &self.beta], op)?);
        }
        Ok(made)
    }

    fn affine(&self, moments: &Moments) -> Result<Affine> {
        let gamma = with_values(&self.gamma, <[f32]>::to_vec)?;
        let beta = with_values(&self.beta, <[f32]>::to_vec)?;
        let scale: Vec<f32> = std::iter::zip(&gamma, &moments.var)
            .map(|(&gamma, &var)| (f64::from(gamma) / (f64::from(var) + EPS).sqrt()) as f32)
            .collect();
        let shift = (0..self.channels)
            .map(|c| (f64::from(beta[c]) - f64::from(moments.mean[c]) * f64::from(scale[c])) as f32)
            .collect();
        Ok(Affine { scale, shift })
    }

    fn update_running(&self, moments: &Moments, n: usize) -> Result<()> {
        let unbias = n as f64 / (n - 1) as f64;
        let mix = |running: &Var, new: &[f32], factor: f64| -> Result<()> {
            let old = with_values(running, <[f32]>::to_vec)?;
            let mixed: Vec<f32> = std::iter::zip(old, new)
                .map(|(old, &new)| {
                    ((1.0 - MOMENTUM) * f64::from(old) + MOMENTUM * factor * f64::from(new)) as f32
                })
                .collect();
            Ok(running.set(&Tensor::from_vec(mixed, self.channels, &Device::Cpu)?)?)
        };
        mix(&self.running_mean, &moments.mean, 1.0)?;
        mix(&self.running_var, &moments.var, unbias)?;
        self.count_batch()
    }

    fn count_batch(&self) -> Result<()> {
        let n_batches = self.n_batches.to_scalar::<i64>()? + 1;
        Ok(self.n_batches.set(&Tensor::new(n_batches, &Device::Cpu)?)?)
    }

    fn check(&self, x: &FeatureMap, mode: Mode, residual: Option<&FeatureMap>) -> Result<()> {
        let expected = if x.dims()[3] != self.channels {
            format!("{} channels", self.channels)
        } else if mode == Mode::Train && x.dims()[..3].iter().product::<usize>() <= 1 {
            "more than one value per channel to learn from".into()
        } else if let Some(residual) = residual.filter(|residual| residual.dims() != x.dims()) {
            format!(
                "a residual of its own shape, found {:?} for",
                residual.dims()
            )
        } else {
            return Ok(());
        };
        Err(Error::Shape {
            layer: self.name.clone(),
            expected,
            found: format!("{:?}", x.dims()),
        })
    }
}

struct NormBackward {
    x: Arc<Buffer>,
    relu: Relu,
    moments: Moments,
    gamma: Tensor,
    mode: Mode,
    dx: Option<Arc<Slot>>,
    dresidual: Option<Arc<Slot>>,
}

/// How to tell which values the activation let through.
enum Relu {
    Absent,
    /// It looked at x alone: compute again what it saw.
    OfX(Affine),
    /// A residual was added before: look at what it answered.
    Answered(Arc<Buffer>),
}

impl Backward for NormBackward {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn backward(self: Box<Self>, mut dy: Buffer) -> Result<Vec<Tensor>> {
        let gate = match &self.relu {
            Relu::Absent => Gate::Open,
            Relu::OfX(affine) => Gate::Sign(affine),
            Relu::Answered(y) => Gate::Output(y),
        };
        let (dot, sum) = kernels::norm_backward_sums(&self.x, &self.moments.mean, gate, &mut dy);
        let gamma = with_values(&self.gamma, <[f32]>::to_vec)?;
        let inverse: Vec<f64> = self
            .moments
            .var
            .iter()
            .map(|&var| 1.0 / (f64::from(var) + EPS).sqrt())
            .collect();
        let slope = self.slope(&gamma, &inverse, &dot, &sum);
        match (self.dx, self.dresidual) {
            (Some(dx_slot), Some(residual_slot)) => {
                let mut dx = Buffer::for_overwrite(dy.len());
                kernels::norm_backward(&self.x, &slope, &dy, &mut dx);
                dx_slot.put(dx);
                residual_slot.put(dy);
            }
            (Some(dx_slot), None) => {
                kernels::norm_backward_in_place(&self.x, &slope, gate, &mut dy);
                dx_slot.put(dy);
            }
            (None, Some(residual_slot)) => residual_slot.put(dy),
            (None, None) => {}
        }
        let dgamma: Vec<f32> = std::iter::zip(&dot, &inverse)
            .map(|(dot, inverse)| (dot * inverse) as f32)
            .collect();
        let dbeta: Vec<f32> = sum.iter().map(|&sum| sum as f32).collect();
        Ok(vec![
            Tensor::new(dgamma, &Device::Cpu)?,
            Tensor::new(dbeta, &Device::Cpu)?,
        ])
    }
}

impl NormBackward {
    /// With `hat = (x - mean) * inverse`: `dx = gamma * inverse * (dy - mean(dy) - hat * mean(dy * hat))` where the
    /// statistics are those of the batch, and `gamma * inverse * dy` where they are fixed.
    fn slope(&self, gamma: &[f32], inverse: &[f64], dot: &[f64], sum: &[f64]) -> Slope {
        let channels = gamma.len();
        let n = (self.x.len() / channels) as f64;
        let scale: Vec<f64> = std::iter::zip(gamma, inverse)
            .map(|(&gamma, inverse)| f64::from(gamma) * inverse)
            .collect();
        let (mut b, mut c) = (vec![0.0; channels], vec![0.0; channels]);
        if self.mode == Mode::Train {
            for i in 0..channels {
                let slope = -scale[i] * inverse[i] * inverse[i] * dot[i] / n;
                b[i] = slope as f32;
                c[i] = (-scale[i] * sum[i] / n - slope * f64::from(self.moments.mean[i])) as f32;
            }
        }
        Slope {
            a: scale.into_iter().map(|scale| scale as f32).collect(),
            b,
            c,
        }
    }
}
