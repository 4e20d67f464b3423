//! What computes: functions of slices, which know neither tensors nor gradients' ways.
//!
//! Every result is the same bits whatever the number of threads: work is cut into pieces by its shape alone, and sums
//! over pieces are taken in their order.

mod conv_portable;
mod norm;
mod pixels;
mod pool;

pub(crate) use conv_portable::{conv_backward_input, conv_backward_weight, conv_forward};
pub(crate) use norm::{Moments, norm_backward, norm_forward, norm_moments};
pub(crate) use pixels::{add_bias, sum_pixels};
pub(crate) use pool::{
    PoolShape, avg_pool_backward, avg_pool_forward, max_pool_backward, max_pool_forward,
};

/// A convolution of a given batch. Layouts: `x (batch, h, w, ci)`, `weight (kernel, kernel, ci / groups, co)`,
/// `y (batch, oh, ow, co)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub batch: usize,
    pub h: usize,
    pub w: usize,
    pub ci: usize,
    pub oh: usize,
    pub ow: usize,
    pub co: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
}

impl ConvShape {
    pub(crate) fn x_len(&self) -> usize {
        self.batch * self.h * self.w * self.ci
    }

    pub(crate) fn y_len(&self) -> usize {
        self.batch * self.oh * self.ow * self.co
    }

    pub(crate) fn weight_len(&self) -> usize {
        self.kernel * self.kernel * (self.ci / self.groups) * self.co
    }
}
