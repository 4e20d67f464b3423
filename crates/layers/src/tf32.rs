//! Whether cuDNN may round what it multiplies.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether products may be rounded to TensorFloat-32. What [`allow_tf32`] sets.
pub(crate) static TF32: AtomicBool = AtomicBool::new(false);

/// Whether CUDA may round the inputs of convolutions to TensorFloat-32, for the whole process: faster, with about three
/// decimal digits. It may not until this is called.
pub fn allow_tf32(allowed: bool) {
    TF32.store(allowed, Ordering::Relaxed);
}
