//! An ONNX model that answers with logits.
//!
//! What flows through here:
//!
//! 1. [`Runtime::load`] finds ONNX Runtime's shared library and loads it; nothing is linked, so that the same program runs
//!    with the CPU library and with the CUDA one. [`Device`] says which [`ExecutionProvider`] is to run the teacher.
//! 2. [`ModelFile::read`] hashes the model with its weight files. With it and the dataset's fingerprint [`cache_key`]
//!    finds logits that are already there, before any session is made.
//! 3. [`Teacher::load`] makes sessions: on the CPU one per core, single-threaded, which is faster than one session with
//!    many threads. [`prepare`] shows them a few real images: the size must fit, the number of classes too, and a softmax
//!    that somebody left in the graph is noticed here.
//! 4. [`measure_accuracy`] and [`gate`] ask whether this teacher is as good as the recipe says, and if not, which other
//!    preprocessing would have been right.
//! 5. [`capture`] runs what is missing: decode threads, a bounded queue, one session per worker, and a writer that puts
//!    whole chunks into a [`LogitWriter`](logitcask_cache::LogitWriter). What it tells on the way are [`Event`]s.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//!
//! use logitcask_cache::{Encoding, LogitWriter, Manifest};
//! use logitcask_dataset::{DataSpec, Dataset, Preprocess, Role, ViewFamily};
//! use logitcask_teacher::*;
//!
//! # fn main() -> Result<(), TeacherError> {
//! # let spec: TeacherSpec = unimplemented!();
//! let dataset = Dataset::open(&DataSpec::new("cifar10", "data/datasets/cifar10"), Role::Train)?;
//! let (family, preprocess) = (ViewFamily::clean(), Preprocess::new(&spec.preprocess)?);
//! let pixels = Pixels { dataset: &dataset, family: &family, preprocess: &preprocess };
//!
//! let runtime = Runtime::load(None, ExecutionProvider::Cpu)?;
//! let mut teacher = Teacher::load(&runtime, &spec, &Device::cpu(), 2)?;
//! let images = prepare(&mut teacher, pixels)?;
//! let batch_size = find_batch_size(&mut teacher, images)?.rows;
//!
//! let key = cache_key(&spec, teacher.file(), &dataset.fingerprint(&|_, _| {})?, &family)?;
//! let manifest = Manifest::new(&spec.title(), key, Encoding::F16, dataset.len() as u32, dataset.n_classes());
//! let writer = LogitWriter::open("data/cache".as_ref(), &manifest)?;
//! let job = Job { pixels, views: &[0], batch_size, decoders: 2, views_per_pass: 1, images };
//! let report = capture(&mut teacher, &job, &writer, &AtomicBool::new(false), &|_| {})?;
//! # let _ = report;
//! # Ok(())
//! # }
//! ```
//!
//! This crate never meets the student: between them lies the cache.

mod batch_size;
mod capture;
mod error;
mod event;
mod gate;
mod input;
mod key;
mod model_file;
mod output;
mod part;
mod pipeline;
mod provenance;
mod provider;
mod queue;
mod runtime;
mod session;
mod spec;
mod teacher;

pub use batch_size::{BatchSize, bare_rate, find_batch_size};
pub use capture::{CaptureReport, Job, capture, prepare};
pub use error::TeacherError;
pub use event::{Event, Plan, Progress, Shares};
pub use gate::{Accuracy, explain, gate, measure_accuracy, spread};
pub use input::{Element, Input};
pub use key::cache_key;
pub use model_file::ModelFile;
pub use output::Output;
pub use part::Part;
pub use pipeline::Pixels;
pub use provenance::{cpu_features, gpu_models, provenance};
pub use provider::{Device, ExecutionProvider, Placement};
pub use runtime::Runtime;
pub use spec::{Layout, OutputIs, Precision, TeacherSpec};
pub use teacher::Teacher;
