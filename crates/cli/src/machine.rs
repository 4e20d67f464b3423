//! The teacher's machine: from flags to loaded sessions.

use std::path::Path;

use logitcask_teacher::{Device, ExecutionProvider, Precision, Runtime, Teacher, TeacherSpec};

use crate::args::TeacherMachine;
use crate::exit::{Failure, Outcome};
use crate::progress::say;
use crate::runtime::library_path;

impl TeacherMachine {
    /// The provider that is asked for.
    pub(crate) fn provider(&self) -> Outcome<ExecutionProvider> {
        let provider: ExecutionProvider = self
            .provider
            .parse()
            .map_err(|error| Failure::from(error).as_asked())?;
        if provider == ExecutionProvider::Cpu && !self.gpus.is_empty() {
            return Err(Failure::asked("`--gpu` says nothing to the `cpu` provider")
                .hint("add `--provider cuda` or `--provider tensorrt`"));
        }
        Ok(provider)
    }

    /// How many threads compute, and how many decode.
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(cores)
    }

    /// Loads the library and the teacher. TensorRT keeps the engines that it builds below the caches.
    pub(crate) fn load(&self, spec: &TeacherSpec, cache_dir: &Path) -> Outcome<Teacher> {
        let provider = self.provider()?;
        let library = library_path();
        if let Some(path) = &library {
            say(format!(
                "ONNX Runtime is `{}`, named by ORT_DYLIB_PATH: its digest is nobody's to check",
                path.display()
            ));
        }
        let runtime = Runtime::load(library.as_deref(), provider)?;
        let engines = cache_dir.join(".tensorrt");
        let engine_cache = (provider == ExecutionProvider::TensorRt).then_some(engines);
        if let Some(folder) = &engine_cache {
            logitcask_durable::create_dir_all(folder).map_err(Failure::work)?;
        }
        let device = Device {
            provider,
            gpus: self.gpus.clone(),
            tf32: spec.precision == Precision::Tf32,
            engine_cache,
        };
        Ok(Teacher::load(&runtime, spec, &device, self.threads())?)
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
