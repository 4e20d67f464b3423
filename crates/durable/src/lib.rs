//! Files that appear whole or not at all, and locks that name their owner.
//!
//! [`write_atomic`] writes beside the target, flushes to the disk, and renames: a reader sees the old file, the new
//! file or none, whatever moment the power fails. [`Lock`] is a file that says which process on which host holds it,
//! so that it works on network file systems where `flock` does not, and so that a person can judge a stale one.

mod lock;
mod write;

pub use lock::{Lock, LockError, Owner};
pub use write::{create_dir_all, is_leftover, remove_leftovers, rename, write_atomic};
