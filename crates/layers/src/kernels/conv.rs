//! Which way a convolution is computed.

use super::{ConvShape, direct, simd::Level, winograd};

/// `y = conv(x, weight)`.
pub(crate) fn conv_forward(shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let compute = if suits_winograd(shape) {
        winograd::forward
    } else {
        direct::forward
    };
    compute(Level::current(), shape, x, weight, y);
}

/// `dx`, the gradient of the input.
pub(crate) fn conv_backward_input(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let compute = if suits_winograd(shape) {
        winograd::backward_input
    } else {
        direct::backward_input
    };
    compute(Level::current(), shape, dy, weight, dx);
}

/// `dw`, the gradient of the weight.
pub(crate) fn conv_backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let compute = if suits_winograd(shape) {
        winograd::backward_weight
    } else {
        direct::backward_weight
    };
    compute(Level::current(), shape, x, dy, dw);
}

/// 3x3 kernels of stride 1, where channels outweigh the transforms and tiles are not mostly padding.
fn suits_winograd(shape: &ConvShape) -> bool {
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
    (kernel, stride, groups) == (3, 1, 1) && padding <= 2 && ci >= 16 && co >= 16 && oh.min(ow) >= 3
}
