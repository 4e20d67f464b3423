//! Students leave the house as ONNX and answer the same in ONNX Runtime; one that left can be the next teacher.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use bench::{Bench, ROOT};
use candle_core::{Device, Tensor};
use logitcask_dataset::{PixelBatch, PixelLayout};
use logitcask_layers::Mode;
use logitcask_philox::{Purpose, Stream};
use logitcask_student::{ImageShape, Network, OnnxSpec, models, to_onnx};
use logitcask_teacher::{ExecutionProvider, Runtime, Teacher, TeacherSpec};
use serde_json::Value;

const N_IMAGES: usize = 3;
const SIDE: usize = 32;

#[test]
fn every_student_of_the_zoo_exports_and_agrees() {
    std::env::set_current_dir(ROOT).unwrap();
    let bench = Bench::new("export_zoo");
    let runtime = Runtime::load(None, ExecutionProvider::Cpu).unwrap();
    let image = ImageShape {
        channels: 3,
        height: SIDE,
        width: SIDE,
    };
    let mut stream = Stream::new(1, Purpose::Bench, [0; 3]);
    let nhwc: Vec<f32> = (0..N_IMAGES * SIDE * SIDE * 3)
        .map(|_| stream.uniform() as f32 * 2.0 - 1.0)
        .collect();
    let mut worst = 0f32;
    // `make test-full` shows the files to onnx.checker.
    let kept = std::env::var_os("LOGITCASK_ONNX_DIR").map(std::path::PathBuf::from);
    let folder = kept.unwrap_or_else(|| bench.folder.clone());
    std::fs::create_dir_all(&folder).unwrap();
    for row in models() {
        let network = Network::build(row.name, image, 10, 1, &Device::Cpu).unwrap();
        for keep_batch_norm in [false, true] {
            let spec = OnnxSpec {
                keep_batch_norm,
                ..OnnxSpec::default()
            };
            let form = if keep_batch_norm { "kept" } else { "folded" };
            let path = folder.join(format!("{}-{form}.onnx", row.name));
            std::fs::write(&path, to_onnx(&network, &spec).unwrap()).unwrap();
            let pixels =
                Tensor::from_slice(&nhwc, (N_IMAGES, SIDE, SIDE, 3), &Device::Cpu).unwrap();
            let ours = network.forward(&pixels, Mode::Eval).unwrap();
            let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();

            let spec: TeacherSpec = toml::from_str(&format!("onnx = {path:?}")).unwrap();
            let mut teacher = Teacher::load(&runtime, &spec, &Default::default(), 1).unwrap();
            let mut theirs = Vec::new();
            teacher.forward(&nchw(&nhwc), &mut theirs).unwrap();
            let scale = ours.iter().fold(0f32, |max, z| max.max(z.abs()));
            let error = ours
                .iter()
                .zip(&theirs)
                .fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert_eq!(ours.len(), theirs.len(), "{}", row.name);
            assert!(error <= 1e-4 * scale, "{}: {error} of {scale}", row.name);
            worst = worst.max(error / scale);
        }
    }
    println!("worst: {worst:.1e} of max|z|");
}

/// The same images as ONNX models take them.
fn nchw(nhwc: &[f32]) -> PixelBatch {
    let mut batch = PixelBatch::new(PixelLayout::Nchw);
    (batch.n, batch.channels, batch.height, batch.width) = (N_IMAGES, 3, SIDE, SIDE);
    for image in nhwc.chunks(SIDE * SIDE * 3) {
        for channel in 0..3 {
            batch.pixels.extend(image.iter().skip(channel).step_by(3));
        }
    }
    batch.requests = (0..N_IMAGES as u32).map(|sample| (sample, 0)).collect();
    batch
}

#[test]
fn an_exported_student_is_as_good_a_teacher_as_it_was_a_student() {
    let bench = Bench::new("export_teacher");
    let recipe = bench.recipe(|text| {
        text.replace("count = 9", "count = 1")
            .replace("epochs = 54", "epochs = 6")
    });
    bench.run(&["teacher-logits", &recipe]).ok();
    let run = bench.folder.join("run");
    let run = run.to_str().unwrap();
    let trained = bench
        .run(&["student", &recipe, "--out", run, "--json"])
        .ok()
        .stdout;
    let trained: Value = serde_json::from_str(trained.trim()).unwrap();
    let onnx = bench.folder.join("student.onnx");
    let onnx = onnx.to_str().unwrap();
    bench
        .run_plain(&["export", run, "--onnx", onnx, "--check"])
        .ok();

    let onnx = format!("teacher.0.onnx={onnx}");
    let sets = [
        "--set",
        &onnx,
        "--set",
        "teacher.0.name=next",
        "--set",
        "teacher.0.min_accuracy=0",
    ];
    let captured = bench
        .run(&[&["teacher-logits", &recipe, "--json"], &sets[..]].concat())
        .ok()
        .stdout;
    let mut events = captured
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    // The evaluation split comes first.
    let eval = events.find(|event| event["event"] == "cache").unwrap();
    assert!(eval["accuracy"].is_f64(), "{eval}");
    assert_eq!(eval["accuracy"], trained["last"]["eval"]["top1"]);
}
