use std::path::Path;

use logitcask_cache::{DistanceSummary, Distances, Encoding, LogitCache, OpenOptions, RowDistance};
use logitcask_dataset::{PixelBatch, Preprocess, render};
use logitcask_philox::{Purpose, Stream};
use logitcask_teacher::{Device, Runtime, Teacher};
use serde_json::json;

use super::{print_json, resolve};
use crate::args::CacheVerify;
use crate::exit::{Failure, Outcome};
use crate::experiment::{CacheWant, Experiment};
use crate::progress::{Progress, bytes, say};
use crate::recipe::Recipe;

pub(super) fn verify(args: &CacheVerify) -> Outcome {
    let mut damaged = 0;
    for cache in &args.caches {
        let path = resolve(cache, &args.cache_dir)?;
        damaged += usize::from(!is_whole(&path, args.json)?);
    }
    let mut doubtful = 0;
    if let Some(path) = &args.recipe {
        let recipe = Recipe::load(path, &args.overrides)?;
        let experiment = Experiment::open(recipe)?;
        for teacher in &experiment.recipe.teacher {
            for want in experiment.wants(teacher)? {
                let cache = want.open(&args.cache_dir, path)?;
                damaged += usize::from(!is_whole(cache.path(), args.json)?);
                if args.recompute > 0 {
                    doubtful += usize::from(!recomputes(&want, &cache, args)?);
                }
            }
        }
    } else if args.recompute > 0 {
        return Err(
            Failure::asked("`--recompute` needs the teacher and the images")
                .hint("name them: `logitcask cache verify --recipe RECIPE --recompute 500`"),
        );
    } else if args.caches.is_empty() {
        return Err(Failure::asked("nothing was named to verify")
            .hint("`logitcask cache verify CACHE`, or `--recipe RECIPE`"));
    }
    match (damaged, doubtful) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::work(format!(
            "the teacher gives other logits than {n} of the caches hold"
        ))),
        (n, _) => Err(Failure::work(format!("{n} of the caches are damaged"))
            .hint(
                "remove the files named above and the `view.json` beside each, then capture again: only they are made anew",
            )),
    }
}

/// Digests of all files and checks of all rows.
fn is_whole(path: &Path, json: bool) -> Outcome<bool> {
    let progress = Progress::new("verifying", 0, "bytes");
    let report = logitcask_cache::verify(path, &|_, _| {})?;
    progress.finish();
    if json {
        print_json(&json!({ "cache": path.display().to_string(), "verify": report }))?;
        return Ok(report.is_whole());
    }
    for damage in &report.damages {
        let chunk = damage
            .chunk
            .map_or("its view.json".to_owned(), |chunk| format!("chunk {chunk}"));
        println!(
            "{}: view {}, {chunk}: {}",
            path.display(),
            damage.view,
            damage.problem
        );
    }
    if report.is_whole() {
        println!(
            "{}: whole: {} views, {} chunks, {} rows, {}",
            path.display(),
            report.n_views,
            report.n_chunks,
            report.n_rows,
            bytes(report.bytes)
        );
    }
    Ok(report.is_whole())
}

