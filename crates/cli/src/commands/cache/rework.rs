use std::time::{Duration, SystemTime};

use logitcask_cache::{Encoding, GcPolicy};

use super::verify::open;
use super::{print_columns, print_json, resolve};
use crate::args::{CacheGc, CacheMerge, CachePlan, CacheTranscode};
use crate::exit::{Failure, Outcome};
use crate::experiment::Experiment;
use crate::progress::{Progress, bytes, duration, say};
use crate::recipe::Recipe;

/// What a recipe's caches would take, in every encoding.
pub(super) fn plan(args: &CachePlan) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let experiment = Experiment::open(recipe)?;
    let free = logitcask_cache::available(&args.recipe.cache_dir)?;
    let splits = experiment.eval.iter().chain([&experiment.train]);
    for split in splits {
        let dataset = &split.dataset;
        let rows = logitcask_cache::plan(dataset.len() as u32, split.n_views, dataset.n_classes());
        if args.recipe.json {
            print_json(
                &serde_json::json!({ "split": split.what(), "encodings": rows, "free_bytes": free }),
            )?;
            continue;
        }
        println!(
            "{}: {} samples x {} views, {} classes",
            split.what(),
            dataset.len(),
            split.n_views,
            dataset.n_classes()
        );
        let table: Vec<[String; 3]> = rows
            .iter()
            .map(|row| {
                [
                    row.encoding.to_string(),
                    format!("{} B", row.row_bytes),
                    bytes(row.bytes),
                ]
            })
            .collect();
        print_columns(["encoding", "a row", "all rows"], &table);
        println!();
    }
    if let Some(free) = free.filter(|_| !args.recipe.json) {
        println!(
            "{} are free under `{}`",
            bytes(free),
            args.recipe.cache_dir.display()
        );
    }
    Ok(())
}

pub(super) fn transcode(args: &CacheTranscode) -> Outcome {
    let cache = open(&args.cache, &args.cache_dir)?;
    let encoding =
        Encoding::parse(&args.encoding).map_err(|error| Failure::from(error).as_asked())?;
    let progress = Progress::new("transcoding", 0, "chunks");
    let show = |done: u64, total: u64| {
        progress.set_total(total);
        progress.set(done, "");
    };
    let path = logitcask_cache::transcode(&cache, &args.cache_dir, encoding, &show)?;
    progress.finish();
    println!("{}", path.display());
    Ok(())
}

pub(super) fn merge(args: &CacheMerge) -> Outcome {
    let sources = args
        .sources
        .iter()
        .map(|source| resolve(source, &args.cache_dir))
        .collect::<Outcome<Vec<_>>>()?;
    let report = logitcask_cache::merge(&sources, &args.cache_dir, &|_, _| {})?;
    say(format!(
        "{} chunks copied; views there now: {}",
        report.n_copied,
        report.views.len()
    ));
    for (view, missing) in &report.unfinished {
        say(format!("view {view} still lacks {missing} chunks"));
    }
    println!("{}", report.path.display());
    Ok(())
}

pub(super) fn gc(args: &CacheGc) -> Outcome {
    let policy = GcPolicy {
        older_than: args
            .older_than_days
            .map(|days| Duration::from_secs_f64(days * 86_400.0)),
        max_bytes: args.max_gb.map(|gb| (gb * 1e9) as u64),
    };
    if policy.older_than.is_none() && policy.max_bytes.is_none() {
        return Err(Failure::asked("nothing says which caches may go")
            .hint("give `--older-than-days 90` or `--max-gb 50`"));
    }
    let candidates = logitcask_cache::gc_plan(&args.cache_dir, policy, SystemTime::now())?;
    let rows: Vec<[String; 3]> = candidates
        .iter()
        .map(|candidate| {
            [
                candidate.cache.name.clone(),
                bytes(candidate.cache.bytes),
                duration(candidate.age_s as f64),
            ]
        })
        .collect();
    if rows.is_empty() {
        say("no cache would go");
        return Ok(());
    }
    print_columns(["cache", "size", "last written before"], &rows);
    if !args.yes {
        say("this was a dry run; `--yes` removes them");
        return Ok(());
    }
    for candidate in &candidates {
        logitcask_cache::remove(&candidate.cache.path)?;
    }
    say(format!("{} caches removed", candidates.len()));
    Ok(())
}
