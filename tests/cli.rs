//! What a person meets who asks wrongly: one message, the remedy, exit code 1 or 2, no panic, nothing left behind that
//! would later be trusted.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::path::Path;

use bench::{Bench, Run};

/// Runs a command that must fail with `code`, saying each of `words`.
fn check(run: Run, code: i32, words: &[&str]) {
    assert_eq!(run.code, code, "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert_eq!(
        run.stderr.matches("error: ").count(),
        1,
        "one message: {}",
        run.stderr
    );
    for word in words {
        assert!(
            run.stderr.contains(word),
            "`{word}` is missing from: {}",
            run.stderr
        );
    }
}

#[test]
fn a_missing_teacher_is_named() {
    let bench = Bench::new("missing_teacher");
    let recipe = bench.recipe(|text| text.replace("teacher.onnx", "nowhere.onnx"));
    check(
        bench.run(&["teacher-logits", &recipe]),
        1,
        &["nowhere.onnx", "hint"],
    );
    bench.assert_no_cache();
}

#[test]
fn a_teacher_that_is_no_onnx_file_is_refused() {
    let bench = Bench::new("no_onnx");
    let path = bench.folder.join("no.onnx");
    fs::write(&path, "this is a text file").unwrap();
    let recipe =
        bench.recipe(|text| text.replace("data/digits/teacher.onnx", path.to_str().unwrap()));
    check(
        bench.run(&["teacher-logits", &recipe]),
        1,
        &["no.onnx", "hint"],
    );
    bench.assert_no_cache();
}

