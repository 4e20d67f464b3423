//! Cases that several files of tests run.
#![allow(dead_code, reason = "each file of tests needs its part")]

use candle_core::{DType, Device, Tensor, Var};
use logitcask_layers::{Conv2d, ConvSpec, FeatureMap, Init, Params, Precision};
use logitcask_philox::{Purpose, Stream};

use crate::naive::{self, Image};

/// Uniform in ±1, kept away from 0 so that no ReLU stands on its edge.
pub(crate) fn random(number: u64, len: usize) -> Vec<f64> {
    let mut stream = Stream::new(7, Purpose::Bench, [0, number, 0]);
    let draw = |_| {
        let u = 2.0 * stream.uniform() - 1.0;
        f64::from((u + u.signum() * 0.01) as f32)
    };
    (0..len).map(draw).collect()
}

pub(crate) fn tensor(values: &[f64], dims: &[usize]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor
        .to_device(&Device::Cpu)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// Rounded to the eight significant bits of bf16, to even where two are equally near: by arithmetic rather than by bits.
pub(crate) fn bf16(values: &[f64]) -> Vec<f64> {
    let round = |value: &f64| {
        if *value == 0.0 {
            return 0.0;
        }
        let unit = value.abs().log2().floor().exp2() / 128.0;
        (value / unit).round_ties_even() * unit
    };
    values.iter().map(round).collect()
}

/// Within `tolerance` of the largest expected magnitude; returns how far off, of that magnitude.
#[track_caller]
pub(crate) fn check(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> f64 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let worst = std::iter::zip(found, expected).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        worst <= tolerance * largest,
        "{what}: off by {:.1e} of {largest:.3}",
        worst / largest
    );
    worst / largest
}

/// A convolution of random values, and the gradients of the sum of its outputs with random weights; returns how far
/// off the output and the gradients of input and weight are.
#[track_caller]
pub(crate) fn conv_case(
    batch: usize,
    h: usize,
    w: usize,
    spec: ConvSpec,
    tolerance: f64,
) -> [f64; 3] {
    conv_case_in(Precision::F32, batch, h, w, spec, tolerance)
}

/// The same in any precision: with bf16, the definition is given the rounded values.
#[track_caller]
pub(crate) fn conv_case_in(
    precision: Precision,
    batch: usize,
    h: usize,
    w: usize,
    spec: ConvSpec,
    tolerance: f64,
) -> [f64; 3] {
    let case = format!("{spec:?} on {batch}x{h}x{w}, {precision:?}");
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    params.set_precision(precision);
    let conv = Conv2d::new(&params.root(), spec, Init::KaimingFanIn).unwrap();
    let x = random(1, batch * h * w * spec.in_channels);
    let var = Var::from_tensor(&tensor(&x, &[batch, h, w, spec.in_channels])).unwrap();
    let y = conv.forward(&FeatureMap::new(&var).unwrap()).unwrap();
    let [_, oh, ow, _] = y.dims();

    let weights = params.to_tensors().unwrap();
    let weight = values(&weights[0].1); // (O, I / groups, kH, kW)
    let bias = weights.get(1).map(|(_, bias)| values(bias));
    let image = Image {
        batch,
        h,
        w,
        channels: spec.in_channels,
    };
    let is_depthwise =
        spec.groups > 1 && spec.groups == spec.in_channels && spec.groups == spec.out_channels;
    let (least, most) = (
        spec.in_channels.min(spec.out_channels),
        spec.in_channels.max(spec.out_channels),
    );
    let is_winograd = (spec.kernel, spec.stride, spec.groups) == (3, 1, 1)
        && spec.padding <= 2
        && least >= 16
        && oh.min(ow) >= 3;
    let rounds = |is_weight: bool, values: &[f64]| match precision {
        Precision::Bf16 if !is_depthwise && (!is_winograd || is_weight && most <= 32) => {
            bf16(values)
        }
        _ => values.to_vec(),
    };
    let (exact_x, weight) = (x, rounds(false, &weight));
    let x = rounds(false, &exact_x);
    let expected = naive::conv_forward(image, &spec, &x, &weight, bias.as_deref());
    let y = y.to_tensor().unwrap();
    assert_eq!(y.dims(), [batch, oh, ow, spec.out_channels], "{case}");
    let y_error = check(&format!("y of {case}"), &values(&y), &expected, tolerance);

    let dy = random(2, expected.len());
    let gradients = (y * tensor(&dy, &[batch, oh, ow, spec.out_channels]))
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let (dx, _, _) = naive::conv_backward(image, &spec, &x, &weight, &rounds(false, &dy));
    let (x, rounded_dy) = (rounds(true, &exact_x), rounds(true, &dy));
    let (_, dw, _) = naive::conv_backward(image, &spec, &x, &weight, &rounded_dy);
    let (_, _, db) = naive::conv_backward(image, &spec, &x, &weight, &dy);
    let dx_error = check(
        &format!("dx of {case}"),
        &values(gradients.get(&var).unwrap()),
        &dx,
        tolerance,
    );
    let of = |i: usize| gradients.get(&params.parameters()[i].1).unwrap().clone();
    let dw_found = of(0).permute((3, 2, 0, 1)).unwrap().contiguous().unwrap();
    let dw_error = check(&format!("dw of {case}"), &values(&dw_found), &dw, tolerance);
    if spec.bias {
        check(&format!("db of {case}"), &values(&of(1)), &db, tolerance);
    }
    [y_error, dx_error, dw_error]
}
