//! Synthetic caches: logits that are a pure function of (sample, view, class).
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::Path;

use logitcask_cache::{CacheKey, ChunkRows, Encoding, LogitWriter, Manifest};

/// A logit between -16 and 16 that differs from its neighbours, by integer mixing alone.
pub fn logit(sample: u32, view: u32, class: usize) -> f32 {
    let mut x = u64::from(sample) << 40 ^ u64::from(view) << 20 ^ class as u64;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 40) as f32 / (1 << 19) as f32 - 16.0
}

pub fn label(sample: u32, n_classes: usize) -> u32 {
    sample.wrapping_mul(7) % n_classes as u32
}

pub fn key() -> CacheKey {
    CacheKey {
        teacher: "5eed".repeat(16),
        output: "logits".into(),
        output_is: "logits".into(),
        preprocess: "mean 0 std 1".into(),
        precision: "f32".into(),
        images: "1234".repeat(16),
        views: "clean".into(),
        ..CacheKey::default()
    }
}

pub fn manifest(encoding: Encoding, n_samples: u32, n_classes: usize, chunk_rows: u32) -> Manifest {
    Manifest {
        chunk_rows,
        ..Manifest::new("synthetic", key(), encoding, n_samples, n_classes)
    }
}

/// Writes one chunk; samples in `bad` get null rows.
pub fn write_chunk(writer: &LogitWriter, view: u32, chunk: u32, bad: &[u32]) {
    let n_classes = writer.manifest().n_classes;
    let samples = writer.chunk_range(chunk).unwrap();
    let labels: Vec<u32> = samples
        .clone()
        .map(|sample| label(sample, n_classes))
        .collect();
    let logits: Vec<f32> = samples
        .clone()
        .flat_map(|sample| (0..n_classes).map(move |class| logit(sample, view, class)))
        .collect();
    let valid: Vec<bool> = samples.map(|sample| !bad.contains(&sample)).collect();
    let rows = ChunkRows {
        labels: &labels,
        logits: &logits,
        valid: &valid,
        ..ChunkRows::default()
    };
    writer.write_chunk(view, chunk, &rows).unwrap();
}

/// Captures whatever is missing of `n_views` views, and returns how many chunks that was.
pub fn capture(
    root: &Path,
    manifest: &Manifest,
    n_views: u32,
    bad: &[u32],
) -> (std::path::PathBuf, usize) {
    let writer = LogitWriter::open(root, manifest).unwrap();
    let mut written = 0;
    for view in 0..n_views {
        for chunk in writer.missing_chunks(view).unwrap() {
            write_chunk(&writer, view, chunk, bad);
            written += 1;
        }
        writer.finish_view(view).unwrap();
    }
    (writer.path().to_path_buf(), written)
}

/// Every file below `folder` with its bytes, by relative path.
pub fn files(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, found: &mut std::collections::BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = std::collections::BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}
