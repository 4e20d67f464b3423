//! Cases that several files of tests run.
#![allow(dead_code, reason = "each file of tests needs its part")]

use candle_core::{DType, Device, Tensor, Var};
use logitcask_layers::{Conv2d, ConvSpec, FeatureMap, Init, Params};
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
    let case = format!("{spec:?} on {batch}x{h}x{w}");
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
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
    let (dx, dw, db) = naive::conv_backward(image, &spec, &x, &weight, &dy);
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
