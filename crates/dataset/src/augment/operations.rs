//! The fourteen operations that RandAugment and TrivialAugment choose from, as torchvision numbers them.

use logitcask_philox::Stream;

use crate::pixels::rotation;
use crate::{ImageSize, Step};

/// Magnitudes are taken from as many equal steps.
pub(super) const N_BINS: u32 = 31;

/// How far each operation goes at the last bin.
pub(super) struct Reach {
    pub(super) shear: f64,
    /// Pixels across, and down.
    pub(super) translate: [f64; 2],
    pub(super) rotate: f64,
    pub(super) color: f64,
    /// Of the 8 bits of a value, those taken away.
    pub(super) posterize: f64,
}

/// Draws an operation, then (for a `None` of `bin`, and where it has magnitudes) the bin, then (where it has two
/// directions) the sign, and adds its step.
pub(super) fn draw(
    stream: &mut Stream,
    reach: &Reach,
    bin: Option<u32>,
    fill: u8,
    input: ImageSize,
    steps: &mut Vec<Step>,
) {
    let operation = stream.below(14);
    let has_magnitude = (1..12).contains(&operation);
    let bin = match bin {
        Some(bin) => bin,
        None if has_magnitude => stream.below(N_BINS.into()) as u32,
        None => 0,
    };
    let signed = (1..10).contains(&operation);
    let sign = if signed && stream.below(2) == 1 {
        -1.0
    } else {
        1.0
    };
    let magnitude = |end: f64| sign * linspace(0.0, end, bin);
    let affine = |matrix: [f64; 6]| Step::Affine { matrix, fill };
    let factor = || (1.0 + magnitude(reach.color)) as f32;
    steps.push(match operation {
        1 => affine([1.0, magnitude(reach.shear), 0.0, 0.0, 1.0, 0.0]),
        2 => affine([1.0, 0.0, 0.0, magnitude(reach.shear), 1.0, 0.0]),
        3 => affine([
            1.0,
            0.0,
            -magnitude(reach.translate[0]).trunc(),
            0.0,
            1.0,
            0.0,
        ]),
        4 => affine([
            1.0,
            0.0,
            0.0,
            0.0,
            1.0,
            -magnitude(reach.translate[1]).trunc(),
        ]),
        5 => affine(rotation(magnitude(reach.rotate), input.height, input.width)),
        6 => Step::Brightness(factor()),
        7 => Step::Saturation(factor()),
        8 => Step::Contrast(factor()),
        9 => Step::Sharpness(factor()),
        10 => Step::Posterize(8 - posterized(reach.posterize, bin)),
        11 => Step::Solarize(linspace(255.0, 0.0, bin) as f32),
        12 => Step::AutoContrast,
        13 => Step::Equalize,
        _ => return,
    });
}

/// torch's `linspace(start, end, 31)[bin]` on a processor with AVX2: in single precision, from the nearer end, product and
/// sum rounded once.
fn linspace(start: f64, end: f64, bin: u32) -> f64 {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (N_BINS - 1) as f32;
    let value = if bin < N_BINS / 2 {
        step.mul_add(bin as f32, start)
    } else {
        (-step).mul_add((N_BINS - 1 - bin) as f32, end)
    };
    value.into()
}

/// `options` as part of the identity of an augmentation that takes this one of the bins, or any. Bins of the upper half
/// were rounded twice once, and are up to a pixel of translation away from that.
pub(super) fn identity(options: String, bin: Option<u32>) -> String {
    match bin {
        Some(bin) if bin < N_BINS / 2 || bin == N_BINS - 1 => options,
        _ => options + " bins=2",
    }
}

/// Bits taken away at `bin`: rounded half to even, in single precision.
fn posterized(reach: f64, bin: u32) -> u8 {
    let bin_per_bit = (f64::from(N_BINS - 1) / reach) as f32;
    (bin as f32 / bin_per_bit).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits of `torch.linspace(0.0, end, 31)` where a second rounding would give others. The first is 15.999999, which a
    /// translation cuts off to 15 pixels; it was 16 here.
    #[test]
    fn bins_are_torchs() {
        for (end, bin, bits) in [
            (32.0, 15, 0x417f_ffff),
            (32.0, 17, 0x4191_1111),
            (32.0, 24, 0x41cc_cccd),
            (0.99, 19, 0x3f20_8313),
            (0.99, 25, 0x3f53_3333),
            (0.9, 20, 0x3f19_9999),
        ] {
            let found = linspace(0.0, end, bin) as f32;
            assert_eq!(found.to_bits(), bits, "{end} {bin}: {found}");
        }
    }

    #[test]
    fn only_what_takes_changed_bins_has_another_identity() {
        for (bin, changed) in [
            (Some(9), false),
            (Some(15), true),
            (Some(30), false),
            (None, true),
        ] {
            let identity = identity("{}".into(), bin);
            assert_eq!(identity == "{} bins=2", changed, "{bin:?} {identity}");
        }
    }
}
