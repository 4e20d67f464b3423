//! A recipe that nobody can run is worse than none: the published ones are tried on small stand-ins of their datasets, in
//! the same format, with as many classes, and with images of differing sizes where the format has them. Captured with a
//! teacher of random weights, then trained for an epoch of a step or two, through the real binary.
//!
//! One recipe for each format and student; all of them with `LOGITCASK_FULL=1`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;
#[path = "../crates/teacher/tests/common/mod.rs"]
mod common;
mod stand_in;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bench::{Bench, ROOT};
use logitcask_dataset::{Count, ViewsSpec};
use logitcask_experiment::Recipe;

#[test]
fn every_kind_of_recipe_trains_a_step() {
    let bench = Bench::new("recipes");
    let wants_all = std::env::var_os("LOGITCASK_FULL").is_some();
    let mut seen = BTreeSet::new();
    let (mut n_trained, mut n_probes) = (0, 0);
    let mut last_run = None;
    for (place, recipe) in recipes() {
        let Some(student) = recipe.student.as_ref().map(|student| student.name.clone()) else {
            continue;
        };
        if !wants_all && !seen.insert((recipe.data.format.clone(), student)) {
            continue;
        }
        let run = bench.folder.join(format!("run-{n_trained}"));
        train(&bench, &place, recipe, &run);
        if place.starts_with("pipelines/cifar100") {
            last_run = Some(run);
        }
        n_trained += 1;
    }
    assert!(n_trained >= 15, "only {n_trained} recipes were trained");
    let run = last_run.unwrap();
    for (place, recipe) in recipes() {
        if recipe.student.is_none() && recipe.train.is_some() && recipe.data.format != "parquet" {
            probe(&bench, &place, recipe, &run);
            n_probes += 1;
        }
    }
    assert!(n_probes >= 2, "only {n_probes} probes were tried");
    println!("{n_trained} recipes trained, {n_probes} probes");
}

/// Every recipe below `pipelines/`, of a sweep the first.
fn recipes() -> Vec<(PathBuf, Recipe)> {
    let root = Path::new(ROOT);
    let mut paths = Vec::new();
    let mut folders = vec![root.join("pipelines")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "toml" => paths.push(path),
                _ => {}
            }
        }
    }
    paths.sort();
    let load = |path: PathBuf| {
        let is_sweep = fs::read_to_string(&path).unwrap().contains("\n[sweep]\n");
        let recipe = match is_sweep {
            true => logitcask_experiment::recipes_of_sweep(&path)
                .unwrap()
                .remove(0),
            false => Recipe::load(&path, &[]).unwrap(),
        };
        (path.strip_prefix(root).unwrap().to_owned(), recipe)
    };
    paths.into_iter().map(load).collect()
}

fn n_classes(place: &Path) -> usize {
    let place = place.to_str().unwrap();
    let known = [("cifar100", 100), ("tiny", 200), ("imagenet", 1000)];
    let found = known.iter().find(|(name, _)| place.contains(name));
    found.map_or(10, |(_, n)| *n)
}

fn train(bench: &Bench, place: &Path, mut recipe: Recipe, run: &Path) {
    let n_classes = n_classes(place);
    let channels = recipe
        .teacher
        .first()
        .map_or(3, |teacher| teacher.preprocess.mean.len());
    prepare(bench, place, &mut recipe);
    let teacher = bench
        .folder
        .join(format!("teacher-{channels}-{n_classes}.onnx"));
    fs::write(
        &teacher,
        stand_in::teacher(channels as u64, n_classes as u64),
    )
    .unwrap();
    for spec in &mut recipe.teacher {
        spec.onnx = teacher.clone();
        spec.min_accuracy = None;
        spec.batch_size = Some(16);
    }
    let few = |views: &mut ViewsSpec| views.count = Count::Number(1);
    few(&mut recipe.views);
    recipe.views.strong.as_deref_mut().map(few);
    if let Some(student) = &mut recipe.student {
        student.init_from = None;
    }
    let spec = recipe.train.as_mut().unwrap();
    spec.epochs = 1;
    spec.batch_size = spec.batch_size.min(4);
    spec.held_out = spec.held_out.min(2);
    let path = bench.folder.join("recipe.toml");
    fs::write(&path, recipe.to_toml().unwrap()).unwrap();
    let path = path.to_str().unwrap();
    let ok = |verb: &[&str]| {
        let done = bench.run(verb);
        assert_eq!(done.code, 0, "{}: {}", place.display(), done.stderr);
    };
    if !recipe.teacher.is_empty() {
        ok(&["teacher-logits", path]);
    }
    ok(&["student", path, "--out", run.to_str().unwrap()]);
}

fn probe(bench: &Bench, place: &Path, mut recipe: Recipe, run: &Path) {
    prepare(bench, place, &mut recipe);
    let spec = recipe.train.as_mut().unwrap();
    spec.epochs = 1;
    spec.batch_size = spec.batch_size.min(8);
    let path = bench.folder.join("probe.toml");
    fs::write(&path, recipe.to_toml().unwrap()).unwrap();
    let (run, path) = (run.to_str().unwrap(), path.to_str().unwrap());
    let done = bench.run_plain(&["probe", run, "--dataset", path]);
    assert_eq!(done.code, 0, "{}: {}", place.display(), done.stderr);
}

/// Points the recipe at a stand-in of its dataset, and takes a few samples of it.
fn prepare(bench: &Bench, place: &Path, recipe: &mut Recipe) {
    let n_classes = n_classes(place);
    let data = &mut recipe.data;
    let splits = format!("{}{:?}{:?}", data.format, data.train, data.eval);
    let name = blake3::hash(splits.as_bytes()).to_hex();
    data.root = bench
        .folder
        .join(format!("data-{n_classes}-{}", &name[..8]));
    if !data.root.is_dir() {
        stand_in::write(data, &data.root, n_classes);
    }
    data.limit = Some(8);
    data.subset = None;
    data.exclude = None;
}
