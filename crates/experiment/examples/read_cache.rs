//! A cache read by a program of one's own: what it is, and the teacher's logits of any samples and views.
//!
//! ```sh
//! cargo run --release --example read_cache -- data/cache/resnet56-0123456789ab
//! ```
//!
//! Without a folder it reads that of the embedded digits, which it captures where it is not there. [`read`] needs nothing of
//! ours but the crate `logitcask-cache`.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use logitcask_cache::{LogitCache, OpenOptions};
use logitcask_experiment::{Capture, Machine, capture, read_checked};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(folder) => read(Path::new(&folder)),
        None => run(Path::new("data")),
    }
}

/// With caches below `place`.
pub(crate) fn run(place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let cache_dir = place.join("cache");
    let recipe = read_checked(Path::new("pipelines/quick.toml"), &[])?;
    let how = Capture {
        cache_dir: &cache_dir,
        machine: &Machine::cpu(2, &cache_dir),
        part: "1/1".parse()?,
        stop: &AtomicBool::new(false),
    };
    capture(recipe, &how, &|_| {})?;
    let caches = logitcask_cache::list(&cache_dir)?.into_iter();
    let folders: Vec<PathBuf> = caches
        .filter(|cache| cache.teacher == "digits" && cache.n_views > 0 && cache.encoding.is_dense())
        .map(|cache| cache.path)
        .collect();
    folders.iter().try_for_each(|folder| read(folder))
}

fn read(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let cache = LogitCache::open(folder, OpenOptions::default())?;
    let (n_samples, n_classes) = (cache.manifest().n_samples, cache.n_classes());
    println!(
        "{}: {n_samples} samples in {} views, {n_classes} classes, as {}",
        folder.display(),
        cache.views().len(),
        cache.encoding()
    );

    // Rows come in the order in which they are asked for, whatever encoding they are kept in, and each is checked.
    let bad = cache.null_samples();
    let view = *cache.views().first().ok_or("the cache has no view yet")?;
    let wanted: Vec<(u32, u32)> = (0..n_samples)
        .filter(|sample| !bad.contains(sample))
        .map(|sample| (sample, view))
        .collect();
    let mut logits = vec![0.0; wanted.len() * n_classes];
    let mut labels = vec![0; wanted.len()];
    cache.rows(&wanted, &mut logits, &mut labels)?;

    let rows = logits.chunks(n_classes).zip(&labels);
    let n_right = rows.filter(|(row, label)| argmax(row) == **label as usize);
    let share = 100.0 * n_right.count() as f64 / wanted.len() as f64;
    println!("the teacher is right on {share:.2} % of view {view}");
    Ok(())
}

fn argmax(row: &[f32]) -> usize {
    let largest = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    largest.map_or(0, |(class, _)| class)
}
