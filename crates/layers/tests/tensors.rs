//! Every layer of `Backend::Tensors` against the definitions or the kernels: on the CPU, and, in a build with the feature
//! `cuda`, on the first GPU.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod naive;
mod support;

use candle_core::{DType, Device, Tensor, Var};
use logitcask_layers::trace::{Step, trace};
use logitcask_layers::{
    Activation, Backend, BatchNorm, Conv2d, ConvSpec, Error, FeatureMap, Init, Linear, Mode,
    Params, Result, SgdSpec, Velocity, avg_pool2d, global_avg_pool, max_pool2d,
};
use proptest::prelude::*;
use support::{check, conv_case, random, tensor, values};

#[test]
fn convolutions_are_by_definition() {
    Backend::tensors(|| {
        for (h, spec) in [
            (8, ConvSpec::new(3, 16, 3).padding(1)),
            (9, ConvSpec::new(6, 8, 3).stride(2).padding(1).bias(true)),
            (8, ConvSpec::new(4, 6, 1).stride(2)),
            (16, ConvSpec::new(3, 8, 7).stride(2).padding(3)),
            (8, ConvSpec::new(12, 12, 3).padding(1).groups(12)),
            (8, ConvSpec::new(12, 24, 1).groups(3).bias(true)),
        ] {
            conv_case(2, h, h + 1, spec, 1e-5);
        }
    });
}

#[test]
fn convolutions_are_those_of_the_kernels() {
    for (h, spec) in [
        (8, ConvSpec::new(3, 16, 3).padding(1)),
        (9, ConvSpec::new(6, 8, 3).stride(2).padding(1).bias(true)),
        (8, ConvSpec::new(4, 6, 1).stride(2)),
        (16, ConvSpec::new(3, 8, 7).stride(2).padding(3)),
        (8, ConvSpec::new(12, 12, 3).padding(1).groups(12)),
        (8, ConvSpec::new(12, 24, 1).groups(3).bias(true)),
    ] {
        let dims = [2, h, h + 1, spec.in_channels];
        agree(&format!("{spec:?}"), &[dims], |params, maps| {
            let conv = Conv2d::new(&params.root(), spec, Init::KaimingFanIn)?;
            conv.forward(&maps[0])?.to_tensor()
        });
    }
}

#[test]
fn batch_norms_are_those_of_the_kernels() {
    let dims = [3, 5, 4, 7];
    for mode in [Mode::Train, Mode::Eval] {
        for activation in [Activation::None, Activation::Relu] {
            for with_residual in [false, true] {
                let case = format!("{mode:?} {activation:?} residual {with_residual}");
                agree(&case, &[dims, dims], |params, maps| {
                    let norm = BatchNorm::new(&params.root(), 7)?;
                    for (number, (_, var)) in params.parameters().iter().enumerate() {
                        let values = tensor(&random(20 + number as u64, 7), &[7]);
                        var.set(&values.to_device(var.device())?)?;
                    }
                    let residual = with_residual.then_some(&maps[1]);
                    norm.forward(&maps[0], mode, activation, residual)?
                        .to_tensor()
                });
            }
        }
    }
}

/// A mean of 50 standard deviations costs neither side the variance. Next to 30, f32 holds x to 2e-6, which is 4e-6 of a
/// standard deviation, and the shift likewise; the two were 1.2e-5 of the largest value apart.
#[test]
fn a_large_mean_does_not_cost_the_variance_its_digits() {
    let x: Vec<f64> = random(1, 4000).iter().map(|v| v + 30.0).collect();
    let x = tensor(&x, &[1, 40, 25, 4]);
    let norm = |device: &Device| {
        let params = Params::new(3, DType::F32, device).unwrap();
        let norm = BatchNorm::new(&params.root(), 4).unwrap();
        let x = FeatureMap::new(&x.to_device(device).unwrap()).unwrap();
        let y = norm.forward(&x, Mode::Train, Activation::None, None);
        values(&y.unwrap().to_tensor().unwrap())
    };
    let by_kernels = norm(&Device::Cpu);
    by_tensors(|device| {
        check("y", &norm(device), &by_kernels, 2e-5);
    });
}

