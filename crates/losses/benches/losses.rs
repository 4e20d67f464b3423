//! Forward and backward of every loss, by way of the objective, as a training step runs them.
//!
//! `cargo bench -p logitcask-losses`; `-- kd` for one loss. `benches/README-losses.md` holds a table, next to PyTorch.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use candle_core::{DType, Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use logitcask_losses::{BankRows, LogitBatch, Objective, Setup, StrongView, methods};
use logitcask_philox::{Purpose, Stream};
use serde_json::{Value, json};

const SIZES: [(usize, usize); 3] = [(64, 100), (256, 1000), (512, 1000)];

fn every_loss(criterion: &mut Criterion) {
    for (n_rows, n_classes) in SIZES {
        let mut group = criterion.benchmark_group(format!("{n_rows}x{n_classes}"));
        group
            .sample_size(10)
            .measurement_time(std::time::Duration::from_secs(1));
        for row in methods() {
            let step = step(json!({ "name": row.name }), n_rows, n_classes);
            group.bench_function(row.name, |bencher| bencher.iter(&step));
        }
    }
}

fn bank_sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mcld bank at 64x100");
    group
        .sample_size(10)
        .measurement_time(std::time::Duration::from_secs(1));
    for bank in [0, 256, 1024, 4096] {
        let step = step(json!({ "name": "mcld", "bank": bank }), 64, 100);
        group.bench_function(BenchmarkId::from_parameter(bank), |bencher| {
            bencher.iter(&step)
        });
    }
}

/// One forward and backward of one recipe entry on random logits.
fn step(entry: Value, n_rows: usize, n_classes: usize) -> impl Fn() {
    let device = Device::Cpu;
    let logits = |rows: usize, stream: u64| {
        let mut draws = Stream::new(1, Purpose::Bench, [rows as u64, stream, 0]);
        let data: Vec<f32> = (0..rows * n_classes)
            .map(|_| 10.0 * draws.uniform() as f32 - 5.0)
            .collect();
        Tensor::from_vec(data, (rows, n_classes), &device).unwrap()
    };
    let labels = |rows: usize| {
        let mut draws = Stream::new(2, Purpose::Bench, [rows as u64, 0, 0]);
        let data: Vec<u32> = (0..rows)
            .map(|_| draws.below(n_classes as u64) as u32)
            .collect();
        Tensor::new(data, &device).unwrap()
    };
    let bank = entry["bank"].as_u64().unwrap_or(0).max(1) as usize;
    let setup = Setup {
        n_classes,
        epochs: 240,
        dtype: DType::F32,
        device: &device,
    };
    let objective = Objective::new(&[serde_json::from_value(entry).unwrap()], &setup).unwrap();
    let student = Var::from_tensor(&logits(n_rows, 0)).unwrap();
    let (teacher, bank_rows, bank_labels) = (logits(n_rows, 1), logits(bank, 2), labels(bank));
    let labels = labels(n_rows);
    move || {
        let mut batch = LogitBatch::new(&student, Some(&teacher), &labels);
        batch.strong = Some(StrongView {
            student_logits: &student,
            teacher_logits: &teacher,
        });
        batch.bank = Some(BankRows {
            teacher_logits: &bank_rows,
            labels: &bank_labels,
        });
        let value = objective.forward(&batch, 240).unwrap();
        let gradients = value.total.backward().unwrap();
        assert!(gradients.get(&student).is_some());
    }
}

criterion_group!(benches, every_loss, bank_sizes);
criterion_main!(benches);
