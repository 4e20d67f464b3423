//! Seconds per training step of a few students built from these layers, on random data.
//!
//! `cargo run --release -p logitcask-layers --example step -- resnet8x4 64 1 10 avx512`: student, batch size,
//! threads, steps, and the best instructions to use (`avx512`, `avx2` or `portable`). The peer is `benches/peers/step_torch.py`.
#![expect(
    clippy::print_stdout,
    reason = "an example talks to the one who runs it"
)]

use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};
use logitcask_layers::{
    Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Instructions, Linear, Mode, Params,
    Result, Scope, SgdSpec, Velocity, global_avg_pool, instructions, limit_instructions,
    max_pool2d,
};
use logitcask_philox::{Purpose, Stream};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let threads = std::env::args()
        .nth(3)
        .map_or(Ok(1), |threads| threads.parse())?;
    // Inside the pool, a parallel loop starts where it is; from outside, each would wait for a thread to wake up.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?
        .install(run)
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or(default.into());
    let (student, batch) = (
        argument(0, "resnet8x4"),
        argument(1, "64").parse::<usize>()?,
    );
    let (threads, steps) = (
        argument(2, "1").parse()?,
        argument(3, "10").parse::<usize>()?,
    );
    match argument(4, "").as_str() {
        "avx2" => limit_instructions(Instructions::Avx2),
        "portable" => limit_instructions(Instructions::Portable),
        _ => instructions(),
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;

    let params = Params::new(1, DType::F32, &Device::Cpu)?;
    let network = build(&student, &params.root())?;
    let mut velocity = Velocity::new(params.parameters());
    let spec = SgdSpec {
        lr: 0.05,
        momentum: 0.9,
        weight_decay: 5e-4,
        nesterov: false,
    };
    let mut stream = Stream::new(1, Purpose::Bench, [0; 3]);
    let pixels: Vec<f32> = (0..batch * 32 * 32 * 3)
        .map(|_| stream.uniform() as f32 * 3.4 - 1.7)
        .collect();
    let pixels = Tensor::from_vec(pixels, (batch, 32, 32, 3), &Device::Cpu)?;
    let labels = Tensor::from_vec(
        (0..batch).map(|i| (i % 100) as u32).collect(),
        (batch, 1),
        &Device::Cpu,
    )?;

    let mut seconds: [Vec<f64>; 5] = Default::default();
    let mut losses = vec![];
    for step in 0..steps + 2 {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let logits = network(&FeatureMap::new(&pixels)?)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let loss = (log_sum - shifted.gather(&labels, 1)?)?.mean_all()?;
        let forward = start.elapsed();
        let gradients = loss.backward()?;
        let backward = start.elapsed();
        velocity.step(&gradients, spec)?;
        let all = start.elapsed();
        if step >= 2 {
            let split =
                [all, forward, backward - forward, all - backward].map(|part| part.as_secs_f64());
            let busy = cpu_seconds() - cpu;
            for (seconds, part) in seconds.iter_mut().zip(split.into_iter().chain([busy])) {
                seconds.push(part);
            }
        }
        losses.push(loss.to_scalar::<f32>()?);
    }
    let [all, forward, backward, sgd, cpu] = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        format!(
            "{:.1}/{:.1}",
            1e3 * seconds[seconds.len() / 2],
            1e3 * seconds[0]
        )
    });
    println!(
        "{student} batch {batch} threads {threads} {:?}: step {all} ms (median/min), forward {forward}, backward {backward}, \
         sgd {sgd}, processor {cpu}; {} parameters, loss {:.6} -> {:.6}",
        instructions(),
        params.n_parameters(),
        losses[0],
        losses[losses.len() - 1]
    );
    Ok(())
}

/// What all threads of this process have computed: on a busy machine, truer than the clock. 0 where there is no procfs.
fn cpu_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}

type Network = Box<dyn Fn(&FeatureMap) -> Result<Tensor>>;

