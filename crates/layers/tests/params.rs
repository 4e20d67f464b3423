//! Names, layouts and the optimiser, as PyTorch has them.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use logitcask_layers::{
    BatchNorm, Conv2d, ConvSpec, Error, Init, Linear, Params, SgdSpec, Velocity,
};

fn network(seed: u64) -> Params {
    let params = Params::new(seed, DType::F32, &Device::Cpu).unwrap();
    let root = params.root();
    Conv2d::new(
        &root.enter("conv1"),
        ConvSpec::new(6, 4, 3).groups(2),
        Init::KaimingFanOut,
    )
    .unwrap();
    BatchNorm::new(&root.enter("layer1").enter(0).enter("bn"), 4).unwrap();
    Linear::new(&root.enter("fc"), 4, 5, Init::UniformFanIn).unwrap();
    params
}

#[test]
fn names_and_shapes_are_those_of_pytorch() {
    let tensors = network(1).to_tensors().unwrap();
    let found: Vec<(&str, &[usize])> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.dims()))
        .collect();
    let expected: [(&str, &[usize]); 8] = [
        ("conv1.weight", &[4, 3, 3, 3]),
        ("layer1.0.bn.weight", &[4]),
        ("layer1.0.bn.bias", &[4]),
        ("layer1.0.bn.running_mean", &[4]),
        ("layer1.0.bn.running_var", &[4]),
        ("layer1.0.bn.num_batches_tracked", &[]),
        ("fc.weight", &[5, 4]),
        ("fc.bias", &[5]),
    ];
    assert_eq!(found, expected);
    assert_eq!(network(1).n_parameters(), 108 + 8 + 25);
}

#[test]
fn what_is_saved_loads_and_is_equal() {
    let (one, two) = (network(1), network(2));
    let saved: HashMap<String, Tensor> = one.to_tensors().unwrap().into_iter().collect();
    two.load(&saved).unwrap();
    for ((name, a), (_, b)) in one
        .to_tensors()
        .unwrap()
        .iter()
        .zip(two.to_tensors().unwrap())
    {
        let same = a
            .eq(&b)
            .unwrap()
            .min_all()
            .unwrap()
            .to_scalar::<u8>()
            .unwrap();
        assert_eq!(same, 1, "{name}");
    }
    one.load(&saved).unwrap();
}

#[test]
fn misfits_are_named_and_change_nothing() {
    let params = network(1);
    let saved: HashMap<String, Tensor> = params.to_tensors().unwrap().into_iter().collect();
    let mut other = saved.clone();
    other.insert("fc.scale".into(), other["fc.bias"].clone());
    other.remove("conv1.weight");
    let error = params.load(&other).unwrap_err();
    assert!(
        matches!(&error, Error::Names { missing, unexpected } if missing == &["conv1.weight"] && unexpected == &["fc.scale"])
    );
    assert!(error.hint().is_some());

    let mut other = saved.clone();
    other.insert(
        "fc.weight".into(),
        Tensor::zeros((10, 4), DType::F32, &Device::Cpu).unwrap(),
    );
    let error = params.load(&other).unwrap_err().to_string();
    assert_eq!(
        error,
        "weight `fc.weight` has shape [10, 4], the network expects [5, 4]"
    );

    let root = params.root();
    assert!(matches!(
        BatchNorm::new(&root.enter("layer1.0.bn"), 4),
        Err(Error::Duplicate(_))
    ));
}

#[test]
fn the_seed_decides_the_start() {
    let values = |seed| {
        network(seed).to_tensors().unwrap()[0]
            .1
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    assert_eq!(values(1), values(1));
    assert_ne!(values(1), values(2));
}

/// `torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)`, p = 1, gradients 1, 2, 3:
/// worked out by hand from its documentation's pseudo-code.
#[test]
fn sgd_is_that_of_pytorch() {
    for nesterov in [false, true] {
        let p = Var::new(&[1f32], &Device::Cpu).unwrap();
        let mut velocity = Velocity::new(vec![("p".into(), p.clone())]);
        let (mut expected, mut v) = (1f64, 0f64);
        for g in [1f32, 2.0, 3.0] {
            let loss = (p.as_tensor() * f64::from(g)).unwrap().sum_all().unwrap();
            let spec = SgdSpec {
                lr: 0.1,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov,
            };
            velocity.step(&loss.backward().unwrap(), spec).unwrap();
            let g = f64::from(g) + 0.01 * expected;
            v = 0.9 * v + g;
            expected -= 0.1 * if nesterov { g + 0.9 * v } else { v };
        }
        let found = f64::from(p.to_vec1::<f32>().unwrap()[0]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        let saved = velocity.to_tensors().unwrap().into_iter().collect();
        Velocity::new(vec![("p".into(), p)]).load(&saved).unwrap();
    }
}
