//! A recipe checked whole: each planted mistake is found, with its line, and nothing is paid.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::path::Path;

use bench::{Bench, ROOT, Run};

/// What is replaced by what in `pipelines/quick.toml`, and a word that then stands in one line of it, which is the line that
/// has to be named, together with the word.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("seed = 1", "seeed = 1", "seeed"),
    ("\"parquet\"", "\"parqet\"", "parqet"),
    ("limit = 300", "limit = 0", "limit"),
    ("limit = 300", "limmit = 300", "limmit"),
    ("count = 9", "count = 10", "count"),
    ("random_crop", "random_corp", "random_corp"),
    ("padding = 1", "paddding = 1", "paddding"),
    ("size = 8", "size = -8", "size"),
    ("mean = [0.3048]", "mean = [0.3, 0.3]", "mean"),
    ("std = [0.3757]", "std = [0.0]", "std"),
    ("\"f16\"", "\"f61\"", "f61"),
    ("\"f16\"", "\"top3\"", "mcld"),
    ("min_accuracy = 0.98", "min_accuracy = 98", "min_accuracy"),
    ("\"resnet8\"", "\"resnet9\"", "resnet9"),
    ("\"mcld\"", "\"mlcd\"", "mlcd"),
    ("\"mcld\"", "\"mcld\"\ntemprature = 2", "temprature"),
    ("\"mcld\"", "\"kd\"\ntemperature = \"hot\"", "temperature"),
    ("epochs = 18", "epochs = 0", "epochs"),
    ("epochs = 18", "epochs = 1.5", "epochs"),
    ("epochs = 18", "epochs = \"many\"", "epochs"),
    ("batch_size = 64", "batch_size = 400", "batch_size"),
    ("batch_size = 64", "batch_size = -4", "batch_size"),
    ("lr = 0.05", "lr = nan", "lr"),
    ("lr = 0.05", "lr = 0,05", "lr"),
    ("momentum = 0.9", "momentum = 2", "momentum"),
    ("\"cosine\"", "\"cosin\"", "cosin"),
    ("[train]", "[trian]", "trian"),
    (
        "[student]",
        "[[teacher]]\nonnx = \"data/digits/teacher.onnx\"\n\n[student]",
        "2 teachers",
    ),
];

/// The recipe is right and cannot be obeyed.
const ABSENT: &[(&str, &str, &str)] = &[
    ("\"data/digits\"", "\"data/nowhere\"", "nowhere"),
    ("eval = \"test\"", "eval = \"tset\"", "tset"),
    ("digits/teacher.onnx", "digits/nobody.onnx", "nobody.onnx"),
];

fn quick() -> String {
    fs::read_to_string(Path::new(ROOT).join("pipelines/quick.toml")).unwrap()
}

fn planted(text: &str, (from, to, _): (&str, &str, &str)) -> String {
    assert!(text.contains(from), "`{from}` is not in the recipe");
    text.replacen(from, to, 1)
}

/// Checks a recipe of this text.
fn check(bench: &Bench, text: &str) -> Run {
    let recipe = bench.folder.join("recipe.toml");
    fs::write(&recipe, text).unwrap();
    bench.run(&["check", recipe.to_str().unwrap()])
}

/// The lines in which a word of the user's own stands; of words of ours any line will do.
fn lines_with(text: &str, word: &str) -> Vec<usize> {
    let is_word = |line: &str| line.split(['#']).next().unwrap_or_default().contains(word);
    let numbered = text.lines().zip(1..);
    numbered
        .filter(|(line, _)| is_word(line))
        .map(|(_, n)| n)
        .collect()
}

fn assert_found(told: &Run, text: &str, word: &str) {
    let lines = lines_with(text, word);
    let is_it = |line: &str| {
        let at = |n: &usize| line.contains(&format!("recipe.toml:{n}: "));
        line.starts_with("!!") && line.contains(word) && (lines.is_empty() || lines.iter().any(at))
    };
    assert!(
        told.stdout.lines().any(is_it),
        "`{word}` at {lines:?} is missing from:\n{}{}",
        told.stdout,
        told.stderr
    );
}