fn build(student: &str, root: &Scope) -> Result<Network, Failure> {
    Ok(match student {
        "resnet8" => resnet(root, 8, [16, 16, 32, 64])?,
        "resnet20" => resnet(root, 20, [16, 16, 32, 64])?,
        "resnet8x4" => resnet(root, 8, [32, 64, 128, 256])?,
        "resnet32x4" => resnet(root, 32, [32, 64, 128, 256])?,
        "wrn_16_2" => wide_resnet(root, 16, 2)?,
        "vgg8" => vgg8(root)?,
        "mobilenet_v2" => mobilenet_v2(root)?,
        other => return Err(format!("no student `{other}` here").into()),
    })
}

fn conv(
    scope: &Scope,
    name: &str,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
) -> Result<Conv2d> {
    let spec = ConvSpec::new(inputs, outputs, kernel)
        .stride(stride)
        .padding(kernel / 2);
    Conv2d::new(&scope.enter(name), spec, Init::KaimingFanOut)
}

const RELU: Activation = Activation::Relu;

fn resnet(root: &Scope, depth: usize, widths: [usize; 4]) -> Result<Network> {
    let stem = (
        conv(root, "conv1", 3, widths[0], 3, 1)?,
        BatchNorm::new(&root.enter("bn1"), widths[0])?,
    );
    let mut blocks = vec![];
    let mut inputs = widths[0];
    for (stage, &outputs) in widths[1..].iter().enumerate() {
        for block in 0..(depth - 2) / 6 {
            let scope = root.enter(format!("layer{}", stage + 1)).enter(block);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let first = (
                conv(&scope, "conv1", inputs, outputs, 3, stride)?,
                BatchNorm::new(&scope.enter("bn1"), outputs)?,
            );
            let second = (
                conv(&scope, "conv2", outputs, outputs, 3, 1)?,
                BatchNorm::new(&scope.enter("bn2"), outputs)?,
            );
            let shortcut = if stride != 1 || inputs != outputs {
                let scope = scope.enter("downsample");
                Some((
                    conv(&scope, "0", inputs, outputs, 1, stride)?,
                    BatchNorm::new(&scope.enter("1"), outputs)?,
                ))
            } else {
                None
            };
            blocks.push((first, second, shortcut));
            inputs = outputs;
        }
    }
    let fc = Linear::new(&root.enter("fc"), inputs, 100, Init::UniformFanIn)?;
    Ok(Box::new(move |pixels| {
        let mut x = stem
            .1
            .forward(&stem.0.forward(pixels)?, Mode::Train, RELU, None)?;
        for (first, second, shortcut) in &blocks {
            let y = first
                .1
                .forward(&first.0.forward(&x)?, Mode::Train, RELU, None)?;
            let y = second.0.forward(&y)?;
            let residual = match shortcut {
                Some((conv, norm)) => {
                    norm.forward(&conv.forward(&x)?, Mode::Train, Activation::None, None)?
                }
                None => x,
            };
            x = second.1.forward(&y, Mode::Train, RELU, Some(&residual))?;
        }
        fc.forward(&global_avg_pool(&x)?)
    }))
}

fn wide_resnet(root: &Scope, depth: usize, factor: usize) -> Result<Network> {
    let stem = conv(root, "conv1", 3, 16, 3, 1)?;
    let mut blocks = vec![];
    let mut inputs = 16;
    for stage in 0..3 {
        let outputs = (16 * factor) << stage;
        for block in 0..(depth - 4) / 6 {
            let scope = root
                .enter(format!("block{}", stage + 1))
                .enter("layer")
                .enter(block);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let norms = (
                BatchNorm::new(&scope.enter("bn1"), inputs)?,
                BatchNorm::new(&scope.enter("bn2"), outputs)?,
            );
            let convs = (
                conv(&scope, "conv1", inputs, outputs, 3, stride)?,
                conv(&scope, "conv2", outputs, outputs, 3, 1)?,
            );
            let shortcut = if inputs == outputs {
                None
            } else {
                Some(conv(&scope, "convShortcut", inputs, outputs, 1, stride)?)
            };
            blocks.push((norms, convs, shortcut));
            inputs = outputs;
        }
    }
    let norm = BatchNorm::new(&root.enter("bn1"), inputs)?;
    let fc = Linear::new(&root.enter("fc"), inputs, 100, Init::UniformFanIn)?;
    Ok(Box::new(move |pixels| {
        let mut x = stem.forward(pixels)?;
        for (norms, convs, shortcut) in &blocks {
            let y = norms.0.forward(&x, Mode::Train, RELU, None)?;
            let residual = match shortcut {
                Some(conv) => conv.forward(&y)?,
                None => x,
            };
            let y = norms
                .1
                .forward(&convs.0.forward(&y)?, Mode::Train, RELU, None)?;
            x = convs.1.forward(&y)?.add(&residual)?;
        }
        fc.forward(&global_avg_pool(&norm.forward(
            &x,
            Mode::Train,
            RELU,
            None,
        )?)?)
    }))
}

