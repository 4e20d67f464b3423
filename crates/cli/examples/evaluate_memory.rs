//! Bytes that an evaluation adds to an idle process, at its peak, on made-up images.
//!
//! `cargo run --release -p logitcask-cli --example evaluate_memory -- resnet110 256 1`: student, images, threads. The peer is
//! `benches/peers/evaluate_memory.py`, the table `docs/bench-evaluate.md`.
#![expect(
    clippy::print_stdout,
    reason = "an example talks to the one who runs it"
)]

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use logitcask_dataset::{DataSpec, Dataset, Preprocess, PreprocessSpec, Role, ViewFamily};
use logitcask_student::{Evaluation, ImageShape, Network, evaluate, find_model};

/// The command's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or(default.into());
    let (student, n_images) = (argument(0, "resnet20"), argument(1, "256").parse()?);
    let threads: usize = argument(2, "1").parse()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.use_current_thread().build_global()?;

    let row = find_model(&student, &[])?;
    let size = row.image_size;
    let mut spec = DataSpec::new("synthetic", "");
    let synthetic = spec.synthetic.get_or_insert_default();
    (synthetic.height, synthetic.width, synthetic.n_eval) = (size, size, n_images);
    spec.n_classes = Some(row.n_classes);
    spec.eval = Some("test".into());
    let dataset = Arc::new(Dataset::open(&spec, Role::Eval)?);
    let evaluation = Evaluation {
        family: Arc::new(ViewFamily::new(&[], 1, None)?),
        dataset,
        teacher: None,
    };
    let preprocess = Preprocess::new(&PreprocessSpec::default())?;
    let image = ImageShape {
        channels: 3,
        height: size,
        width: size,
    };
    let network = Network::build(&student, image, row.n_classes, 1, &Device::Cpu)?;

    fs::write("/proc/self/clear_refs", "5")?; // the peak counts from here
    let (idle, start) = (status_kib("VmRSS:")?, Instant::now());
    let metrics = evaluate(&network, &evaluation, &preprocess, threads, &Device::Cpu)?;
    let seconds = start.elapsed().as_secs_f64();
    let added = status_kib("VmHWM:")?.saturating_sub(idle) as f64 / 1024.0;
    println!(
        "{student}: {} images, {} at once, {threads} threads: {added:.0} MiB above {:.0}, {seconds:.2} s",
        metrics.n_samples,
        network.images_at_once()?,
        idle as f64 / 1024.0
    );
    Ok(())
}

fn status_kib(key: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(value.ok_or("procfs does not say")?.parse()?)
}
