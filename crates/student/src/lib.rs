//! Networks, and the flat loop that trains them against cached teacher logits.
//!
//! What flows through: an epoch's order of (sample, view) pairs goes to the dataset's loader, which brings pixels;
//! [`TrainBatch::join`] adds labels and the teacher's rows for the very same pairs; the [`Network`] answers with
//! logits, the objective with a loss; [`Sgd`] steps; after each epoch comes an evaluation, a [`Checkpoint`] and a line of
//! metrics. [`train`] tells it in order.
//!
//! This crate never sees the teacher: between them lies the cache.

mod batch;
mod checkpoint;
mod error;
mod evaluate;
mod models;
mod network;
mod optim;
mod record;
mod schedule;
mod train;

pub use batch::{TeacherRows, TrainBatch};
pub use checkpoint::Checkpoint;
pub use error::StudentError;
pub use evaluate::{Metrics, Tally};
pub use models::{ImageShape, ModelRow, Student, find as find_model, models};
pub use network::{Network, StudentSpec};
pub use optim::{OptimizerSpec, Sgd};
pub use record::{EpochRecord, RunRecord, Term, Times};
pub use schedule::ScheduleSpec;
pub use train::{Evaluation, Event, Job, TrainSpec, evaluate, train};
