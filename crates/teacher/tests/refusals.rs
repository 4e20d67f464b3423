//! What cannot work is refused with a message that says what, where and what to do.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Dim, FLOAT, Graph, batch_for, classifier, load, plain_tail, runtime, spec};
use logitcask_dataset::{Preprocess, ViewFamily};
use logitcask_teacher::{
    Accuracy, Device, ExecutionProvider, Pixels, Runtime, Teacher, TeacherError, gate,
};

/// Loads the model and shows it real images; expects every one of `words` in the message or the hint.
fn check(model: &[u8], more: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), model);
    let outcome = load(&path, more, 1).and_then(|mut teacher| {
        let batch = batch_for(&teacher, 4);
        teacher.check(&batch, common::N_CLASSES)
    });
    check_words(&outcome.unwrap_err(), words);
}

fn check_words(error: &TeacherError, words: &[&str]) {
    let told = format!("{error} | {}", error.hint().unwrap_or_default());
    for word in words {
        assert!(told.contains(word), "`{word}` is missing in: {told}");
    }
    assert!(
        !told.ends_with('.')
            && (!error.to_string().starts_with(char::is_uppercase)
                || error.to_string().starts_with("ONNX")),
        "{told}"
    );
}

fn plain() -> Vec<u8> {
    classifier(Dim::Any("batch"), plain_tail)
}

#[test]
fn files_that_are_no_models() {
    let missing = load(Path::new("/nowhere/teacher.onnx"), "", 1).unwrap_err();
    check_words(&missing, &["/nowhere/teacher.onnx", "check `onnx`"]);
    check(
        b"PK\x03\x04 and so on",
        "",
        &["not an ONNX model", "zip file", "torch.onnx.export"],
    );
    let truncated = &plain()[..200];
    check(truncated, "", &["not an ONNX model"]);
    // Whole as a message, but no graph that could run.
    let broken = Graph::default()
        .node("NoSuchOperator", &["x"], "y", &[])
        .output("y", FLOAT, &[Dim::Is(1), Dim::Is(10)])
        .model(13);
    check(
        &broken,
        "",
        &["ONNX Runtime refuses the model", "onnx.checker"],
    );
}

