//! The layers in Candle's own operations, for devices that this crate's kernels do not know: CUDA.
//!
//! A feature map is one contiguous tensor `(B, H, W, C)`, outside Candle's graph; the tape leads back, as it does for
//! kernels, so that a gradient is handed over rather than added to zeros. Each layer here is a function from maps to a
//! map, with the closure that takes a gradient back.
//!
//! All of it but `cudnn` runs on the CPU too ([`crate::Backend::tensors`]), which is how it is tested: against the kernels,
//! layer by layer and over whole networks.

mod conv;
mod conv_part;
#[cfg(feature = "cuda")]
#[expect(
    unsafe_code,
    reason = "cuDNN takes pointers; shapes are checked against lengths before each call"
)]
mod cudnn;
mod norm;
mod ops;
mod pixels;
mod pool;
mod record;

pub(crate) use conv::conv2d;
pub(crate) use norm::{Norm, batch_norm};
pub(crate) use ops::{add, channels, concat, relu, shuffle_channels};
pub(crate) use pool::{avg_pool, global_avg_pool, max_pool};
