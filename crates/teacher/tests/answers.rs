//! Teachers of every build answer as the same classifier computed by hand does.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use common::{
    Dim, FLOAT, FLOAT16, Graph, N_CLASSES, UINT8, assert_close, batch_for, batch_nchw, classifier,
    expected, load, plain_tail, weights,
};
use logitcask_teacher::{OutputIs, Teacher};

const ROWS: u32 = 7;

/// Loads `model` and compares its answers to seven images with the classifier's, class by class.
fn check(model: &[u8], more: &str, tolerance: f32) -> Teacher {
    check_rows(model, more, tolerance, |rows| rows)
}

fn check_rows(
    model: &[u8],
    more: &str,
    tolerance: f32,
    change: impl Fn(Vec<f32>) -> Vec<f32>,
) -> Teacher {
    let folder = tempfile::tempdir().unwrap();
    let path = common::write_model(folder.path(), model);
    let mut teacher = load(&path, more, 1)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    let batch = batch_for(&teacher, ROWS);
    let mut rows = Vec::new();
    teacher.forward(&batch, &mut rows).unwrap();
    let reference = expected(&batch_nchw(ROWS, &teacher.spec().preprocess));
    assert_close(&rows, &change(reference), tolerance);
    teacher
}

#[test]
fn a_dynamic_batch() {
    let teacher = check(&classifier(Dim::Any("batch"), plain_tail), "", 1e-4);
    assert_eq!(
        (teacher.input().fixed_batch, teacher.n_classes()),
        (None, Some(N_CLASSES))
    );
}

#[test]
fn a_fixed_batch_is_filled_up() {
    for size in [1, 4, 7, 16] {
        let tail = |graph: Graph| {
            graph.node("Identity", &["gemm"], "logits", &[]).output(
                "logits",
                FLOAT,
                &[Dim::Is(size), Dim::Is(10)],
            )
        };
        let teacher = check(&classifier(Dim::Is(size), tail), "", 1e-4);
        assert_eq!(teacher.input().fixed_batch, Some(size as usize));
    }
}

#[test]
fn sides_of_length_one_are_dropped() {
    let shape: Vec<u8> = [-1i64, 10, 1, 1]
        .iter()
        .flat_map(|dim| dim.to_le_bytes())
        .collect();
    let tail = |graph: Graph| {
        let dims = [Dim::Any("batch"), Dim::Is(10), Dim::Is(1), Dim::Is(1)];
        graph
            .weights("shape", 7, &[4], &shape)
            .node("Reshape", &["gemm", "shape"], "scores", &[])
            .output("scores", FLOAT, &dims)
    };
    check(&classifier(Dim::Any("batch"), tail), "", 1e-4);
}

