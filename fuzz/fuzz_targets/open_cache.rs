//! Manifest, view and chunk from three slices of the input: opening and gathering may refuse, and must not panic.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use logitcask_cache::{
    CacheKey, ChunkRows, Encoding, LogitCache, LogitWriter, Manifest, OpenOptions,
};

fuzz_target!(|input: (u8, u16, Vec<u8>)| {
    let (which, at, patch) = input;
    let Ok(root) = tempfile::tempdir() else {
        return;
    };
    let key = CacheKey {
        teacher: "fuzz".into(),
        ..CacheKey::default()
    };
    let manifest = Manifest {
        chunk_rows: 2,
        ..Manifest::new("fuzz", key, Encoding::U8, 3, 4)
    };
    let Ok(writer) = LogitWriter::open(root.path(), &manifest) else {
        return;
    };
    for chunk in 0..2 {
        let n = 2 - chunk as usize;
        let rows = ChunkRows {
            labels: &[0, 1][..n],
            logits: &[1.0; 8][..4 * n],
            ..ChunkRows::default()
        };
        let _ = writer.write_chunk(0, chunk, &rows);
    }
    let _ = writer.finish_view(0);
    let path = writer.path().to_path_buf();
    let name = [
        "cache.json",
        "view=0000/view.json",
        "view=0000/part-00000.arrow",
    ][which as usize % 3];
    let Ok(mut bytes) = fs::read(path.join(name)) else {
        return;
    };
    let at = at as usize % bytes.len().max(1);
    let end = (at + patch.len()).min(bytes.len());
    bytes.splice(at..end, patch);
    if fs::remove_file(path.join(name)).is_err() || fs::write(path.join(name), bytes).is_err() {
        return;
    }
    if let Ok(cache) = LogitCache::open(&path, OpenOptions::default()) {
        for sample in 0..3 {
            let _ = cache.rows(&[(sample, 0)], &mut [0.0; 4], &mut [0]);
        }
    }
});