#[test]
fn each_mistake_is_found_with_its_line() {
    let bench = Bench::new("check");
    for (code, mistakes) in [(2, MISTAKES), (1, ABSENT)] {
        for mistake in mistakes {
            let text = planted(&quick(), *mistake);
            let told = check(&bench, &text);
            assert!(!told.stderr.contains("panicked"), "{}", told.stderr);
            assert_found(&told, &text, mistake.2);
            assert_eq!(told.code, code, "{mistake:?}: {}", told.stdout);
            for theirs in ["usize", "u32", "f64"] {
                assert!(!told.stdout.contains(theirs), "{}", told.stdout);
            }
        }
    }
    assert!(!bench.cache_dir().exists(), "something was captured");
}

#[test]
fn all_mistakes_of_a_recipe_are_found_at_once() {
    let bench = Bench::new("check_all");
    let several: Vec<_> = [0, 3, 5, 9, 10, 12, 13, 15, 17, 21, 24]
        .map(|index| MISTAKES[index])
        .to_vec();
    let text = several
        .iter()
        .fold(quick(), |text, mistake| planted(&text, *mistake));
    let told = check(&bench, &text);
    for (_, _, word) in &several {
        assert_found(&told, &text, word);
    }
    assert_eq!(told.code, 2, "{}", told.stderr);
    // The stage that pays says them as well, the other stage's too, and pays nothing.
    let recipe = bench.folder.join("recipe.toml");
    let capture = bench.run(&["teacher-logits", recipe.to_str().unwrap()]);
    assert_eq!(capture.code, 2, "{}", capture.stderr);
    for (_, _, word) in &several {
        assert!(capture.stderr.contains(word), "{word}: {}", capture.stderr);
    }
    assert!(!bench.cache_dir().exists(), "something was captured");
}

#[test]
fn a_right_recipe_is_told_what_it_will_take() {
    let bench = Bench::new("check_right");
    let told = check(&bench, &quick()).ok().stdout;
    for words in [
        "1201 training samples, 300 of them selected",
        "0 of 9 views there, 10809 images to capture",
        "10 logits for each",
        "`resnet8`, 77754 parameters",
    ] {
        assert!(told.contains(words), "`{words}` is missing from:\n{told}");
    }
    assert!(!told.contains("!!"), "{told}");
    assert!(!bench.cache_dir().exists());
    let recipe = bench.folder.join("recipe.toml");
    let recipe = recipe.to_str().unwrap();
    bench.run(&["teacher-logits", recipe]).ok();
    let told = bench.run(&["check", recipe]).ok().stdout;
    assert!(told.contains("9 views of `digits`: there"), "{told}");
}

#[test]
fn a_mistake_of_the_command_line_is_no_line_of_the_file() {
    let bench = Bench::new("check_set");
    let recipe = bench.folder.join("recipe.toml");
    fs::write(&recipe, quick()).unwrap();
    let recipe = recipe.to_str().unwrap();
    let set = ["--set", "loss.0.name=mlcd"];
    let run = bench.run(&[&["check", recipe], &set[..]].concat());
    let told = "recipe.toml: no loss is called `mlcd`";
    assert!(run.code == 2 && run.stdout.contains(told), "{}", run.stdout);
    let run = bench.run(&[&["teacher-logits", recipe], &set[..]].concat());
    let told = "with `--set`: no loss is called `mlcd`";
    assert!(run.code == 2 && run.stderr.contains(told), "{}", run.stderr);
}

#[test]
fn a_line_of_json_is_a_finding() {
    let bench = Bench::new("check_json");
    let text = quick().replace("epochs = 18", "epochs = 0");
    let recipe = bench.folder.join("recipe.toml");
    fs::write(&recipe, text).unwrap();
    let run = bench.run(&["check", recipe.to_str().unwrap(), "--json"]);
    let lines = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let wrong = lines.iter().find(|line| line["state"] == "wrong").unwrap();
    assert_eq!(wrong["line"], 33, "{wrong}");
}
