//! Values and gradients against definitions written out in f64, with no thought for speed.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod naive;
mod support;

use candle_core::{DType, Device, Var};
use logitcask_layers::{
    Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Linear, Mode, Params, avg_pool2d,
    global_avg_pool, max_pool2d,
};
use naive::Image;
use proptest::prelude::*;
use support::{check, conv_case, random, tensor, values};

#[test]
fn convolutions_of_the_networks_we_train() {
    for (h, inputs, outputs, kernel, stride) in [
        (32, 3, 16, 3, 1),
        (8, 1, 32, 3, 1),
        (16, 16, 32, 3, 2),
        (16, 32, 64, 1, 2),
        (16, 3, 8, 7, 2),
        (8, 32, 48, 1, 1),
    ] {
        let spec = ConvSpec::new(inputs, outputs, kernel)
            .stride(stride)
            .padding(kernel / 2);
        conv_case(2, h, h, spec, 1e-5);
    }
    // By Winograd's way.
    for (batch, h, w, inputs, outputs, padding) in [
        (2, 8, 8, 64, 64, 1),
        (9, 4, 4, 48, 32, 1),
        (1, 17, 9, 16, 33, 1),
        (3, 7, 11, 25, 17, 0),
        (2, 6, 5, 31, 47, 2),
        (40, 4, 8, 32, 32, 1),
    ] {
        conv_case(
            batch,
            h,
            w,
            ConvSpec::new(inputs, outputs, 3).padding(padding),
            1e-5,
        );
    }
    for (h, inputs, outputs, kernel, stride) in [(8, 32, 48, 1, 1), (16, 3, 8, 7, 2)] {
        let spec = ConvSpec::new(inputs, outputs, kernel)
            .stride(stride)
            .padding(kernel / 2);
        conv_case(2, h, h, spec, 1e-5);
    }
}

/// What the documentation of the kernels quotes. Sums of a whole layer's length, so that errors have room to grow.
#[test]
fn errors_are_as_documented() {
    for (batch, side, channels) in [(2, 32, 64), (4, 8, 256)] {
        let spec = ConvSpec::new(channels, channels, 3).padding(1);
        let winograd = conv_case(batch, side, side, spec, 2e-5);
        let direct = conv_case(batch, side, side, spec.stride(2), 4e-6);
        println!(
            "{channels} channels, y dx dw: winograd {winograd:?}, direct (stride 2) {direct:?}"
        );
    }
}

