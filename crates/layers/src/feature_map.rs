//! What flows through a network.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::{
    Backend, Error, Result,
    buffer::Buffer,
    tape::{self, Tracked},
    trace::{Op, Value, is_tracing, note},
};

/// Activations as `(B, H, W, C)`. Cloning is cheap: clones share the values.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    /// What kernels compute with; empty where tensors compute. Its address tells maps apart.
    pub(crate) values: Arc<Buffer>,
    /// Where tensors compute: `(B, H, W, C)`, contiguous, no part of Candle's graph.
    pub(crate) tensor: Option<Tensor>,
    pub(crate) dims: [usize; 4],
    tracked: Option<Tracked>,
    keep: bool,
}

impl FeatureMap {
    /// The start of a forward pass that will be walked back: layers keep what their gradients need.
    ///
    /// `tensor` is `(B, H, W, C)`, f32. If it is itself tracked, its gradient is computed; pixels are not, and then the
    /// first layer is spared that work.
    ///
    /// # Errors
    /// If `tensor` has not four dimensions or is no f32 tensor on the CPU or a CUDA device.
    pub fn new(tensor: &Tensor) -> Result<Self> {
        let tracked = tape::enter(tensor)?;
        Self::of_tensor(tensor, tracked, true)
    }

    /// The start of a forward pass for its result alone: nothing is kept, and memory goes back after each layer.
    ///
    /// # Errors
    /// As [`FeatureMap::new`].
    pub fn without_gradient(tensor: &Tensor) -> Result<Self> {
        Self::of_tensor(tensor, None, false)
    }

    /// `[B, H, W, C]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// An ordinary tensor `(B, H, W, C)`, tracked if this map is: the way to any operation of Candle's.
    /// [`FeatureMap::new`] leads back.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let made = self.to_tensor_shaped(&self.dims)?;
        note(|| Op::ToTensor, &[self.as_value()], Value::Tensor(&made));
        Ok(made)
    }

    pub(crate) fn to_tensor_shaped(&self, dims: &[usize]) -> Result<Tensor> {
        match &self.tensor {
            None => tape::leave(&self.values, dims, self.tracked.as_ref()),
            Some(tensor) => tape::leave_tensor(tensor, dims, self.tracked.as_ref()),
        }
    }

    /// The result of a layer: `tracked` is what [`tape::record`] answered.
    pub(crate) fn made(
        values: Buffer,
        dims: [usize; 4],
        tracked: Option<Tracked>,
        keep: bool,
    ) -> Self {
        Self {
            values: Arc::new(values),
            tensor: None,
            dims,
            tracked,
            keep,
        }
    }

    /// The values where the other map of the same operation is a tensor.
    pub(crate) fn expect_tensor(&self) -> Result<&Tensor> {
        self.tensor.as_ref().ok_or_else(|| Error::Unsupported {
            supported: "maps of one backend",
            found: "one of tensors beside one of kernels".into(),
        })
    }

    /// The same where tensors compute. `tensor` is `(B, H, W, C)`.
    pub(crate) fn of_values(tensor: &Tensor, tracked: Option<Tracked>, keep: bool) -> Result<Self> {
        Ok(Self {
            values: Arc::new(Buffer::for_overwrite(0)),
            tensor: Some(tensor.detach().contiguous()?),
            dims: tensor.dims4()?.into(),
            tracked,
            keep,
        })
    }

    pub(crate) fn with_tracked(self, tracked: Option<Tracked>) -> Self {
        Self { tracked, ..self }
    }

    /// Whether layers prepare for the way back: [`FeatureMap::new`] began this pass.
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Memory for what a layer makes of this map: `len` values, left over from earlier use.
    pub(crate) fn room(&self, len: usize) -> Buffer {
        room(self.keep, len)
    }

    /// Where this map's gradient goes, if it wants one.
    pub(crate) fn tracked(&self) -> Option<&Tracked> {
        self.tracked.as_ref()
    }

    /// What a trace knows this map by.
    pub(crate) fn as_value(&self) -> Value<'_> {
        Value::Map(&self.values, self.dims)
    }

    pub(crate) fn slot(&self) -> Option<Arc<tape::Slot>> {
        self.tracked
            .as_ref()
            .map(|tracked| Arc::clone(&tracked.slot))
    }

    fn of_tensor(tensor: &Tensor, tracked: Option<Tracked>, keep: bool) -> Result<Self> {
        let &[b, h, w, c] = tensor.dims() else {
            return Err(Error::Shape {
                layer: "FeatureMap".into(),
                expected: "(batch, height, width, channels)".into(),
                found: format!("{:?}", tensor.dims()),
            });
        };
        let made = match Backend::of(tensor.device()) {
            Backend::Kernels => {
                let copy = |values: &[f32]| room(keep, values.len()).filled_with(values);
                let values = tape::with_values(&tensor.contiguous()?, copy)?;
                Self::made(values, [b, h, w, c], tracked, keep)
            }
            Backend::Tensors if tensor.dtype() == DType::F32 => {
                Self::of_values(tensor, tracked, keep)?
            }
            Backend::Tensors => {
                return Err(Error::Unsupported {
                    supported: "f32 tensors",
                    found: format!("{:?}", tensor.dtype()),
                });
            }
        };
        note(|| Op::ToMap, &[Value::Tensor(tensor)], made.as_value());
        Ok(made)
    }
}

fn room(keep: bool, len: usize) -> Buffer {
    match keep {
        true => Buffer::for_overwrite(len),
        false => Buffer::brief(len),
    }
}

/// Notes an operation between maps.
pub(crate) fn note_maps(op: impl FnOnce() -> Op, inputs: &[&FeatureMap], made: &FeatureMap) {
    if is_tracing() {
        let inputs: Vec<Value> = inputs.iter().map(|map| map.as_value()).collect();
        note(op, &inputs, made.as_value());
    }
}
