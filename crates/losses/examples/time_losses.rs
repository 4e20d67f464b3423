//! Times losses on request, so that another program can take turns with it (`benches/peers/losses_torch.py` does).
//!
//! Each line of input is `{"entry": {"name": "kd"}, "batch": 64, "classes": 100, "seconds": 0.2}`; the answer is the
//! processor time of the fastest forward and backward in microseconds, over all threads: on a shared machine a wall clock
//! measures the neighbours.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};
use logitcask_losses::{BankRows, LogitBatch, Objective, Setup};
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        writeln!(out, "{:.2}", fastest_us(&request)?)?;
        out.flush()?;
    }
    Ok(())
}

fn fastest_us(request: &Value) -> Result<f64, Box<dyn std::error::Error>> {
    let device = Device::Cpu;
    let size = |key: &str| request[key].as_u64().unwrap_or(1) as usize;
    let (n_rows, n_classes) = (size("batch"), size("classes"));
    let bank = request["entry"]["bank"].as_u64().unwrap_or(0).max(1) as usize;
    let logits = |rows: usize| Tensor::randn(0f32, 3.0, (rows, n_classes), &device);
    let labels =
        |rows: usize| Tensor::rand(0f32, n_classes as f32, rows, &device)?.to_dtype(DType::U32);
    let setup = Setup {
        n_classes,
        epochs: 240,
        dtype: DType::F32,
        device: &device,
    };
    let objective = Objective::new(&[serde_json::from_value(request["entry"].clone())?], &setup)?;
    let student = Var::from_tensor(&logits(n_rows)?)?;
    let (teacher, bank_rows) = (logits(n_rows)?, logits(bank)?);
    let (labels, bank_labels) = (labels(n_rows)?, labels(bank)?);
    let mut batch = LogitBatch::new(&student, Some(&teacher), &labels);
    batch.bank = Some(BankRows {
        teacher_logits: &bank_rows,
        labels: &bank_labels,
    });

    let budget = Duration::from_secs_f64(request["seconds"].as_f64().unwrap_or(0.2));
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < budget || times.len() < 4 {
        let before = processor_us();
        let value = objective.forward(&batch, 240)?;
        value.total.backward()?;
        times.push(processor_us() - before);
    }
    Ok(times.into_iter().fold(f64::INFINITY, f64::min))
}

/// Processor time of this process so far.
fn processor_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
