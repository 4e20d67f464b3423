//! What a program brings of its own: the examples run, and a network of Candle's layers is trained as safely as ours are.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Once};

use logitcask_dataset::{AugmentRow, FormatRow, augmentations, formats};
use logitcask_experiment::{
    Capture, Event, Machine, Own, Split, Trained, Training, capture, read_checked_with, train,
};
use logitcask_losses::{MethodRow, methods};
use logitcask_student::{Checkpoint, Event as Step, ModelRow, models};

#[path = "../examples/own_dataset.rs"]
#[allow(dead_code, reason = "its `main` is")]
mod own_dataset;
#[path = "../examples/own_loss.rs"]
#[allow(dead_code, reason = "its `main` is")]
mod own_loss;
#[path = "../examples/own_student.rs"]
#[allow(dead_code, reason = "its `main` is")]
mod own_student;

#[path = "../examples/read_cache.rs"]
#[allow(dead_code, reason = "its `main` is")]
mod read_cache;

const RECIPE: &str = "pipelines/quick.toml";

/// Recipes name their data from the repository's root.
fn at_root() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::env::set_current_dir("../..").unwrap());
}

/// The digits' teacher, captured once for all tests.
fn captured() -> &'static Path {
    static PLACE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        at_root();
        let place = tempfile::tempdir().unwrap();
        let cache_dir = place.path().join("cache");
        let how = Capture {
            cache_dir: &cache_dir,
            machine: &Machine::cpu(2, &cache_dir),
            part: "1/1".parse().unwrap(),
            stop: &AtomicBool::new(false),
        };
        let recipe = read_checked_with(Path::new(RECIPE), &[], Own::NONE).unwrap();
        capture(recipe, &how, &|_| {}).unwrap();
        place
    });
    PLACE.path()
}

#[test]
fn the_examples_run() {
    let place = captured();
    own_student::run(place).unwrap();
    own_loss::run(place).unwrap();
    own_dataset::run(place).unwrap();
    read_cache::run(place).unwrap();
}

/// Of `small`, stopped after so many steps of the whole run where a number is given.
fn trained(folder: &Path, stop_after: Option<usize>) -> Option<f64> {
    let overrides = ["student.name=small", "train.epochs=3"].map(str::to_owned);
    let recipe = read_checked_with(Path::new(RECIPE), &overrides, own_student::OWN).unwrap();
    let (cache_dir, stop) = (captured().join("cache"), AtomicBool::new(false));
    let how = Training {
        out: Some(folder),
        ..Training::new(Path::new(RECIPE), &cache_dir, &stop)
    };
    let n_steps = std::cell::Cell::new(0);
    let run = train(recipe, &how, &|event| {
        if let Event::Training {
            event: Step::Step { .. },
            ..
        } = event
        {
            n_steps.set(n_steps.get() + 1);
            stop.store(Some(n_steps.get()) == stop_after, Ordering::Relaxed);
        }
    });
    match stop_after {
        None => Some(run.unwrap().record.last.eval.unwrap().top1),
        Some(_) => {
            assert!(run.err().unwrap().to_string().contains("stopped"));
            None
        }
    }
}

/// Weights come from the recipe's seed and not from Candle's generator, and a checkpoint holds all that a step changes, the
/// running statistics of candle-nn's batch norms included.
#[test]
fn a_candle_network_resumes_to_the_same_bytes() {
    let whole = captured().join("runs/whole");
    let parts = captured().join("runs/parts");
    let top1 = trained(&whole, None);
    trained(&parts, Some(3));
    trained(&parts, Some(5));
    assert_eq!(trained(&parts, None), top1);
    let last = |run: &Path| fs::read(run.join(Checkpoint::LAST)).unwrap();
    assert!(last(&whole) == last(&parts), "other bytes after two stops");

    let checkpoint = Checkpoint::read(&whole.join(Checkpoint::LAST));
    let state = checkpoint.unwrap().unwrap().student();
    let mean = state["norm1.running_mean"].to_vec1::<f32>().unwrap();
    assert!(mean.iter().any(|m| *m != 0.0), "statistics never moved");

    let again = Trained::open_with(&whole, Checkpoint::LAST, &[], own_student::OWN).unwrap();
    let split = Split::open_eval(&again.recipe, &|_| {}).unwrap();
    let logits = again.logits(&split, &split.dataset.good(), None).unwrap();
    assert_eq!(Some(logits.metrics(1.0).top1), top1);
}

