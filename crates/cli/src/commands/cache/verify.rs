//! `cache verify`: files, rows and labels checked; with a recipe the caches that it reads, and some rows asked of the teacher
//! again.

use std::path::Path;

use logitcask_cache::{DistanceSummary, Distances, Encoding, LogitCache, OpenOptions, RowDistance};
use logitcask_dataset::{PixelBatch, Preprocess, render};
use logitcask_experiment::{CacheWant, Experiment, Failure, Outcome, Recipe, cache_named};
use logitcask_philox::{Purpose, Stream};
use logitcask_teacher::{Device, Pixels, Runtime, Teacher, prepare};
use serde_json::json;

use super::print::print_json;
use crate::args::CacheVerify;
use crate::progress::{Progress, bytes, say};
use crate::watch::shown;

pub(super) fn verify(args: &CacheVerify) -> Outcome {
    let mut damaged = 0;
    for cache in &args.caches {
        let path = cache_named(cache, &args.cache_dir)?;
        damaged += usize::from(!is_whole(&path, args.json)?);
    }
    let mut doubtful = 0;
    if let Some(path) = &args.recipe {
        let [n_damaged, n_doubtful] = verify_recipe(path, args)?;
        damaged += n_damaged;
        doubtful += n_doubtful;
    } else if args.recompute > 0 {
        return Err(
            Failure::asked("`--recompute` needs the teacher and the images")
                .with_hint("name them: `logitcask cache verify --recipe RECIPE --recompute 500`"),
        );
    } else if args.caches.is_empty() {
        return Err(Failure::asked("nothing was named to verify")
            .with_hint("`logitcask cache verify CACHE`, or `--recipe RECIPE`"));
    }
    match (damaged, doubtful) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::work(format!(
            "the teacher gives other logits than {n} of the caches hold"
        ))),
        (n, _) => Err(Failure::work(format!("{n} of the caches are damaged"))
            .with_hint(
                "remove the files named above and the `view.json` beside each, then capture again: only they are made anew",
            )),
    }
}