fn vgg8(root: &Scope) -> Result<Network> {
    let mut blocks = vec![];
    let mut inputs = 3;
    for (block, outputs) in [64, 128, 256, 512, 512].into_iter().enumerate() {
        let scope = root.enter(format!("block{block}"));
        let spec = ConvSpec::new(inputs, outputs, 3).padding(1).bias(true);
        let conv = Conv2d::new(&scope.enter(0), spec, Init::KaimingFanOut)?;
        blocks.push((conv, BatchNorm::new(&scope.enter(1), outputs)?));
        inputs = outputs;
    }
    let fc = Linear::new(&root.enter("classifier"), inputs, 100, Init::UniformFanIn)?;
    Ok(Box::new(move |pixels| {
        let mut x = pixels.clone();
        for (block, (conv, norm)) in blocks.iter().enumerate() {
            x = norm.forward(&conv.forward(&x)?, Mode::Train, RELU, None)?;
            if block < 3 {
                x = max_pool2d(&x, 2, 2, 0)?;
            }
        }
        fc.forward(&global_avg_pool(&x)?)
    }))
}

/// The half-width MobileNetV2 of the distillation papers.
fn mobilenet_v2(root: &Scope) -> Result<Network> {
    let narrow = |channels: usize| channels / 2;
    let unit = |scope: &Scope, spec: ConvSpec| -> Result<(Conv2d, BatchNorm)> {
        let conv = Conv2d::new(
            &scope.enter(0),
            spec.padding(spec.kernel / 2),
            Init::KaimingFanOut,
        )?;
        Ok((conv, BatchNorm::new(&scope.enter(1), spec.out_channels)?))
    };
    let stem = unit(&root.enter("conv1"), ConvSpec::new(3, 16, 3).stride(2))?;
    let mut blocks = vec![];
    let mut inputs = 16;
    let stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    for (stage, (expand, channels, repeat, stride)) in stages.into_iter().enumerate() {
        let outputs = narrow(channels);
        for block in 0..repeat {
            let scope = root.enter(format!("blocks.{stage}.{block}"));
            let stride = if block == 0 { stride } else { 1 };
            let hidden = inputs * expand;
            let units = [
                unit(&scope.enter("expand"), ConvSpec::new(inputs, hidden, 1))?,
                unit(
                    &scope.enter("depthwise"),
                    ConvSpec::new(hidden, hidden, 3)
                        .stride(stride)
                        .groups(hidden),
                )?,
                unit(&scope.enter("project"), ConvSpec::new(hidden, outputs, 1))?,
            ];
            blocks.push((units, stride == 1 && inputs == outputs));
            inputs = outputs;
        }
    }
    let last = unit(&root.enter("conv2"), ConvSpec::new(inputs, 1280, 1))?;
    let fc = Linear::new(&root.enter("classifier"), 1280, 100, Init::UniformFanIn)?;
    Ok(Box::new(move |pixels| {
        let run = |(conv, norm): &(Conv2d, BatchNorm),
                   x: &FeatureMap,
                   activation,
                   residual: Option<&FeatureMap>| {
            norm.forward(&conv.forward(x)?, Mode::Train, activation, residual)
        };
        let mut x = run(&stem, pixels, RELU, None)?;
        for ([expand, depthwise, project], skip) in &blocks {
            let y = run(depthwise, &run(expand, &x, RELU, None)?, RELU, None)?;
            x = run(project, &y, Activation::None, skip.then_some(&x))?;
        }
        fc.forward(&global_avg_pool(&run(&last, &x, RELU, None)?)?)
    }))
}