#[test]
fn operations_on_maps_are_those_of_the_kernels() {
    let dims = [2, 3, 5, 6];
    type Op = fn(&[FeatureMap]) -> Result<FeatureMap>;
    let ops: [(&str, Op); 6] = [
        ("add", |maps| maps[0].add(&maps[1])),
        ("add twice", |maps| maps[0].add(&maps[1])?.add(&maps[0])),
        ("relu", |maps| maps[0].relu()),
        ("concat", |maps| {
            FeatureMap::concat(&[&maps[0], &maps[1], &maps[0]])
        }),
        ("channels", |maps| maps[0].channels(1, 3)),
        ("shuffle", |maps| maps[0].shuffle_channels(3)),
    ];
    for (name, op) in ops {
        agree(name, &[dims, dims], |_, maps| op(maps)?.to_tensor());
    }
    agree("linear", &[dims], |params, maps| {
        let linear = Linear::new(&params.root(), 6, 4, Init::UniformFanIn)?;
        linear.forward(&global_avg_pool(&maps[0])?)
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_pooling(
        h in 1usize..10, w in 1usize..10, kernel in 1usize..5, stride in 1usize..5, padding in 0usize..3,
    ) {
        prop_assume!(2 * padding <= kernel && h + 2 * padding >= kernel && w + 2 * padding >= kernel);
        let case = format!("{kernel}x{kernel}, stride {stride}, padding {padding} on {h}x{w}");
        agree(&format!("max {case}"), &[[2, h, w, 3]], |_, maps| {
            max_pool2d(&maps[0], kernel, stride, padding)?.to_tensor()
        });
        agree(&format!("mean {case}"), &[[2, h, w, 3]], |_, maps| {
            avg_pool2d(&maps[0], kernel, stride, padding)?.to_tensor()
        });
    }
}

/// Maps out of a ReLU tie at 0 all the time.
#[test]
fn the_first_of_equal_values_gets_the_gradient() {
    let gradient = |device: &Device| {
        let x = tensor(&[0.0; 16], &[1, 4, 4, 1]).to_device(device).unwrap();
        let x = Var::from_tensor(&x).unwrap();
        let y = max_pool2d(&FeatureMap::new(&x).unwrap(), 3, 1, 1).unwrap();
        let loss = y.to_tensor().unwrap().sum_all().unwrap();
        values(loss.backward().unwrap().get(&x).unwrap())
    };
    let by_kernels = gradient(&Device::Cpu);
    by_tensors(|device| assert_eq!(gradient(device), by_kernels));
}

#[test]
fn sgd_steps_are_those_of_the_kernels() {
    for nesterov in [false, true] {
        for (momentum, weight_decay) in [(0.9, 0.01), (0.0, 0.0), (0.9, 0.0)] {
            let walk = |device: &Device| {
                let [moved, still] = [1, 2].map(|number| {
                    let values = tensor(&random(number, 12), &[3, 4]);
                    Var::from_tensor(&values.to_device(device).unwrap()).unwrap()
                });
                let named = vec![("p".into(), moved.clone()), ("q".into(), still.clone())];
                let spec = SgdSpec {
                    lr: 0.1,
                    momentum,
                    weight_decay,
                    nesterov: nesterov && momentum > 0.0,
                };
                let mut velocity = Velocity::new(named.clone());
                for _ in 0..3 {
                    let loss = moved.sqr().unwrap().sum_all().unwrap();
                    velocity.step(&loss.backward().unwrap(), spec).unwrap();
                }
                // Saved, loaded by another, and two steps more.
                let saved = velocity.to_tensors().unwrap().into_iter().collect();
                let mut velocity = Velocity::new(named);
                velocity.load(&saved).unwrap();
                for _ in 0..2 {
                    let loss = moved.sqr().unwrap().sum_all().unwrap();
                    velocity.step(&loss.backward().unwrap(), spec).unwrap();
                }
                [values(&moved), values(&still)]
            };
            let by_kernels = walk(&Device::Cpu);
            by_tensors(|device| {
                let found = walk(device);
                check("moved", &found[0], &by_kernels[0], 1e-6);
                assert_eq!(found[1], by_kernels[1], "no gradient, no step");
            });
        }
    }
}

#[test]
fn a_trace_tells_the_same_steps() {
    let steps = || -> Vec<Step> {
        let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
        let forward = || -> Result<Tensor> {
            let root = params.root();
            let conv = Conv2d::new(&root, ConvSpec::new(4, 4, 3).padding(1), Init::KaimingFanIn)?;
            let norm = BatchNorm::new(&root.enter("bn"), 4)?;
            let x = FeatureMap::new(&tensor(&random(1, 256), &[1, 8, 8, 4]))?;
            let y = norm.forward(&conv.forward(&x)?, Mode::Eval, Activation::Relu, Some(&x))?;
            let y = FeatureMap::concat(&[&y.shuffle_channels(2)?, &max_pool2d(&y, 3, 1, 1)?])?;
            global_avg_pool(&y.relu()?)
        };
        let (made, trace) = trace(forward);
        made.unwrap();
        trace.steps
    };
    assert_eq!(Backend::tensors(steps), steps());
}

#[test]
fn the_way_back_is_walked_once_and_only_where_it_is_kept() {
    Backend::tensors(|| {
        let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
        let conv = Conv2d::new(&params.root(), ConvSpec::new(2, 2, 1), Init::KaimingFanIn).unwrap();
        let pixels = tensor(&random(1, 8), &[1, 2, 2, 2]);
        let forward = |x: FeatureMap| conv.forward(&x).unwrap().to_tensor().unwrap();
        let loss = forward(FeatureMap::new(&pixels).unwrap())
            .sum_all()
            .unwrap();
        loss.backward().unwrap();
        let again = loss.backward().unwrap_err().to_string();
        assert!(again.contains("can be walked once"), "{again}");
        let untracked = forward(FeatureMap::without_gradient(&pixels).unwrap());
        assert!(!untracked.track_op());
    });
}

#[test]
fn backends_are_not_mixed_and_formats_not_guessed() {
    let pixels = tensor(&random(1, 8), &[1, 2, 2, 2]);
    let by_kernels = FeatureMap::new(&pixels).unwrap();
    Backend::tensors(|| {
        let by_tensors = FeatureMap::new(&pixels).unwrap();
        let refusal = by_tensors.add(&by_kernels).unwrap_err();
        assert!(matches!(refusal, Error::Unsupported { .. }), "{refusal}");
        let refusal = FeatureMap::new(&pixels.to_dtype(DType::F64).unwrap()).unwrap_err();
        assert!(refusal.to_string().contains("F64"), "{refusal}");
    });
}

/// Runs `forward` over random maps of these shapes by kernels and by tensors, and compares values, running statistics
/// and the gradients of every input and parameter, for a loss that weighs each output at random.
#[track_caller]
fn agree(
    case: &str,
    dims: &[[usize; 4]],
    forward: impl Fn(&Params, &[FeatureMap]) -> Result<Tensor>,
) {
    let run = |device: &Device| -> Result<Vec<(String, Vec<f64>)>> {
        let params = Params::new(3, DType::F32, device)?;
        let inputs: Vec<Var> = dims
            .iter()
            .zip(1..)
            .map(|(dims, number)| {
                let x = random(number, dims.iter().product());
                Ok(Var::from_tensor(&tensor(&x, dims).to_device(device)?)?)
            })
            .collect::<Result<_>>()?;
        let maps: Vec<FeatureMap> = inputs
            .iter()
            .map(|x| FeatureMap::new(x))
            .collect::<Result<_>>()?;
        let y = forward(&params, &maps)?;
        let weights = tensor(&random(9, y.elem_count()), y.dims()).to_device(device)?;
        let gradients = (&y * weights)?.sum_all()?.backward()?;
        let mut found = vec![("y".to_owned(), values(&y))];
        let named = inputs
            .iter()
            .zip(0..)
            .map(|(x, i)| (format!("input {i}"), x));
        let parameters = params.parameters();
        for (name, var) in named.chain(parameters.iter().map(|(name, var)| (name.clone(), var))) {
            if let Some(gradient) = gradients.get(var) {
                assert_eq!(gradient.dims(), var.dims(), "{case}: gradient of {name}");
                found.push((format!("gradient of {name}"), values(gradient)));
            }
        }
        for (name, var) in params.buffers() {
            found.push((name, values(&var)));
        }
        Ok(found)
    };
    let by_kernels = run(&Device::Cpu).unwrap();
    by_tensors(|device| {
        let found = run(device).unwrap();
        assert_eq!(by_kernels.len(), found.len(), "{case}");
        for ((name, expected), (same_name, found)) in by_kernels.iter().zip(&found) {
            assert_eq!(name, same_name, "{case}");
            check(&format!("{name} of {case}"), found, expected, 1e-5);
        }
    });
}

/// Wherever tensors compute.
fn by_tensors(work: impl Fn(&Device)) {
    Backend::tensors(|| work(&Device::Cpu));
    #[cfg(feature = "cuda")]
    match Device::new_cuda(0) {
        Ok(device) => work(&device),
        Err(error) => println!("skipped on CUDA: {error}"),
    }
}
