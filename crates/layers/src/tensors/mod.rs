//! The layers in Candle's own operations, for devices that this crate's kernels do not know: CUDA.
//!
//! A feature map is one contiguous tensor `(B, H, W, C)`, outside Candle's graph; the tape leads back, as it does for
//! kernels, so that a gradient is handed over rather than added to zeros. Each layer here is a function from maps to a
//! map, with the closure that takes a gradient back.
//!
//! All of it but `cudnn` runs on the CPU too ([`crate::Backend::tensors`]), which is how it is tested: against the kernels,
//! layer by layer and over whole networks.
//!
//! Sums over pixels are products with a row of ones: Candle's own reduction over leading dimensions reads memory across
//! its rows, one block per channel, while a matrix product reads it along them.

mod conv;
#[cfg(feature = "cuda")]
#[expect(
    unsafe_code,
    reason = "cuDNN takes pointers; shapes are checked against lengths before each call"
)]
mod cudnn;
mod norm;
mod pool;

use std::sync::Arc;

use candle_core::{DType, Tensor};

pub(crate) use conv::conv2d;
#[cfg(feature = "cuda")]
pub(crate) use cudnn::TF32;
pub(crate) use norm::{Norm, batch_norm};
pub(crate) use pool::{avg_pool, global_avg_pool, max_pool};

use crate::{FeatureMap, Result, tape};

/// `self + other`.
pub(crate) fn add(a: &FeatureMap, b: &FeatureMap, values: [&Tensor; 2]) -> Result<FeatureMap> {
    let y = (values[0] + values[1])?;
    let slots = [a.slot(), b.slot()];
    made(&y, &[a, b], &[], "add", move |dy| {
        for slot in slots.into_iter().flatten() {
            slot.put_tensor(dy.clone())?;
        }
        Ok(vec![])
    })
}

/// `max(x, 0)`.
pub(crate) fn relu(x: &FeatureMap, values: &Tensor) -> Result<FeatureMap> {
    let y = values.relu()?;
    let (dx, kept) = (x.slot(), y.clone());
    made(&y, &[x], &[], "relu", move |dy| {
        put(dx, || gate(&kept, &dy))?;
        Ok(vec![])
    })
}

/// Maps side by side in their channels.
pub(crate) fn concat(maps: &[&FeatureMap], values: &[&Tensor]) -> Result<FeatureMap> {
    let y = Tensor::cat(values, 3)?;
    let parts: Vec<_> = maps.iter().map(|map| (map.dims()[3], map.slot())).collect();
    made(&y, maps, &[], "concat", move |dy| {
        let mut first = 0;
        for (width, slot) in parts {
            put(slot, || Ok(dy.narrow(3, first, width)?.contiguous()?))?;
            first += width;
        }
        Ok(vec![])
    })
}

/// `width` channels from `first` on.
pub(crate) fn channels(
    x: &FeatureMap,
    values: &Tensor,
    first: usize,
    width: usize,
) -> Result<FeatureMap> {
    let y = values.narrow(3, first, width)?.contiguous()?;
    let rest = x.dims()[3] - first - width;
    let dx = x.slot();
    made(&y, &[x], &[], "channels", move |dy| {
        put(dx, || Ok(dy.pad_with_zeros(3, first, rest)?))?;
        Ok(vec![])
    })
}

/// The channels of `groups` equal groups taken in turn.
pub(crate) fn shuffle_channels(
    x: &FeatureMap,
    values: &Tensor,
    groups: usize,
) -> Result<FeatureMap> {
    fn taken_in_turn(x: &Tensor, groups: usize) -> Result<Tensor> {
        let (b, h, w, channels) = x.dims4()?;
        let groups = x.reshape((b, h, w, groups, channels / groups))?;
        Ok(groups
            .transpose(3, 4)?
            .contiguous()?
            .reshape((b, h, w, channels))?)
    }
    let y = taken_in_turn(values, groups)?;
    // Taking turns among channels / groups undoes taking turns among groups.
    let (dx, turns) = (x.slot(), x.dims()[3] / groups);
    made(&y, &[x], &[], "shuffle_channels", move |dy| {
        put(dx, || taken_in_turn(&dy, turns))?;
        Ok(vec![])
    })
}

/// A map from its values, and the way back from it.
fn made(
    y: &Tensor,
    inputs: &[&FeatureMap],
    parameters: &[&Tensor],
    name: &'static str,
    backward: impl FnOnce(Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Result<FeatureMap> {
    let keep = inputs.iter().any(|input| input.keeps());
    let tracked = if keep {
        tape::record_tensors(inputs, parameters, name, y.device(), Box::new(backward))?
    } else {
        None
    };
    FeatureMap::of_values(y, tracked, keep)
}

/// Works out a gradient only if it is wanted.
fn put(slot: Option<Arc<tape::Slot>>, gradient: impl FnOnce() -> Result<Tensor>) -> Result<()> {
    match slot {
        Some(slot) => slot.put_tensor(gradient()?),
        None => Ok(()),
    }
}

/// `dy` where ReLU's output `y` is above 0, else 0.
fn gate(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    Ok(y.gt(0f32)?.where_cond(dy, &dy.zeros_like()?)?)
}

/// (rows, C) of a map: its pixels one below the other.
fn pixels(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, channels) = x.dims4()?;
    Ok(x.reshape((b * h * w, channels))?)
}

/// (1, C): the sum of each column of (rows, C).
fn column_sums(x: &Tensor) -> Result<Tensor> {
    let rows = x.dims2()?.0;
    Ok(Tensor::ones((1, rows), DType::F32, x.device())?.matmul(x)?)
}
