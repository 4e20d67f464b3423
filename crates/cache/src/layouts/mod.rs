//! How the columns of a chunk lie in a file.

pub(crate) mod arrow_ipc;
pub(crate) mod parquet;
