//! The way back: how gradients of feature maps travel beside Candle's graph.
//!
//! Candle's graph is made of scalars, the *tokens*. Each layer that has something to do on the way back adds one node
//! with the token of its input and its parameters as arguments; Candle sorts the nodes, calls each once, after all
//! its consumers, and adds up the gradients of the parameters. The gradient of a feature map lies in its [`Slot`]:
//! consumers put it there, the layer that made the map takes it out.
//!
//! Two other ways were weighed. Ordinary custom ops over tensors need no tokens, but Candle answers each gradient
//! with a fresh tensor of zeros and an addition, on one thread: 200 MB of writing in a step of resnet8x4 at batch 64,
//! and no gradient can be changed in place. A tape of our own would need its own sorting, its own store of parameter
//! gradients and a bridge to Candle's losses; tokens get all three from Candle for a microsecond per layer.
//!
//! Where [`crate::Backend::Tensors`] computes, the same walk carries tensors in place of buffers: a token lies on the
//! device of its parameters, a slot holds a tensor, and what a layer does on the way back is a closure over tensors.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{
    CudaStorage,
    backend::{BackendDevice, BackendStorage},
};

use crate::{Error, Result, buffer::Buffer, kernels};

/// Where the gradient of a feature map is gathered: a buffer where kernels compute, a tensor where tensors do.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    buffer: Mutex<Option<Buffer>>,
    tensor: Mutex<Option<Tensor>>,
}

impl Slot {
    /// Adds to what is there; the first gradient is moved in, not copied.
    pub(crate) fn put(&self, gradient: Buffer) {
        let mut slot = lock(&self.buffer);
        match slot.as_mut() {
            None => *slot = Some(gradient),
            Some(sum) => kernels::add_to(sum, &gradient),
        }
    }

    pub(crate) fn take(&self) -> Option<Buffer> {
        lock(&self.buffer).take()
    }

    /// Likewise for a tensor.
    pub(crate) fn put_tensor(&self, gradient: Tensor) -> Result<()> {
        let mut slot = lock(&self.tensor);
        *slot = Some(match slot.take() {
            None => gradient,
            Some(sum) => (sum + gradient)?,
        });
        Ok(())
    }

    fn take_tensor(&self) -> Option<Tensor> {
        lock(&self.tensor).take()
    }
}

/// A panic elsewhere cannot leave these half changed, so a poisoned lock is as good as a clean one.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a gradient's way: a feature map that wants one.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) token: Tensor,
    pub(crate) slot: Arc<Slot>,
}

/// What a layer does on the way back. It is consumed, so that what it kept is recycled as soon as it has served.
pub(crate) trait Backward: Send + Sync {
    fn name(&self) -> &'static str;

    /// Given the gradient of the output, puts those of the inputs into their slots and returns those of the
    /// parameters, in the order in which they were recorded.
    fn backward(self: Box<Self>, gradient: Buffer) -> Result<Vec<Tensor>>;
}

/// The same where tensors compute: from the gradient of the output to those of the parameters.
pub(crate) type TensorBackward = Box<dyn FnOnce(Tensor) -> Result<Vec<Tensor>> + Send + Sync>;

enum Way {
    Kernels(Box<dyn Backward>),
    Tensors(TensorBackward),
}

/// Records a layer: `inputs` are where the gradients of its feature maps go, those of them that want one, and `parameters` (at
/// most two) its tensors. The answer belongs to what it made.
pub(crate) fn record(
    inputs: &[Option<&Tracked>],
    parameters: &[&Tensor],
    backward: impl Backward + 'static,
) -> Result<Option<Tracked>> {
    let name = backward.name();
    record_way(
        inputs,
        parameters,
        name,
        Way::Kernels(Box::new(backward)),
        &Device::Cpu,
    )
}

/// Records a layer of tensors on `device`.
pub(crate) fn record_tensors(
    inputs: &[Option<&Tracked>],
    parameters: &[&Tensor],
    name: &'static str,
    device: &Device,
    backward: TensorBackward,
) -> Result<Option<Tracked>> {
    record_way(inputs, parameters, name, Way::Tensors(backward), device)
}

fn record_way(
    inputs: &[Option<&Tracked>],
    parameters: &[&Tensor],
    name: &'static str,
    way: Way,
    device: &Device,
) -> Result<Option<Tracked>> {
    let mut token: Option<Tensor> = None;
    for tracked in inputs.iter().flatten() {
        token = Some(match token {
            None => tracked.token.clone(),
            Some(sum) => (sum + &tracked.token)?,
        });
    }
    if token.is_none() && parameters.is_empty() {
        return Ok(None);
    }
    let slot = Arc::new(Slot::default());
    let node = Node {
        wants_token: token.is_some(),
        slot: Arc::clone(&slot),
        name,
        way: Mutex::new(Some(way)),
        device: device.clone(),
    };
    let token = match token {
        Some(token) => token,
        None => zero(device)?,
    };
    let token = match *parameters {
        [] => token.apply_op1(node)?,
        [first] => token.apply_op2(first, node)?,
        [first, second] => token.apply_op3(first, second, node)?,
        _ => unreachable!("no layer has more than a weight and a bias"),
    };
    Ok(Some(Tracked { token, slot }))
}

