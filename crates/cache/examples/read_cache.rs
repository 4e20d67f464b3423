//! A cache read by a program of one's own: what it is, and the teacher's logits of any samples and views.
//!
//! ```sh
//! cargo run --release --example read_cache -- data/cache/digits-0123456789ab
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::path::Path;

use logitcask_cache::{LogitCache, OpenOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1);
    let folder = folder.ok_or("which cache? `logitcask cache list` prints their folders")?;
    let cache = LogitCache::open(Path::new(&folder), OpenOptions::default())?;
    let (n_samples, n_classes) = (cache.manifest().n_samples, cache.n_classes());
    println!(
        "{n_samples} samples in {} views, {n_classes} classes, as {}",
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
