//! Logit-distillation losses: functions of tensors, in Candle's operations, on any device, stable at logits of 1e4.
//!
//! Each method is a function: [`kd`]`(student, teacher, &KdSpec)`, [`mcld`]`(student, teacher, labels, &McldSpec)` and so
//! on. It takes logits (B, C) as the networks gave them and returns its parts, unweighted, as one loss per sample (B,)
//! where the mathematics has them. That is all a training loop of one's own needs. What flows for a recipe:
//!
//! 1. Its `[[loss]]` entries ([`LossSpec`]) are looked up in the registry ([`methods`]) and become an [`Objective`],
//!    which refuses options that nobody knows. The options of a method are a type (`KdSpec`): the recipe's keys, their
//!    defaults and ranges and what `logitcask list losses` prints all come from its one declaration.
//! 2. A training step hands it a [`LogitBatch`]: student logits (B, C) tracked by autograd, the teacher's logits
//!    (B, C), labels (B,). [`LogitBatch::prepare`] checks shapes, labels and finiteness, with one small readback.
//! 3. Each method ([`LogitLoss`]) calls its function and returns its named, unweighted [`Component`]s.
//! 4. The objective adds them up with the weights and warm-ups of the recipe, and reports each as a [`Term`].
//!
//! Methods know neither epochs nor weights, nothing here reads or writes a file, and nothing copies logits to the host.
//! Each file in `methods/` states its paper, its equation, and where it departs from the authors' code; `ops` holds the
//! numerics they share. Gradients are autograd's. Written by hand are the exponentials of rows in `fast` and RKD's angles, both on
//! the CPU alone and held to the plain forms by tests; their files say why.
//! To add a method, write that file and its row in `methods/mod.rs`.

mod adaptive;
mod allowed;
pub mod bank;
mod batch;
mod error;
mod fast;
mod loss;
mod methods;
mod objective;
mod ops;
mod option_row;
mod options;
mod spec;

pub use batch::{BankRows, LogitBatch, MixedLabels, PreparedBatch, StrongView, TopKLogits};
pub use error::{LossError, Need};
pub use loss::{
    Build, Component, ComponentSpec, LabelNeed, LogitLoss, MethodRow, Needs, Setup, TeacherNeed,
    Warmup,
};
pub use methods::*;
pub use objective::{LossSpec, Objective, ObjectiveValue, Supply, Term};
pub use option_row::OptionRow;
pub use options::Options;
pub use spec::Spec;
