//! `cache diff` and `cache stats`: two caches against each other, and one against its labels.

use std::io::Write;
use std::path::Path;

use logitcask_cache::SampleStats;
use logitcask_experiment::{Failure, Outcome, describe};
use serde_json::json;

use super::print::{print_columns, print_json};
use super::verify::open;
use crate::args::{CacheDiff, CacheStats};
use crate::progress::say;

pub(super) fn diff(args: &CacheDiff) -> Outcome {
    let (first, second) = (
        open(&args.first, &args.cache_dir)?,
        open(&args.second, &args.cache_dir)?,
    );
    let report = logitcask_cache::diff(&first, &second, args.worst, &|_, _| {})?;
    if args.json {
        return print_json(&report);
    }
    println!("{}", describe(&report.differences));
    let Some(distance) = &report.distance else {
        println!("no row is in both");
        return Ok(());
    };
    println!(
        "{} rows in {} views: logits differ by at most {:.2e} (median row {:.2e}); {} top-1 flips ({:.3} %)",
        distance.n_rows,
        report.views.len(),
        distance.max_abs,
        distance.median_abs,
        distance.n_flipped,
        100.0 * (1.0 - distance.top1_agreement())
    );
    let row = |name: &str, kl: &logitcask_cache::Quantiles| {
        [
            name.to_owned(),
            format!("{:.2e}", kl.mean),
            format!("{:.2e}", kl.median),
            format!("{:.2e}", kl.p99),
            format!("{:.2e}", kl.max),
        ]
    };
    print_columns(
        ["KL", "mean", "median", "99 %", "max"],
        &[row("T = 1", &distance.kl[0]), row("T = 4", &distance.kl[1])],
    );
    let worst: Vec<[String; 4]> = distance
        .worst
        .iter()
        .map(|(sample, view, row)| {
            [
                sample.to_string(),
                view.to_string(),
                format!("{:.2e}", row.kl[0]),
                if row.is_flipped { "flipped" } else { "" }.to_owned(),
            ]
        })
        .collect();
    println!();
    print_columns(["worst sample", "view", "KL at T = 1", ""], &worst);
    Ok(())
}

pub(super) fn stats(args: &CacheStats) -> Outcome {
    let cache = open(&args.cache, &args.cache_dir)?;
    let stats = logitcask_cache::stats(&cache, &|_, _| {})?;
    let contradictions = stats.contradictions();
    if let Some(path) = &args.exclude_list {
        write_exclude_list(path, args.confidence, &contradictions)?;
    }
    if let Some(path) = &args.weight_list {
        write_weight_list(path, &stats.samples)?;
    }
    if let Some(folder) = &args.out {
        let samples = folder.join("samples.parquet");
        logitcask_cache::write_samples(&stats, &samples)?;
        let picture = folder.join("stats.svg");
        super::picture::write(&stats, cache.n_classes(), &picture)?;
        say(format!("{} and {}", samples.display(), picture.display()));
    }
    if args.json {
        return print_json(&json!({
            "rows": stats.n_rows,
            "accuracy": stats.accuracy,
            "nll": stats.nll,
            "ece": stats.ece,
            "reliability": stats.reliability,
            "entropy": stats.entropy,
            "margin": stats.margin,
            "classes": stats.classes,
            "view_agreement": stats.view_agreement,
            "contradictions": contradictions.len(),
        }));
    }
    println!(
        "{} rows: accuracy {:.2} %, NLL {:.3}, ECE {:.3}{}",
        stats.n_rows,
        100.0 * stats.accuracy,
        stats.nll,
        stats.ece,
        stats.view_agreement.map_or(String::new(), |share| format!(
            ", views of a sample agree on {:.2} %",
            100.0 * share
        ))
    );
    let names = &cache.manifest().class_names;
    let classes: Vec<[String; 3]> = stats
        .classes
        .iter()
        .enumerate()
        .map(|(class, row)| {
            let name = names
                .get(class)
                .cloned()
                .unwrap_or_else(|| class.to_string());
            [
                name,
                row.n_rows.to_string(),
                format!("{:.2} %", 100.0 * row.accuracy),
            ]
        })
        .collect();
    println!();
    print_columns(["class", "rows", "accuracy"], &classes);
    println!();
    println!("confidence   share that is right (rows)");
    for bin in stats.reliability.iter().filter(|bin| bin.n_rows > 0) {
        let bar = "#".repeat((bin.accuracy * 40.0).round() as usize);
        println!(
            "  {:>5.1} %    {:>5.1} % ({:>8})  {bar}",
            100.0 * bin.confidence,
            100.0 * bin.accuracy,
            bin.n_rows
        );
    }
    println!();
    println!(
        "the teacher contradicts the label on {} samples; the most confident of them:",
        contradictions.len()
    );
    let name = |class: u32| {
        names
            .get(class as usize)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    };
    let rows: Vec<[String; 4]> = contradictions
        .iter()
        .take(args.top)
        .map(|found| {
            [
                found.sample.to_string(),
                name(found.label),
                name(found.predicted),
                format!("{:.2} %", 100.0 * found.confidence),
            ]
        })
        .collect();
    print_columns(["sample", "label", "teacher says", "confidence"], &rows);
    Ok(())
}

/// The teacher's mean probability of each sample's label, as `data.sample_weights` reads it.
fn write_weight_list(path: &Path, samples: &[SampleStats]) -> Outcome {
    let labelled = || samples.iter().filter(|one| !one.label_probability.is_nan());
    logitcask_durable::write_atomic(path, |file| {
        for one in labelled() {
            writeln!(file, "{} {:.6}", one.sample, one.label_probability)?;
        }
        Ok(())
    })
    .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))?;
    say(format!(
        "{} weights in `{1}`; train with them: --set data.sample_weights={1}",
        labelled().count(),
        path.display()
    ));
    Ok(())
}

/// The samples whose labels the teacher contradicts with confidence, as `data.exclude` reads them: an index per line.
fn write_exclude_list(path: &Path, confidence: f32, contradictions: &[SampleStats]) -> Outcome {
    let mut listed: Vec<&SampleStats> = contradictions
        .iter()
        .filter(|found| found.confidence >= confidence)
        .collect();
    listed.sort_by_key(|found| found.sample);
    logitcask_durable::write_atomic(path, |file| {
        for found in &listed {
            writeln!(
                file,
                "{} # label {}, the teacher says {} with {:.4}",
                found.sample, found.label, found.predicted, found.confidence
            )?;
        }
        Ok(())
    })
    .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))?;
    say(format!(
        "{} samples listed in `{1}`; train without them: --set data.exclude={1}",
        listed.len(),
        path.display()
    ));
    Ok(())
}
