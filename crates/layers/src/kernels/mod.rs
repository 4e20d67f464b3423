//! What computes: functions of slices, which know neither tensors nor gradients' ways.
//!
//! Every result is the same bits whatever the number of threads: work is cut into pieces by its shape alone, and sums
//! over pieces are taken in their order.

mod conv;
#[expect(
    unsafe_code,
    reason = "loads and stores by pointer; lengths are asserted once per call"
)]
mod depthwise;
#[expect(
    unsafe_code,
    reason = "register tiles address memory by pointer; bounds are asserted once per call"
)]
mod direct;
mod elementwise;
#[expect(
    unsafe_code,
    reason = "passes load and store by pointer; lengths are asserted once per call"
)]
mod norm;
mod pixels;
mod pool;
#[expect(
    unsafe_code,
    reason = "vector instructions, and loads and stores by pointer"
)]
mod simd;
#[expect(
    unsafe_code,
    reason = "a bounds check per multiplication would cost more than the multiplication"
)]
mod tile;
#[expect(
    unsafe_code,
    reason = "transforms load and store by pointer; bounds are asserted once per call"
)]
mod winograd;

pub(crate) use conv::{conv_backward_input, conv_backward_weight, conv_forward};
pub(crate) use elementwise::{add, add_to, copy_channels, relu, relu_backward, shuffle_channels};
pub(crate) use norm::{
    Affine, Gate, Moments, Slope, norm_backward, norm_backward_in_place, norm_backward_sums,
    norm_forward, norm_moments,
};
pub(crate) use pixels::{add_bias, sum_pixels};
pub(crate) use pool::{
    PoolShape, avg_pool_backward, avg_pool_forward, max_pool_backward, max_pool_forward,
};
pub use simd::{Instructions, instructions, limit_instructions};

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

    /// Channels in and out of one group.
    pub(crate) fn per_group(&self) -> (usize, usize) {
        (self.ci / self.groups, self.co / self.groups)
    }

    /// The same convolution with longer lines: where every pixel is on its own (1x1, stride 1), an image is one line,
    /// and small images are joined.
    pub(crate) fn flat(&self) -> Self {
        if (self.kernel, self.stride, self.padding) != (1, 1, 0) {
            return *self;
        }
        let pixels = self.h * self.w;
        let joins =
            |n: &usize| self.batch.is_multiple_of(*n) && (n * pixels >= 64 || *n == self.batch);
        let joined = (1..=self.batch).find(joins).unwrap_or(1);
        let line = joined * pixels;
        Self {
            batch: self.batch / joined,
            h: 1,
            w: line,
            oh: 1,
            ow: line,
            ..*self
        }
    }
}
