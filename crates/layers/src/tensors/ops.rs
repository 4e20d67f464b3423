//! What feature maps do to each other, and ReLU.

use candle_core::Tensor;

use super::record::{made, put};
use crate::{FeatureMap, Result};

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

/// `dy` where ReLU's output `y` is above 0, else 0.
pub(super) fn gate(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    Ok(y.gt(0f32)?.where_cond(dy, &dy.zeros_like()?)?)
}
