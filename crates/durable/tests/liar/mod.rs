//! `liar.c`, a file system that lies, as a library for `LD_PRELOAD`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it as `library`, or says loudly why there is none.
pub(crate) fn build(library: &Path) -> Option<PathBuf> {
    // Of the crate whose test includes this file.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = root.join("crates/durable/tests/liar/liar.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"])
        .args([library, &*source])
        .arg("-ldl");
    if cc.status().is_ok_and(|status| status.success()) {
        return Some(library.into());
    }
    eprintln!("SKIPPED: no C compiler; nothing is known of file systems that lie");
    None
}
