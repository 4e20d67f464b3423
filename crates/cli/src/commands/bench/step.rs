//! Training steps of a student on random pixels, timed part by part. The teacher's rows, for a loss that asks for them,
//! are gathered from a cache as in training; it is made of random logits beforehand and removed afterwards.
//! `benches/peers/step_torch.py` does the same work in PyTorch, `benches/peers/step.py` runs both in turns.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use logitcask_cache::{
    CacheKey, ChunkRows, Encoding, LogitCache, LogitWriter, Manifest, OpenOptions,
};
use logitcask_experiment::{Failure, Outcome, open_device};
use logitcask_layers::{Instructions, Mode, instructions, limit_instructions};
use logitcask_losses::{LossSpec, Objective, Setup, TeacherNeed, bank};
use logitcask_philox::{Purpose, Stream};
use logitcask_student::{
    Decay, Gradients, ImageShape, Network, Optimizer, OptimizerSpec, TrainBatch,
};
use serde_json::json;

use super::measures::{cpu_seconds, median, peak_rss_bytes};
use crate::args::{BenchStep, InstructionSet};
use crate::progress::bytes;

/// Of every random draw here.
const SEED: u64 = 1;
/// Of the made-up cache: enough that a batch's rows are seldom neighbours.
const N_SAMPLES: u32 = 4096;

pub(crate) fn run(args: &BenchStep) -> Outcome {
    if let Some(set) = args.instructions {
        limit(set)?;
    }
    // This thread computes too: a parallel loop then starts at once, without waking another thread first.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0));
    let made = pool.use_current_thread().build_global();
    made.map_err(|error| Failure::work(format!("cannot start the compute threads: {error}")))?;

    let start_rss = peak_rss_bytes();
    let mut bench = Bench::new(args)?;
    for _ in 0..args.warmup {
        bench.step()?;
    }
    let before = cpu_seconds();
    let steps = match args.paced {
        true => bench.paced(args.steps)?,
        false => (0..args.steps)
            .map(|_| bench.step())
            .collect::<Outcome<Vec<Split>>>()?,
    };
    let processor_s = cpu_seconds()
        .zip(before)
        .map(|(after, before)| (after - before) / args.steps as f64);
    print(args, &bench, &steps, processor_s, start_rss);
    Ok(())
}

/// Refuses what the processor lacks: a figure for AVX2 must not be one for something less.
fn limit(set: InstructionSet) -> Outcome {
    let wanted = match set {
        InstructionSet::Avx512 => Instructions::Avx512,
        InstructionSet::Avx2 => Instructions::Avx2,
        InstructionSet::Portable => Instructions::Portable,
    };
    let used = limit_instructions(wanted);
    if used != wanted {
        return Err(Failure::work(format!(
            "this processor has no {wanted:?}; the best below it is {used:?}"
        )));
    }
    Ok(())
}

struct Bench {
    network: Network,
    objective: Objective,
    optimizer: Optimizer,
    pixels: Tensor,
    labels: Tensor,
    host_labels: Vec<u32>,
    cache: Option<(LogitCache, tempfile::TempDir)>,
    order: Stream,
    steps_done: u64,
}

/// Seconds of a step, and of its parts in order.
#[derive(Clone, Copy, Default)]
struct Split {
    gather: f64,
    forward: f64,
    loss: f64,
    backward: f64,
    update: f64,
}

impl Split {
    fn total(&self) -> f64 {
        self.gather + self.forward + self.loss + self.backward + self.update
    }
}

impl Bench {
    fn new(args: &BenchStep) -> Outcome<Self> {
        let row = logitcask_student::find_model(&args.student, &[])?;
        let n_classes = args.classes.unwrap_or(row.n_classes);
        let size = args.image_size.unwrap_or(row.image_size);
        let image = ImageShape {
            channels: 3,
            height: size,
            width: size,
        };
        let device = open_device(&args.device, args.tf32)?;
        let setup = Setup {
            n_classes,
            epochs: 1,
            dtype: DType::F32,
            device: &Device::Cpu, // where losses are computed
        };
        let losses = args.losses.iter().map(|text| loss_spec(text));
        let objective = Objective::new(&losses.collect::<Outcome<Vec<_>>>()?, &setup)?;
        let network = Network::build(row.name, image, n_classes, SEED, &device)?;
        let mut parameters = network.params().parameters();
        parameters.extend(objective.parameters());
        // The recipe of the papers.
        let optimizer = OptimizerSpec::Sgd {
            lr: 0.05,
            momentum: 0.9,
            weight_decay: 5e-4,
            nesterov: false,
            decay: Decay::All,
        };
        let mut stream = Stream::new(SEED, Purpose::Bench, [0; 3]);
        let shape = (args.batch_size, size, size, 3);
        // As widely spread as normalised pixels are.
        let pixels: Vec<f32> = (0..args.batch_size * size * size * 3)
            .map(|_| (stream.uniform() * 3.4 - 1.7) as f32)
            .collect();
        let host_labels: Vec<u32> = (0..args.batch_size)
            .map(|i| (i % n_classes) as u32)
            .collect();
        let cache = match objective.needs().teacher {
            TeacherNeed::Nothing => None,
            _ => Some(random_cache(n_classes)?),
        };
        Ok(Self {
            network,
            objective,
            optimizer: Optimizer::new(parameters, &optimizer),
            pixels: Tensor::from_vec(pixels, shape, &device)?,
            labels: Tensor::from_slice(&host_labels, host_labels.len(), &Device::Cpu)?,
            host_labels,
            cache,
            order: Stream::new(SEED, Purpose::Bench, [1, 0, 0]),
            steps_done: 0,
        })
    }

