//! Several teachers as one, and students that become teachers, through the real binary on the embedded digits.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::path::Path;

use bench::{Bench, ROOT};
use serde_json::Value;

/// The digits' KD recipe with two views and two epochs.
fn short(text: String) -> String {
    let text = text
        .replace("count = 9", "count = 2")
        .replace("epochs = 54", "epochs = 2");
    assert!(text.contains("count = 2") && text.contains("epochs = 2"));
    text
}

/// A second teacher: a student of the first one, after two epochs much worse than it. Returns its ONNX file.
fn second_teacher(bench: &Bench) -> String {
    let recipe = bench.recipe(short);
    bench.run(&["teacher-logits", &recipe]).ok();
    let run = bench.folder.join("first");
    bench
        .run(&["student", &recipe, "--out", run.to_str().unwrap()])
        .ok();
    let onnx = bench.folder.join("second.onnx");
    bench
        .run_plain(&[
            "export",
            run.to_str().unwrap(),
            "--onnx",
            onnx.to_str().unwrap(),
        ])
        .ok();
    onnx.to_str().unwrap().to_owned()
}

/// The recipe with both teachers and `more` sections.
fn two_teachers(bench: &Bench, second: &str, more: &str) -> String {
    bench.recipe(|text| {
        let teacher = format!(
            "[[teacher]]\nname = \"second\"\nonnx = \"{second}\"\nmean = [0.3048]\nstd = [0.3757]\nencoding = \"f32\"\n"
        );
        short(text).replace("[student]", &format!("{teacher}\n{more}\n[student]"))
    })
}

/// `top-1 99.16 %` of a sentence about a teacher.
fn top1(sentence: &str) -> f64 {
    let (_, rest) = sentence
        .split_once("top-1 ")
        .unwrap_or_else(|| panic!("{sentence}"));
    rest.split_once(" %").unwrap().0.parse().unwrap()
}

fn taught(bench: &Bench, recipe: &str, out: &str) -> (Value, String) {
    let out = bench.folder.join(out);
    let run = bench
        .run(&["student", recipe, "--json", "--out", out.to_str().unwrap()])
        .ok();
    (serde_json::from_str(run.stdout.trim()).unwrap(), run.stderr)
}

