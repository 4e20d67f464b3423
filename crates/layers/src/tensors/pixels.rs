//! Sums over pixels are products with a row of ones: Candle's own reduction over leading dimensions reads memory across
//! its rows, one block per channel, while a matrix product reads it along them.

use candle_core::{DType, Tensor};

use crate::Result;

/// (rows, C) of a map: its pixels one below the other.
pub(super) fn pixels(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, channels) = x.dims4()?;
    Ok(x.reshape((b * h * w, channels))?)
}

/// (1, C): the sum of each column of (rows, C).
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    let rows = x.dims2()?.0;
    Ok(Tensor::ones((1, rows), DType::F32, x.device())?.matmul(x)?)
}
