use crate::args::CacheLs;
use crate::exit::Outcome;
use crate::progress::{bytes, say};

pub(crate) fn ls(args: &CacheLs) -> Outcome {
    let caches = logitcask_cache::list(&args.cache_dir)?;
    if args.json {
        for cache in &caches {
            println!(
                "{}",
                serde_json::to_string(cache).map_err(crate::exit::Failure::work)?
            );
        }
        return Ok(());
    }
    if caches.is_empty() {
        say(format!(
            "no caches under `{}`; make one: `make teacher-logits RECIPE=pipelines/quick.toml`",
            args.cache_dir.display()
        ));
        return Ok(());
    }
    let rows: Vec<[String; 6]> = caches
        .iter()
        .map(|cache| {
            [
                cache.name.clone(),
                cache.teacher.clone(),
                format!("{} x {}", cache.n_samples, cache.n_classes),
                match cache.n_views {
                    0 => "0 (unfinished)".to_owned(),
                    n => n.to_string(),
                },
                cache.encoding.to_string(),
                bytes(cache.bytes),
            ]
        })
        .collect();
    let header = [
        "cache",
        "teacher",
        "samples x classes",
        "views",
        "encoding",
        "size",
    ]
    .map(str::to_owned);
    print_columns(&header, &rows);
    Ok(())
}

fn print_columns<const N: usize>(header: &[String; N], rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter()
            .chain([header])
            .map(|row| row[column].len())
            .max()
            .unwrap_or(0)
    };
    for row in [header].into_iter().chain(rows) {
        let cells: Vec<String> = (0..N)
            .map(|column| format!("{:w$}", row[column], w = width(column)))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
