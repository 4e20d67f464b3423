//! Each set of instructions computes the same thing, and the number of threads changes no bit.
//!
//! One test, because the limit on instructions holds for the whole process.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod naive;
mod support;

use candle_core::{DType, Device, Var};
use logitcask_layers::{
    Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Instructions, Linear, Mode, Params,
    global_avg_pool, limit_instructions, max_pool2d,
};
use support::{conv_case, random, tensor};

#[test]
fn every_set_of_instructions_and_any_number_of_threads() {
    for best in [
        Instructions::Avx512,
        Instructions::Avx2,
        Instructions::Portable,
    ] {
        let used = limit_instructions(best);
        assert!(used >= best);
        for (batch, h, w, spec) in [
            (2, 9, 13, ConvSpec::new(3, 20, 3).padding(1)),
            (2, 9, 13, ConvSpec::new(19, 37, 3).padding(1)),
            (5, 8, 8, ConvSpec::new(48, 33, 3).padding(1).bias(true)),
            (2, 13, 11, ConvSpec::new(34, 50, 3).padding(1).stride(2)),
            (3, 10, 7, ConvSpec::new(21, 35, 1)),
            (2, 9, 9, ConvSpec::new(35, 35, 3).padding(1).groups(35)),
            (
                2,
                9,
                9,
                ConvSpec::new(40, 40, 3).padding(1).stride(2).groups(40),
            ),
            (2, 6, 6, ConvSpec::new(36, 54, 1).groups(3)),
        ] {
            conv_case(batch, h, w, spec, 1e-5);
        }
        let bits = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .build()
                .unwrap();
            pool.install(gradients_of_a_network)
        };
        let alone = bits(1);
        assert!(alone.iter().any(|&bits| bits != 0));
        for n_threads in [2, 3, 7] {
            assert!(bits(n_threads) == alone, "{n_threads} threads, {used:?}");
        }
    }
    limit_instructions(Instructions::Avx512);
}

/// The bits of every gradient of a network with a layer of every kind.
fn gradients_of_a_network() -> Vec<u32> {
    let params = Params::new(5, DType::F32, &Device::Cpu).unwrap();
    let root = params.root();
    let conv = |name, spec| Conv2d::new(&root.enter(name), spec, Init::KaimingFanOut).unwrap();
    let norm = |name, channels| BatchNorm::new(&root.enter(name), channels).unwrap();
    let stem = conv("stem", ConvSpec::new(3, 24, 3).padding(1).bias(true));
    let wide = conv("wide", ConvSpec::new(24, 24, 3).padding(1));
    let depthwise = conv("depthwise", ConvSpec::new(24, 24, 3).padding(1).groups(24));
    let down = conv("down", ConvSpec::new(24, 40, 3).padding(1).stride(2));
    let (first, second) = (norm("first", 24), norm("second", 24));
    let fc = Linear::new(&root.enter("fc"), 40, 10, Init::UniformFanIn).unwrap();

    let pixels = Var::from_tensor(&tensor(&random(1, 21 * 17 * 16 * 3), &[21, 17, 16, 3])).unwrap();
    let x = first.forward(
        &stem.forward(&FeatureMap::new(&pixels).unwrap()).unwrap(),
        Mode::Train,
        Activation::Relu,
        None,
    );
    let x = x.unwrap();
    let y = second
        .forward(
            &wide.forward(&x).unwrap(),
            Mode::Train,
            Activation::Relu,
            Some(&x),
        )
        .unwrap();
    let y = down
        .forward(&depthwise.forward(&y).unwrap().relu().unwrap())
        .unwrap();
    let y = global_avg_pool(&max_pool2d(&y, 2, 2, 0).unwrap()).unwrap();
    let gradients = fc
        .forward(&y)
        .unwrap()
        .sqr()
        .unwrap()
        .mean_all()
        .unwrap()
        .backward()
        .unwrap();

    let parameters = params.parameters();
    let vars = parameters.iter().map(|(_, var)| var).chain([&pixels]);
    let values = vars.flat_map(|var| {
        gradients
            .get(var)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    });
    values.map(f32::to_bits).collect()
}
