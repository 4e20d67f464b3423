//! Convolutions that round their factors to bf16 and add up in f32.
//!
//! Feature maps, weights and gradients lie in memory as f32. A convolution rounds what it multiplies, to nearest even, on
//! its way into the padded copies and packed panels that it makes anyway. One instruction of AVX512-BF16 then does two
//! products per lane where an f32 one does one: channels come in pairs, and in the gradient of the weight pixels do.
//!
//! Nothing is rounded where that wins nothing:
//! - What goes by Winograd's F(4x4, 3x3) in f32 has a quarter of the products, which beats twice their rate: the definition
//!   in bf16, at 93 % of what the instruction can do, took 1.3 to 1.6 times as long with 64 to 512 channels. Both at once is
//!   no way out, because rounded transforms lose far more than rounded values. Only the gradient of the weight
//!   between at most 32 channels is mostly transforms, and takes 0.7 to 0.85 of the time in bf16 (32x32 pixels).
//! - Depthwise convolutions have one product per value loaded.
//!
//! Where the processor has no such instruction, the rounded factors go through the f32 kernels: the same products, exact
//! in f32 either way, added up in another order (and `vdpbf16ps` takes numbers below 2^-126 for 0). That is slower than
//! f32 itself, and is there so that a recipe means the same everywhere.

#[cfg(target_arch = "x86_64")]
mod native;
#[cfg(target_arch = "x86_64")]
mod tile;

use rayon::prelude::*;

use super::{
    ConvShape,
    conv::{self, conv_backward_input, conv_backward_weight, conv_forward},
    simd::{self, Level, vectorized},
};
use crate::buffer::Buffer;

/// Whether [`crate::Precision::Bf16`] has instructions of its own here, and so is faster than f32. False where
/// [`crate::limit_instructions`] allows less than AVX-512.
pub fn bf16_is_native() -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_there = is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let is_there = false;
    is_there && simd::instructions() == simd::Instructions::Avx512
}

/// `y = conv(x, weight)`.
pub(crate) fn forward(shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    match Way::of(maps_in_bf16(shape)) {
        #[cfg(target_arch = "x86_64")]
        Way::Native(native) => native::forward(native, shape, x, weight, y),
        Way::Rounded => conv_forward(shape, &rounded(x), &rounded(weight), y),
        Way::F32 => conv_forward(shape, x, weight, y),
    }
}

/// `dx`, the gradient of the input.
pub(crate) fn backward_input(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    match Way::of(maps_in_bf16(shape)) {
        #[cfg(target_arch = "x86_64")]
        Way::Native(native) => native::backward_input(native, shape, dy, weight, dx),
        Way::Rounded => conv_backward_input(shape, &rounded(dy), &rounded(weight), dx),
        Way::F32 => conv_backward_input(shape, dy, weight, dx),
    }
}

/// `dw`, the gradient of the weight.
pub(crate) fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match Way::of(weights_in_bf16(shape)) {
        #[cfg(target_arch = "x86_64")]
        Way::Native(native) => native::backward_weight(native, shape, x, dy, dw),
        Way::Rounded => conv_backward_weight(shape, &rounded(x), &rounded(dy), dw),
        Way::F32 => conv_backward_weight(shape, x, dy, dw),
    }
}

/// Whether y and dx are computed in bf16.
fn maps_in_bf16(shape: &ConvShape) -> bool {
    matches!(conv::Way::of(shape), conv::Way::Direct)
}

/// Whether dw is.
fn weights_in_bf16(shape: &ConvShape) -> bool {
    match conv::Way::of(shape) {
        conv::Way::Direct => true,
        conv::Way::Winograd => shape.ci.max(shape.co) <= 32,
        conv::Way::Depthwise => false,
    }
}

enum Way {
    #[cfg(target_arch = "x86_64")]
    Native(Native),
    /// The f32 kernels, on rounded factors.
    Rounded,
    F32,
}

/// Exists only where AVX-512F and AVX512-BF16 do.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Native(());

impl Way {
    fn of(wins: bool) -> Self {
        if !wins {
            return Self::F32;
        }
        #[cfg(target_arch = "x86_64")]
        if bf16_is_native() {
            return Self::Native(Native(()));
        }
        Self::Rounded
    }
}

/// The nearest bf16, as the upper half of its f32; of two equally near, the even one. What is no number stays none.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    if value.is_nan() { quiet } else { nearest }
}

fn rounded(values: &[f32]) -> Buffer {
    const CHUNK: usize = 1 << 14;
    let level = Level::current();
    let mut buffer = Buffer::for_overwrite(values.len());
    buffer
        .par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(to, from)| {
            vectorized(level, || {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(round(*from) << 16);
                }
            });
        });
    buffer
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn rounding_is_to_nearest_even() {
        let rounded = |value: f32| f32::from_bits(round(value) << 16);
        let unit = 2f32.powi(-7); // between neighbours from 1 on
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + 0.5 * unit, 1.0),
            (1.0 + 0.51 * unit, 1.0 + unit),
            (1.0 + 1.5 * unit, 1.0 + 2.0 * unit),
            (-1.0 - 1.5 * unit, -1.0 - 2.0 * unit),
            (0.0, 0.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(rounded(value), expected, "{value}");
        }
        // A payload in the lower half alone must not turn into infinity.
        assert!(rounded(f32::from_bits(0x7f80_0001)).is_nan());
        assert!(rounded(f32::from_bits(0xffff_ffff)).is_nan());
    }
}
