//! Real models and real images, where they lie beside the project; skipped out loud where they do not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are tests too, and a skipped test says so"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use logitcask_dataset::{DataSpec, Dataset, PixelBatch, Preprocess, Role, ViewFamily};
use logitcask_teacher::{
    Accuracy, OutputIs, Pixels, Teacher, TeacherError, gate, measure_accuracy,
};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The model of this name, or a loud skip.
fn model(name: &str) -> Option<PathBuf> {
    let path = project().join("../shared/data/models").join(name);
    if !path.is_file() {
        eprintln!("SKIPPED: `{}` is not there", path.display());
        return None;
    }
    Some(path)
}

/// The thousand test images, or a loud skip.
fn cifar10_test() -> Option<Dataset> {
    let mut spec = DataSpec::new("cifar10", project().join("data/datasets/cifar10"));
    spec.eval = Some("test".into());
    match Dataset::open(&spec, Role::Eval) {
        Ok(dataset) if dataset.len() == 1000 => Some(dataset),
        _ => {
            eprintln!("SKIPPED: data/datasets/cifar10 does not hold the first 1000 test images");
            None
        }
    }
}

/// Each model of the shared folder, what its input looks like, and what its output holds.
const MODELS: [(&str, [usize; 3], usize, OutputIs); 13] = [
    ("cifar10_resnet20.onnx", [3, 32, 32], 10, OutputIs::Logits),
    ("cifar10_resnet32.onnx", [3, 32, 32], 10, OutputIs::Logits),
    ("cifar10_resnet44.onnx", [3, 32, 32], 10, OutputIs::Logits),
    ("cifar10_resnet56.onnx", [3, 32, 32], 10, OutputIs::Logits),
    (
        "cifar10_resnet20_bn.onnx",
        [3, 32, 32],
        10,
        OutputIs::Logits,
    ),
    (
        "cifar10_resnet20_clean.onnx",
        [3, 32, 32],
        10,
        OutputIs::Logits,
    ),
    (
        "cifar10_resnet56_clean.onnx",
        [3, 32, 32],
        10,
        OutputIs::Logits,
    ),
    ("mnist-8.onnx", [1, 28, 28], 10, OutputIs::Logits),
    ("mnist-opt-wonnx.onnx", [1, 28, 28], 10, OutputIs::Logits),
    (
        "onnx_light_densenet121.onnx",
        [3, 224, 224],
        1000,
        OutputIs::Logits,
    ),
    (
        "onnx_light_resnet50.onnx",
        [3, 224, 224],
        1000,
        OutputIs::Probabilities,
    ),
    (
        "onnx_light_shufflenet.onnx",
        [3, 224, 224],
        1000,
        OutputIs::Probabilities,
    ),
    (
        "onnx_light_squeezenet.onnx",
        [3, 224, 224],
        1000,
        OutputIs::Probabilities,
    ),
];

#[test]
fn every_model_answers_or_is_refused_for_its_softmax() {
    for (name, [channels, height, width], n_classes, holds) in MODELS {
        let Some(path) = model(name) else { continue };
        let mut teacher =
            common::load(&path, "mean = []", 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut batch = PixelBatch::new(teacher.layout());
        (batch.n, batch.channels, batch.height, batch.width) = (2, channels, height, width);
        batch.pixels = (0..2 * channels * height * width)
            .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        let mut rows = Vec::new();
        teacher
            .forward(&batch, &mut rows)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rows.len(), 2 * n_classes, "{name}");
        assert_eq!(teacher.judge_output(&batch).unwrap(), holds, "{name}");
        match (teacher.check(&batch, n_classes), holds) {
            (Ok(()), OutputIs::Logits)
            | (Err(TeacherError::OutputIsNot { .. }), OutputIs::Probabilities) => {}
            // Their weights are placeholders, and some of them say the same of every image.
            (Err(TeacherError::Constant { .. }), _) if name.starts_with("onnx_light_") => {}
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

const IMAGENET: &str = "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]";

fn accuracy_of(teacher: &mut Teacher, dataset: &Dataset) -> Accuracy {
    let (family, preprocess) = (
        ViewFamily::clean(),
        Preprocess::new(&teacher.spec().preprocess).unwrap(),
    );
    let pixels = Pixels {
        dataset,
        family: &family,
        preprocess: &preprocess,
    };
    measure_accuracy(
        teacher,
        pixels,
        &dataset.selected(),
        2,
        &AtomicBool::new(false),
    )
    .unwrap()
}

#[test]
fn the_teachers_are_as_good_as_their_papers_say() {
    let Some(dataset) = cifar10_test() else {
        return;
    };
    for (name, correct) in [
        ("cifar10_resnet20_clean.onnx", 915),
        ("cifar10_resnet56_clean.onnx", 926),
    ] {
        let Some(path) = model(name) else { continue };
        let mut teacher = common::load(&path, IMAGENET, 2).unwrap();
        let accuracy = accuracy_of(&mut teacher, &dataset);
        assert_eq!(
            (accuracy.n_samples, accuracy.correct),
            (1000, correct),
            "{name}"
        );
    }
}

#[test]
fn a_wrong_normalisation_is_refused_and_the_right_one_named() {
    let Some(dataset) = cifar10_test() else {
        return;
    };
    let Some(path) = model("cifar10_resnet20_clean.onnx") else {
        return;
    };
    for (wrong, remedy) in [
        ("mean = []\nscale = \"byte\"", "ImageNet"),
        (
            "mean = [0.406, 0.456, 0.485]\nstd = [0.225, 0.224, 0.229]\nchannel_order = \"bgr\"",
            "channel_order = \"rgb\"",
        ),
    ] {
        let mut teacher = common::load(&path, &format!("{wrong}\nmin_accuracy = 0.9"), 2).unwrap();
        let (family, preprocess) = (
            ViewFamily::clean(),
            Preprocess::new(&teacher.spec().preprocess).unwrap(),
        );
        let pixels = Pixels {
            dataset: &dataset,
            family: &family,
            preprocess: &preprocess,
        };
        let (samples, stop) = (dataset.selected(), AtomicBool::new(false));
        let accuracy = measure_accuracy(&mut teacher, pixels, &samples, 2, &stop).unwrap();
        let error = gate(&mut teacher, pixels, &samples, &accuracy, 2, &stop).unwrap_err();
        let TeacherError::TooInaccurate {
            best: Some(best), ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(best.setting.contains(remedy), "{best}");
        assert!(best.accuracy > 0.85 && best.n_samples == 256, "{best}");
        assert!(
            error.to_string().contains("the recipe asks for 90.00 %"),
            "{error}"
        );
    }
}
