//! Looking at a dataset: what is in it, and what a model would see.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use logitcask_dataset::{
    Fingerprint, PUBLICATIONS, PixelBatch, PixelLayout, Preprocess, Role, Trust, ViewFamily,
    contact_sheet, render, stack, write_npy, write_png,
};
use logitcask_experiment::{Experiment, Failure, Outcome, Recipe, Split, hex};
use serde_json::json;

use crate::args::{Dataset, DatasetShow, DatasetVerify};
use crate::progress::{Progress, say};
use crate::watch::shown;

pub(crate) fn run(args: &Dataset, stop: &AtomicBool) -> Outcome {
    match args {
        Dataset::Ls => {
            for publication in PUBLICATIONS {
                println!(
                    "{:14}  format `{}`; {}",
                    publication.name, publication.format, publication.terms
                );
            }
            Ok(())
        }
        Dataset::Show(args) => show(args),
        Dataset::Verify(args) => verify(args),
        Dataset::Get(args) => super::get::run(args, stop),
    }
}

fn show(args: &DatasetShow) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let experiment = Experiment::open(recipe, &shown())?;
    let split = match (args.eval, &experiment.eval) {
        (false, _) => &experiment.train,
        (true, Some(eval)) => eval,
        (true, None) => {
            return Err(Failure::asked("the recipe names no evaluation split")
                .with_hint("add `eval` to `[data]`"));
        }
    };
    if args.recipe.json {
        println!("{}", described(split));
    } else {
        tell(split);
    }
    let views = views(args, split)?;
    if let Some(path) = &args.png {
        draw(args, split, &views, path)?;
        say(format!(
            "{}: the clean image, then views {}..{}",
            path.display(),
            views.start,
            views.end
        ));
    }
    if let Some(path) = &args.npy {
        write_tensor(args, &experiment.recipe, split, &views, path)?;
        say(format!(
            "{}: what the teacher sees, (view, channel, row, column)",
            path.display()
        ));
    }
    Ok(())
}