#[test]
fn channels_last() {
    let (w, b) = weights();
    let model = Graph::default()
        .input(
            "pixels",
            FLOAT,
            &[Dim::Any("n"), Dim::Is(8), Dim::Is(8), Dim::Is(3)],
        )
        .weights("w", FLOAT, &[3, 10], &common::raw_f32(&w))
        .weights("b", FLOAT, &[10], &common::raw_f32(&b))
        .node_with(
            "ReduceMean",
            &["pixels"],
            "flat",
            &[("keepdims", 0)],
            &[("axes", &[1, 2])],
        )
        .node("Gemm", &["flat", "w", "b"], "predictions", &[])
        .output("predictions", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .model(13);
    let teacher = check(&model, "", 1e-4);
    assert_eq!(teacher.layout(), logitcask_dataset::PixelLayout::Nhwc);
}

#[test]
fn half_precision() {
    let (w, b) = weights();
    let model = Graph::default()
        .input(
            "input",
            FLOAT16,
            &[Dim::Any("n"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .weights("w", FLOAT16, &[3, 10], &common::raw_f16(&w))
        .weights("b", FLOAT16, &[10], &common::raw_f16(&b))
        .node("GlobalAveragePool", &["input"], "pooled", &[])
        .node("Flatten", &["pooled"], "flat", &[])
        .node("Gemm", &["flat", "w", "b"], "logits", &[])
        .output("logits", FLOAT16, &[Dim::Any("n"), Dim::Is(10)])
        .model(13);
    check(&model, "precision = \"f16\"", 0.02);
}

#[test]
fn a_teacher_that_takes_bytes() {
    let (w, b) = weights();
    let model = Graph::default()
        .input(
            "image",
            UINT8,
            &[Dim::Any("n"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .weights("w", FLOAT, &[3, 10], &common::raw_f32(&w))
        .weights("b", FLOAT, &[10], &common::raw_f32(&b))
        .node("Cast", &["image"], "floats", &[("to", 1)])
        .node("GlobalAveragePool", &["floats"], "pooled", &[])
        .node("Flatten", &["pooled"], "flat", &[])
        .node("Gemm", &["flat", "w", "b"], "logits", &[])
        .output("logits", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .model(13);
    check(
        &model,
        "mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nscale = \"byte\"",
        0.05,
    );
}

#[test]
fn flat_rows_of_pixels() {
    let model = Graph::default()
        .input("x", FLOAT, &[Dim::Any("n"), Dim::Is(192)])
        .weights("w", FLOAT, &[192, 10], &common::raw_f32(&flat_weights()))
        .weights("b", FLOAT, &[10], &common::raw_f32(&weights().1))
        .node("Gemm", &["x", "w", "b"], "y", &[])
        .output("y", FLOAT, &[Dim::Any("n"), Dim::Is(10)])
        .model(7);
    check(&model, "", 1e-4);
}

/// Taking a channel's mean, as a matrix.
fn flat_weights() -> Vec<f32> {
    let (w, _) = weights();
    (0..192 * 10)
        .map(|i| w[(i / 10 / 64) * 10 + i % 10] / 64.0)
        .collect()
}

#[test]
fn weights_in_a_file_of_their_own() {
    let (w, b) = weights();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.bin"), common::raw_f32(&w)).unwrap();
    let model = Graph::default()
        .input(
            "input",
            FLOAT,
            &[Dim::Any("batch"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
        )
        .external_weights("w", &[3, 10], "w.bin")
        .weights("b", FLOAT, &[10], &common::raw_f32(&b))
        .node("GlobalAveragePool", &["input"], "pooled", &[])
        .node("Flatten", &["pooled"], "flat", &[])
        .node("Gemm", &["flat", "w", "b"], "logits", &[])
        .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
        .model(13);
    let path = common::write_model(folder.path(), &model);
    // As the only output, and as one that is asked for inside the graph.
    for more in ["", "features = \"pooled\""] {
        let mut teacher = load(&path, more, 2).unwrap();
        let batch = batch_for(&teacher, ROWS);
        let mut rows = Vec::new();
        teacher.forward(&batch, &mut rows).unwrap();
        assert_close(&rows, &expected(&batch), 1e-4);
    }
}

fn two_outputs(graph: Graph) -> Graph {
    let dims = [Dim::Any("batch"), Dim::Is(10)];
    graph
        .node("Neg", &["gemm"], "aux", &[])
        .node("Identity", &["gemm"], "scores", &[])
        .output("aux", FLOAT, &dims)
        .output("scores", FLOAT, &dims)
}

#[test]
fn one_of_several_outputs_by_name() {
    let model = classifier(Dim::Any("batch"), two_outputs);
    check(&model, "output = \"scores\"", 1e-4);
    check_rows(&model, "output = \"aux\"", 1e-4, |rows| {
        rows.into_iter().map(|value| -value).collect()
    });
}

#[test]
fn classes_are_selected_and_reordered() {
    let model = classifier(Dim::Any("batch"), plain_tail);
    let pick = |rows: Vec<f32>| {
        rows.chunks_exact(10)
            .flat_map(|row| [row[9], row[0], row[4]])
            .collect()
    };
    let teacher = check_rows(&model, "classes = [9, 0, 4]", 1e-4, pick);
    assert_eq!(teacher.n_classes(), Some(3));
}

fn softmax_tail(operator: &'static str) -> impl FnOnce(Graph) -> Graph {
    move |graph| {
        graph
            .node(operator, &["gemm"], "out", &[("axis", 1)])
            .output("out", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
    }
}

#[test]
fn a_softmax_is_noticed_and_undone_when_asked() {
    let centred = |rows: Vec<f32>| {
        let centre = |row: &[f32]| {
            let mean = row.iter().sum::<f32>() / 10.0;
            row.iter().map(|value| value - mean).collect::<Vec<f32>>()
        };
        rows.chunks_exact(10).flat_map(centre).collect()
    };
    for (operator, holds) in [
        ("Softmax", OutputIs::Probabilities),
        ("LogSoftmax", OutputIs::LogProbabilities),
    ] {
        let model = classifier(Dim::Any("batch"), softmax_tail(operator));
        let mut teacher = check_rows(&model, &format!("output_is = \"{holds}\""), 1e-3, centred);
        let batch = batch_for(&teacher, ROWS);
        assert_eq!(teacher.judge_output(&batch).unwrap(), holds);
        teacher.check(&batch, N_CLASSES).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let error = load(&common::write_model(folder.path(), &model), "", 1)
            .unwrap()
            .check(&batch, N_CLASSES)
            .unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .contains(&format!("output_is = \"{holds}\"")),
            "{error}"
        );
    }
}

#[test]
fn features_are_read_from_the_same_run() {
    let model = classifier(Dim::Is(4), |graph: Graph| {
        graph
            .node("Identity", &["gemm"], "logits", &[])
            .output("logits", FLOAT, &[Dim::Is(4), Dim::Is(10)])
            // (B, 3, 1, 1): what a pooling leaves.
            .output(
                "pooled",
                FLOAT,
                &[Dim::Is(4), Dim::Is(3), Dim::Is(1), Dim::Is(1)],
            )
    });
    let mut teacher = check(&model, "features = \"pooled\"\noutput = \"logits\"", 1e-4);
    let batch = batch_for(&teacher, ROWS);
    assert_eq!(teacher.feature_len(), 0, "nobody has asked yet");
    teacher.check(&batch, N_CLASSES).unwrap();
    assert_eq!(teacher.feature_len(), 3);
}

/// What somebody left behind a softmax can be had without exporting again, weights in a file of their own or not.
#[test]
fn a_tensor_inside_the_graph_can_be_asked_for() {
    let model = classifier(Dim::Any("batch"), softmax_tail("Softmax"));
    let mut teacher = check(&model, "output = \"gemm\"\nfeatures = \"flat\"", 1e-4);
    let batch = batch_for(&teacher, ROWS);
    teacher.check(&batch, N_CLASSES).unwrap();
    assert_eq!(teacher.feature_len(), 3);
}

/// Exports of other years and other frameworks: old operator sets, weights that are listed among the inputs, names as
/// TensorFlow writes them, an output without a shape.
#[test]
fn exports_of_other_years() {
    let (w, b) = weights();
    for opset in [7, 8, 9, 11, 17] {
        for shaped in [true, false] {
            let model = Graph::default()
                .input(
                    "input_1:0",
                    FLOAT,
                    &[Dim::Any("unk__0"), Dim::Is(3), Dim::Is(8), Dim::Is(8)],
                )
                .input("dense/kernel:0", FLOAT, &[Dim::Is(3), Dim::Is(10)])
                .weights("dense/kernel:0", FLOAT, &[3, 10], &common::raw_f32(&w))
                .weights("dense/bias:0", FLOAT, &[10], &common::raw_f32(&b))
                .node("GlobalAveragePool", &["input_1:0"], "pool", &[])
                .node("Flatten", &["pool"], "flat", &[])
                .node(
                    "Gemm",
                    &["flat", "dense/kernel:0", "dense/bias:0"],
                    "StatefulPartitionedCall/Identity:0",
                    &[],
                );
            let model = if shaped {
                let dims = [Dim::Any("unk__1"), Dim::Is(10)];
                model.output("StatefulPartitionedCall/Identity:0", FLOAT, &dims)
            } else {
                model.output_without_shape("StatefulPartitionedCall/Identity:0", FLOAT)
            };
            check(&model.model(opset), "", 1e-4);
        }
    }
}

/// A batch that is called dynamic, and a reshape to a batch of one.
#[test]
fn a_batch_of_one_that_does_not_say_so() {
    let shape: Vec<u8> = [1i64, 10]
        .iter()
        .flat_map(|dim| dim.to_le_bytes())
        .collect();
    let model = classifier(Dim::Any("batch"), |graph: Graph| {
        graph
            .weights("shape", 7, &[2], &shape)
            .node("Reshape", &["gemm", "shape"], "logits", &[])
            .output("logits", FLOAT, &[Dim::Any("batch"), Dim::Is(10)])
    });
    let folder = tempfile::tempdir().unwrap();
    let mut teacher = load(&common::write_model(folder.path(), &model), "", 1).unwrap();
    let batch = batch_for(&teacher, ROWS);
    assert_eq!(teacher.input().fixed_batch, None);
    teacher.check(&batch, N_CLASSES).unwrap();
    assert_eq!(teacher.input().fixed_batch, Some(1));
    let mut rows = Vec::new();
    teacher.forward(&batch, &mut rows).unwrap();
    assert_close(&rows, &expected(&batch), 1e-4);
}

/// (B, H, W, C) with a fixed batch of one, and values of an image in bytes: what a mobile export looks like.
#[test]
fn channels_last_one_at_a_time_in_bytes() {
    let (w, b) = weights();
    let model = Graph::default()
        .input(
            "image",
            UINT8,
            &[Dim::Is(1), Dim::Is(8), Dim::Is(8), Dim::Is(3)],
        )
        .weights("w", FLOAT, &[3, 10], &common::raw_f32(&w))
        .weights("b", FLOAT, &[10], &common::raw_f32(&b))
        .node("Cast", &["image"], "floats", &[("to", 1)])
        .node_with(
            "ReduceMean",
            &["floats"],
            "flat",
            &[("keepdims", 0)],
            &[("axes", &[1, 2])],
        )
        .node("Gemm", &["flat", "w", "b"], "predictions", &[])
        .output("predictions", FLOAT, &[Dim::Is(1), Dim::Is(10)])
        .model(11);
    let bytes = "mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nscale = \"byte\"";
    let teacher = check(&model, bytes, 0.05);
    assert_eq!(
        (teacher.layout(), teacher.input().fixed_batch),
        (logitcask_dataset::PixelLayout::Nhwc, Some(1))
    );
}
