//! Networks, and the flat loop that trains them against cached teacher logits.
//!
//! What flows through: an epoch's order of (sample, view) pairs goes to the dataset's loader, which brings pixels;
//! [`TrainBatch::join`] adds labels and the teacher's rows for the very same pairs; the [`Network`] answers with
//! logits, the objective with a loss; [`Optimizer`] steps; after each epoch comes an evaluation, a [`Checkpoint`] and a line of
//! metrics. [`train`] tells it in order.
//!
//! This crate never sees the teacher: between them lies the cache.

mod adam;
mod batch;
mod calibrate;
mod candle_student;
mod checkpoint;
mod diagnosis;
mod ema;
mod ensemble;
mod error;
mod evaluate;
mod export_onnx;
mod init_from;
mod job;
mod models;
mod network;
mod onnx_file;
mod optim;
mod plan;
mod probe;
mod protobuf;
mod record;
mod schedule;
mod sealed_tensors;
mod shape;
mod state;
mod tally;
mod tensorboard;
mod train;
mod train_spec;

pub use batch::{CleanRows, TeacherRows, TrainBatch};
pub use calibrate::fit_temperature;
pub use candle_student::{CandleStudent, var_builder};
pub use checkpoint::{Checkpoint, Position};
pub use diagnosis::{Patient, Symptom, diagnose, untrained};
pub use ema::Ema;
pub use ensemble::{Combine, Ensemble, EnsembleSpec, teacher_accuracy};
pub use error::StudentError;
pub use evaluate::{Evaluation, Sink, evaluate, predict};
pub use export_onnx::{Normalisation, OnnxSpec, to_onnx, to_safetensors};
pub use job::{Job, Shown};
pub use models::{Build, Head, ImageShape, ModelRow, Student, find as find_model, models};
pub use network::{Network, StudentSpec};
pub use optim::{Decay, Gradients, Optimizer, OptimizerSpec};
pub use plan::hold_out;
pub use probe::{ProbeEpoch, probe};
pub use record::{EpochRecord, RunRecord, Term, Times};
pub use schedule::ScheduleSpec;
pub use shape::StudentShape;
pub use tally::{Metrics, Tally};
pub use tensorboard::TensorBoard;
pub use train::{Event, train};
pub use train_spec::{TrainSpec, check_spec};