    /// A step for each line on stdin, answered with its seconds, until there are `n` or the lines end.
    fn paced(&mut self, n: usize) -> Outcome<Vec<Split>> {
        let mut steps = Vec::new();
        println!("ready");
        for line in std::io::stdin().lines().take(n) {
            line.map_err(Failure::work)?;
            let step = self.step()?;
            println!("{}", step.total());
            steps.push(step);
        }
        if steps.is_empty() {
            return Err(Failure::asked("no line arrived on stdin").with_hint("leave out `--paced`"));
        }
        Ok(steps)
    }

    /// What the training loop does with a batch whose pixels are ready.
    fn step(&mut self) -> Outcome<Split> {
        let mut split = Split::default();
        let mut last = Instant::now();
        let mut lap = |seconds: &mut f64| {
            *seconds = last.elapsed().as_secs_f64();
            last = Instant::now();
        };
        let batch = self.batch()?;
        lap(&mut split.gather);

        let logits = self.network.forward(&batch.pixels, Mode::Train)?;
        let strong_logits = match &batch.strong {
            Some((pixels, _)) => Some(self.network.forward(pixels, Mode::Train)?),
            None => None,
        };
        lap(&mut split.forward);

        let seen = batch.losses_see(&logits, strong_logits.as_ref());
        let value = self.objective.forward(&seen, 1)?;
        let loss: f32 = value.total.to_scalar()?;
        if !loss.is_finite() {
            return Err(Failure::work(format!(
                "the loss is {loss} after {} steps on random data",
                self.steps_done
            )));
        }
        lap(&mut split.loss);

        let parameters = self.network.params().parameters();
        let mut gradients = Gradients::default();
        gradients.add(value.total.backward()?, &parameters)?;
        lap(&mut split.backward);

        if let Some(gradients) = gradients.take(&parameters, None)? {
            self.optimizer.step(&gradients, 0.05)?;
        }
        // A GPU is told what to do and does it later.
        self.pixels.device().synchronize()?;
        self.steps_done += 1;
        lap(&mut split.update);
        Ok(split)
    }

    fn batch(&mut self) -> Outcome<TrainBatch> {
        let mut batch = TrainBatch {
            sample_weights: None,
            pixels: self.pixels.clone(),
            labels: self.labels.clone(),
            teacher_logits: None,
            top_k: None,
            mixed: None,
            strong: None,
            bank: None,
            host_labels: self.host_labels.clone(),
        };
        let Some((cache, _)) = &self.cache else {
            return Ok(batch);
        };
        let own: Vec<u32> = (0..self.host_labels.len())
            .map(|_| self.order.below(u64::from(N_SAMPLES)) as u32)
            .collect();
        let pairs: Vec<(u32, u32)> = own.iter().map(|&sample| (sample, 0)).collect();
        let (teacher_logits, _) = gather(cache, &pairs)?;
        let needs = self.objective.needs();
        if needs.strong_view {
            batch.strong = Some((self.pixels.clone(), teacher_logits.clone()));
        }
        batch.teacher_logits = Some(teacher_logits);
        if needs.bank > 0 {
            let samples: Vec<u32> = (0..N_SAMPLES).collect();
            let pairs = bank::draw(SEED, self.steps_done, needs.bank, &samples, 1, &own)?;
            batch.bank = Some(gather(cache, &pairs)?);
        }
        Ok(batch)
    }
}

