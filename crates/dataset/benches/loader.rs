//! Images per second through the loader: `cargo bench -p logitcask-dataset -- CASE ROOT [THREADS] [SECONDS]` prints one
//! number. benches/peers/loader.py runs this and PyTorch's DataLoader in turn and makes the table.
//!
//! Cases: `cifar` (crop, flip, normalise), `jpeg` (random resized crop to 224, flip, normalise), `jpeg8` (eight views
//! of each image at a time, counted per view), `reduced` (as `jpeg`, decoded at reduced resolution), `store` (as `jpeg`,
//! from decoded pixels), `decode` (only that). `difference` is no benchmark: it prints how far reduced pixels are off.

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
            "cargo bench -p logitcask-dataset -- cifar|jpeg|jpeg8|reduced|store|decode|difference ROOT [THREADS] [SECONDS]"
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
    if case == "difference" {
        println!("{}", difference(&dataset));
        return;
    }
    let first = if cifar {
        AugmentSpec::new("random_crop")
            .with("size", 32)
            .with("padding", 4)
    } else {
        let crop = AugmentSpec::new("random_resized_crop").with("size", 224);
        if case == "reduced" {
            crop.with("reduced", true)
        } else {
            crop
        }
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

/// How far the pixels of reduced decoding are from those of full decoding, over one view of each image, and over those of
/// them that were reduced at all.
fn difference(dataset: &Dataset) -> String {
    let crop = AugmentSpec::new("random_resized_crop").with("size", 224);
    let reduced = crop.clone().with("reduced", true);
    let preprocess = Preprocess::new(&PreprocessSpec {
        scale: Scale::Byte,
        ..PreprocessSpec::default()
    });
    let preprocess = preprocess.unwrap();
    let (mut sum, mut n, mut n_reduced, mut greatest) = (0.0, 0, 0, 0.0f32);
    for index in 0..dataset.len() as u32 {
        let [full, reduced] = [&crop, &reduced].map(|spec| {
            let family = ViewFamily::new(std::slice::from_ref(spec), 1, None).unwrap();
            let mut batch = PixelBatch::new(PixelLayout::Nchw);
            render(dataset, &family, &preprocess, &[(index, 0)], &mut batch).unwrap();
            batch.pixels
        });
        let differences = full.iter().zip(&reduced).map(|(a, b)| (a - b).abs());
        let of_this: f64 = differences.clone().map(f64::from).sum();
        greatest = differences.fold(greatest, f32::max);
        n_reduced += usize::from(of_this > 0.0);
        sum += of_this;
        n += full.len();
    }
    let per_view = n / dataset.len();
    format!(
        "{n_reduced} of {} views are reduced; those differ by {:.2} levels of 255 on average, {greatest} at most",
        dataset.len(),
        sum / (per_view * n_reduced.max(1)) as f64
    )
}
