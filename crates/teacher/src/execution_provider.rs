//! What can run a teacher, by name. Errors tell the names, so that what they are read from, and what is set up by them, stands
//! above this file: in `provider`.

use serde::{Deserialize, Serialize};

/// What runs the teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionProvider {
    /// The CPU, one single-threaded session per worker.
    #[default]
    Cpu,
    /// NVIDIA GPUs through CUDA and cuDNN.
    Cuda,
    /// NVIDIA GPUs through TensorRT, with its engines kept on disk.
    TensorRt,
}

impl ExecutionProvider {
    /// Every provider, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::TensorRt];

    /// The name that is typed: `cpu`, `cuda`, `tensorrt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// The name under which ONNX Runtime logs it.
    pub(crate) fn runtime_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
        }
    }
}

impl std::fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
