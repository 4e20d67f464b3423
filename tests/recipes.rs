//! Every recipe parses and names only what exists.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use logitcask_experiment::Recipe;

fn recipes() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The recipe of a file, or those of a sweep.
fn load(path: &Path) -> Vec<Recipe> {
    let is_sweep = fs::read_to_string(path).unwrap().contains("\n[sweep]\n");
    let loaded = match is_sweep {
        true => logitcask_experiment::recipes_of_sweep(path),
        false => Recipe::load(path, &[]).map(|recipe| vec![recipe]),
    };
    loaded.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()))
}

#[test]
fn every_recipe_parses_and_names_only_what_exists() {
    let recipes = recipes();
    assert!(
        recipes.len() >= 6,
        "only {} recipes were found",
        recipes.len()
    );
    let setup = logitcask_losses::Setup {
        n_classes: 100,
        epochs: 240,
        dtype: candle_core::DType::F32,
        device: &candle_core::Device::Cpu,
    };
    let loaded = recipes
        .iter()
        .flat_map(|path| load(path).into_iter().map(move |recipe| (path, recipe)));
    for (path, recipe) in loaded {
        let place = path.display();
        let format = &recipe.data.format;
        assert!(
            logitcask_dataset::formats()
                .iter()
                .any(|row| row.name == format),
            "{place}: {format}"
        );
        for augment in &recipe.views.augment {
            let known = logitcask_dataset::augmentations()
                .iter()
                .any(|row| row.name == augment.name);
            assert!(known, "{place}: {}", augment.name);
        }
        if let Some(student) = &recipe.student {
            assert!(
                logitcask_student::models().any(|row| row.name == student.name),
                "{place}: {}",
                student.name
            );
        }
        if let Err(error) = logitcask_losses::Objective::new(&recipe.loss, &setup) {
            assert!(recipe.loss.is_empty(), "{place}: {error}");
        }
    }
}

#[test]
fn a_recipe_begins_with_what_it_is_and_how_to_run_it() {
    for path in recipes() {
        let text = fs::read_to_string(&path).unwrap();
        let comments: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        assert!(
            !comments.is_empty(),
            "{}: no comment says what it is",
            path.display()
        );
        let place = path
            .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../"))
            .unwrap();
        let own_command = comments
            .iter()
            .any(|line| line.contains(place.to_str().unwrap()));
        let is_study = place.starts_with("pipelines/studies");
        assert!(
            own_command || is_study,
            "{}: no comment says how to run it",
            path.display()
        );
    }
}

#[test]
fn a_merged_recipe_reads_back_the_same() {
    for (path, recipe) in recipes()
        .iter()
        .flat_map(|path| load(path).into_iter().map(move |recipe| (path, recipe)))
    {
        let text = recipe.to_toml().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("recipe.toml");
        fs::write(&copy, &text).unwrap();
        assert_eq!(
            Recipe::load(&copy, &[]).unwrap().to_toml().unwrap(),
            text,
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_recipes_of_published_pairs_are_what_their_script_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let checked = Command::new("python3")
        .arg(root.join("pipelines/published.py"))
        .arg("--check")
        .output()
        .expect("python3, which `make setup` needs too");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}
