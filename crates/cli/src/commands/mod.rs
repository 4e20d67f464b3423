//! One file, one verb.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod dataset;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod probe;
pub(crate) mod report;
pub(crate) mod student;
pub(crate) mod sweep;
pub(crate) mod teacher_logits;