/// A tracked tensor becomes a token: what its feature map gathers goes back into Candle's graph.
pub(crate) fn enter(tensor: &Tensor) -> Result<Option<Tracked>> {
    if !tensor.track_op() {
        return Ok(None);
    }
    let slot = Arc::new(Slot::default());
    let token = tensor.apply_op1(Entrance(Arc::clone(&slot)))?;
    Ok(Some(Tracked { token, slot }))
}

/// The values of a feature map as an ordinary tensor whose gradient finds its way back to the map.
pub(crate) fn leave(values: &[f32], dims: &[usize], tracked: Option<&Tracked>) -> Result<Tensor> {
    let tensor = match tracked {
        None => Tensor::from_slice(values, dims, &Device::Cpu)?,
        Some(Tracked { token, slot }) => token.apply_op1(Exit {
            values: Mutex::new(Some(values.to_vec())),
            shape: Shape::from(dims),
            slot: Arc::clone(slot),
        })?,
    };
    Ok(tensor)
}

/// The same for a map that is a tensor.
pub(crate) fn leave_tensor(
    values: &Tensor,
    dims: &[usize],
    tracked: Option<&Tracked>,
) -> Result<Tensor> {
    let map = values.shape().clone();
    let values = values.reshape(dims)?;
    match tracked {
        None => Ok(values),
        Some(Tracked { token, slot }) => Ok(token.apply_op1(TensorExit {
            map,
            // The copy that enters Candle's graph is of the whole storage.
            values: match values.layout().start_offset() {
                0 => values,
                _ => values.force_contiguous()?,
            },
            slot: Arc::clone(slot),
        })?),
    }
}

struct Node {
    wants_token: bool,
    slot: Arc<Slot>,
    name: &'static str,
    way: Mutex<Option<Way>>,
    device: Device,
}

impl Node {
    fn walk(&self) -> candle_core::Result<(Option<Tensor>, Vec<Tensor>)> {
        let spent = || Error::Spent(self.name);
        let parameters = match lock(&self.way).take().ok_or_else(spent)? {
            Way::Kernels(backward) => backward.backward(self.slot.take().ok_or_else(spent)?)?,
            Way::Tensors(backward) => backward(self.slot.take_tensor().ok_or_else(spent)?)?,
        };
        let token = if self.wants_token {
            Some(zero(&self.device)?)
        } else {
            None
        };
        Ok((token, parameters))
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        cuda_token(s)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(self.walk()?.0)
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        cuda_token(s)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (token, parameters) = self.walk()?;
        let mut parameters = parameters.into_iter();
        Ok((token, parameters.next()))
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        cuda_token(s)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (token, parameters) = self.walk()?;
        let mut parameters = parameters.into_iter();
        Ok((token, parameters.next(), parameters.next()))
    }
}

struct Entrance(Arc<Slot>);

impl CustomOp1 for Entrance {
    fn name(&self) -> &'static str {
        "feature_map"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        cuda_token(s)
    }

    fn bwd(&self, tensor: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if let Some(gradient) = self.0.take_tensor() {
            return Ok(Some(gradient));
        }
        let gradient = self.0.take().ok_or(Error::Spent("feature_map"))?;
        Tensor::from_slice(&gradient, tensor.shape(), &Device::Cpu).map(Some)
    }
}

struct Exit {
    /// Taken by the one forward pass.
    values: Mutex<Option<Vec<f32>>>,
    shape: Shape,
    slot: Arc<Slot>,
}

impl CustomOp1 for Exit {
    fn name(&self) -> &'static str {
        "to_tensor"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = lock(&self.values).take();
        let values = values.ok_or(Error::Spent("to_tensor"))?;
        Ok((CpuStorage::F32(values), self.shape.clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        with_values(&gradient, |values| self.slot.put(Buffer::copy_of(values)))?;
        zero(&Device::Cpu).map(Some)
    }
}

struct TensorExit {
    /// Contiguous, from the start of its storage.
    values: Tensor,
    /// The map's own shape, where the tensor that left has another.
    map: Shape,
    slot: Arc<Slot>,
}

impl CustomOp1 for TensorExit {
    fn name(&self) -> &'static str {
        "to_tensor"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = with_values(&self.values, <[f32]>::to_vec)?;
        Ok((CpuStorage::F32(values), self.values.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.values.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cuda(storage) => {
                Ok((storage.try_clone(layout)?, layout.shape().clone()))
            }
            _ => candle_core::bail!("a token and its map lie on different devices"),
        }
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        self.slot
            .put_tensor(gradient.contiguous()?.reshape(&self.map)?)?;
        zero(gradient.device()).map(Some)
    }
}

/// Shows the values of a contiguous f32 tensor on the CPU.
pub(crate) fn with_values<R>(
    tensor: &Tensor,
    look: impl FnOnce(&[f32]) -> R,
) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => {
            Ok(look(&values[start..end]))
        }
        _ => Err(Error::Unsupported {
            supported: "contiguous f32 tensors on the cpu",
            found: format!(
                "{:?} {:?} on {:?}",
                tensor.dtype(),
                layout,
                tensor.device().location()
            ),
        }
        .into()),
    }
}

fn token() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(()))
}

#[cfg(feature = "cuda")]
fn cuda_token(storage: &CudaStorage) -> candle_core::Result<(CudaStorage, Shape)> {
    let shape = Shape::from(());
    let token = storage
        .device()
        .zeros_impl(&shape, candle_core::DType::F32)?;
    Ok((token, shape))
}

fn zero(device: &Device) -> candle_core::Result<Tensor> {
    Tensor::zeros((), candle_core::DType::F32, device)
}
