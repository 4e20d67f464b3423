//! A whole capture (decode, views, sessions, encoding, checksums, files) beside this program's own bare sessions on ready
//! tensors, in turns: `cargo run --release -p logitcask-teacher --example capture -- MODEL CIFAR10_ROOT [ROUNDS] [VIEWS]`.
//!
//! Prints one JSON object. `benches/peers/capture.py` runs it in turns with Python's onnxruntime and PyTorch.

#![allow(clippy::print_stdout, reason = "its output is data")]

use std::sync::atomic::AtomicBool;

use logitcask_cache::{Encoding, LogitWriter, Manifest};
use logitcask_dataset::{AugmentSpec, DataSpec, Dataset, Preprocess, Role, ViewFamily};
use logitcask_teacher::*;

/// Processor time of this process so far. On a machine that others use too, images per second of it tell more than
/// images per second of the clock. Zero where there is no /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, root, rest @ ..] = &args[..] else {
        return Err("usage: capture MODEL CIFAR10_ROOT [ROUNDS] [VIEWS]".into());
    };
    let number = |index: usize, default: u32| {
        rest.get(index)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (rounds, n_views) = (number(0, 3), number(1, 8));

    // A thousand images, many views of each: a long capture from a small split.
    let mut data = DataSpec::new("cifar10", root);
    data.eval = Some("test".into());
    let dataset = Dataset::open(&data, Role::Eval)?;
    let augment = [
        AugmentSpec::new("random_crop")
            .with("size", 32)
            .with("padding", 4),
        AugmentSpec::new("horizontal_flip"),
    ];
    let family = ViewFamily::new(&augment, 1, dataset.uniform_size())?;
    let spec: TeacherSpec = serde_json::from_value(serde_json::json!({
        "onnx": model, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }))?;
    let preprocess = Preprocess::new(&spec.preprocess)?;
    let pixels = Pixels {
        dataset: &dataset,
        family: &family,
        preprocess: &preprocess,
    };
    let cores = std::thread::available_parallelism()?.get();
    let runtime = Runtime::load(None, ExecutionProvider::Cpu)?;
    let mut teacher = Teacher::load(&runtime, &spec, &Device::cpu(), cores)?;
    let images = prepare(&mut teacher, pixels)?;
    let batch_size = find_batch_size(&mut teacher, images)?;
    let views: Vec<u32> = (0..n_views).collect();
    let job = Job {
        pixels,
        views: &views,
        part: Part::WHOLE,
        batch_size: batch_size.rows,
        decoders: cores,
        images,
    };

    let (mut bare, mut whole, mut shares) = (Vec::new(), Vec::new(), Shares::default());
    let (mut bare_cpu, mut whole_cpu) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = cpu_seconds();
        let (rate, n_images) = bare_rate(&mut teacher, images, batch_size.rows, 5.0)?;
        bare.push(rate);
        bare_cpu.push(n_images as f64 / (cpu_seconds() - before));
        let folder = tempfile::tempdir()?;
        let key = cache_key(
            &spec,
            teacher.file(),
            &dataset.fingerprint(&|_, _| {})?,
            &family,
        )?;
        let mut manifest = Manifest::new(
            &spec.title(),
            key,
            Encoding::F16,
            dataset.len() as u32,
            dataset.n_classes(),
        );
        manifest.chunk_rows = 1024;
        let writer = LogitWriter::open(folder.path(), &manifest)?;
        let before = cpu_seconds();
        let report = capture(
            &mut teacher,
            &job,
            &writer,
            &AtomicBool::new(false),
            &|_| {},
        )?;
        whole.push(report.images_per_s());
        whole_cpu.push(report.images as f64 / (cpu_seconds() - before));
        shares = report.shares;
    }
    let json = serde_json::json!({
        "model": spec.title(),
        "batch_size": batch_size.rows,
        "tried": batch_size.tried,
        "sessions": teacher.sessions(),
        "bare_images_per_s": bare,
        "capture_images_per_s": whole,
        "bare_images_per_cpu_s": bare_cpu,
        "capture_images_per_cpu_s": whole_cpu,
        "shares": { "model": shares.model, "decode": shares.decode, "disk": shares.disk },
    });
    println!("{json}");
    Ok(())
}
