//! The fully connected layer.

use candle_core::Tensor;

use crate::trace::{Op, Value, note};
use crate::{Backend, Conv2d, ConvSpec, Error, FeatureMap, Init, Result, Scope};

/// `y = x @ weight^T + bias`: `(B, I)` to `(B, O)`. It is a 1x1 convolution of images of one pixel, so that it shares
/// kernels, gradients and their independence of the number of threads. Where tensors compute, it is Candle's matrix product.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    conv: Conv2d,
}

impl Linear {
    /// Adds `weight` and `bias` to `scope`. The bias starts uniform in `±1 / sqrt(I)` as PyTorch's does.
    ///
    /// # Errors
    /// If a number is 0 or a name is taken.
    pub fn new(scope: &Scope, in_features: usize, out_features: usize, init: Init) -> Result<Self> {
        let spec = ConvSpec::new(in_features, out_features, 1).bias(true);
        Ok(Self {
            name: scope.name().into(),
            conv: Conv2d::fully_connected(scope, spec, init)?,
        })
    }

    /// Where its parameters are in the tree of names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// If `x` is not `(B, I)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.of_rows(x, true)
    }

    /// The same for its result alone: nothing is kept for the way back.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn without_gradient(&self, x: &Tensor) -> Result<Tensor> {
        self.of_rows(x, false)
    }

    fn of_rows(&self, x: &Tensor, keep: bool) -> Result<Tensor> {
        let &[batch, features] = x.dims() else {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: "(batch, features)".into(),
                found: format!("{:?}", x.dims()),
            });
        };
        let made = match Backend::of(x.device()) {
            Backend::Kernels => {
                let x = x.reshape((batch, 1, 1, features))?;
                let x = match keep {
                    true => FeatureMap::new(&x)?,
                    false => FeatureMap::without_gradient(&x)?,
                };
                let y = self.conv.forward(&x)?;
                y.to_tensor_shaped(&[batch, y.dims()[3]])?
            }
            Backend::Tensors if keep => self.conv.of_rows(x)?,
            Backend::Tensors => self.conv.of_rows(x)?.detach(),
        };
        let op = || Op::Linear {
            layer: self.name.clone(),
        };
        note(op, &[Value::Tensor(x)], Value::Tensor(&made));
        Ok(made)
    }
}
