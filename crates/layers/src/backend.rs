//! What computes: this crate's kernels, or Candle's tensors.

use std::cell::Cell;

use candle_core::Device;

/// Two ways to the same numbers behind the same layers.
///
/// The device decides. Kernels are for the CPU, and the faster ones there. Tensors are for CUDA: convolutions go through
/// cuDNN, forward and back, everything else through Candle's own operations. Layouts are the same, so parameters,
/// checkpoints and feature maps mean the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// This crate's kernels, on the CPU.
    Kernels,
    /// Candle's tensors, on any device that it was built for.
    Tensors,
}

thread_local! {
    static TENSORS: Cell<bool> = const { Cell::new(false) };
}

impl Backend {
    /// What computes on `device`.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() && !TENSORS.get() {
            Self::Kernels
        } else {
            Self::Tensors
        }
    }

    /// Runs `work` with tensors on this thread, also on the CPU: the way to test without a GPU what runs on one. Only a
    /// convolution is another there, since there is no cuDNN.
    pub fn tensors<T>(work: impl FnOnce() -> T) -> T {
        /// Also where `work` panics.
        struct Restore(bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                TENSORS.set(self.0);
            }
        }
        let _restore = Restore(TENSORS.replace(true));
        work()
    }
}