#[test]
fn grouped_and_depthwise_convolutions() {
    conv_case(
        2,
        9,
        7,
        ConvSpec::new(24, 24, 3).padding(1).groups(24),
        1e-5,
    );
    conv_case(
        3,
        8,
        8,
        ConvSpec::new(24, 24, 3)
            .stride(2)
            .padding(1)
            .groups(24)
            .bias(true),
        1e-5,
    );
    conv_case(2, 8, 8, ConvSpec::new(12, 24, 1).groups(3), 1e-5);
    conv_case(2, 8, 8, ConvSpec::new(12, 24, 3).padding(1).groups(4), 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn any_convolution(
        batch in 1usize..4, h in 1usize..14, w in 1usize..14, groups in 1usize..4,
        inputs in 1usize..20, outputs in 1usize..20, kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3,
        bias: bool,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let spec = ConvSpec::new(inputs * groups, outputs * groups, kernel)
            .stride(stride).padding(padding).groups(groups).bias(bias);
        let may_be_winograd = kernel == 3 && stride == 1 && groups == 1;
        conv_case(batch, h, w, spec, if may_be_winograd { 3e-5 } else { 1e-5 });
    }

    /// Each channel alone, from one lane to several vectors of them.
    #[test]
    fn any_depthwise_convolution(
        batch in 1usize..4, h in 1usize..14, w in 1usize..14, channels in 2usize..50, kernel in 1usize..6,
        stride in 1usize..4, padding in 0usize..3,
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let spec = ConvSpec::new(channels, channels, kernel)
            .stride(stride).padding(padding).groups(channels);
        conv_case(batch, h, w, spec, 1e-5);
    }

    /// Wide enough for Winograd's way, with tiles that reach beyond the image.
    #[test]
    fn any_winograd_convolution(
        batch in 1usize..4, h in 3usize..14, w in 3usize..14, inputs in 16usize..40, outputs in 16usize..40,
        padding in 0usize..3,
    ) {
        prop_assume!(h + 2 * padding >= 5 && w + 2 * padding >= 5);
        conv_case(batch, h, w, ConvSpec::new(inputs, outputs, 3).padding(padding), 3e-5);
    }
}

#[test]
fn batch_norm_with_and_without_residual_and_relu() {
    let (batch, h, w, channels) = (5, 13, 11, 19);
    let dims = [batch, h, w, channels];
    let len = dims.iter().product();
    // A large mean must not cost the variance its digits.
    let x: Vec<f64> = random(1, len)
        .iter()
        .map(|v| f64::from((v + 30.0) as f32))
        .collect();
    let (residual, dy) = (random(2, len), random(3, len));
    for (activation, with_residual, mode) in [
        (Activation::None, false, Mode::Train),
        (Activation::Relu, false, Mode::Train),
        (Activation::Relu, true, Mode::Train),
        (Activation::None, true, Mode::Train),
        (Activation::Relu, true, Mode::Eval),
    ] {
        let case = format!("{activation:?}, residual {with_residual}, {mode:?}");
        let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
        let norm = BatchNorm::new(&params.root(), channels).unwrap();
        let (gamma, beta) = (random(4, channels), random(5, channels));
        for ((_, var), value) in params.parameters().iter().zip([&gamma, &beta]) {
            var.set(&tensor(value, &[channels])).unwrap();
        }
        for ((name, var), value) in params.buffers().iter().zip([30.0, 0.5]) {
            assert!(name.starts_with("running"));
            var.set(&tensor(&vec![value; channels], &[channels]))
                .unwrap();
        }
        let (vx, vr) = (
            Var::from_tensor(&tensor(&x, &dims)).unwrap(),
            Var::from_tensor(&tensor(&residual, &dims)).unwrap(),
        );
        let (fx, fr) = (FeatureMap::new(&vx).unwrap(), FeatureMap::new(&vr).unwrap());
        let y = norm
            .forward(&fx, mode, activation, with_residual.then_some(&fr))
            .unwrap()
            .to_tensor()
            .unwrap();
        let reference = naive::Norm {
            channels,
            gamma: &gamma,
            beta: &beta,
            fixed: (mode == Mode::Eval).then_some((30.0, 0.5)),
            residual: with_residual.then_some(&residual),
            relu: activation == Activation::Relu,
        };
        let expected = reference.forward(&x);
        // f32 holds x itself, around 30, to 2e-6, a variance of 1/3 away from unit scale.
        check(&format!("y of {case}"), &values(&y), &expected, 1e-5);
        let gradients = (y * tensor(&dy, &dims))
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let (dx, dresidual, dgamma, dbeta) = reference.backward(&x, &dy);
        check(
            &format!("dx of {case}"),
            &values(gradients.get(&vx).unwrap()),
            &dx,
            1e-5,
        );
        if with_residual {
            check(
                &format!("dresidual of {case}"),
                &values(gradients.get(&vr).unwrap()),
                &dresidual,
                1e-5,
            );
        }
        let of = |i: usize| values(gradients.get(&params.parameters()[i].1).unwrap());
        check(&format!("dgamma of {case}"), &of(0), &dgamma, 1e-5);
        check(&format!("dbeta of {case}"), &of(1), &dbeta, 1e-5);

        let (mean, var) = naive::moments(channels, &x);
        let n = (len / channels) as f64;
        let (mut running_mean, mut running_var) = (vec![30.0; channels], vec![0.5; channels]);
        if mode == Mode::Train {
            for c in 0..channels {
                running_mean[c] = 0.9 * 30.0 + 0.1 * mean[c];
                running_var[c] = 0.9 * 0.5 + 0.1 * var[c] * n / (n - 1.0);
            }
        }
        let buffers = params.buffers();
        check("running mean", &values(&buffers[0].1), &running_mean, 1e-6);
        check("running var", &values(&buffers[1].1), &running_var, 1e-6);
        assert_eq!(
            buffers[2].1.to_scalar::<i64>().unwrap(),
            i64::from(mode == Mode::Train)
        );
    }
}

#[test]
fn pooling() {
    let (batch, h, w, channels) = (2, 9, 8, 5);
    let x = random(1, batch * h * w * channels);
    let var = Var::from_tensor(&tensor(&x, &[batch, h, w, channels])).unwrap();
    let image = Image {
        batch,
        h,
        w,
        channels,
    };
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 1), (8, 8, 0)] {
        for largest in [true, false] {
            let case =
                format!("kernel {kernel}, stride {stride}, padding {padding}, largest {largest}");
            let fx = FeatureMap::new(&var).unwrap();
            let y = if largest {
                max_pool2d(&fx, kernel, stride, padding)
            } else {
                avg_pool2d(&fx, kernel, stride, padding)
            };
            let y = y.unwrap().to_tensor().unwrap();
            let dy = random(2, y.elem_count());
            let (expected, dx) = naive::pool(image, kernel, stride, padding, largest, &x, &dy);
            check(&case, &values(&y), &expected, 1e-6);
            let gradients = (&y * tensor(&dy, y.dims()))
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            check(&case, &values(gradients.get(&var).unwrap()), &dx, 1e-6);
        }
    }
    let y = global_avg_pool(&FeatureMap::new(&var).unwrap()).unwrap();
    assert_eq!(y.dims(), [batch, channels]);
    let expected = values(&var.as_tensor().mean((1, 2)).unwrap());
    check("global mean", &values(&y), &expected, 1e-6);
    let gradients = y.sum_all().unwrap().backward().unwrap();
    check(
        "its gradient",
        &values(gradients.get(&var).unwrap()),
        &vec![1.0 / 72.0; x.len()],
        1e-6,
    );
}

