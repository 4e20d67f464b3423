//! One session of ONNX Runtime with its own buffers: what a worker thread owns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use logitcask_dataset::PixelBatch;
use ort::logging::LogLevel;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::DynValue;

use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;
use crate::input::{Input, Staging};
use crate::output::{self, Output};
use crate::provider::{Device, Placement};
use crate::runtime::Runtime;
use crate::spec::{OutputIs, Precision};
use crate::wire;

/// How a session is to be made.
pub(crate) struct SessionPlan<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) path: &'a Path,
    pub(crate) device: &'a Device,
    pub(crate) precision: Precision,
    pub(crate) gpu: u32,
    pub(crate) threads: usize,
    /// Tensors inside the graph that are to be outputs besides.
    pub(crate) inner: &'a [String],
}

impl SessionPlan<'_> {
    /// Makes a session, and tells which provider took which nodes (only where there is a choice).
    pub(crate) fn build(&self) -> Result<(Session, Placement), TeacherError> {
        let placement = Arc::new(Mutex::new(Placement::default()));
        self.runtime.log.take();
        let mut builder = self
            .builder(&placement)
            .map_err(|source| self.blame(source))?;
        let session = match self.inner {
            [] => builder.commit_from_file(self.path),
            inner => {
                let model = self.with_outputs(inner)?;
                builder.commit_from_memory(&model)
            }
        };
        let session = session.map_err(|source| self.blame(source))?;
        let placement = placement
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok((session, placement))
    }

    pub(crate) fn builder(&self, placement: &Arc<Mutex<Placement>>) -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(&self.runtime.environment)?
            // Only this level turns on the blocked memory layout for convolutions on the CPU: it doubles their speed.
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            // The bindings' own default may choose a device for us.
            .with_auto_device(AutoDevicePolicy::PreferCPU)?;
        if !self.inner.is_empty() {
            // A model handed over as bytes does not know where its weight files lie.
            let folder = self.path.parent().unwrap_or(Path::new(""));
            builder = builder.with_config_entry(
                "session.model_external_initializers_file_folder_path",
                folder.to_string_lossy(),
            )?;
        }
        if self.device.provider != ExecutionProvider::Cpu {
            let seen = Arc::clone(placement);
            builder = builder
                .with_logger(Arc::new(
                    move |_level, _category: &str, _id: &str, _location: &str, message: &str| {
                        seen.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .read_log_line(message);
                    },
                ))?
                // Placement is only told at this level; runs are kept quiet by their own options.
                .with_log_level(LogLevel::Verbose)?
                .with_execution_providers(self.device.dispatch(self.gpu, self.precision))?;
        }
        Ok(builder)
    }

    /// The model's bytes with more outputs. A message that stands twice in another is merged by every reader of protocol
    /// buffers, its lists one after the other: so a graph of nothing but outputs, put behind the model, adds them to it.
    fn with_outputs(&self, names: &[String]) -> Result<Vec<u8>, TeacherError> {
        let unreadable = |source| TeacherError::ModelUnreadable {
            path: self.path.to_owned(),
            source,
        };
        let mut model = std::fs::read(self.path).map_err(unreadable)?;
        let outputs: Vec<u8> = names
            .iter()
            .flat_map(|name| wire::message(12, &wire::message(1, name.as_bytes())))
            .collect();
        model.extend(wire::message(7, &outputs));
        Ok(model)
    }

    /// Says whose fault a failure is: the provider's, if the model loads without it.
    fn blame(&self, source: ort::Error) -> TeacherError {
        let log = self.runtime.log.take();
        let provider = self.device.provider;
        let mut cpu = Device::cpu();
        cpu.gpus.clear();
        let plain = SessionPlan {
            device: &cpu,
            threads: 1,
            ..*self
        };
        if provider != ExecutionProvider::Cpu && plain.build().is_ok() {
            return TeacherError::ProviderFailed {
                provider,
                log,
                source,
            };
        }
        TeacherError::ModelRefused {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// A session and the buffers it reuses. Owned by one thread at a time.
pub(crate) struct Worker {
    session: Session,
    options: RunOptions<HasSelectedOutputs>,
    staging: Staging,
}

impl Worker {
    pub(crate) fn new(
        session: Session,
        output: &Output,
        features: Option<&Output>,
    ) -> Result<Worker, TeacherError> {
        // Outputs that nobody asked for are not even computed.
        let mut selector = OutputSelector::no_default().with(&output.name);
        if let Some(features) = features {
            selector = selector.with(&features.name);
        }
        let failed = |source| TeacherError::Run { rows: 0, source };
        let mut options = RunOptions::new().map_err(failed)?;
        options.set_log_level(LogLevel::Error).map_err(failed)?;
        Ok(Worker {
            session,
            options: options.with_outputs(selector),
            staging: Staging::default(),
        })
    }

    /// Runs a whole batch, in as many runs as a fixed batch size asks for, and appends its rows to `answer`. Features are
    /// only asked for in a worker that was made for them.
    pub(crate) fn forward(
        &mut self,
        input: &Input,
        output: &Output,
        features: Option<&Output>,
        batch: &PixelBatch,
        answer: &mut Answer,
    ) -> Result<(), TeacherError> {
        let at_once = input.fixed_batch.or(input.at_once);
        let rows_per_run = at_once.unwrap_or(batch.n.max(1));
        for from in (0..batch.n).step_by(rows_per_run) {
            let to = batch.n.min(from + rows_per_run);
            // A fixed batch is filled up with black images, whose answers are dropped.
            let rows = if input.fixed_batch.is_some() {
                rows_per_run
            } else {
                to - from
            };
            let tensor = input.tensor(batch, from, to, rows, &mut self.staging)?;
            let outputs = self
                .session
                .run_with_options([tensor], &self.options)
                .map_err(|source| failure(rows, source))?;
            let value_of = |output: &Output| {
                outputs
                    .get(&output.name)
                    .ok_or_else(|| TeacherError::NoSuchOutput {
                        wanted: output.name.clone(),
                        names: outputs.keys().map(str::to_owned).collect(),
                    })
            };
            answer.add(output, value_of(output)?, rows, to - from)?;
            if let Some(features) = features {
                let value = value_of(features)?;
                answer.feature_len =
                    features.read_rows(value, rows, to - from, &mut answer.features)?;
            }
        }
        Ok(())
    }
}

/// A session that also gives the tensors inside the graph.
pub(crate) struct Probe {
    session: Session,
    staging: Staging,
}

impl Probe {
    pub(crate) fn new(plan: &SessionPlan<'_>) -> Result<Probe, TeacherError> {
        Ok(Probe {
            session: plan.build()?.0,
            staging: Staging::default(),
        })
    }

    /// Every f32 tensor by name, and whether it has a share for each image: then only the shares of `batch` are given.
    pub(crate) fn values(
        &mut self,
        input: &Input,
        batch: &PixelBatch,
    ) -> Result<BTreeMap<String, (Vec<f32>, bool)>, TeacherError> {
        let rows = input.fixed_batch.unwrap_or(batch.n);
        let n = batch.n.min(rows);
        let tensor = input.tensor(batch, 0, n, rows, &mut self.staging)?;
        let outputs = self
            .session
            .run([tensor])
            .map_err(|source| failure(rows, source))?;
        let mut values = BTreeMap::new();
        for (name, value) in outputs.iter() {
            let Ok((shape, data)) = value.try_extract_tensor::<f32>() else {
                continue;
            };
            let is_shared =
                shape.first().and_then(|side| usize::try_from(*side).ok()) == Some(rows);
            let kept = if is_shared {
                data.len() / rows * n
            } else {
                data.len()
            };
            values.insert(name.to_owned(), (data[..kept].to_vec(), is_shared));
        }
        Ok(values)
    }
}

/// Rows of logits, with what was done to them.
#[derive(Default)]
pub(crate) struct Answer {
    /// (rows, width), row after row.
    pub(crate) rows: Vec<f32>,
    /// Values per row of `rows`.
    pub(crate) width: usize,
    /// (rows, feature_len), where features were asked for.
    pub(crate) features: Vec<f32>,
    /// Values per row of features; 0 without them.
    pub(crate) feature_len: usize,
    /// Probabilities that had no finite logarithm.
    pub(crate) clipped: u64,
}

impl Answer {
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.features.clear();
        self.clipped = 0;
    }

    fn add(
        &mut self,
        output: &Output,
        value: &DynValue,
        rows: usize,
        wanted: usize,
    ) -> Result<(), TeacherError> {
        let start = self.rows.len();
        self.width = output.read_rows(value, rows, wanted, &mut self.rows)?;
        if output.holds != OutputIs::Logits {
            let floor = output::smallest_normal(value.dtype().tensor_type());
            self.clipped +=
                output::centre(&mut self.rows[start..], self.width, output.holds, floor);
        }
        Ok(())
    }
}

fn failure(rows: usize, source: ort::Error) -> TeacherError {
    if is_out_of_memory(source.message()) {
        TeacherError::OutOfMemory { rows, source }
    } else {
        TeacherError::Run { rows, source }
    }
}

/// ONNX Runtime has no code for it: its arena, CUDA, cuDNN, cuBLAS and the C++ library each say it in words.
fn is_out_of_memory(message: &str) -> bool {
    const WORDS: [&str; 6] = [
        "Failed to allocate memory",
        "out of memory",
        "ALLOC_FAILED",
        "bad_alloc",
        "bad allocation",
        "Available memory of",
    ];
    WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::is_out_of_memory;

    #[test]
    fn memory_failures_are_recognised() {
        for message in [
            "Non-zero status code returned while running Conv node. Name:'' Status Message: Failed to allocate memory for requested buffer of size 9663676416",
            "CUDA failure 2: out of memory ; GPU=0",
            "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
            "std::bad_alloc",
        ] {
            assert!(is_out_of_memory(message), "{message}");
        }
        assert!(!is_out_of_memory(
            "Got invalid dimensions for input: input for the following indices"
        ));
    }
}
