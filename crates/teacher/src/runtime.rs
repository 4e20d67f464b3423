//! ONNX Runtime's shared library: found, loaded once, and held for the life of the process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::ep::ExecutionProvider as _;
use ort::logging::LogLevel;

use crate::digests;
use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;

/// The folder that `make setup` fills, under the project's root.
const RUNTIME_FOLDER: &str = ".runtime";

/// ONNX Runtime, loaded. Cloning is cheap; there is one library and one environment per process.
#[derive(Clone, Debug)]
pub struct Runtime {
    path: PathBuf,
    version: String,
    pub(crate) environment: ort::environment::Environment,
    pub(crate) log: RuntimeLog,
}

/// ONNX Runtime allows one environment per process and refuses a second even after the first is gone, so ours stays.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// The process's one environment: for sessions beside a teacher's own.
    pub fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }

    /// Loads the shared library at `explicit`, or the first one found: `.runtime/<cpu|cuda>/` in the working folder or a
    /// parent of it, the same seen from the executable, then beside the executable. The CUDA library also serves the
    /// CPU provider, but not the other way round. One that is found has to have the digest that was noted when it was fetched;
    /// one that is named is taken as it is.
    ///
    /// A second call returns the same runtime; asking for a different file is an error, because a process can hold
    /// only one.
    pub fn load(
        explicit: Option<&Path>,
        provider: ExecutionProvider,
    ) -> Result<Runtime, TeacherError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            return match explicit {
                Some(wanted) if resolve(wanted) != runtime.path => {
                    Err(TeacherError::RuntimeAlreadyLoaded {
                        loaded: runtime.path.clone(),
                        wanted: wanted.to_owned(),
                    })
                }
                _ => Ok(runtime.clone()),
            };
        }
        let path = match explicit {
            Some(path) if is_file(path)? => resolve(path),
            Some(path) => {
                return Err(TeacherError::RuntimeNotFound {
                    searched: vec![path.to_owned()],
                    provider,
                });
            }
            None => {
                let path = find(provider)?;
                digests::check(&path)?;
                path
            }
        };
        let runtime = initialise(path)?;
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The file that was loaded, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's version, such as `1.31.1` (`1.31` where the file's name does not tell the patch level).
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How the library was built: commit, build type and compiler flags, in its own words.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// The providers that the loaded library was compiled with. That one is here does not yet mean that it can run:
    /// a GPU, its driver and the CUDA libraries may still be missing.
    pub fn providers(&self) -> Vec<ExecutionProvider> {
        ExecutionProvider::ALL
            .into_iter()
            .filter(|provider| self.was_compiled_with(*provider))
            .collect()
    }

    pub(crate) fn was_compiled_with(&self, provider: ExecutionProvider) -> bool {
        match provider {
            ExecutionProvider::Cpu => true,
            ExecutionProvider::Cuda => ort::ep::CUDA::is_available().unwrap_or(false),
            ExecutionProvider::TensorRt => ort::ep::TensorRT::is_available().unwrap_or(false),
        }
    }

    /// Loads the CUDA and cuDNN libraries that lie beside ONNX Runtime, so that nobody has to set a library path.
    /// Where they do not lie there, the system's own are left to be found.
    pub(crate) fn preload_cuda(&self) -> Result<(), ort::Error> {
        static DONE: OnceLock<()> = OnceLock::new();
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let lies_here = |name: &str| {
            let found = logitcask_durable::is_file(&folder.join(name));
            // What cannot be asked is left to the loader, which says what is in the way.
            found.unwrap_or(true).then_some(folder)
        };
        let cuda = lies_here(ort::ep::cuda::CUDA_DYLIBS[0]);
        let cudnn = lies_here(ort::ep::cuda::CUDNN_DYLIBS[0]);
        if DONE.get().is_none() {
            ort::ep::cuda::preload_dylibs(cuda, cudnn)?;
            let _ = DONE.set(());
        }
        Ok(())
    }
}

fn initialise(path: PathBuf) -> Result<Runtime, TeacherError> {
    let log = RuntimeLog::default();
    let builder = ort::init_from(&path).map_err(|source| match source {
        ort::LoadDynamicError::BadVersion { version_str, .. } => TeacherError::RuntimeTooOld {
            path: path.clone(),
            found: version_str,
            needed: format!("1.{}", ort::MINOR_VERSION),
        },
        source => TeacherError::RuntimeUnloadable {
            path: path.clone(),
            source,
        },
    })?;
    let environment = builder
        .with_name("logitcask")
        .with_telemetry(false)
        .with_logger(log.as_logger())
        .build()
        .map_err(TeacherError::Environment)?;
    environment.set_log_level(LogLevel::Warning);
    let version = version_of(&path);
    Ok(Runtime {
        path,
        version,
        environment,
        log,
    })
}

