//! Makes synthetic caches and times gathers from them. `benches/peers/gather_numpy.py` drives it.
//!
//! ```sh
//! gather make FOLDER ENCODING CLASSES SAMPLES    # prints the cache's path
//! gather run CACHE BATCH SECONDS                 # prints rows per second
//! gather open CACHE                              # prints milliseconds to open, and resident memory around an epoch
//! gather memcpy SECONDS                          # prints GB/s read + written by a copy of 64 MiB
//! ```
#![allow(clippy::print_stdout, reason = "a program for people who measure")]
#![allow(clippy::unwrap_used, reason = "it may die where it stands")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use logitcask_cache::{
    CacheKey, ChunkRows, Encoding, LogitCache, LogitWriter, Manifest, OpenOptions,
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", folder, encoding, n_classes, n_samples] => {
            make(
                Path::new(folder),
                encoding,
                n_classes.parse().unwrap(),
                n_samples.parse().unwrap(),
            );
        }
        ["run", cache, batch, seconds] => run(
            Path::new(cache),
            batch.parse().unwrap(),
            seconds.parse().unwrap(),
        ),
        ["open", cache] => open(Path::new(cache)),
        ["memcpy", seconds] => memcpy(seconds.parse().unwrap()),
        _ => panic!(
            "gather make FOLDER ENCODING CLASSES SAMPLES | run CACHE BATCH SECONDS | open CACHE | memcpy SECONDS"
        ),
    }
}

fn make(folder: &Path, encoding: &str, n_classes: usize, n_samples: u32) {
    let encoding = Encoding::parse(encoding).unwrap();
    let key = CacheKey {
        teacher: "synthetic".into(),
        images: n_samples.to_string(),
        ..CacheKey::default()
    };
    let writer = LogitWriter::open(
        folder,
        &Manifest::new("gather", key, encoding, n_samples, n_classes),
    )
    .unwrap();
    for chunk in writer.missing_chunks(0).unwrap() {
        let samples = writer.chunk_range(chunk).unwrap();
        let labels = vec![0; samples.len()];
        let first = samples.start as usize * n_classes;
        let logits: Vec<f32> = (first..first + samples.len() * n_classes)
            .map(|i| (i * 7919 % 1000) as f32 / 100.0 - 5.0)
            .collect();
        let rows = ChunkRows {
            labels: &labels,
            logits: &logits,
            ..ChunkRows::default()
        };
        writer.write_chunk(0, chunk, &rows).unwrap();
    }
    writer.finish_view(0).unwrap();
    println!("{}", writer.path().display());
}

/// All samples in a shuffled order: Fisher and Yates, drawing by xorshift. A regular stride would be kinder to the memory
/// than an epoch of training is.
fn order(n_samples: u32) -> Vec<(u32, u32)> {
    let mut order: Vec<(u32, u32)> = (0..n_samples).map(|sample| (sample, 0)).collect();
    let mut state = 88_172_645_463_325_252u64;
    for last in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

fn run(path: &Path, batch: usize, seconds: f64) {
    let cache = LogitCache::open(path, OpenOptions::default()).unwrap();
    let order = order(cache.manifest().n_samples);
    let mut logits = vec![0.0; batch * cache.n_classes()];
    let mut labels = vec![0; batch];
    let mut epoch = || {
        let mut n_rows = 0;
        for wanted in order.chunks_exact(batch) {
            cache.rows(wanted, &mut logits, &mut labels).unwrap();
            black_box(&logits);
            n_rows += wanted.len();
        }
        n_rows
    };
    epoch();
    let (started, mut n_rows) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds {
        n_rows += epoch();
    }
    println!("{:.0}", n_rows as f64 / started.elapsed().as_secs_f64());
}

fn open(path: &Path) {
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            black_box(LogitCache::open(path, OpenOptions::default()).unwrap());
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let cache = LogitCache::open(path, OpenOptions::default()).unwrap();
    println!("open: median {:.2} ms, worst {:.2} ms", times[2], times[4]);
    let order = order(cache.manifest().n_samples);
    let (mut logits, mut labels) = (vec![0.0; 64 * cache.n_classes()], vec![0; 64]);
    println!("before: {}", memory());
    for (index, wanted) in order.chunks_exact(64).enumerate() {
        cache.rows(wanted, &mut logits, &mut labels).unwrap();
        if index % (order.len() / 64 / 4).max(1) == 0 {
            println!("after {index} batches: {}", memory());
        }
    }
}

/// Private and file-backed resident memory, as the kernel tells. The map's pages are the page cache's, not ours.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| line.starts_with("RssAnon") || line.starts_with("RssFile"));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

fn memcpy(seconds: f64) {
    let source = vec![1u8; 64 << 20];
    let mut target = vec![0u8; 64 << 20];
    let (started, mut n_copies) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds {
        target.copy_from_slice(black_box(&source));
        black_box(&target);
        n_copies += 1;
    }
    println!(
        "{:.2}",
        2.0 * f64::from(n_copies) * (64 << 20) as f64 / started.elapsed().as_secs_f64() / 1e9
    );
}
