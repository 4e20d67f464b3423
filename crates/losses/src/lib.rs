//! Logit-distillation losses: plain functions of tensors, each exact, stable and cheap.
//!
//! What flows through this crate, in order:
//!
//! 1. A recipe's `[[loss]]` entries ([`LossSpec`]) are looked up in the registry ([`methods`]) and become an
//!    [`Objective`], which refuses options that nobody knows.
//! 2. A training step hands it a [`LogitBatch`]: student logits (B, C) tracked by autograd, the teacher's logits
//!    (B, C), labels (B,). [`LogitBatch::prepare`] checks shapes, labels and finiteness and brings it to the host.
//! 3. Each method ([`LogitLoss`]) returns its named, unweighted [`Component`]s. It computes values and gradients by
//!    formula, in one walk over the rows, and enters autograd as a single operation.
//! 4. The objective adds them up with the weights and warm-ups of the recipe, and reports each as a [`Term`].
//!
//! Methods know neither epochs nor weights, and nothing here reads or writes a file. Each file in `methods/` states
//! its paper, its equation, and where it departs from the authors' code; `ops/` holds the numerics they share. To add
//! a method, write that file and its row in `methods/mod.rs`.

mod adaptive;
pub mod bank;
mod batch;
mod error;
mod fused;
mod loss;
mod methods;
mod objective;
mod ops;
mod options;

pub use batch::{BankRows, LogitBatch, MixedLabels, PreparedBatch, StrongView, TopKLogits};
pub use error::{LossError, Need};
pub use loss::{
    Build, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, OptionRow, Setup,
    TeacherNeed, Warmup,
};
pub use methods::{COMMON_OPTIONS, cswt_temperatures, methods};
pub use objective::{LossSpec, Objective, ObjectiveValue, Supply, Term};
pub use options::Options;
