//! bf16 against definitions that are given rounded values, by instructions of its own and without.
//!
//! One test, because the limit on instructions holds for the whole process.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod naive;
mod support;

use candle_core::{DType, Device, Tensor, Var};
use logitcask_layers::{
    Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Instructions, Linear, Mode, Params,
    Precision, bf16_is_native, global_avg_pool, limit_instructions,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{bf16, check, conv_case_in, random, tensor, values};

#[test]
fn rounded_operands_and_sums_in_f32_on_every_machine() {
    if !bf16_is_native() {
        println!("SKIPPED: this processor has no AVX512-BF16; what stands in for it is tested");
    }
    let mut found = vec![];
    for best in [Instructions::Avx512, Instructions::Avx2] {
        limit_instructions(best);
        convolutions_of_the_networks_we_train();
        any_convolution();
        linear();
        let bits = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .build()
                .unwrap();
            pool.install(gradients_of_a_network)
        };
        let alone = bits(1);
        for n_threads in [2, 3, 7] {
            assert!(bits(n_threads) == alone, "{n_threads} threads, {best:?}");
        }
        found.push(alone);
    }
    limit_instructions(Instructions::Avx512);
    // Through a network, the two ways part by more than their sums do: where a value lies halfway between two bf16, the
    // last digit of the sum that made it decides. Measured: 6e-6 of the largest gradient, 9e-5 where all was rounded.
    let as_f64 = |bits: &Vec<u32>| -> Vec<f64> {
        let value = |&bits: &u32| f64::from(f32::from_bits(bits));
        bits.iter().map(value).collect()
    };
    let [native, emulated] = [as_f64(&found[0]), as_f64(&found[1])];
    let off = check("a network's gradients", &native, &emulated, 1e-3);
    println!("a network's gradients, by either way: {off:.1e} of the largest apart");
}

fn convolutions_of_the_networks_we_train() {
    for (batch, h, w, spec) in [
        (2, 32, 32, ConvSpec::new(3, 16, 3).padding(1)),
        (2, 8, 8, ConvSpec::new(1, 32, 3).padding(1)),
        (2, 16, 16, ConvSpec::new(16, 32, 3).padding(1).stride(2)),
        (2, 16, 16, ConvSpec::new(32, 64, 1).stride(2)),
        (2, 16, 16, ConvSpec::new(3, 8, 7).padding(3).stride(2)),
        (2, 8, 8, ConvSpec::new(32, 48, 1)),
        (9, 4, 4, ConvSpec::new(48, 32, 3).padding(1).stride(2)),
        (35, 8, 8, ConvSpec::new(24, 34, 3).padding(1).stride(2)),
        (9, 7, 7, ConvSpec::new(16, 32, 3).padding(1)),
        (2, 5, 5, ConvSpec::new(33, 16, 3).padding(1)),
        (3, 7, 11, ConvSpec::new(25, 17, 3)),
        (2, 6, 5, ConvSpec::new(31, 47, 3).padding(2).bias(true)),
        (2, 8, 8, ConvSpec::new(12, 24, 1).groups(3)),
        (2, 8, 8, ConvSpec::new(12, 24, 3).padding(1).groups(4)),
        (2, 9, 7, ConvSpec::new(24, 24, 3).padding(1).groups(24)),
        (70, 2, 2, ConvSpec::new(40, 36, 3).padding(1)),
    ] {
        conv_case_in(Precision::Bf16, batch, h, w, spec, 1e-5);
    }
}

fn any_convolution() {
    let strategy = (
        (1usize..4, 1usize..14, 1usize..14, 1usize..4),
        (1usize..20, 1usize..20),
        (1usize..5, 1usize..4, 0usize..3, any::<bool>()),
    );
    let strategy = strategy.prop_map(
        |((batch, h, w, groups), (inputs, outputs), (kernel, stride, padding, bias))| {
            let spec = ConvSpec::new(inputs * groups, outputs * groups, kernel)
                .stride(stride)
                .padding(padding)
                .groups(groups)
                .bias(bias);
            (batch, h, w, spec)
        },
    );
    let config = ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let case = |(batch, h, w, spec): (usize, usize, usize, ConvSpec)| {
        prop_assume!(h.min(w) + 2 * spec.padding >= spec.kernel);
        // As in f32: a 3x3 may go by Winograd's way.
        conv_case_in(Precision::Bf16, batch, h, w, spec, 3e-5);
        Ok(())
    };
    TestRunner::new(config).run(&strategy, case).unwrap();
}

fn linear() {
    let params = Params::new(3, DType::F32, &Device::Cpu).unwrap();
    params.set_precision(Precision::Bf16);
    let linear = Linear::new(&params.root(), 37, 10, Init::UniformFanIn).unwrap();
    let weights = params.to_tensors().unwrap();
    let x = random(1, 6 * 37);
    let y = linear.forward(&tensor(&x, &[6, 37])).unwrap();
    let rounded = |of: &Tensor| tensor(&bf16(&values(of)), of.dims());
    let expected = rounded(&tensor(&x, &[6, 37]))
        .matmul(&rounded(&weights[0].1).t().unwrap())
        .unwrap()
        .broadcast_add(&weights[1].1)
        .unwrap();
    check("linear", &values(&y), &values(&expected), 1e-5);
}

/// The bits of every gradient of a small network.
fn gradients_of_a_network() -> Vec<u32> {
    let params = Params::new(5, DType::F32, &Device::Cpu).unwrap();
    params.set_precision(Precision::Bf16);
    let root = params.root();
    let conv = |name, spec| Conv2d::new(&root.enter(name), spec, Init::KaimingFanOut).unwrap();
    let norm = |name, channels| BatchNorm::new(&root.enter(name), channels).unwrap();
    let stem = conv("stem", ConvSpec::new(3, 24, 3).padding(1).bias(true));
    let wide = conv("wide", ConvSpec::new(24, 24, 3).padding(1));
    let depthwise = conv("depthwise", ConvSpec::new(24, 24, 3).padding(1).groups(24));
    let down = conv("down", ConvSpec::new(24, 40, 3).padding(1).stride(2));
    let small = conv("small", ConvSpec::new(40, 40, 3).padding(1));
    let (first, second) = (norm("first", 24), norm("second", 24));
    let fc = Linear::new(&root.enter("fc"), 40, 10, Init::UniformFanIn).unwrap();

    let pixels = Var::from_tensor(&tensor(&random(1, 21 * 9 * 8 * 3), &[21, 9, 8, 3])).unwrap();
    let x = stem.forward(&FeatureMap::new(&pixels).unwrap()).unwrap();
    let x = first
        .forward(&x, Mode::Train, Activation::Relu, None)
        .unwrap();
    let y = wide.forward(&x).unwrap();
    let y = second
        .forward(&y, Mode::Train, Activation::Relu, Some(&x))
        .unwrap();
    let y = down.forward(&depthwise.forward(&y).unwrap()).unwrap();
    let y = small.forward(&y).unwrap();
    let loss = fc
        .forward(&global_avg_pool(&y).unwrap())
        .unwrap()
        .sqr()
        .unwrap()
        .mean_all()
        .unwrap();
    let gradients = loss.backward().unwrap();

    let parameters = params.parameters();
    let vars = parameters.iter().map(|(_, var)| var).chain([&pixels]);
    let of = |var: &Var| {
        let gradient = gradients.get(var).unwrap().flatten_all().unwrap();
        gradient.to_vec1::<f32>().unwrap()
    };
    vars.flat_map(of).map(f32::to_bits).collect()
}
