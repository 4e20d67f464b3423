//! `cache transcode`, `export`, `merge` and `gc`: caches made from caches, and removed.

use std::time::{Duration, SystemTime};

use logitcask_cache::{Encoding, GcPolicy, LogitCache, OpenOptions};

use super::print::print_columns;
use super::verify::open;
use crate::args::{CacheExport, CacheGc, CacheMerge, CacheTranscode, ChunkFiles};
use crate::progress::{Progress, bytes, duration, say};
use logitcask_experiment::{Failure, Outcome, cache_named};

pub(super) fn transcode(args: &CacheTranscode) -> Outcome {
    let progress = Progress::new("transcoding", 0, "chunks");
    let show = |done: u64, total: u64| {
        progress.set_total(total);
        progress.set(done, "");
    };
    let path = cache_named(&args.cache, &args.cache_dir)?;
    let written = match (args.layout, &args.encoding) {
        (Some(ChunkFiles::Parquet), _) => {
            logitcask_cache::pack(&path, &args.cache_dir, args.keep_f16, &show)?
        }
        (Some(ChunkFiles::Arrow), _) => logitcask_cache::unpack(&path, &args.cache_dir, &show)?,
        (None, encoding) => {
            let encoding = Encoding::parse(encoding.as_deref().unwrap_or_default());
            let encoding = encoding?;
            let cache = LogitCache::open(&path, OpenOptions::default())?;
            logitcask_cache::transcode(&cache, &args.cache_dir, encoding, &show)?
        }
    };
    progress.finish();
    println!("{}", written.display());
    Ok(())
}

pub(super) fn export(args: &CacheExport) -> Outcome {
    let cache = open(&args.cache, &args.cache_dir)?;
    let progress = Progress::new("exporting", 0, "files");
    let show = |done: u64, total: u64| {
        progress.set_total(total);
        progress.set(done, "");
    };
    logitcask_cache::export(&cache, &args.out, &show)?;
    progress.finish();
    say(
        "`README.md` in the folder is the dataset's card; check that you may publish what it describes",
    );
    println!("{}", args.out.display());
    Ok(())
}

pub(super) fn merge(args: &CacheMerge) -> Outcome {
    let sources = args
        .sources
        .iter()
        .map(|source| cache_named(source, &args.cache_dir))
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
    let candidates = logitcask_cache::gc_plan(&args.cache_dir, policy(args)?, SystemTime::now())?;
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
    if args.yes {
        // What a call that was killed has left.
        logitcask_cache::remove_shells(&args.cache_dir)?;
    }
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

/// What the arguments say about which caches may go; they have to say something.
fn policy(args: &CacheGc) -> Outcome<GcPolicy> {
    let age = |days: f64| {
        Duration::try_from_secs_f64(days * 86_400.0)
            .map_err(|error| Failure::asked(format!("`--older-than-days {days}`: {error}")))
    };
    let policy = GcPolicy {
        older_than: args.older_than_days.map(age).transpose()?,
        max_bytes: args.max_gb.map(|gb| (gb * 1e9) as u64),
    };
    if policy.older_than.is_none() && policy.max_bytes.is_none() {
        return Err(Failure::asked("nothing says which caches may go")
            .with_hint("give `--older-than-days 90` or `--max-gb 50`"));
    }
    Ok(policy)
}
