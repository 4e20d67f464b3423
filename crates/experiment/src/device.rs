//! Where students compute: from `--device` to a Candle device.

use candle_core::Device;

use crate::failure::{Failure, Outcome};

/// The device that `cpu`, `cuda` or `cuda:1` names. `tf32` lets CUDA round the inputs of convolutions.
pub fn open_device(name: &str, tf32: bool) -> Outcome<Device> {
    let (kind, ordinal) = match name.split_once(':') {
        None => (name, Some(0)),
        Some((kind, ordinal)) => (kind, ordinal.parse().ok()),
    };
    match (kind, ordinal) {
        ("cpu", Some(0)) if tf32 => {
            Err(Failure::asked("`--tf32` says nothing to the `cpu` device")
                .with_hint("add `--device cuda`"))
        }
        ("cpu", Some(0)) => Ok(Device::Cpu),
        ("cuda", Some(ordinal)) => cuda(ordinal, tf32),
        _ => Err(Failure::asked(format!("there is no device `{name}`"))
            .with_hint("`cpu`, `cuda`, or `cuda:1` for the second GPU")),
    }
}

/// What a run records: `cpu avx512`, `cuda tf32=off`.
pub fn describe_device(device: &Device, tf32: bool) -> String {
    match device {
        Device::Cpu => format!("cpu {:?}", logitcask_layers::instructions()).to_lowercase(),
        _ => format!("cuda tf32={}", if tf32 { "on" } else { "off" }),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize, _: bool) -> Outcome<Device> {
    Err(
        Failure::asked("this build of logitcask has no CUDA for students").with_hint(
            "where an NVIDIA GPU, the CUDA toolkit and cuDNN are: `make build DEVICE=cuda` (docs/cuda.md); \
             elsewhere: `--device cpu`",
        ),
    )
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize, tf32: bool) -> Outcome<Device> {
    logitcask_layers::allow_tf32(tf32);
    Device::new_cuda(ordinal).map_err(|error| {
        let error = error.to_string();
        Failure::work(format!("cuda device {ordinal} cannot be used: {error}"))
            .with_hint(missing(&error))
    })
}

/// The driver's error codes that a user can do something about.
#[cfg(feature = "cuda")]
fn missing(error: &str) -> &'static str {
    if error.contains("NO_DEVICE") {
        "the driver sees no NVIDIA GPU: `nvidia-smi` should list one, and CUDA_VISIBLE_DEVICES should not hide it; \
         `--device cpu` runs without"
    } else if error.contains("INVALID_DEVICE") {
        "`nvidia-smi -L` lists the GPUs that there are; they are counted from 0"
    } else if error.contains("INSUFFICIENT_DRIVER") || error.contains("DRIVER_MISMATCH") {
        "the NVIDIA driver is older than the CUDA that this build was made with: install a newer driver, or build with an \
         older toolkit"
    } else if error.contains("OUT_OF_MEMORY") {
        "other programs hold the GPU's memory: `nvidia-smi` lists them"
    } else {
        "docs/cuda.md tells what a CUDA build needs; `--device cpu` runs without"
    }
}
