//! A linear probe of a trained student, through the real binary on the embedded digits.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use bench::Bench;
use serde_json::Value;

const PROBE: &str = "pipelines/probe/digits.toml";

/// A student of a few epochs, on CE alone.
fn student(bench: &Bench, epochs: usize) -> String {
    let recipe = bench.recipe(|text| {
        let text = text.replace("epochs = 54", &format!("epochs = {epochs}"));
        let (start, rest) = text.split_once("[[teacher]]").unwrap();
        let rest = &rest[rest.find("[student]").unwrap()..];
        let rest = rest.replace("[student]", "[student]\nmean = [0.3048]\nstd = [0.3757]");
        let (loss, end) = (
            rest.find("[[loss]]").unwrap(),
            rest.find("[train]").unwrap(),
        );
        format!(
            "{start}{}[[loss]]\nname = \"ce\"\n{}",
            &rest[..loss],
            &rest[end..]
        )
    });
    let run = bench.folder.join(format!("run-{epochs}"));
    bench
        .run(&["student", &recipe, "--out", run.to_str().unwrap()])
        .ok();
    run.to_str().unwrap().to_owned()
}

fn probed(bench: &Bench, run: &str) -> f64 {
    let done = bench
        .run_plain(&[
            "probe",
            run,
            "--dataset",
            PROBE,
            "--json",
            "--set",
            "train.epochs=10",
        ])
        .ok();
    let line: Value = serde_json::from_str(done.stdout.trim()).unwrap();
    assert_eq!(line["eval"]["n_samples"], 596);
    line["eval"]["top1"].as_f64().unwrap()
}

#[test]
fn a_trained_backbone_is_worth_more_than_a_fresh_one() {
    let bench = Bench::new("probe");
    let trained = student(&bench, 20);
    let own: Value =
        serde_json::from_slice(&std::fs::read(format!("{trained}/run.json")).unwrap()).unwrap();
    let own = own["last"]["eval"]["top1"].as_f64().unwrap();
    let before = std::fs::read(format!("{trained}/last.safetensors")).unwrap();
    let found = probed(&bench, &trained);
    // The probe sees four times the images that the head saw, so it does about as well or better.
    assert!(
        found > own - 0.03,
        "the student's own head has {own}, the probe {found}"
    );
    assert_eq!(found, probed(&bench, &trained), "the same probe twice");
    assert!(
        before == std::fs::read(format!("{trained}/last.safetensors")).unwrap(),
        "the backbone is frozen"
    );
    let fresh = probed(&bench, &student(&bench, 1));
    assert!(fresh < found - 0.02, "one epoch: {fresh}, twenty: {found}");
}

#[test]
fn what_is_no_probe_is_refused() {
    let bench = Bench::new("probe_refused");
    let run = student(&bench, 1);
    let refused = |dataset: &str, set: &str, told: &str| {
        let run = bench.run_plain(&["probe", &run, "--dataset", dataset, "--set", set]);
        assert_ne!(run.code, 0);
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    };
    refused("pipelines/quick.toml", "seed=1", "a probe has no teacher");
    refused(
        PROBE,
        "views.augment=[{ name = \"horizontal_flip\" }]",
        "clean view",
    );
    refused(
        PROBE,
        "views.clean=[{ name = \"resize\", size = 16 }]",
        "the student takes 8 x 8 pixels",
    );
    refused(PROBE, "train.ema=0.9", "more than a linear probe obeys");
}