#[test]
fn a_teacher_of_other_classes_is_refused() {
    let bench = Bench::new("wrong_classes");
    // Four classes in the dataset, ten in the teacher.
    let recipe = bench.recipe(|text| {
        let data = "[data]\nformat = \"synthetic\"\nn_classes = 4\nchannels = 1\n[data.synthetic]\nheight = 8\nwidth = 8\n";
        let (_, rest) = text.split_once("[views]").unwrap();
        format!("{data}\n[views]{rest}")
    });
    check(
        bench.run(&["teacher-logits", &recipe]),
        1,
        &["10", "4", "classes"],
    );
    bench.assert_no_cache();
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one() {
    let bench = Bench::new("misspelt");
    let recipe = bench.recipe(|text| text.replace("epochs =", "epoch ="));
    check(
        bench.run(&["student", &recipe]),
        2,
        &["epoch", "did you mean `epochs`?"],
    );
    let recipe = bench.recipe(|text| text.replace("count =", "counts ="));
    check(
        bench.run(&["teacher-logits", &recipe]),
        2,
        &["counts", "did you mean `count`?"],
    );
}

#[test]
fn a_misspelt_loss_or_option_is_answered_with_the_right_one() {
    let bench = Bench::new("misspelt_loss");
    let recipe = bench.recipe(|text| text.replace("name = \"kd\"", "name = \"kdd\""));
    check(bench.run(&["student", &recipe]), 2, &["kdd", "`kd`"]);
    let recipe = bench.recipe(|text| text.replace("temperature =", "temprature ="));
    check(
        bench.run(&["student", &recipe]),
        2,
        &["temprature", "`temperature`"],
    );
}

#[test]
fn a_misspelt_student_is_answered_with_the_right_one() {
    let bench = Bench::new("misspelt_student");
    let recipe = bench.recipe(|text| text.replace("resnet8", "resnet9"));
    check(
        bench.run(&["student", &recipe]),
        2,
        &["resnet9", "`resnet8`"],
    );
}

#[test]
fn a_missing_dataset_folder_is_named() {
    let bench = Bench::new("missing_dataset");
    let recipe =
        bench.recipe(|text| text.replace("root = \"data/digits\"", "root = \"data/nowhere\""));
    check(
        bench.run(&["teacher-logits", &recipe]),
        1,
        &["data/nowhere", "hint"],
    );
    bench.assert_no_cache();
}

#[test]
fn a_truncated_dataset_is_refused_with_found_and_expected() {
    let bench = Bench::new("truncated");
    let folder = bench.folder.join("cifar");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data_batch_1.bin"), vec![0; 3073 + 100]).unwrap();
    fs::write(folder.join("test_batch.bin"), vec![0; 3073]).unwrap();
    let recipe = bench.recipe(|text| {
        text.replace("format = \"parquet\"", "format = \"cifar10\"")
            .replace("data/digits\"", &format!("{}\"", folder.display()))
    });
    check(
        bench.run(&["teacher-logits", &recipe]),
        1,
        &["data_batch_1.bin", "3073"],
    );
    bench.assert_no_cache();
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_named() {
    let bench = Bench::new("read_only");
    let recipe = bench.recipe(|text| text);
    // Not even root can make a folder below a file.
    let file = bench.folder.join("file");
    fs::write(&file, "").unwrap();
    let cache = file.join("cache");
    let run = bench.run_plain(&[
        "teacher-logits",
        &recipe,
        "--cache-dir",
        cache.to_str().unwrap(),
    ]);
    check(run, 1, &["file/cache"]);
    // Root may write into any folder but those the kernel shows.
    #[cfg(target_os = "linux")]
    {
        let run = bench.run_plain(&["teacher-logits", &recipe, "--cache-dir", "/sys/logitcask"]);
        check(run, 1, &["/sys/logitcask"]);
    }
}

#[test]
fn a_student_without_its_cache_says_what_to_type() {
    let bench = Bench::new("no_cache");
    let recipe = bench.recipe(|text| text);
    check(
        bench.run(&["student", &recipe]),
        1,
        &["logitcask teacher-logits "],
    );
}

#[test]
fn a_device_that_this_build_lacks_is_refused_with_the_build_to_make() {
    let bench = Bench::new("device");
    let recipe = "pipelines/digits/resnet-resnet8/ce.toml";
    let run = |device: &[&str]| bench.run(&[&["student", recipe], device].concat());
    if !cfg!(feature = "cuda") {
        let words = ["no CUDA for students", "make build DEVICE=cuda"];
        check(run(&["--device", "cuda"]), 2, &words);
    }
    check(run(&["--device", "gpu"]), 2, &["`gpu`", "`cuda`"]);
    check(run(&["--tf32"]), 2, &["--tf32", "--device cuda"]);
}

#[test]
fn a_recipe_that_is_not_there_and_one_that_is_no_toml_are_refused() {
    let bench = Bench::new("no_recipe");
    check(
        bench.run(&["student", "pipelines/nowhere.toml"]),
        2,
        &["pipelines/nowhere.toml", "hint"],
    );
    let path = bench.folder.join("broken.toml");
    fs::write(&path, "seed = = 1").unwrap();
    check(
        bench.run(&["student", path.to_str().unwrap()]),
        2,
        &["broken.toml"],
    );
}

#[test]
fn help_and_lists_are_data_on_stdout() {
    let bench = Bench::new("help");
    for command in [
        "--help",
        "teacher-logits --help",
        "student --help",
        "list losses",
        "list students",
        "doctor",
    ] {
        let run = bench.run_plain(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        assert!(!run.stdout.is_empty(), "{command}");
    }
    let run = bench.run_plain(&["list", "losses", "--json"]);
    for line in run.stdout.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["name"].is_string(), "{line}");
    }
    assert!(Path::new(bench::ROOT).join("pipelines").is_dir());
}

/// `logitcask list | head -1`: a reader that goes away is no failure, and no panic.
#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_logitcask"))
        .args(["list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take()); // before it has written anything
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_measurement_of_what_there_is_not_is_refused() {
    let bench = Bench::new("no_step");
    let refused = |args: &[&str], words: &[&str]| {
        check(
            bench.run_plain(&[&["bench", "step"][..], args].concat()),
            2,
            words,
        );
    };
    refused(&["--student", "resnet8_4"], &["`resnet8x4`"]);
    refused(&["--loss", "kdd"], &["`kd`"]);
    refused(&["--loss", "{ name = 3 }"], &["hint"]);
    refused(&["--batch-size", "1"], &["--batch-size", "2..=65536"]);
}

/// A first look at all images can take minutes, before any teacher runs: it is said, with what it costs, and only then.
#[test]
fn a_first_look_at_many_images_is_announced_and_a_second_is_not_taken() {
    let bench = Bench::new("first-look");
    let root = bench.folder.join("cifar");
    fs::create_dir(&root).unwrap();
    // 24,000 black images of class 0, in a file of holes.
    let file = fs::File::create(root.join("black.bin")).unwrap();
    file.set_len(24_000 * 3073).unwrap();
    let recipe = bench.folder.join("recipe.toml");
    let text = format!("[data]\nformat = \"cifar10\"\nroot = {root:?}\ntrain = [\"black.bin\"]\n");
    fs::write(&recipe, text).unwrap();
    let check = || bench.run(&["check", recipe.to_str().unwrap()]).ok().stderr;
    let told = check();
    assert!(
        told.contains("all 24000 images are read once, 0.1 GB"),
        "{told}"
    );
    assert!(told.contains(".logitcask"), "{told}");
    assert!(!check().contains("read once"));
}