#[test]
fn two_caches_teach_as_one_and_their_accuracy_is_told() {
    let bench = Bench::new("ensemble");
    let second = second_teacher(&bench);
    let alone = {
        let recipe = bench.recipe(short);
        let set = format!("teacher.0.onnx={second}");
        let args = [
            "teacher-logits",
            &recipe,
            "--json",
            "--set",
            &set,
            "--set",
            "teacher.0.min_accuracy=0",
        ];
        let captured = bench.run(&args).ok();
        let lines = captured
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_eval = |line: &Value| {
            line["split"]
                .as_str()
                .is_some_and(|split| split.contains("evaluation"))
        };
        let eval = lines
            .into_iter()
            .find(|line| is_eval(line) && line["accuracy"].is_f64());
        let eval = eval.unwrap();
        100.0 * eval["accuracy"].as_f64().unwrap()
    };

    let mut found = Vec::new();
    for (combine, more) in [
        ("logits", "weights = [3, 1]"),
        ("probabilities", ""),
        ("per_sample_best", ""),
    ] {
        let recipe = two_teachers(
            &bench,
            &second,
            &format!("[ensemble]\ncombine = \"{combine}\"\n{more}\n"),
        );
        let captured = bench.run(&["teacher-logits", &recipe]).ok();
        assert!(
            captured.stderr.contains("already in cache"),
            "{}",
            captured.stderr
        );
        let (record, said) = taught(&bench, &recipe, combine);
        let told = record["recorded"]["teacher"].as_str().unwrap().to_owned();
        assert!(
            told.contains("digits + second") && said.contains(&told),
            "{told}\n{said}"
        );
        assert_eq!(
            record["recorded"]["cache"]
                .as_str()
                .unwrap()
                .matches("2 views")
                .count(),
            2
        );
        assert!(record["last"]["eval"]["agreement"].is_f64());
        found.push(top1(&told));
    }
    let first = 99.16;
    assert!(
        alone < first - 10.0,
        "the second teacher is much worse: {alone}"
    );
    assert!(found[0] > alone && found[0] <= first + 0.6, "{found:?}");
    assert!(
        found[2] >= first,
        "whoever knows the label best is right whenever one is: {found:?}"
    );
    // Different rows, different students.
    let metrics = |name: &str| fs::read(bench.folder.join(name).join("metrics.jsonl")).unwrap();
    assert_ne!(metrics("logits"), metrics("probabilities"));

    let recipe = two_teachers(
        &bench,
        &second,
        "[ensemble]\ncombine = \"logits\"\ndropout = 0.5\n",
    );
    taught(&bench, &recipe, "dropout");
    taught(&bench, &recipe, "dropout-again");
    assert_eq!(
        metrics("dropout"),
        metrics("dropout-again"),
        "the seed decides who is left out"
    );
    assert_ne!(metrics("dropout"), metrics("logits"));
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let bench = Bench::new("ensemble_refused");
    let second = second_teacher(&bench);
    let refused = |more: &str, set: &str, code: i32, told: &str| {
        let recipe = two_teachers(&bench, &second, more);
        // The teachers know nothing of how they are combined; a recipe that cannot be read captures nothing.
        bench.run(&["teacher-logits", &recipe]);
        let out = bench.folder.join("refused");
        let mut args = vec!["student", &recipe, "--out", out.to_str().unwrap()];
        if !set.is_empty() {
            args.extend(["--set", set]);
        }
        let run = bench.run(&args);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
        assert!(!out.exists(), "{told}: a refused run left its folder");
    };
    refused("", "", 2, "nothing says how they are combined");
    refused(
        "[ensemble]\ncombine = \"logit\"\n",
        "",
        2,
        "did you mean `logits`?",
    );
    refused(
        "[ensemble]\ncombine = \"logits\"\nweights = [1]\n",
        "",
        2,
        "1 numbers for 2 teachers",
    );
    // Probabilities are no network's logits, and `mse` compares those.
    refused(
        "[ensemble]\ncombine = \"probabilities\"\n",
        "loss.1={ name = \"mse\" }",
        2,
        "`mse` needs",
    );
    // Another family of views is another cache, for both teachers.
    refused(
        "[ensemble]\ncombine = \"logits\"\n",
        "views.seed=5",
        1,
        "no cache",
    );
}

#[test]
fn born_again_runs_two_generations_in_one_command() {
    let bench = Bench::new("born_again");
    let root = Path::new(ROOT);
    let text = fs::read_to_string(root.join("pipelines/digits/born-again/kd.toml")).unwrap();
    let recipe = bench.folder.join("kd.toml");
    fs::write(&recipe, short(text)).unwrap();
    let out = bench.folder.join("out");
    let output = std::process::Command::new("bash")
        .arg("pipelines/digits/born-again/run.sh")
        .arg("2")
        .arg(&recipe)
        .arg(&out)
        .arg("--cache-dir")
        .arg(bench.cache_dir())
        .current_dir(root)
        .env("LOGITCASK", env!("CARGO_BIN_EXE_logitcask"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let record = |generation: u32| -> Value {
        let path = out.join(format!("generation-{generation}/run.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    // The second generation's teacher is the first one's student, and as good as it.
    let told = record(2)["recorded"]["teacher"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(told.contains("generation-1"), "{told}");
    let student = record(1)["last"]["eval"]["top1"].as_f64().unwrap();
    assert!(
        (top1(&told) - 100.0 * student).abs() < 0.2,
        "{told}, its student had {student}"
    );
    assert!(out.join("report.html").is_file());
}
