//! What runs the teacher, from names to loaded sessions.

use std::path::{Path, PathBuf};

use logitcask_teacher::{Device, ExecutionProvider, Precision, Runtime, Teacher, TeacherSpec};

use crate::failure::{Failure, Outcome};

/// What a teacher runs on. It is no part of an experiment: the same rows come from any.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What executes the model.
    pub provider: ExecutionProvider,
    /// Which GPUs, one session each; the first where empty.
    pub gpus: Vec<u32>,
    /// Sessions on the CPU, each on one thread, and as many threads that decode images.
    pub threads: usize,
    /// ONNX Runtime's library; where absent it is searched for and its digest checked.
    pub library: Option<PathBuf>,
    /// Where TensorRT keeps the engines that it builds.
    pub engines: PathBuf,
}

impl Machine {
    /// So many threads of this machine's processor, and a library that is searched for.
    pub fn cpu(threads: usize, cache_dir: &Path) -> Machine {
        Machine {
            provider: ExecutionProvider::Cpu,
            gpus: Vec::new(),
            threads,
            library: None,
            engines: cache_dir.join(".tensorrt"),
        }
    }

    /// Loads the library, and the teacher into its sessions.
    ///
    /// # Errors
    /// If the library or the provider is not there, the model cannot be run, or is no classifier of images.
    pub fn load(&self, spec: &TeacherSpec) -> Outcome<Teacher> {
        let provider = self.provider;
        if provider == ExecutionProvider::Cpu && !self.gpus.is_empty() {
            return Err(Failure::asked("`--gpu` says nothing to the `cpu` provider")
                .with_hint("add `--provider cuda` or `--provider tensorrt`"));
        }
        let runtime = Runtime::load(self.library.as_deref(), provider)?;
        let engine_cache = (provider == ExecutionProvider::TensorRt).then(|| self.engines.clone());
        if let Some(folder) = &engine_cache {
            logitcask_durable::create_dir_all(folder)
                .map_err(Failure::io("make the folder", folder))?;
        }
        let device = Device {
            provider,
            gpus: self.gpus.clone(),
            tf32: spec.precision == Precision::Tf32,
            engine_cache,
        };
        Ok(Teacher::load(&runtime, spec, &device, self.threads)?)
    }
}