#[test]
fn outputs_that_are_not_there_or_not_clear() {
    check(
        &plain(),
        "output = \"scores\"",
        &["no output `scores`", "`logits`", "output = "],
    );
    let two = classifier(Dim::Any("batch"), |graph| {
        let dims = [Dim::Any("batch"), Dim::Is(10)];
        graph
            .node("Neg", &["gemm"], "left", &[])
            .node("Abs", &["gemm"], "right", &[])
            .output("left", FLOAT, &dims)
            .output("right", FLOAT, &dims)
    });
    check(
        &two,
        "",
        &["several outputs", "`left`, `right`", "output = "],
    );
    let map = Graph::default()
        .input(
            "input",
            FLOAT,
            &[Dim::Any("batch"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .node("Relu", &["input"], "map", &[])
        .output(
            "map",
            FLOAT,
            &[Dim::Any("batch"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .model(13);
    check(&map, "", &["one row of values per image", "[-1, 3, 8, 8]"]);
    let labels = classifier(Dim::Any("batch"), |graph| {
        graph
            .node("ArgMax", &["gemm"], "label", &[("axis", 1)])
            .output("label", 7, &[Dim::Any("batch"), Dim::Is(1)])
    });
    check(&labels, "", &["`label` is i64"]);
}

#[test]
fn classes_that_do_not_fit() {
    let five = classifier(Dim::Any("batch"), |graph| {
        graph
            .weights("w5", FLOAT, &[10, 5], &common::raw_f32(&[0.5; 50]))
            .node("MatMul", &["gemm", "w5"], "out", &[])
            .output("out", FLOAT, &[Dim::Any("batch"), Dim::Is(5)])
    });
    check(
        &five,
        "",
        &["5 classes, the dataset has 10", "classes = [...]"],
    );
    check(
        &plain(),
        "classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]",
        &["class 10", "has 10 (0 to 9)"],
    );
    check(
        &plain(),
        "classes = [0, 1]",
        &["2 classes, the dataset has 10"],
    );
}

#[test]
fn inputs_that_do_not_fit() {
    let sized = |channels, side| {
        Graph::default()
            .input(
                "input",
                FLOAT,
                &[
                    Dim::Any("batch"),
                    Dim::Is(channels),
                    Dim::Is(side),
                    Dim::Is(side),
                ],
            )
            .node("GlobalAveragePool", &["input"], "pooled", &[])
            .node("Flatten", &["pooled"], "flat", &[])
            .output("flat", FLOAT, &[Dim::Any("batch"), Dim::Is(channels)])
            .model(13)
    };
    check(&sized(3, 224), "", &["3x224x224", "3x8x8", "size"]);
    check(
        &sized(1, 8),
        "",
        &["1 channel,", "have 3", "one value each", "channels = 1"],
    );
    check(
        &sized(3, 8),
        "mean = [0.5]\nstd = [0.25]\nchannels = 1",
        &["3 channels", "have 1", "3 values each", "channels = 3"],
    );
    check(
        &sized(16, 16),
        "",
        &["could be (B, C, H, W) or (B, H, W, C)", "layout = \"nchw\""],
    );
    let two = Graph::default()
        .input("image", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .input("mask", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .node("Mul", &["image", "mask"], "out", &[])
        .output("out", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .model(13);
    check(&two, "", &["wants 2 inputs (image, mask)"]);
    let nothing = Graph::default()
        .input(
            "input",
            FLOAT,
            &[Dim::Is(0), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .node("GlobalAveragePool", &["input"], "pooled", &[])
        .node("Flatten", &["pooled"], "flat", &[])
        .output("flat", FLOAT, &[Dim::Is(0), Dim::Is(3)])
        .model(13);
    check(&nothing, "", &["[0, 3, 8, 8]", "no batch of images"]);
    let numbers = Graph::default()
        .input("tokens", 7, &[Dim::Any("n"), Dim::Is(10)])
        .node("Cast", &["tokens"], "out", &[("to", 1)])
        .output("out", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .model(13);
    check(&numbers, "", &["`tokens` is i64", "f32, f16 or u8"]);
    let bytes = Graph::default()
        .input("image", common::UINT8, &[Dim::Any("n"), Dim::Is(192)])
        .node("Cast", &["image"], "out", &[("to", 1)])
        .output("out", FLOAT, &[Dim::Any("n"), Dim::Is(192)])
        .model(13);
    check(&bytes, "", &["takes bytes", "scale = \"byte\""]);
}

#[test]
fn a_softmax_is_refused_with_both_remedies() {
    let softmax = |graph: Graph| {
        graph.node("Softmax", &["gemm"], "p", &[]).output(
            "p",
            FLOAT,
            &[Dim::Any("batch"), Dim::Is(10)],
        )
    };
    let model = classifier(Dim::Any("batch"), softmax);
    check(
        &model,
        "",
        &[
            "`p` holds probabilities, the recipe says logits",
            "output_is = \"probabilities\"",
            "before the softmax",
        ],
    );
    check(
        &plain(),
        "output_is = \"probabilities\"",
        &["holds logits", "remove `output_is`"],
    );
}

/// A good teacher may be wrong about one image of twenty; on a thousand it would be another matter.
#[test]
fn few_labelled_images_refuse_nobody_for_bad_luck() {
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), &plain());
    let mut teacher = load(&path, "min_accuracy = 0.98", 1).unwrap();
    let (dataset, family) = (common::images(20), ViewFamily::clean());
    let preprocess = Preprocess::new(&teacher.spec().preprocess).unwrap();
    let pixels = Pixels {
        dataset: &dataset,
        family: &family,
        preprocess: &preprocess,
    };
    let mut passes = |n_samples, correct| {
        let accuracy = Accuracy {
            n_samples,
            correct,
            correct_top5: correct,
        };
        gate(
            &mut teacher,
            pixels,
            &dataset.selected(),
            &accuracy,
            1,
            &AtomicBool::new(false),
        )
        .is_ok()
    };
    assert!(passes(20, 19) && passes(0, 0) && passes(1000, 980));
    assert!(!passes(20, 12) && !passes(1000, 970));
}

#[test]
fn a_precision_that_the_weights_do_not_have() {
    check(
        &plain(),
        "precision = \"f16\"",
        &[
            "precision `f16`",
            "are `f32`",
            "precision = \"f32\"",
            "tensorrt",
        ],
    );
}

#[test]
fn providers_that_cannot_be_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), &plain());
    let runtime = runtime();
    for provider in [ExecutionProvider::Cuda, ExecutionProvider::TensorRt] {
        if runtime.providers().contains(&provider) {
            continue;
        }
        let device = Device {
            provider,
            ..Device::default()
        };
        let error = Teacher::load(&runtime, &spec(&path, ""), &device, 1).unwrap_err();
        check_words(
            &error,
            &["without the", provider.name(), "make setup PROVIDER=cuda"],
        );
    }
    let error = "gpu".parse::<ExecutionProvider>().unwrap_err();
    check_words(&error, &["`gpu`", "`cuda`"]);
}

#[test]
fn libraries_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("libonnxruntime.so");
    let error = load_library_in_a_fresh_process(&missing);
    assert!(
        error.contains("no ONNX Runtime library") && error.contains("make setup"),
        "{error}"
    );
    std::fs::write(&missing, b"not a library").unwrap();
    let error = load_library_in_a_fresh_process(&missing);
    assert!(
        error.contains("could not be loaded") && error.contains("make setup"),
        "{error}"
    );
    // A library, but not this one.
    let libc = [
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib64/libm.so.6",
        "/lib/aarch64-linux-gnu/libm.so.6",
    ];
    if let Some(other) = libc.iter().map(Path::new).find(|path| path.exists()) {
        let error = load_library_in_a_fresh_process(other);
        assert!(error.contains("could not be loaded"), "{error}");
    }
}

/// A process holds one library for life, so each attempt gets a process: this test binary, told to run one test only.
fn load_library_in_a_fresh_process(path: &Path) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_loads_a_library", "--nocapture"])
        .env("TEACHER_TEST_LIBRARY", path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn child_that_loads_a_library() {
    let Some(path) = std::env::var_os("TEACHER_TEST_LIBRARY") else {
        return;
    };
    let error = Runtime::load(Some(Path::new(&path)), ExecutionProvider::Cpu).unwrap_err();
    println!("{error} | {}", error.hint().unwrap_or_default());
}

#[test]
fn features_that_are_none() {
    let model = classifier(Dim::Any("batch"), |graph| {
        let map = [Dim::Any("batch"), Dim::Is(3), Dim::Is(8), Dim::Is(8)];
        plain_tail(graph)
            .node("Relu", &["input"], "map", &[])
            .output("map", FLOAT, &map)
    });
    let named = |features: &str| format!("output = \"logits\"\nfeatures = \"{features}\"");
    check(&model, &named("pool"), &["no output `pool`", "`map`"]);
    check(&model, &named("map"), &["`map` has shape", "features = "]);
    check(
        &model,
        &named("logits"),
        &["`logits` are the very output", "leave it out"],
    );
}
