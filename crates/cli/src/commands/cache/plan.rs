//! `cache plan`: bytes in every encoding and hours of teacher time, before any of it is paid.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use logitcask_dataset::Preprocess;
use logitcask_experiment::{Experiment, Machine, Outcome, Recipe, Split};
use logitcask_teacher::{Pixels, TeacherSpec, measure_accuracy, prepare, spread};
use serde_json::json;

use super::print::{print_columns, print_json};
use crate::args::CachePlan;
use crate::progress::{bytes, duration, say};
use crate::watch::shown;

/// What a recipe's caches would take, in every encoding, and for how long its teachers would run.
pub(super) fn plan(args: &CachePlan) -> Outcome {
    let machine = args.machine.machine(&args.recipe.cache_dir)?;
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let recipe = recipe.with_known_teachers(&args.recipe.cache_dir, &shown())?;
    let experiment = Experiment::open(recipe, &shown())?;
    let free = logitcask_cache::available(&args.recipe.cache_dir)?;
    let splits = || {
        let always = experiment.eval.iter().chain([&experiment.taught]);
        always.chain(&experiment.strong)
    };
    splits().try_for_each(|split| sizes(split, free, args.recipe.json))?;
    let n_images: u64 = splits()
        .map(|split| split.dataset.len() as u64 * u64::from(split.n_views))
        .sum();
    for teacher in &experiment.recipe.teacher {
        if args.images > 0 && teacher.known.is_none() {
            times(teacher, &experiment.taught, n_images, &machine, args)?;
        }
    }
    if let Some(free) = free.filter(|_| !args.recipe.json) {
        let folder = args.recipe.cache_dir.display();
        println!("{} are free under `{folder}`", bytes(free));
    }
    Ok(())
}

fn sizes(split: &Split, free: Option<u64>, json: bool) -> Outcome {
    let dataset = &split.dataset;
    let rows = logitcask_cache::plan(dataset.len() as u32, split.n_views, dataset.n_classes());
    if json {
        return print_json(&json!({
            "split": split.what(),
            "samples": dataset.len(),
            "views": split.n_views,
            "classes": dataset.n_classes(),
            "encodings": rows,
            "free_bytes": free,
        }));
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
    Ok(())
}

/// Runs the teacher on a few images and reckons the rest by them. A teacher that cannot run here does not keep the sizes
/// from being planned.
fn times(
    spec: &TeacherSpec,
    split: &Split,
    n_images: u64,
    machine: &Machine,
    args: &CachePlan,
) -> Outcome {
    let rate = match rate(spec, split, machine, args) {
        Ok(rate) => rate,
        Err(failure) => {
            say(format!(
                "how long `{}` takes cannot be said: {failure}",
                spec.title()
            ));
            return Ok(());
        }
    };
    let seconds = n_images as f64 / rate;
    if args.recipe.json {
        return print_json(&json!({
            "teacher": spec.title(),
            "images": n_images,
            "images_per_s": rate,
            "seconds": seconds,
        }));
    }
    println!(
        "teacher `{}` on {}: some {} for {n_images} images, at {rate:.0} img/s on {} of them",
        spec.title(),
        args.machine.provider,
        duration(seconds),
        args.images,
    );
    Ok(())
}

/// Images per second, decoding and augmenting included.
fn rate(spec: &TeacherSpec, split: &Split, machine: &Machine, args: &CachePlan) -> Outcome<f64> {
    let mut teacher = machine.load(spec)?;
    let decoders = machine.threads;
    let preprocess = Preprocess::new(&spec.preprocess)?;
    let pixels = Pixels {
        dataset: &split.dataset,
        family: &split.family,
        preprocess: &preprocess,
    };
    prepare(&mut teacher, pixels)?;
    let samples = spread(&split.dataset.selected(), args.images);
    let never = AtomicBool::new(false);
    // The first runs allocate, and choose algorithms on a GPU.
    let warm = &samples[..samples.len().min(64)];
    measure_accuracy(&mut teacher, pixels, warm, decoders, &never)?;
    let started = Instant::now();
    measure_accuracy(&mut teacher, pixels, &samples, decoders, &never)?;
    Ok(samples.len() as f64 / started.elapsed().as_secs_f64())
}
