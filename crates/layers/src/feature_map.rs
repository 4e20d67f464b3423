//! What flows through a network.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{
    Error, Result,
    buffer::Buffer,
    tape::{self, Tracked},
    trace::{Op, Value, note},
};

/// Activations as `(B, H, W, C)`. Cloning is cheap: clones share the values.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    pub(crate) values: Arc<Buffer>,
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
    /// If `tensor` has not four dimensions or is no f32 tensor on the CPU.
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
        note(|| Op::ToTensor, &[Value::Map(self)], Value::Tensor(&made));
        Ok(made)
    }

    pub(crate) fn to_tensor_shaped(&self, dims: &[usize]) -> Result<Tensor> {
        tape::leave(&self.values, dims, self.tracked.as_ref())
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
            dims,
            tracked,
            keep,
        }
    }

    pub(crate) fn with_tracked(self, tracked: Option<Tracked>) -> Self {
        Self { tracked, ..self }
    }

    /// Whether layers should prepare for the way back.
    pub(crate) fn keeps(&self) -> bool {
        self.keep
    }

    /// Where this map's gradient goes, if it wants one.
    pub(crate) fn tracked(&self) -> Option<&Tracked> {
        self.tracked.as_ref()
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
        let values = tape::with_values(&tensor.contiguous()?, Buffer::copy_of)?;
        let made = Self::made(values, [b, h, w, c], tracked, keep);
        note(|| Op::ToMap, &[Value::Tensor(tensor)], Value::Map(&made));
        Ok(made)
    }
}