/// Verifies the caches that a recipe reads, against its data too. Returns how many are damaged, and for how many the
/// teacher gives other logits.
fn verify_recipe(path: &Path, args: &CacheVerify) -> Outcome<[usize; 2]> {
    let (mut damaged, mut doubtful) = (0, 0);
    let recipe = Recipe::load(path, &args.overrides)?;
    let recipe = recipe.with_known_teachers(&args.cache_dir, &shown())?;
    let experiment = Experiment::open(recipe, &shown())?;
    for teacher in &experiment.recipe.teacher {
        for want in experiment.wants(teacher)? {
            let cache = want.open(&args.cache_dir, path, &shown())?;
            let is_whole = is_whole(cache.path(), args.json)?;
            damaged += usize::from(!(is_whole && has_labels_of(&want, &cache, args.json)?));
            if args.recompute > 0 {
                doubtful += usize::from(!recomputes(&want, &cache, args)?);
            }
        }
    }
    Ok([damaged, doubtful])
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

/// The label of every row against the dataset's: the digest in `cache.json` speaks of the latter alone.
fn has_labels_of(want: &CacheWant, cache: &LogitCache, json: bool) -> Outcome<bool> {
    let dataset = &want.split.dataset;
    if cache.manifest().labels != want.split.fingerprint.labels {
        // `data.relabelled`: the cache's are meant to be others, and are not used.
        return Ok(true);
    }
    let mut differing = Vec::new();
    for &view in cache.views() {
        for (sample, &label) in (0..).zip(dataset.labels()) {
            if cache.label(sample, view)? != label {
                differing.push((sample, view));
            }
        }
    }
    let Some((sample, view)) = differing.first() else {
        return Ok(true);
    };
    if json {
        print_json(
            &json!({ "cache": cache.path().display().to_string(), "labels_differ": differing }),
        )?;
        return Ok(false);
    }
    println!(
        "{}: {} rows have another label than the dataset, the first is sample {sample} in view {view}",
        cache.path().display(),
        differing.len()
    );
    Ok(false)
}

/// Runs the teacher over randomly drawn rows and holds the cache against it.
fn recomputes(want: &CacheWant, cache: &LogitCache, args: &CacheVerify) -> Outcome<bool> {
    want.check_has_file()?;
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
    // Some teachers show only when asked that they take one image at a time.
    prepare(
        &mut teacher,
        Pixels {
            dataset: &want.split.dataset,
            family: &want.split.family,
            preprocess: &preprocess,
        },
    )?;
    let pairs = drawn_pairs(want, cache, args.recompute);
    let progress = Progress::new("recomputing", pairs.len() as u64, "rows");
    let n_classes = cache.n_classes();
    let mut distances = Distances::default();
    let mut scale = 0f32;
    let mut pixels = PixelBatch::new(teacher.layout());
    let mut n_done = 0;
    for (asked, wanted) in batches(&pairs, teacher.input().at_once, cache)? {
        render(
            &want.split.dataset,
            &want.split.family,
            &preprocess,
            &asked,
            &mut pixels,
        )?;
        let mut computed = Vec::new();
        teacher.forward(&pixels, &mut computed)?;
        let pairs: Vec<(u32, u32)> = wanted.iter().map(|&row| asked[row]).collect();
        for (&row, &(sample, view)) in wanted.iter().zip(&pairs) {
            let now = &computed[row * n_classes..][..n_classes];
            let then = cached_row(cache, (sample, view), now)?;
            scale = now.iter().fold(scale, |max, z| max.max(z.abs()));
            distances.push(sample, view, RowDistance::between(now, &then));
        }
        n_done += wanted.len() as u64;
        progress.set(n_done, "");
    }
    progress.finish();
    let Some(summary) = distances.summary(3) else {
        return Ok(true);
    };
    let of_computation = args.tolerance.unwrap_or(teacher.tolerance());
    let bound = tolerance(cache.encoding(), of_computation) * scale;
    // A flipped top-1 says nothing beyond this: two logits that differ by less than the bound may well change places.
    let passes = summary.max_abs <= bound;
    tell(want, &summary, bound, passes, args.json)?;
    Ok(passes)
}

/// What a stored logit may be off by, as a share of the largest logit: the encoding's rounding, and what another library,
/// device or batch may do to the last bits.
fn tolerance(encoding: Encoding, of_computation: f32) -> f32 {
    let of_encoding = match encoding {
        Encoding::F16 | Encoding::TopK(_) => 1.0 / 2048.0,
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
    say(format!("  tolerated: {bound:.1e} per logit"));
    Ok(())
}

/// A row as the cache holds it. Classes that it does not list are taken over from `now`: nothing can be said of them.
fn cached_row(cache: &LogitCache, pair: (u32, u32), now: &[f32]) -> Outcome<Vec<f32>> {
    let mut row = now.to_vec();
    if cache.encoding().is_dense() {
        cache.rows(&[pair], &mut row, &mut [0])?;
        return Ok(row);
    }
    for (_, listed) in cache.top_k_rows(&[pair])? {
        for (class, z) in listed.classes.iter().zip(&listed.logits) {
            row[*class as usize] = *z;
        }
    }
    Ok(row)
}

/// (sample, view) pairs that are asked in one batch, and which of them were drawn.
type Batch = (Vec<(u32, u32)>, Vec<usize>);

/// The drawn rows as batches. Where a batch decides its rows, each is asked among those that it was captured with.
fn batches(
    pairs: &[(u32, u32)],
    at_once: Option<usize>,
    cache: &LogitCache,
) -> Outcome<Vec<Batch>> {
    let Some(at_once) = at_once.filter(|at_once| *at_once > 1) else {
        let batch = |pairs: &[(u32, u32)]| (pairs.to_vec(), (0..pairs.len()).collect());
        return Ok(pairs.chunks(32).map(batch).collect());
    };
    let manifest = cache.manifest();
    let batch = |&(sample, view): &(u32, u32)| {
        let chunk = manifest.chunk_range(sample / manifest.chunk_rows)?;
        let row = (sample - chunk.start) as usize % at_once;
        let first = sample - row as u32;
        let end = chunk.end.min(first.saturating_add(at_once as u32));
        Ok((
            (first..end).map(|sample| (sample, view)).collect(),
            vec![row],
        ))
    };
    pairs.iter().map(batch).collect()
}

/// Rows drawn without regard to chunks, the same in each call.
fn drawn_pairs(want: &CacheWant, cache: &LogitCache, n_rows: usize) -> Vec<(u32, u32)> {
    let null = cache.null_samples();
    let good: Vec<u32> = (0..want.split.dataset.len() as u32)
        .filter(|sample| null.binary_search(sample).is_err())
        .collect();
    if good.is_empty() || cache.views().is_empty() {
        return Vec::new();
    }
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
        &cache_named(text, cache_dir)?,
        OpenOptions::default(),
    )?)
}