/// The teacher's rows (n, C) and their labels (n).
fn gather(cache: &LogitCache, pairs: &[(u32, u32)]) -> Outcome<(Tensor, Tensor)> {
    let n_classes = cache.n_classes();
    let mut logits = vec![0.0; pairs.len() * n_classes];
    let mut labels = vec![0; pairs.len()];
    cache.rows(pairs, &mut logits, &mut labels)?;
    Ok((
        Tensor::from_vec(logits, (pairs.len(), n_classes), &Device::Cpu)?,
        Tensor::from_vec(labels, pairs.len(), &Device::Cpu)?,
    ))
}

/// `ce`, or an entry of `[[loss]]` on one line.
fn loss_spec(text: &str) -> Outcome<LossSpec> {
    #[derive(serde::Deserialize)]
    struct Entry {
        loss: LossSpec,
    }
    if !text.trim_start().starts_with('{') {
        return Ok(LossSpec {
            name: text.to_owned(),
            options: serde_json::Map::new(),
        });
    }
    let entry: Entry = toml::from_str(&format!("loss = {text}")).map_err(|error| {
        Failure::asked(error).with_hint("write an entry as `{ name = \"kd\", temperature = 2 }`")
    })?;
    Ok(entry.loss)
}

/// A cache of random logits, in a folder that goes with the guard.
fn random_cache(n_classes: usize) -> Outcome<(LogitCache, tempfile::TempDir)> {
    let folder = tempfile::TempDir::with_prefix("logitcask-bench-").map_err(Failure::work)?;
    let encoding = Encoding::parse("f16")?;
    let key = CacheKey {
        teacher: "random".to_owned(),
        ..CacheKey::default()
    };
    let manifest = Manifest::new("random", key, encoding, N_SAMPLES, n_classes);
    let writer = LogitWriter::open(folder.path(), &manifest)?;
    let mut stream = Stream::new(SEED, Purpose::Bench, [2, 0, 0]);
    for chunk in writer.missing_chunks(0)? {
        let samples = writer.chunk_range(chunk)?;
        let labels: Vec<u32> = samples.clone().map(|i| i % n_classes as u32).collect();
        let logits: Vec<f32> = (0..labels.len() * n_classes)
            .map(|_| (stream.uniform() * 20.0 - 10.0) as f32)
            .collect();
        let rows = ChunkRows {
            labels: &labels,
            logits: &logits,
            ..ChunkRows::default()
        };
        writer.write_chunk(0, chunk, &rows)?;
    }
    writer.finish_view(0)?;
    let cache = LogitCache::open(writer.path(), OpenOptions::default())?;
    Ok((cache, folder))
}

fn print(
    args: &BenchStep,
    bench: &Bench,
    steps: &[Split],
    processor_s: Option<f64>,
    start_rss: Option<u64>,
) {
    let of = |part: fn(&Split) -> f64| steps.iter().map(part).collect::<Vec<f64>>();
    let totals = of(Split::total);
    let min_s = totals.iter().copied().fold(f64::INFINITY, f64::min);
    let parts = [
        ("gather", median(&of(|split| split.gather))),
        ("forward", median(&of(|split| split.forward))),
        ("loss", median(&of(|split| split.loss))),
        ("backward", median(&of(|split| split.backward))),
        ("step", median(&of(|split| split.update))),
    ];
    let shape = bench.network.shape();
    if args.json {
        let mut line = json!({
            "student": bench.network.name(),
            "n_parameters": bench.network.n_parameters(),
            "batch_size": args.batch_size,
            "classes": shape.n_classes,
            "image_size": shape.image.height,
            "loss": args.losses,
            "threads": rayon::current_num_threads(),
            "device": args.device,
            "tf32": args.tf32,
            "instructions": format!("{:?}", instructions()).to_lowercase(),
            "steps": args.steps,
            "median_s": median(&totals),
            "min_s": min_s,
            "processor_s": processor_s,
            "start_rss_bytes": start_rss,
            "peak_rss_bytes": peak_rss_bytes(),
        });
        for (name, seconds) in parts {
            line[format!("{name}_s")] = json!(seconds);
        }
        println!("{line}");
        return;
    }
    println!(
        "{}, {} images of {size}x{size}, {} classes, loss {}, {} threads, {:?}",
        bench.network.name(),
        args.batch_size,
        shape.n_classes,
        args.losses.join(" + "),
        rayon::current_num_threads(),
        instructions(),
        size = shape.image.height,
    );
    println!(
        "a step takes {:.2} ms, at best {:.2} ms (median of {} steps)",
        1e3 * median(&totals),
        1e3 * min_s,
        args.steps
    );
    for (name, seconds) in parts {
        println!(
            "  {name:8} {:9.2} ms {:5.1} %",
            1e3 * seconds,
            100.0 * seconds / median(&totals)
        );
    }
    if let Some(peak) = peak_rss_bytes() {
        println!("memory at most {}", bytes(peak));
    }
}