/// Runs the teacher over randomly drawn rows and holds the cache against it.
fn recomputes(want: &CacheWant, cache: &LogitCache, args: &CacheVerify) -> Outcome<bool> {
    let runtime = Runtime::load(
        crate::runtime::library_path().as_deref(),
        args.provider.parse()?,
    )?;
    let device = Device {
        provider: args.provider.parse()?,
        ..Device::default()
    };
    let mut teacher = Teacher::load(&runtime, want.teacher, &device, 1)?;
    let preprocess = Preprocess::new(&want.teacher.preprocess)?;
    let pairs = drawn_pairs(want, cache, args.recompute);
    let progress = Progress::new("recomputing", pairs.len() as u64, "rows");
    let n_classes = cache.n_classes();
    let mut distances = Distances::default();
    let mut scale = 0f32;
    let mut pixels = PixelBatch::new(teacher.layout());
    for (index, batch) in pairs.chunks(32).enumerate() {
        render(
            &want.split.dataset,
            &want.split.family,
            &preprocess,
            batch,
            &mut pixels,
        )?;
        let mut computed = Vec::new();
        teacher.forward(&pixels, &mut computed)?;
        let mut cached = vec![0.0; batch.len() * n_classes];
        let mut labels = vec![0; batch.len()];
        cache.rows(batch, &mut cached, &mut labels)?;
        for ((pair, now), then) in batch
            .iter()
            .zip(computed.chunks(n_classes))
            .zip(cached.chunks(n_classes))
        {
            scale = now.iter().fold(scale, |max, z| max.max(z.abs()));
            distances.push(pair.0, pair.1, RowDistance::between(now, then));
        }
        progress.set(32 * index as u64, "");
    }
    progress.finish();
    let Some(summary) = distances.summary(3) else {
        return Ok(true);
    };
    let bound = tolerance(cache.encoding(), args.tolerance) * scale;
    let passes = summary.max_abs <= bound && summary.top1_agreement() >= MIN_AGREEMENT;
    tell(want, &summary, bound, passes, args.json)?;
    Ok(passes)
}

/// Two classes that are as good as equal may change places when the last bits differ.
const MIN_AGREEMENT: f64 = 0.995;

/// What a stored logit may be off by, as a share of the largest logit: the encoding's rounding, and what another library,
/// device or batch may do to the last bits.
fn tolerance(encoding: Encoding, of_computation: f32) -> f32 {
    let of_encoding = match encoding {
        Encoding::F16 => 1.0 / 2048.0,
        Encoding::Bf16 => 1.0 / 256.0,
        // Half of a 255th of the row's range, which is at most twice the largest logit.
        Encoding::U8 => 1.0 / 255.0,
        _ => 0.0,
    };
    of_encoding + of_computation
}

fn tell(
    want: &CacheWant,
    summary: &DistanceSummary,
    bound: f32,
    passes: bool,
    json: bool,
) -> Outcome {
    if json {
        return print_json(&json!({
            "recompute": summary,
            "top1_agreement": summary.top1_agreement(),
            "bound": bound,
            "passes": passes,
        }));
    }
    println!(
        "{}: {} rows recomputed: error at most {:.1e} (median {:.1e}), top-1 agreement {:.2} %, mean KL {:.1e} at T = 1, {:.1e} at T = 4: {}",
        want.split.what(),
        summary.n_rows,
        summary.max_abs,
        summary.median_abs,
        100.0 * summary.top1_agreement(),
        summary.kl[0].mean,
        summary.kl[1].mean,
        if passes { "agrees" } else { "DOES NOT AGREE" }
    );
    say(format!(
        "  tolerated: {bound:.1e} per logit, top-1 agreement of {:.1} %",
        100.0 * MIN_AGREEMENT
    ));
    Ok(())
}

/// Rows drawn without regard to chunks, the same in each call.
fn drawn_pairs(want: &CacheWant, cache: &LogitCache, n_rows: usize) -> Vec<(u32, u32)> {
    let null = cache.null_samples();
    let good: Vec<u32> = (0..want.split.dataset.len() as u32)
        .filter(|sample| !null.contains(sample))
        .collect();
    let mut stream = Stream::new(0, Purpose::VerifyRows, [0; 3]);
    let mut pair = || {
        let sample = good[stream.below(good.len() as u64) as usize];
        let view = cache.views()[stream.below(cache.views().len() as u64) as usize];
        (sample, view)
    };
    (0..n_rows).map(|_| pair()).collect()
}

/// Opens a cache for reading.
pub(super) fn open(text: &str, cache_dir: &Path) -> Outcome<LogitCache> {
    Ok(LogitCache::open(
        &resolve(text, cache_dir)?,
        OpenOptions::default(),
    )?)
}
