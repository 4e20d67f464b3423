//! Trainable layers for Candle that are fast on a CPU, and that run on CUDA too.
//!
//! What flows through a network is a [`FeatureMap`]: activations as `(B, H, W, C)`, channels last, because every
//! kernel here wants the channels of a pixel side by side. A network is a few lines of plain calls:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use logitcask_layers::{Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Linear, Mode, Params, global_avg_pool};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let params = Params::new(1, DType::F32, &Device::Cpu)?;
//! let root = params.root();
//! let conv = Conv2d::new(&root.enter("conv1"), ConvSpec::new(3, 16, 3).padding(1), Init::KaimingFanOut)?;
//! let norm = BatchNorm::new(&root.enter("bn1"), 16)?;
//! let head = Linear::new(&root.enter("fc"), 16, 10, Init::UniformFanIn)?;
//!
//! let pixels = Tensor::zeros((2, 8, 8, 3), DType::F32, &Device::Cpu)?;
//! let x = FeatureMap::new(&pixels)?;
//! let x = norm.forward(&conv.forward(&x)?, Mode::Train, Activation::Relu, None)?;
//! let logits = head.forward(&global_avg_pool(&x)?)?;
//! assert_eq!(logits.dims(), [2, 10]);
//!
//! let gradients = logits.sqr()?.mean_all()?.backward()?; // Candle's own backward, Candle's own store
//! for (name, parameter) in params.parameters() {
//!     assert!(gradients.get(&parameter).is_some(), "{name}");
//! }
//! # Ok(()) }
//! ```
//!
//! # Why feature maps are no tensors
//! Candle's reverse pass adds each gradient to a fresh tensor of zeros on one thread, keeps every activation until the
//! graph is dropped, and allocates for each step of the way. That is a tenth of a training step. Here the tensor that
//! Candle tracks is a *token*, a scalar; the gradient of the feature map travels beside it, in a slot that is
//! handed over, added to in place and recycled. Candle still decides the order of the walk, and parameters are
//! ordinary [`candle_core::Var`]s whose gradients end in the ordinary `GradStore`. `tape` tells the details.
//!
//! # Where things are
//! - [`Params`] and [`Scope`] name and initialise parameters as PyTorch does, and carry them to and from safetensors.
//! - [`Conv2d`], [`BatchNorm`], [`Linear`], [`max_pool2d`], [`avg_pool2d`], [`global_avg_pool`] are the layers;
//!   [`FeatureMap`] itself adds, activates, and puts channels together and apart. For anything else,
//!   [`FeatureMap::to_tensor`] leads to Candle's own operations and [`FeatureMap::new`] back, gradients and all.
//! - [`Velocity`] is stochastic gradient descent with momentum, one pass over each parameter.
//! - [`trace`] writes down a forward pass, for exporters.
//! - [`Backend`] chooses by device: `kernels` on the CPU, `tensors` on CUDA (Cargo feature `cuda`).
//! - `kernels` holds what computes: plain functions of slices. [`instructions`] tells what they are compiled for here.
//! - `tensors` holds the same layers in Candle's operations, convolutions through cuDNN.
//!
//! # Threads
//! Kernels run on the rayon pool that they are called from, and give the same bits whatever its size. Call the whole
//! training step inside the pool (`pool.install(|| ...)`): from outside, each parallel loop waits for a thread to wake
//! up, and a step of a small network has hundreds of them.

mod activation;
mod backend;
mod batch_norm;
mod buffer;
mod conv;
mod conv_spec;
mod error;
mod feature_map;
mod init;
mod kernels;
mod linear;
mod mode;
mod ops;
mod params;
mod pool;
mod sgd;
mod tape;
mod tensors;
#[cfg(feature = "cuda")]
mod tf32;
pub mod trace;

pub use activation::Activation;
pub use backend::Backend;
pub use batch_norm::BatchNorm;
pub use buffer::release_memory;
pub use conv::Conv2d;
pub use conv_spec::ConvSpec;
pub use error::Error;
pub use feature_map::FeatureMap;
pub use init::Init;
pub use kernels::{Instructions, instructions, limit_instructions};
pub use linear::Linear;
pub use mode::Mode;
pub use params::{Params, Scope};
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
pub use sgd::{SgdSpec, Velocity};
#[cfg(feature = "cuda")]
pub use tf32::allow_tf32;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