fn find(provider: ExecutionProvider) -> Result<PathBuf, TeacherError> {
    let kinds: &[&str] = if provider == ExecutionProvider::Cpu {
        &["cpu", "cuda"]
    } else {
        &["cuda"]
    };
    let executable = std::env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent);
    let working = std::env::current_dir().ok();
    let roots = [working.as_deref(), beside];
    let mut searched = Vec::new();
    for folder in roots
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .map(|root| root.join(RUNTIME_FOLDER))
    {
        searched.extend(kinds.iter().map(|kind| folder.join(kind)));
    }
    searched.extend(beside.map(Path::to_owned));
    for folder in &searched {
        if let Some(path) = library_in(folder)? {
            return Ok(path);
        }
    }
    // The parents of both starting points were looked at too; naming them all would bury the message.
    let named = roots.into_iter().flatten();
    let searched = named
        .map(|root| root.join(RUNTIME_FOLDER).join(kinds[0]))
        .collect();
    Err(TeacherError::RuntimeNotFound { searched, provider })
}

/// The library in `folder`, the name with the longest version first, so that `.so.1.31.1` wins over a plain link.
fn library_in(folder: &Path) -> Result<Option<PathBuf>, TeacherError> {
    let entries = logitcask_durable::entries(folder).map_err(unreadable(folder))?;
    let names = entries.iter().filter_map(|path| path.file_name()?.to_str());
    let longest = names
        .filter(|name| is_library(name))
        .max_by_key(|name| (name.len(), *name));
    Ok(longest.map(|name| resolve(&folder.join(name))))
}

fn is_file(path: &Path) -> Result<bool, TeacherError> {
    logitcask_durable::is_file(path).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> TeacherError {
    let path = path.to_owned();
    move |source| TeacherError::RuntimeUnreadable { path, source }
}

fn is_library(name: &str) -> bool {
    let plain = [
        "libonnxruntime.so",
        "libonnxruntime.dylib",
        "onnxruntime.dll",
    ]
    .contains(&name);
    let versioned = name.starts_with("libonnxruntime.so.")
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"));
    plain || versioned
}

fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The bindings do not hand out the library's version string, only its minor number; the file's name usually has all of it.
fn version_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digits = name
        .trim_start_matches("libonnxruntime.")
        .trim_start_matches("so.")
        .trim_end_matches(".dylib");
    if digits.split('.').count() == 3 && digits.split('.').all(|part| part.parse::<u32>().is_ok()) {
        return digits.to_owned();
    }
    match ort::util::probe(path) {
        Some(minor) => format!("1.{minor}"),
        None => "unknown".to_owned(),
    }
}

/// What ONNX Runtime itself said lately: its errors often name a missing library only in its log.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuntimeLog(Arc<Mutex<Vec<String>>>);

impl RuntimeLog {
    const KEPT: usize = 16;

    fn as_logger(&self) -> ort::logging::LoggerFunction {
        let lines = self.clone();
        Arc::new(
            move |level, _category: &str, _id: &str, _location: &str, message: &str| {
                if level >= LogLevel::Error {
                    lines.push(message);
                }
            },
        )
    }

    fn push(&self, message: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::KEPT {
            lines.remove(0);
        }
        lines.push(message.to_owned());
    }

    /// Takes the lines said so far.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_told_from_its_neighbours() {
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime.1.31.1.dylib",
            "onnxruntime.dll",
        ] {
            assert!(is_library(name), "{name}");
        }
        for name in [
            "libonnxruntime_providers_shared.so",
            "libonnxruntime_providers_cuda.so",
            "onnxruntime-LICENSE",
        ] {
            assert!(!is_library(name), "{name}");
        }
    }

    #[test]
    fn the_version_comes_from_the_name() {
        assert_eq!(
            version_of(Path::new("/x/libonnxruntime.so.1.31.1")),
            "1.31.1"
        );
        assert_eq!(
            version_of(Path::new("/x/libonnxruntime.1.31.1.dylib")),
            "1.31.1"
        );
    }
}
