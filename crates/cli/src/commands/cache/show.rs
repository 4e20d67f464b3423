//! `cache ls` and `cache show`: what caches there are, and all that one says of itself.

use logitcask_cache::{LogitCache, Maker, Manifest, OpenOptions, Summary};
use logitcask_experiment::{Outcome, cache_named, hex, teacher_seconds};
use serde_json::json;

use super::print::{print_columns, print_json};
use crate::args::{CacheLs, CacheShow};
use crate::progress::{bytes, duration, say};

pub(super) fn ls(args: &CacheLs) -> Outcome {
    let caches = logitcask_cache::list(&args.cache_dir)?;
    if args.json {
        return caches.iter().try_for_each(print_json);
    }
    if caches.is_empty() {
        say(format!(
            "no caches under `{}`; make one: `logitcask teacher-logits pipelines/quick.toml`",
            args.cache_dir.display()
        ));
        return Ok(());
    }
    let rows: Vec<[String; 7]> = caches.iter().map(line).collect();
    print_columns(
        [
            "cache",
            "teacher",
            "dataset",
            "samples x classes",
            "views",
            "encoding",
            "size",
        ],
        &rows,
    );
    Ok(())
}

pub(super) fn show(args: &CacheShow) -> Outcome {
    let path = cache_named(&args.cache, &args.cache_dir)?;
    let cache = LogitCache::open(&path, OpenOptions::default())?;
    let manifest = cache.manifest();
    let makers = logitcask_cache::makers(&path)?;
    if args.json {
        return print_json(&as_json(&cache, &makers)?);
    }
    let mut rows = vec![
        ["path".to_owned(), path.display().to_string()],
        ["id".to_owned(), hex(&cache.id())],
        ["key".to_owned(), hex(&manifest.key.digest())],
        [
            "rows".to_owned(),
            format!(
                "{} samples x {} views, {} classes",
                manifest.n_samples,
                cache.views().len(),
                manifest.n_classes
            ),
        ],
        [
            "accuracy".to_owned(),
            cache.accuracy().map_or("unknown".to_owned(), |top1| {
                format!("{:.2} % over all rows", 100.0 * top1)
            }),
        ],
        [
            "rows without an image".to_owned(),
            cache.null_samples().len().to_string(),
        ],
        [
            "teacher time".to_owned(),
            duration(teacher_seconds(cache.view_files())),
        ],
        [
            "size".to_owned(),
            format!(
                "{} as {}, {} chunks of {} samples a view",
                bytes(logitcask_cache::bytes_of(&path)?),
                manifest.encoding,
                manifest.n_chunks(),
                manifest.chunk_rows
            ),
        ],
    ];
    rows.extend(provenance(manifest, &makers));
    let width = rows.iter().map(|[name, _]| name.len()).max().unwrap_or(0);
    for [name, value] in rows {
        let value = value.replace('\n', " ");
        println!("{name:width$}  {value}");
    }
    Ok(())
}

/// A cache's line in the list.
fn line(cache: &Summary) -> [String; 7] {
    [
        cache.name.clone(),
        cache.teacher.clone(),
        cache.dataset.clone(),
        format!("{} x {}", cache.n_samples, cache.n_classes),
        match (&cache.problem, cache.n_views) {
            (Some(problem), _) => problem.clone(),
            (None, 0) => "0 (unfinished)".to_owned(),
            (None, n) => n.to_string(),
        },
        cache.encoding.to_string(),
        bytes(cache.bytes),
    ]
}

/// The manifest, the views and who made them, as `--json` prints them.
fn as_json(cache: &LogitCache, makers: &[Maker]) -> Outcome<serde_json::Value> {
    let manifest = cache.manifest();
    let views: Vec<_> = cache
        .views()
        .iter()
        .zip(cache.view_files())
        .map(|(view, file)| {
            json!({ "view": view, "chunks": file.chunks.len(), "recorded": file.recorded })
        })
        .collect();
    Ok(json!({
        "path": cache.path().display().to_string(),
        "id": hex(&cache.id()),
        "key": hex(&manifest.key.digest()),
        "ingredients": manifest.key,
        "teacher": manifest.teacher,
        "samples": manifest.n_samples,
        "classes": manifest.n_classes,
        "class_names": manifest.class_names,
        "encoding": manifest.encoding,
        "bytes": logitcask_cache::bytes_of(cache.path())?,
        "chunk_rows": manifest.chunk_rows,
        "absolute": manifest.absolute,
        "accuracy": cache.accuracy(),
        "null_samples": cache.null_samples(),
        "recorded": manifest.recorded,
        "makers": makers,
        "views": views,
    }))
}

/// What identifies a cache, what is recorded of its capture, and what its other makers did in another way.
fn provenance(manifest: &Manifest, makers: &[Maker]) -> Vec<[String; 2]> {
    let ingredients = manifest.key.fields().into_iter();
    let mut rows: Vec<[String; 2]> = ingredients
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| [format!("key: {name}"), value.to_owned()])
        .collect();
    let recorded = manifest.recorded.iter();
    rows.extend(recorded.map(|(name, value)| [format!("recorded: {name}"), value.clone()]));
    rows.extend(makers.iter().map(|maker| {
        let samples = maker.samples();
        let differences = maker.differences(manifest).into_iter();
        let differences: Vec<_> = differences
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        [
            format!("samples {} to {}", samples.start, samples.end - 1),
            format!(
                "captured in part by another maker: {}",
                differences.join("; ")
            ),
        ]
    }));
    rows
}
