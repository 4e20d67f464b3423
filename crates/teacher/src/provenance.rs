//! What is written down beside a cache but never keyed: which library on which machine made it.

use std::collections::BTreeMap;

use crate::execution_provider::ExecutionProvider;
use crate::provider::Device;
use crate::teacher::Teacher;

/// Name and value of everything that could explain a difference in the last digits.
pub fn provenance(teacher: &Teacher, batch_size: usize) -> BTreeMap<String, String> {
    let device = teacher.device();
    let (sessions, threads_each) = teacher.sessions();
    let mut record = BTreeMap::new();
    let mut put = |name: &str, value: String| record.insert(name.to_owned(), value);
    put("onnxruntime", teacher.runtime().version().to_owned());
    put(
        "onnxruntime_build",
        teacher.runtime().build_info().to_owned(),
    );
    put("provider", device.provider.to_string());
    put("batch_size", batch_size.to_string());
    put("sessions", format!("{sessions} of {threads_each} threads"));
    put(
        "teacher_file",
        teacher
            .spec()
            .onnx
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    put("opset", teacher.file().opset.to_string());
    put("cpu", cpu_model());
    put("cpu_features", cpu_features().join(" "));
    if device.provider != ExecutionProvider::Cpu {
        put("device", gpus_of(device));
        put("gpu", gpu_models().join(", "));
        put("placement", teacher.placement().to_string());
    }
    record
}

/// The settings on each of the device's GPUs, as they are recorded; on the first one where none is named.
fn gpus_of(device: &Device) -> String {
    let gpus = if device.gpus.is_empty() {
        &[0][..]
    } else {
        &device.gpus
    };
    let described: Vec<String> = gpus.iter().map(|gpu| device.describe(*gpu)).collect();
    described.join(", ")
}

/// The extensions that ONNX Runtime's kernels choose by: the same seed gives the same bytes on one level of them.
pub fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look {
            ($($name:tt),*) => { $(if std::arch::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        look!(
            "sse4.1",
            "avx",
            "f16c",
            "fma",
            "avx2",
            "avx512f",
            "avx512bw",
            "avx512vnni",
            "avx512bf16"
        );
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! look {
            ($($name:tt),*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        look!("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2");
    }
    found
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The names of NVIDIA's GPUs as their driver tells them; empty without a driver.
pub fn gpu_models() -> Vec<String> {
    let folders = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<_> = folders
        .map(|folder| folder.path().join("information"))
        .collect();
    paths.sort();
    let model = |path| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with("Model:"))?;
        Some(line.trim_start_matches("Model:").trim().to_owned())
    };
    paths.iter().filter_map(model).collect()
}
