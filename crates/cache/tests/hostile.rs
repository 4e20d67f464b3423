//! Random damage to manifests and chunks, resealed where that takes it further: an error or a right row, never a panic
//! and never a large allocation. `fuzz/` looks for the same with coverage as its guide.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;

use logitcask_cache::{Encoding, LogitCache, OpenOptions};
use proptest::prelude::*;
use support::{capture, files, manifest};

fn open_and_read(path: &Path) {
    let Ok(cache) = LogitCache::open(path, OpenOptions::default()) else {
        return;
    };
    let mut row = vec![0.0; cache.n_classes()];
    for &view in cache.views().iter().take(3) {
        for sample in 0..cache.manifest().n_samples.min(50) {
            let _ = cache.row_or_null(sample, view, &mut row);
        }
    }
}

/// Gives a JSON text a seal that fits, so that the numbers in it are believed.
fn reseal(text: &str) -> Option<String> {
    let (head, _) = text.rsplit_once(",\n  \"blake3\"")?;
    Some(format!(
        "{head},\n  \"blake3\": \"{}\"\n}}\n",
        blake3::hash(head.as_bytes()).to_hex()
    ))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn random_damage_never_panics(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = capture(root.path(), &manifest(Encoding::U8, 6, 3, 4), 1, &[2]);
        let all = files(&path);
        let (name, bytes) = which.get(&all.iter().collect::<Vec<_>>()).to_owned();
        let mut bytes = bytes.clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        std::fs::remove_file(path.join(name)).unwrap();
        std::fs::write(path.join(name), bytes).unwrap();
        open_and_read(&path);
    }

    #[test]
    fn believed_but_impossible_numbers_are_refused(
        field in prop::sample::select(vec!["n_samples", "n_classes", "chunk_rows", "n_rows", "bytes", "view", "version"]),
        value in prop::sample::select(vec!["0", "1", "7", "-1", "65536", "1048576", "4294967295", "18446744073709551615", "1e99", "null"]),
    ) {
        let root = tempfile::tempdir().unwrap();
        let (path, _) = capture(root.path(), &manifest(Encoding::F16, 6, 3, 4), 1, &[]);
        for name in ["cache.json", "view=0000/view.json"] {
            let text = std::fs::read_to_string(path.join(name)).unwrap();
            let lines = text.lines().map(|line| match line.trim_start().starts_with(&format!("\"{field}\":")) {
                true => format!("  \"{field}\": {value}{}", if line.ends_with(',') { "," } else { "" }),
                false => line.to_owned(),
            });
            let changed = reseal(&(lines.collect::<Vec<_>>().join("\n") + "\n")).unwrap();
            std::fs::write(path.join(name), changed).unwrap();
        }
        open_and_read(&path);
    }
}
