//! Files that appear whole or not at all, and claims on work that outlive neither their process nor its host.
//!
//! [`write_atomic`] writes beside the target, flushes to the disk, and renames: a reader sees the old file, the new
//! file or none, whatever moment the power fails. A [`Claim`] is a file that says which process on which host is at
//! work, and that is touched as long as it is: it works on network file systems where `flock` does not, and needs
//! nobody to clear up after a host that died. [`exists`] and its like tell what is not there from what cannot be asked.
//! [`seal_json`] and [`seal_comment`] put a text's own digest at its end, for bytes that change on the disk.

mod claim;
mod look;
mod owner;
mod read;
mod seal;
mod write;

pub use claim::{Claim, ClaimError, Holder, Limits, Watcher};
pub use look::{absent_is_none, entries, exists, is_file, is_folder, metadata};
pub use owner::Owner;
pub use read::{open, read, read_to_string};
pub use seal::{BrokenSeal, seal_comment, seal_json, unseal_comment, unseal_json};
pub use write::{create_dir_all, is_leftover, remove_file, remove_leftovers, rename, write_atomic};
