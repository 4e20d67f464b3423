//! A teacher: an ONNX model, loaded once per worker, that answers pixels with logits.

mod check;
mod steady;

use logitcask_dataset::{PixelBatch, PixelLayout};
use ort::value::Outlet;

use crate::error::TeacherError;
use crate::execution_provider::ExecutionProvider;
use crate::input::Input;
use crate::key::at_once;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::provider::{Device, Placement};
use crate::readiness::ready;
use crate::runtime::Runtime;
use crate::session::{Answer, SessionPlan, Worker};
use crate::spec::{OutputIs, Precision, TeacherSpec};
use crate::warning::Warning;

/// Each worker has a session, and each session its own copy of the weights. When all copies together would take more
/// than this, fewer sessions with more threads each are made: a little slower, but a large teacher then fits.
const WEIGHTS_BUDGET: u64 = 4 << 30;

/// A teacher that can be asked: its file was read, its input and output are known, its sessions are made.
pub struct Teacher {
    spec: TeacherSpec,
    file: ModelFile,
    runtime: Runtime,
    device: Device,
    input: Input,
    output: Output,
    features: Option<Output>,
    feature_len: usize,
    placement: Placement,
    threads_each: usize,
    n_classes: Option<usize>,
    workers: Vec<Worker>,
    warnings: Vec<Warning>,
    is_steady: bool,
}

impl Teacher {
    /// Reads the model and makes its sessions: on the CPU as many as `threads`, single-threaded; on GPUs one each.
    pub fn load(
        runtime: &Runtime,
        spec: &TeacherSpec,
        device: &Device,
        threads: usize,
    ) -> Result<Teacher, TeacherError> {
        let file = ModelFile::read(&spec.onnx)?;
        check_precision(spec, &file, device.provider)?;
        ready(runtime, device.provider)?;
        let (seats, threads_each) = seats(device, threads.max(1), file.bytes);
        let asked_for = [&spec.output, &spec.features].into_iter().flatten();
        let inner: Vec<String> = asked_for
            .filter(|name| file.is_inner(name))
            .cloned()
            .collect();
        let plan = |gpu| SessionPlan {
            runtime,
            path: &spec.onnx,
            device,
            precision: spec.precision,
            gpu,
            threads: threads_each,
            inner: &inner,
        };
        let (first, placement) = plan(seats[0]).build()?;
        if device.provider != ExecutionProvider::Cpu
            && placement.on_cpu() > 0
            && placement.nodes.len() == 1
        {
            return Err(TeacherError::ProviderUnused {
                provider: device.provider,
                placement: placement.to_string(),
            });
        }
        let mut input = Input::read(first.inputs(), spec.layout)?;
        let output = Output::read(
            first.outputs(),
            spec.output.as_deref(),
            spec.output_is,
            spec.classes.clone(),
        )?;
        input.at_once = at_once(spec, &file, &output.name);
        let n_classes = output.n_classes();
        let features = features_of(spec, first.outputs(), &output)?;
        let mut workers = vec![Worker::new(first, &output, features.as_ref())?];
        let others = seats[1..].iter().map(|gpu| plan(*gpu)).collect();
        workers.extend(side_by_side(others, &output, features.as_ref())?);
        Ok(Teacher {
            spec: spec.clone(),
            file,
            runtime: runtime.clone(),
            device: device.clone(),
            input,
            output,
            features,
            feature_len: 0,
            placement,
            threads_each,
            n_classes,
            workers,
            warnings: Vec::new(),
            is_steady: false,
        })
    }

    /// [`check`](Self::check), and that a row depends on the pixels alone: this once for each teacher.
    pub(crate) fn examine(
        &mut self,
        batch: &PixelBatch,
        n_classes: usize,
    ) -> Result<(), TeacherError> {
        self.check(batch, n_classes)?;
        if !self.is_steady {
            self.check_steady(batch)?;
            self.is_steady = true;
        }
        Ok(())
    }

    /// Answers a batch: `out` becomes (B, classes), row after row. One session on the calling thread; a capture uses all.
    pub fn forward(&mut self, batch: &PixelBatch, out: &mut Vec<f32>) -> Result<(), TeacherError> {
        *out = self.answer(batch, std::mem::take(out))?.rows;
        Ok(())
    }

    /// Answers a batch, features and all, into the memory of `rows`.
    fn answer(&mut self, batch: &PixelBatch, rows: Vec<f32>) -> Result<Answer, TeacherError> {
        let mut answer = Answer {
            rows,
            ..Answer::default()
        };
        answer.clear();
        let features = self.features.as_ref();
        self.workers[0].forward(&self.input, &self.output, features, batch, &mut answer)?;
        Ok(answer)
    }

