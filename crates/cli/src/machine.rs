//! The teacher's machine: from flags to values, and in words.

use std::path::Path;

use logitcask_experiment::{Machine, Outcome};
use logitcask_teacher::{ExecutionProvider, Teacher};

use crate::args::TeacherMachine;
use crate::progress::say;
use crate::runtime::library_path;

impl TeacherMachine {
    /// What the flags and the environment say. TensorRT keeps the engines that it builds below the caches.
    pub(crate) fn machine(&self, cache_dir: &Path) -> Outcome<Machine> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let library = library_path();
        if let Some(path) = &library {
            say(format!(
                "ONNX Runtime is `{}`, named by ORT_DYLIB_PATH: its digest is nobody's to check",
                path.display()
            ));
        }
        Ok(Machine {
            provider: self.provider.parse::<ExecutionProvider>()?,
            gpus: self.gpus.clone(),
            threads: self.threads.unwrap_or(cores),
            library,
            engines: cache_dir.join(".tensorrt"),
        })
    }
}

/// What runs the teacher, in a line: `teacher `r56` on cuda:0 tf32=off, 1 session ..., 3 of 61 nodes left to the CPU`.
pub(crate) fn describe(teacher: &Teacher) -> String {
    let device = teacher.device();
    let gpus = if device.gpus.is_empty() {
        &[0][..]
    } else {
        &device.gpus
    };
    let places: Vec<String> = gpus.iter().map(|gpu| device.describe(*gpu)).collect();
    let (sessions, threads_each) = teacher.sessions();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let threads = match device.provider {
        ExecutionProvider::Cpu => format!(" of {threads_each} thread{}", plural(threads_each)),
        _ => String::new(),
    };
    let placement = teacher.placement();
    let left = match device.provider {
        ExecutionProvider::Cpu => String::new(),
        _ => format!(
            "; {placement}; {} nodes left to the CPU",
            placement.on_cpu()
        ),
    };
    format!(
        "teacher `{}` on {}, {sessions} session{}{threads}, ONNX Runtime {}{left}",
        teacher.spec().title(),
        places.join(", "),
        plural(sessions),
        teacher.runtime().version()
    )
}
