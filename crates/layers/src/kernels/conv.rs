//! Which way a convolution is computed.

use super::{ConvShape, depthwise, direct, simd::Level, winograd};

/// `y = conv(x, weight)`.
pub(crate) fn conv_forward(shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let compute = match Way::of(shape) {
        Way::Winograd => winograd::forward,
        Way::Depthwise => depthwise::forward,
        Way::Direct => direct::forward,
    };
    compute(Level::current(), shape, x, weight, y);
}

/// `dx`, the gradient of the input.
pub(crate) fn conv_backward_input(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let compute = match Way::of(shape) {
        Way::Winograd => winograd::backward_input,
        Way::Depthwise => depthwise::backward_input,
        Way::Direct => direct::backward_input,
    };
    compute(Level::current(), shape, dy, weight, dx);
}

/// `dw`, the gradient of the weight.
pub(crate) fn conv_backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let compute = match Way::of(shape) {
        Way::Winograd => winograd::backward_weight,
        Way::Depthwise => depthwise::backward_weight,
        Way::Direct => direct::backward_weight,
    };
    compute(Level::current(), shape, x, dy, dw);
}

pub(super) enum Way {
    /// 3x3 kernels of stride 1, where channels outweigh the transforms and tiles are not mostly padding.
    Winograd,
    /// Every channel on its own.
    Depthwise,
    Direct,
}

impl Way {
    pub(super) fn of(shape: &ConvShape) -> Self {
        let &ConvShape {
            kernel,
            stride,
            padding,
            groups,
            ci,
            co,
            oh,
            ow,
            ..
        } = shape;
        if (kernel, stride, groups) == (3, 1, 1)
            && padding <= 2
            && ci >= 16
            && co >= 16
            && oh.min(ow) >= 3
        {
            Self::Winograd
        } else if groups == ci && groups == co && groups > 1 {
            Self::Depthwise
        } else {
            Self::Direct
        }
    }
}
