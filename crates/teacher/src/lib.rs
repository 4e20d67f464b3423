//! An ONNX model that answers with logits.
//!
//! What flows through here:
//!
//! 1. [`Runtime::load`] finds ONNX Runtime's shared library and loads it; nothing is linked, so that the same program runs
//!    with the CPU library and with the CUDA one. [`Device`] says which [`ExecutionProvider`] is to run the teacher.
//! 2. [`ModelFile::read`] hashes the model with its weight files. With it and the dataset's fingerprint [`cache_key`]
//!    finds logits that are already there, before any session is made.
//! 3. [`Teacher::load`] makes sessions: on the CPU one per core, single-threaded, which is faster than one session with
//!    many threads. [`prepare`] shows them a few real images: the size must fit, the number of classes too. A softmax or a
//!    sigmoid that somebody left in the graph is noticed here, and an answer that depends on chance or on the other images
//!    of a batch; what is only doubtful becomes a [`Warning`].
//! 4. [`measure_accuracy`] and [`gate`] ask whether this teacher is as good as the recipe says, and if not, which other
//!    preprocessing or order of the classes would have been right.
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
mod class_order;
mod digests;
mod error;
mod event;
mod execution_provider;
mod figures;
mod gate;
mod graph;
mod head;
mod head_shape;
mod input;
mod key;
mod model_file;
mod output;
mod part;
mod pipeline;
mod provenance;
mod provider;
mod queue;
mod readiness;
mod remedy;
mod rows;
mod runtime;
mod session;
mod spec;
mod spread;
mod suspects;
mod teacher;
mod warning;
mod wire;

pub use batch_size::{BatchSize, bare_rate, find_batch_size};
pub use capture::{CaptureReport, Job, capture, check_chunks, prepare};
pub use error::TeacherError;
pub use event::{Event, Plan, Progress, Shares};
pub use execution_provider::ExecutionProvider;
pub use figures::percent;
pub use gate::{Accuracy, ENOUGH, explain, gate, is_chance, measure_accuracy};
pub use head_shape::Shape;
pub use input::{Element, Input};
pub use key::{cache_key, key_of_spec};
pub use model_file::ModelFile;
pub use output::Output;
pub use part::Part;
pub use pipeline::Pixels;
pub use provenance::{cpu_features, gpu_models, provenance};
pub use provider::{Device, Placement};
pub use remedy::Remedy;
pub use runtime::Runtime;
pub use spec::{Layout, OutputIs, Precision, TeacherSpec};
pub use spread::spread;
pub use teacher::Teacher;
pub use warning::Warning;
