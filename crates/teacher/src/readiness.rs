//! Whether a provider can run on this machine: what is missing for it shows before any model is read.

use std::path::Path;
use std::sync::Arc;

use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;
use crate::provider::Device;
use crate::runtime::Runtime;
use crate::session::SessionPlan;
use crate::spec::Precision;

impl Runtime {
    /// Whether `provider` can start on this machine, as far as can be told without a model.
    ///
    /// # Errors
    /// What is missing: the provider in this library, the driver, or one of the libraries that it loads.
    pub fn try_provider(&self, provider: ExecutionProvider) -> Result<(), TeacherError> {
        ready(self, provider)?;
        if provider == ExecutionProvider::Cpu {
            return Ok(());
        }
        let device = Device {
            provider,
            ..Device::default()
        };
        start(self, &device)
    }
}

/// Refuses a provider that the library cannot run by.
pub(crate) fn ready(runtime: &Runtime, provider: ExecutionProvider) -> Result<(), TeacherError> {
    if !runtime.was_compiled_with(provider) {
        let library = runtime.path().to_owned();
        return Err(TeacherError::ProviderNotBuilt { provider, library });
    }
    if provider == ExecutionProvider::Cpu {
        return Ok(());
    }
    runtime
        .preload_cuda()
        .map_err(|source| TeacherError::ProviderFailed {
            provider,
            log: Vec::new(),
            source,
        })
}

/// Tries to start a provider without any model: what is missing for it (a driver, a library) shows here already.
fn start(runtime: &Runtime, device: &Device) -> Result<(), TeacherError> {
    let plan = SessionPlan {
        runtime,
        path: Path::new(""),
        device,
        precision: Precision::F32,
        gpu: device.gpus.first().copied().unwrap_or(0),
        threads: 1,
        inner: &[],
    };
    let provider = device.provider;
    let failed = |source| TeacherError::ProviderFailed {
        provider,
        log: runtime.log.take(),
        source,
    };
    plan.builder(&Arc::default()).map(drop).map_err(failed)
}
