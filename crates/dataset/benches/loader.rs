//! Images per second through the loader: `cargo bench -p logitcask-dataset -- CASE ROOT [THREADS] [SECONDS]` prints one
//! number. benches/peers/loader.py runs this and PyTorch's DataLoader in turn and makes the table.
//!
//! Cases: `cifar` (crop, flip, normalise), `jpeg` (random resized crop to 224, flip, normalise), `jpeg8` (eight views
//! of each image at a time, counted per view), `store` (as `jpeg`, from decoded pixels), `decode` (only that).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark's output is its number"
)]

use std::sync::Arc;
use std::time::Instant;

use logitcask_dataset::*;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let [case, root, rest @ ..] = arguments.as_slice() else {
        println!(
            "cargo bench -p logitcask-dataset -- cifar|jpeg|jpeg8|store|decode ROOT [THREADS] [SECONDS]"
        );
        return;
    };
    let threads = rest.first().map_or(2, |n| n.parse().unwrap());
    let seconds: f64 = rest.get(1).map_or(3.0, |n| n.parse().unwrap());
    let cifar = case == "cifar";
    let spec = DataSpec::new(if cifar { "cifar10" } else { "image_folder" }, root);
    let mut dataset = Dataset::open(&spec, Role::Train).unwrap();
    if case == "store" {
        dataset.store_pixels(&|_, _| {}).unwrap();
    }
    let n_samples = dataset.len() as u32;
    if case == "decode" {
        println!("{:.1}", decode_only(&dataset, threads, seconds));
        return;
    }
    let first = if cifar {
        AugmentSpec::new("random_crop")
            .with("size", 32)
            .with("padding", 4)
    } else {
        AugmentSpec::new("random_resized_crop").with("size", 224)
    };
    let augment = [first, AugmentSpec::new("horizontal_flip")];
    let family = ViewFamily::new(&augment, 1, dataset.uniform_size()).unwrap();
    let spec = PreprocessSpec::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let preprocess = Preprocess::new(&spec).unwrap();
    let (batch_size, views) = if cifar {
        (128, 1)
    } else {
        (64, if case == "jpeg8" { 8 } else { 1 })
    };
    // An odd step walks all samples in another order than they are stored in.
    let batches = (0u32..).map(move |batch| {
        let request = |at: u32| {
            let at = batch * batch_size + at;
            (at / views * 7919 % n_samples, at % views)
        };
        (0..batch_size).map(request).collect()
    });
    let (dataset, family) = (Arc::new(dataset), Arc::new(family));
    let mut loader = Loader::new(
        dataset,
        family,
        preprocess,
        PixelLayout::Nchw,
        batches,
        threads,
        2 * threads,
    );
    // The first batches fill the page cache and the buffers.
    for _ in 0..2 * threads {
        let batch = loader.next().unwrap().unwrap();
        loader.recycle(batch);
    }
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        let batch = loader.next().unwrap().unwrap();
        n += batch.n;
        loader.recycle(batch);
    }
    println!("{:.1}", n as f64 / start.elapsed().as_secs_f64());
}

fn decode_only(dataset: &Dataset, threads: usize, seconds: f64) -> f64 {
    let start = Instant::now();
    let n: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut image, mut n) = (Image::new(), 0);
                    while start.elapsed().as_secs_f64() < seconds {
                        dataset
                            .decode(((n * 7919 + thread) % dataset.len()) as u32, &mut image)
                            .unwrap();
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    n as f64 / start.elapsed().as_secs_f64()
}
