//! Convolution over channels-last feature maps.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use crate::{
    ConvSpec, Error, FeatureMap, Init, Result, Scope,
    buffer::Buffer,
    feature_map::note_maps,
    kernels::{self, ConvShape},
    tape::{self, Backward, Slot, with_values},
    tensors,
    trace::Op,
};

/// A convolution: `(B, H, W, I)` to `(B, OH, OW, O)` with `OH = (H + 2 * padding - kernel) / stride + 1`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    name: String,
    spec: ConvSpec,
    weight: Var,
    bias: Option<Var>,
}

impl Conv2d {
    /// Adds `weight` and, if asked for, `bias` to `scope`. A bias starts uniform in `±1 / sqrt(fan_in)` as PyTorch's does.
    ///
    /// # Errors
    /// If `groups` does not divide both numbers of channels, or a number is 0.
    pub fn new(scope: &Scope, spec: ConvSpec, init: Init) -> Result<Self> {
        Self::build(scope, spec, |shape| scope.kernel("weight", shape, init))
    }

    /// A 1x1 convolution whose weight is PyTorch's `(O, I)`.
    pub(crate) fn fully_connected(scope: &Scope, spec: ConvSpec, init: Init) -> Result<Self> {
        Self::build(scope, spec, |[outputs, inputs, _, _]| {
            scope.matrix("weight", [outputs, inputs], init)
        })
    }

    fn build(
        scope: &Scope,
        spec: ConvSpec,
        weight: impl FnOnce([usize; 4]) -> Result<Var>,
    ) -> Result<Self> {
        spec.check().map_err(|reason| Error::Spec {
            layer: scope.name().into(),
            reason,
        })?;
        let ConvSpec {
            in_channels,
            out_channels,
            kernel,
            groups,
            ..
        } = spec;
        let shape = [out_channels, in_channels / groups, kernel, kernel];
        let weight = weight(shape)?;
        let fan_in = in_channels / groups * kernel * kernel;
        let bias = if spec.bias {
            Some(scope.parameter("bias", &[out_channels], fan_in, Init::UniformFanIn)?)
        } else {
            None
        };
        Ok(Self {
            name: scope.name().into(),
            spec,
            weight,
            bias,
        })
    }

    /// # Errors
    /// If `x` has other channels than this convolution, or is smaller than its kernel.
    pub fn forward(&self, x: &FeatureMap) -> Result<FeatureMap> {
        let shape = self.shape(x)?;
        let made = match &x.tensor {
            None => self.by_kernels(x, shape)?,
            Some(values) => tensors::conv2d(x, values, shape, &self.weight, self.bias.as_ref())?,
        };
        let op = || Op::Conv {
            layer: self.name.clone(),
            spec: self.spec,
        };
        note_maps(op, &[x], &made);
        Ok(made)
    }

    /// What a convolution made by [`Conv2d::fully_connected`] makes of `(B, I)`, as part of Candle's graph.
    pub(crate) fn of_rows(&self, x: &Tensor) -> Result<Tensor> {
        let ConvSpec {
            in_channels,
            out_channels,
            ..
        } = self.spec;
        if x.dims()[1] != in_channels {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: format!("(batch, {in_channels})"),
                found: format!("{:?}", x.dims()),
            });
        }
        let y = x.matmul(&self.weight.reshape((in_channels, out_channels))?)?;
        Ok(match &self.bias {
            None => y,
            Some(bias) => y.broadcast_add(bias)?,
        })
    }

    fn by_kernels(&self, x: &FeatureMap, shape: ConvShape) -> Result<FeatureMap> {
        let mut y = x.room(shape.y_len());
        with_values(&self.weight, |weight| {
            kernels::conv_forward(&shape, &x.values, weight, &mut y)
        })?;
        if let Some(bias) = &self.bias {
            with_values(bias, |bias| kernels::add_bias(bias, &mut y))?;
        }
        let tracked = if x.keeps() {
            let op = ConvBackward {
                shape,
                x: Arc::clone(&x.values),
                weight: self.weight.as_detached_tensor(),
                bias: self.bias.is_some(),
                dx: x.slot(),
            };
            match &self.bias {
                None => tape::record(&[x.tracked()], &[&self.weight], op)?,
                Some(bias) => tape::record(&[x.tracked()], &[&self.weight, bias], op)?,
            }
        } else {
            None
        };
        let dims = [shape.batch, shape.oh, shape.ow, shape.co];
        Ok(FeatureMap::made(y, dims, tracked, x.keeps()))
    }

    fn shape(&self, x: &FeatureMap) -> Result<ConvShape> {
        let [batch, h, w, c] = x.dims();
        let ConvSpec {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            groups,
            ..
        } = self.spec;
        if c != in_channels || h + 2 * padding < kernel || w + 2 * padding < kernel {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: format!(
                    "{in_channels} channels and at least {kernel}x{kernel} pixels with {padding} of padding"
                ),
                found: format!("{:?}", x.dims()),
            });
        }
        Ok(ConvShape {
            batch,
            h,
            w,
            ci: in_channels,
            oh: (h + 2 * padding - kernel) / stride + 1,
            ow: (w + 2 * padding - kernel) / stride + 1,
            co: out_channels,
            kernel,
            stride,
            padding,
            groups,
        })
    }
}

struct ConvBackward {
    shape: ConvShape,
    x: Arc<Buffer>,
    weight: Tensor,
    bias: bool,
    dx: Option<Arc<Slot>>,
}

impl Backward for ConvBackward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        let shape = self.shape;
        let mut dw = vec![0.0; shape.weight_len()];
        kernels::conv_backward_weight(&shape, &self.x, &dy, &mut dw);
        let mut gradients = vec![Tensor::from_vec(dw, self.weight.shape(), &Device::Cpu)?];
        if self.bias {
            let db = kernels::sum_pixels(shape.co, &dy);
            gradients.push(Tensor::from_vec(db, shape.co, &Device::Cpu)?);
        }
        if let Some(slot) = self.dx {
            let mut dx = Buffer::for_overwrite(shape.x_len());
            with_values(&self.weight, |weight| {
                kernels::conv_backward_input(&shape, &dy, weight, &mut dx)
            })?;
            slot.put(dx);
        }
        Ok(gradients)
    }
}