/// Decay reaches what a gradient reaches: statistics would otherwise be dragged to zero.
#[test]
fn statistics_are_no_parameters() {
    let image = logitcask_student::ImageShape {
        channels: 1,
        height: 8,
        width: 8,
    };
    let row = &own_student::OWN.students[0];
    let device = candle_core::Device::Cpu;
    let network = logitcask_student::Network::of_row(row, image, 10, 1, &device).unwrap();
    let names = |of: Vec<(String, candle_core::Var)>| -> Vec<String> {
        of.into_iter().map(|(name, _)| name).collect()
    };
    let parameters = names(network.params().parameters());
    let statistics = names(network.params().buffers());
    assert_eq!(statistics.len(), 4, "{statistics:?}");
    assert!(statistics.iter().all(|name| name.contains(".running_")));
    assert!(
        parameters.contains(&"norm1.weight".to_owned()),
        "{parameters:?}"
    );
    assert!(parameters.contains(&"fc.bias".to_owned()), "{parameters:?}");
}

#[test]
fn what_is_misspelt_is_answered_with_the_programs_own_names() {
    at_root();
    let refused = |assignment: &str, own: Own| {
        let overrides = [assignment.to_owned()];
        let failure = read_checked_with(Path::new(RECIPE), &overrides, own).unwrap_err();
        assert!(failure.is_request(), "{failure}");
        format!("{failure} {}", failure.hint().unwrap_or_default())
    };
    for (assignment, own, nearest) in [
        ("student.name=smal", own_student::OWN, "`small`"),
        (r#"loss.0={ name = "angel" }"#, own_loss::OWN, "`angle`"),
        (
            r#"views.augment=[{ name = "erase_rows" }]"#,
            own_dataset::OWN,
            "`erase_row`",
        ),
        (
            r#"loss.0={ name = "angle", temprature = 2 }"#,
            own_loss::OWN,
            "`temperature`",
        ),
    ] {
        let told = refused(assignment, own);
        assert!(told.contains(nearest), "{assignment}: {told}");
    }
}

/// Caches and runs say names: one that meant ours yesterday must not mean a program's today.
#[test]
fn a_name_that_is_ours_is_refused() {
    at_root();
    static STUDENT: LazyLock<Vec<ModelRow>> = LazyLock::new(|| {
        let name = models().next().unwrap().name;
        vec![ModelRow::own(name, |_, _, _| unreachable!("never built"))]
    });
    static LOSS: LazyLock<Vec<MethodRow>> = LazyLock::new(|| methods()[..1].to_vec());
    static FORMAT: LazyLock<Vec<FormatRow>> = LazyLock::new(|| formats()[..1].to_vec());
    static AUGMENTATION: LazyLock<Vec<AugmentRow>> =
        LazyLock::new(|| augmentations()[..1].to_vec());
    for (own, name) in [
        (
            Own {
                students: &STUDENT,
                ..Own::NONE
            },
            STUDENT[0].name,
        ),
        (
            Own {
                losses: &LOSS,
                ..Own::NONE
            },
            LOSS[0].name,
        ),
        (
            Own {
                formats: &FORMAT,
                ..Own::NONE
            },
            FORMAT[0].name,
        ),
        (
            Own {
                augmentations: &AUGMENTATION,
                ..Own::NONE
            },
            AUGMENTATION[0].name,
        ),
    ] {
        let failure = read_checked_with(Path::new(RECIPE), &[], own).unwrap_err();
        let told = failure.to_string();
        assert!(told.contains(&format!("`{name}`")), "{told}");
    }
}