    /// The sessions, and what all of them share: for a pipeline that gives each session to a thread.
    pub(crate) fn split(&mut self) -> Split<'_> {
        Split {
            layout: self.layout(),
            workers: &mut self.workers,
            input: &self.input,
            output: &self.output,
            features: self.features.as_ref(),
        }
    }

    /// BLAKE3 of the model and its weight files.
    pub fn digest(&self) -> [u8; 32] {
        self.file.digest
    }

    /// What the recipe says.
    pub fn spec(&self) -> &TeacherSpec {
        &self.spec
    }

    /// What the file says.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// The execution provider that runs it, with its settings.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The library that runs it.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// How it wants to be fed.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// What [`prepare`](crate::prepare) found doubtful.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Which output is read.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The layout in which pixels are to be rendered.
    pub fn layout(&self) -> PixelLayout {
        self.input.layout
    }

    /// Values per stored row; `None` where the export leaves it open, until [`Teacher::check`] has asked.
    pub fn n_classes(&self) -> Option<usize> {
        self.n_classes
    }

    /// Values in a row of features; 0 where the recipe asks for none, and until [`Teacher::check`] has asked.
    pub fn feature_len(&self) -> usize {
        self.feature_len
    }

    /// Which provider took how many nodes; empty on the CPU, where there is no choice.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Sessions, and threads in each.
    pub fn sessions(&self) -> (usize, usize) {
        (self.workers.len(), self.threads_each)
    }
}

impl std::fmt::Debug for Teacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teacher")
            .field("spec", &self.spec)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A teacher taken apart.
pub(crate) struct Split<'a> {
    pub(crate) workers: &'a mut [Worker],
    pub(crate) input: &'a Input,
    pub(crate) output: &'a Output,
    pub(crate) features: Option<&'a Output>,
    pub(crate) layout: PixelLayout,
}

/// One seat per session: the GPU it sits on (0 on the CPU), and the threads of each.
fn seats(device: &Device, threads: usize, model_bytes: u64) -> (Vec<u32>, usize) {
    match device.provider {
        ExecutionProvider::Cpu => {
            let affordable =
                usize::try_from(WEIGHTS_BUDGET / model_bytes.max(1)).unwrap_or(usize::MAX);
            let sessions = threads.min(affordable.max(1));
            (vec![0; sessions], threads / sessions)
        }
        _ if device.gpus.is_empty() => (vec![0], 1),
        _ => (device.gpus.clone(), 1),
    }
}

/// The output that holds features, if the recipe wants one.
fn features_of(
    spec: &TeacherSpec,
    outputs: &[Outlet],
    logits: &Output,
) -> Result<Option<Output>, TeacherError> {
    match &spec.features {
        None => Ok(None),
        Some(name) if *name == logits.name => {
            Err(TeacherError::FeaturesAreLogits { name: name.clone() })
        }
        Some(name) => Output::read(outputs, Some(name), OutputIs::Logits, None).map(Some),
    }
}

/// Makes sessions at once: optimising a graph takes a single thread up to seconds.
fn side_by_side(
    plans: Vec<SessionPlan<'_>>,
    output: &Output,
    features: Option<&Output>,
) -> Result<Vec<Worker>, TeacherError> {
    std::thread::scope(|scope| {
        let plans = plans.into_iter();
        let handles: Vec<_> = plans
            .map(|plan| scope.spawn(move || Worker::new(plan.build()?.0, output, features)))
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            let joined = handle.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let made: Vec<Result<Worker, TeacherError>> = handles.into_iter().map(join).collect();
        made.into_iter().collect()
    })
}

fn check_precision(
    spec: &TeacherSpec,
    file: &ModelFile,
    provider: ExecutionProvider,
) -> Result<(), TeacherError> {
    let found = if file.half {
        Precision::F16
    } else {
        Precision::F32
    };
    // TensorRT builds an engine of either precision from f32 weights; the others run a model as it was saved.
    let can_convert = provider == ExecutionProvider::TensorRt && found == Precision::F32;
    let can_round = provider != ExecutionProvider::Cpu && found == Precision::F32;
    let is_had = match spec.precision {
        Precision::Tf32 => can_round,
        wanted => found == wanted || can_convert,
    };
    if is_had {
        return Ok(());
    }
    Err(TeacherError::PrecisionDiffers {
        path: spec.onnx.clone(),
        wanted: spec.precision,
        found,
        provider,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_teacher_gets_fewer_sessions_with_more_threads() {
        let cpu = Device::cpu();
        assert_eq!(seats(&cpu, 8, 4 << 20), (vec![0; 8], 1));
        assert_eq!(seats(&cpu, 64, 1 << 30), (vec![0; 4], 16));
        assert_eq!(seats(&cpu, 2, 64 << 30), (vec![0], 2));
        let two = Device {
            provider: ExecutionProvider::Cuda,
            gpus: vec![0, 3],
            ..Device::default()
        };
        assert_eq!(seats(&two, 8, 1), (vec![0, 3], 1));
    }
}
