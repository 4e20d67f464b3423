//! A reader written from the format page alone agrees with ours. It needs python3 with numpy and pyarrow, and is run where
//! `LOGITCASK_FULL=1`; `LOGITCASK_PYTHON` names the interpreter.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::process::Command;

use logitcask_cache::{LogitCache, OpenOptions, encodings};
use support::{capture, manifest};

#[test]
fn a_stranger_reads_the_same_rows() {
    if std::env::var_os("LOGITCASK_FULL").is_none() {
        println!("skipped: set LOGITCASK_FULL=1, with numpy and pyarrow installed");
        return;
    }
    let python = std::env::var_os("LOGITCASK_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/read_numpy.py");
    for row in encodings().iter().filter(|row| row.encoding.is_dense()) {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = capture(root.path(), &manifest(row.encoding, 9, 5, 4), 2, &[6]);
        let output = Command::new(&python)
            .arg(script)
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            row.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let cache = LogitCache::open(&path, OpenOptions::default()).unwrap();
        let mut expected = String::new();
        for &view in cache.views() {
            for sample in 0..9 {
                let mut logits = [0f32; 5];
                let label = cache.label(sample, view).unwrap();
                let text = match cache.row_or_null(sample, view, &mut logits).unwrap() {
                    None => "null".to_owned(),
                    Some(_) => logits
                        .iter()
                        .flat_map(|z| z.to_le_bytes())
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                };
                expected += &format!("{view} {sample} {label} {text}\n");
            }
        }
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{}",
            row.name
        );
    }
}