#[test]
fn linear_is_a_matrix_product() {
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    let linear = Linear::new(&params.root(), 37, 10, Init::UniformFanIn).unwrap();
    let weights = params.to_tensors().unwrap();
    assert_eq!(weights[0].1.dims(), [10, 37]);
    let x = Var::from_tensor(&tensor(&random(1, 6 * 37), &[6, 37])).unwrap();
    let y = linear.forward(&x).unwrap();
    let expected = x
        .matmul(&weights[0].1.t().unwrap())
        .unwrap()
        .broadcast_add(&weights[1].1)
        .unwrap();
    check("y", &values(&y), &values(&expected), 1e-5);
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let dx = weights[0]
        .1
        .sum_keepdim(0)
        .unwrap()
        .broadcast_as((6, 37))
        .unwrap()
        .contiguous()
        .unwrap();
    check(
        "dx",
        &values(gradients.get(&x).unwrap()),
        &values(&dx),
        1e-5,
    );
    check(
        "db",
        &values(gradients.get(&params.parameters()[1].1).unwrap()),
        &[6.0; 10],
        1e-6,
    );
}

#[test]
fn a_map_used_twice_gathers_both_gradients() {
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    let norm = BatchNorm::new(&params.root(), 4).unwrap();
    let x = Var::from_tensor(&tensor(&random(1, 2 * 3 * 3 * 4), &[2, 3, 3, 4])).unwrap();
    let fx = FeatureMap::new(&x).unwrap();
    let once = norm
        .forward(&fx, Mode::Eval, Activation::None, None)
        .unwrap();
    let y = norm
        .forward(&once, Mode::Eval, Activation::None, Some(&fx))
        .unwrap();
    // y = s * s * x + x with s = 1 / sqrt(1 + 1e-5)
    let gradients = y
        .to_tensor()
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    check(
        "dx",
        &values(gradients.get(&x).unwrap()),
        &vec![1.0 + 1.0 / (1.0 + 1e-5); 72],
        1e-6,
    );
}

#[test]
fn the_way_back_is_walked_once() {
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    let conv = Conv2d::new(&params.root(), ConvSpec::new(2, 2, 1), Init::KaimingFanIn).unwrap();
    let x = FeatureMap::new(&tensor(&random(1, 8), &[1, 2, 2, 2])).unwrap();
    let loss = conv
        .forward(&x)
        .unwrap()
        .to_tensor()
        .unwrap()
        .sum_all()
        .unwrap();
    loss.backward().unwrap();
    assert!(
        loss.backward()
            .unwrap_err()
            .to_string()
            .contains("can be walked once")
    );
}

#[test]
fn without_gradient_nothing_is_tracked() {
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    let conv = Conv2d::new(&params.root(), ConvSpec::new(2, 2, 1), Init::KaimingFanIn).unwrap();
    let x = FeatureMap::without_gradient(&tensor(&random(1, 8), &[1, 2, 2, 2])).unwrap();
    assert!(!conv.forward(&x).unwrap().to_tensor().unwrap().track_op());
}
