//! The way back from what a layer of tensors made.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{FeatureMap, Result, tape};

/// A map from its values, and the way back from it.
pub(super) fn made(
    y: &Tensor,
    inputs: &[&FeatureMap],
    parameters: &[&Tensor],
    name: &'static str,
    backward: impl FnOnce(Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Result<FeatureMap> {
    let keep = inputs.iter().any(|input| input.keeps());
    let tracked = if keep {
        let inputs: Vec<_> = inputs.iter().map(|input| input.tracked()).collect();
        tape::record_tensors(&inputs, parameters, name, y.device(), Box::new(backward))?
    } else {
        None
    };
    FeatureMap::of_values(y, tracked, keep)
}

/// Works out a gradient only if it is wanted.
pub(super) fn put(
    slot: Option<Arc<tape::Slot>>,
    gradient: impl FnOnce() -> Result<Tensor>,
) -> Result<()> {
    match slot {
        Some(slot) => slot.put_tensor(gradient()?),
        None => Ok(()),
    }
}
