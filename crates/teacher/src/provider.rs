//! Where the teacher runs: the CPU, CUDA or TensorRT.
//!
//! All three are always compiled in, because nothing is linked: whether one can run depends on the library that was
//! loaded. ONNX Runtime's bindings fall back to the CPU in silence unless told otherwise; here a provider that cannot
//! be had is an error, and nodes that fall back are counted.

use std::path::PathBuf;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProviderDispatch};

use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;
use crate::spec::Precision;

// Here and not beside the type: what is no provider is refused by the crate's error, which itself tells providers by name.
impl std::str::FromStr for ExecutionProvider {
    type Err = TeacherError;

    fn from_str(text: &str) -> Result<Self, TeacherError> {
        let found = Self::ALL
            .into_iter()
            .find(|provider| provider.name() == text);
        found.ok_or_else(|| TeacherError::UnknownProvider {
            name: text.to_owned(),
        })
    }
}

/// A provider and how it is set up: this describes the machine, never the experiment, and is not part of any key.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// What runs the teacher.
    pub provider: ExecutionProvider,
    /// Which GPUs, by index; one session each. Empty means the first. Without meaning on the CPU.
    pub gpus: Vec<u32>,
    /// Let CUDA round the inputs of f32 products to TensorFloat-32. It goes by the teacher's precision, which is keyed: on for
    /// `precision = "tf32"` alone, so that "f32" means what it says.
    pub tf32: bool,
    /// Where TensorRT keeps its engines between runs; `None` builds them anew each time.
    pub engine_cache: Option<PathBuf>,
}

impl Device {
    /// The CPU, everything else as it is by default.
    pub fn cpu() -> Device {
        Device::default()
    }

    /// The settings as they are recorded beside a cache, such as `cuda:0 tf32=off`.
    pub fn describe(&self, gpu: u32) -> String {
        let tf32 = if self.tf32 { "on" } else { "off" };
        match self.provider {
            ExecutionProvider::Cpu => "cpu".to_owned(),
            provider => format!("{provider}:{gpu} tf32={tf32}"),
        }
    }

    /// What to register with a session, in order of preference. Empty for the CPU, which is always there.
    pub(crate) fn dispatch(
        &self,
        gpu: u32,
        precision: Precision,
    ) -> Vec<ExecutionProviderDispatch> {
        let gpu = i32::try_from(gpu).unwrap_or(i32::MAX);
        let cuda = ep::CUDA::default()
            .with_device_id(gpu)
            .with_tf32(self.tf32)
            // The exhaustive search that is the default times every algorithm at each new shape; a teacher is asked for
            // one or two shapes only, and the heuristic's answer is within a few percent of the best.
            .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
            .build()
            .error_on_failure();
        match self.provider {
            ExecutionProvider::Cpu => Vec::new(),
            ExecutionProvider::Cuda => vec![cuda],
            ExecutionProvider::TensorRt => {
                let mut tensorrt = ep::TensorRT::default()
                    .with_device_id(gpu)
                    .with_fp16(precision == Precision::F16);
                if let Some(folder) = &self.engine_cache {
                    let folder = folder.display().to_string();
                    tensorrt = tensorrt
                        .with_engine_cache(true)
                        .with_engine_cache_path(&folder);
                    tensorrt = tensorrt
                        .with_timing_cache(true)
                        .with_arbitrary_config("trt_timing_cache_path", folder);
                }
                // TensorRT leaves what it cannot run to CUDA, as its documentation asks.
                vec![tensorrt.build().error_on_failure(), cuda]
            }
        }
    }
}

/// How many nodes of the teacher's graph run on which provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// (ONNX Runtime's provider name, nodes), in the order in which it reported them.
    pub nodes: Vec<(String, usize)>,
}

impl Placement {
    /// Nodes that were left to the CPU.
    pub fn on_cpu(&self) -> usize {
        self.count(ExecutionProvider::Cpu)
    }

    /// Nodes that `provider` runs.
    pub fn count(&self, provider: ExecutionProvider) -> usize {
        self.nodes
            .iter()
            .filter(|(name, _)| name == provider.runtime_name())
            .map(|(_, nodes)| nodes)
            .sum()
    }

    /// Reads one line of ONNX Runtime's verbose log; lines about anything else are ignored.
    ///
    /// `All nodes placed on [CPUExecutionProvider]. Number of nodes: 31`
    pub(crate) fn read_log_line(&mut self, line: &str) {
        let Some((_, rest)) = line
            .split_once("odes placed on [")
            .or_else(|| line.split_once("ode(s) placed on ["))
        else {
            return;
        };
        let Some((provider, rest)) = rest.split_once(']') else {
            return;
        };
        let Some((_, count)) = rest.split_once("Number of nodes:") else {
            return;
        };
        let digits: String = count
            .trim()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        if let Ok(nodes) = digits.parse() {
            self.nodes.push((provider.to_owned(), nodes));
        }
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self
            .nodes
            .iter()
            .map(|(name, nodes)| format!("{nodes} nodes on {name}"))
            .collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_is_read_from_the_log() {
        let mut placement = Placement::default();
        for line in [
            "Node placements",
            " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 58",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3 ",
        ] {
            placement.read_log_line(line);
        }
        assert_eq!(
            (placement.count(ExecutionProvider::Cuda), placement.on_cpu()),
            (58, 3)
        );
        let mut all = Placement::default();
        all.read_log_line("All nodes placed on [CPUExecutionProvider]. Number of nodes: 31");
        assert_eq!(all.on_cpu(), 31);
    }

    #[test]
    fn names_are_read_back() {
        for provider in ExecutionProvider::ALL {
            assert_eq!(
                provider.name().parse::<ExecutionProvider>().unwrap(),
                provider
            );
        }
        assert!("gpu".parse::<ExecutionProvider>().is_err());
    }
}