/// Digests both splits anew and holds them against what is remembered of them.
fn verify(args: &DatasetVerify) -> Outcome {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.overrides)?;
    let roles = [Role::Train, Role::Eval];
    let mut changed = Vec::new();
    for role in &roles[..1 + usize::from(recipe.data.eval.is_some())] {
        let dataset = logitcask_dataset::Dataset::open(&recipe.data, *role)?;
        let known = dataset.remembered_fingerprint()?;
        let progress = Progress::new("reading images", dataset.len() as u64, "img");
        let found = dataset
            .fingerprint_trusting(Trust::Nothing, &|_| (), &|done, _| progress.set(done, ""));
        progress.finish();
        let found = found?;
        let split = match role {
            Role::Train => "train split",
            Role::Eval => "evaluation split",
        };
        print_digest(split, &found, known.as_ref(), args.recipe.json);
        if known.is_some_and(|known| known.images != found.images) {
            changed.push(split);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(Failure::work(format!(
        "the images of the {} are not those that were digested before, though the files have the same names, lengths and times",
        changed.join(" and the ")
    ))
    .with_hint("bring the old images back, or capture the teacher's logits of these: caches are found by the images' digest"))
}

/// Prints a split's new digest and how it stands to the one that is remembered.
fn print_digest(split: &str, found: &Fingerprint, known: Option<&Fingerprint>, as_json: bool) {
    if as_json {
        println!(
            "{}",
            json!({
                "split": split,
                "samples": found.n_samples,
                "images": hex(&found.images),
                "remembered": known.map(|known| hex(&known.images)),
                "bad": found.bad,
            })
        );
        return;
    }
    let verdict = match known {
        None => "not looked at before",
        Some(known) if known.images == found.images => "as remembered",
        Some(_) => "changed",
    };
    println!("{split}: {} images, {verdict}", found.n_samples);
}

fn described(split: &Split) -> serde_json::Value {
    let dataset = &split.dataset;
    json!({
        "split": split.what(),
        "samples": dataset.len(),
        "selected": dataset.selected().len(),
        "classes": dataset.n_classes(),
        "class_names": dataset.class_names(),
        "class_counts": class_counts(split),
        "size": split.fingerprint.uniform_size().map(|size| [size.height, size.width, size.channels]),
        "images": hex(&split.fingerprint.images),
        "labels": hex(&split.fingerprint.labels),
        "bad": split.fingerprint.bad,
        "notes": dataset.notes(),
        "views": split.family.identity(),
        "views_in_all": split.family.n_views(),
    })
}

fn tell(split: &Split) {
    let dataset = &split.dataset;
    let size = split.fingerprint.uniform_size();
    let size = size.map_or("of many sizes".to_owned(), |size| {
        format!("{}x{}x{}", size.height, size.width, size.channels)
    });
    println!("{}", split.what());
    println!(
        "samples   {} ({} selected), {size}",
        dataset.len(),
        dataset.selected().len()
    );
    println!("images    {}", hex(&split.fingerprint.images));
    println!("labels    {}", hex(&split.fingerprint.labels));
    let all = split
        .family
        .n_views()
        .map_or("without end".to_owned(), |n| format!("{n} in all"));
    println!("views     {} ({all})", split.family.identity());
    if !split.fingerprint.bad.is_empty() {
        println!(
            "bad       {} samples: {:?}",
            split.fingerprint.bad.len(),
            split.fingerprint.bad
        );
    }
    println!("classes   {}", dataset.n_classes());
    for (class, count) in class_counts(split).iter().enumerate() {
        let name = dataset.class_names().get(class).map_or("", String::as_str);
        println!("  {class:>4}  {count:>8}  {name}");
    }
}

fn class_counts(split: &Split) -> Vec<usize> {
    let mut counts = vec![0; split.dataset.n_classes()];
    for &label in split.dataset.labels() {
        counts[label as usize] += 1;
    }
    counts
}

/// `0..8`, or a single number.
fn views(args: &DatasetShow, split: &Split) -> Outcome<Range<u32>> {
    let wrong = || {
        Failure::asked(format!("`{}` is no range of views", args.views))
            .with_hint("ranges look like `0..8`")
    };
    let range = match args.views.split_once("..") {
        Some((start, end)) => {
            start.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?
        }
        None => {
            let view: u32 = args.views.parse().map_err(|_| wrong())?;
            view..view + 1
        }
    };
    if range.is_empty() {
        return Err(wrong());
    }
    // A family with fewer views than the default range shows those it has.
    let end = split
        .family
        .n_views()
        .map_or(range.end, |n| u64::from(range.end).min(n) as u32);
    if range.start >= end {
        return Err(Failure::asked(format!(
            "view {} does not exist: the family has {end}",
            range.start
        )));
    }
    Ok(range.start..end)
}

fn draw(args: &DatasetShow, split: &Split, views: &Range<u32>, path: &Path) -> Outcome {
    let mut sheets = Vec::new();
    for &sample in &args.index {
        sheets.push(contact_sheet(
            &split.dataset,
            &ViewFamily::clean(),
            &[vec![(sample, 0)]],
        )?);
        let row = views.clone().map(|view| (sample, view)).collect();
        sheets.push(contact_sheet(&split.dataset, &split.family, &[row])?);
    }
    Ok(write_png(path, &stack(&sheets))?)
}

fn write_tensor(
    args: &DatasetShow,
    recipe: &Recipe,
    split: &Split,
    views: &Range<u32>,
    path: &Path,
) -> Outcome {
    let spec = recipe
        .teacher
        .first()
        .map(|teacher| teacher.preprocess.clone())
        .unwrap_or_default();
    let preprocess = Preprocess::new(&spec)?;
    let requests: Vec<(u32, u32)> = args
        .index
        .iter()
        .flat_map(|&sample| views.clone().map(move |view| (sample, view)))
        .collect();
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    render(
        &split.dataset,
        &split.family,
        &preprocess,
        &requests,
        &mut batch,
    )?;
    Ok(write_npy(path, &batch)?)
}
