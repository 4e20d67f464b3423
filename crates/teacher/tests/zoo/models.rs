//! The animals: small convolutional classifiers of 8 x 8 images, ten classes, each with something of its own.

use crate::common::{
    Attr, BOOL, DOUBLE, Dim, FLOAT, FLOAT16, Graph, INT64, UINT8, raw_f16, raw_f32,
};

/// What is right for a teacher.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Captured without a word, to 1e-5 of the largest logit.
    Sound,
    /// Captured as well, with these words in the warnings.
    Warned(&'static [&'static str]),
    /// Refused before anything is captured, with these words in the message or the hint.
    Refused(&'static [&'static str]),
}
use Verdict::{Refused, Sound, Warned};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) model: Vec<u8>,
    /// More lines of `[[teacher]]`.
    pub(crate) more: &'static str,
    pub(crate) verdict: Verdict,
    /// Files beside the model.
    pub(crate) beside: Vec<(&'static str, Vec<u8>)>,
    /// So many images decide a row together.
    pub(crate) by_batch: Option<usize>,
    /// The model that gives the same rows as an output of its own.
    pub(crate) plain: Option<Vec<u8>>,
}

const BATCH: Dim = Dim::Any("batch");
const ROWS: [Dim; 2] = [BATCH, Dim::Is(10)];
const BYTES: &str = "mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\nscale = \"byte\"";

/// Weights that are the same everywhere: `n` numbers around 0.
fn numbers(n: usize, seed: u32, scale: f32) -> Vec<f32> {
    let number = |i: u32| {
        let mixed = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761);
        ((mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n as u32).map(|i| scale * number(i)).collect()
}

fn images(graph: Graph, batch: Dim) -> Graph {
    graph.input("x", FLOAT, &[batch, Dim::Is(3), Dim::Is(8), Dim::Is(8)])
}

/// A convolution from `x` to `c`, (B, 8, 8, 8).
fn conv(graph: Graph) -> Graph {
    graph
        .floats("wc", &[8, 3, 3, 3], &numbers(216, 1, 0.6))
        .floats("bc", &[8], &numbers(8, 2, 0.2))
        .node_with(
            "Conv",
            &["x", "wc", "bc"],
            "c",
            &[],
            &[("kernel_shape", &[3, 3]), ("pads", &[1, 1, 1, 1])],
        )
}

/// From a feature map to `z`, (B, 10).
fn to_rows(graph: Graph, map: &str) -> Graph {
    graph
        .node("GlobalAveragePool", &[map], "g", &[])
        .node("Flatten", &["g"], "f", &[])
        .floats("wf", &[8, 10], &numbers(80, 3, 3.0))
        .floats("bf", &[10], &numbers(10, 4, 0.5))
        .node("Gemm", &["f", "wf", "bf"], "z", &[])
}

/// The plain classifier, ending in `z`.
fn net(batch: Dim) -> Graph {
    to_rows(
        conv(images(Graph::default(), batch)).node("Relu", &["c"], "r", &[]),
        "r",
    )
}

fn out(graph: Graph, name: &str) -> Graph {
    graph.output(name, FLOAT, &ROWS)
}

/// What a tail makes of `z`, as the output `out`.
fn tail(opset: u64, tail: impl FnOnce(Graph) -> Graph) -> Vec<u8> {
    out(tail(net(BATCH)), "out").model(opset)
}

/// What a body makes of the feature map `c`; it ends in `m`.
fn middle(opset: u64, body: impl FnOnce(Graph) -> Graph) -> Vec<u8> {
    out(
        to_rows(body(conv(images(Graph::default(), BATCH))), "m"),
        "z",
    )
    .model(opset)
}

fn case(name: &'static str, model: Vec<u8>, verdict: Verdict) -> Case {
    Case {
        name,
        model,
        more: "",
        verdict,
        beside: Vec::new(),
        by_batch: None,
        plain: None,
    }
}

fn with(more: &'static str, case: Case) -> Case {
    Case { more, ..case }
}

pub(crate) fn cases() -> Vec<Case> {
    let kinds = [
        years(),
        layers(),
        shapes(),
        numbers_of_other_kinds(),
        quantised(),
        of_batch(),
        of_chance(),
        heads(),
        no_rows(),
        controls(),
    ];
    kinds.into_iter().flatten().collect()
}

/// The same classifier in every operator set.
fn years() -> Vec<Case> {
    const NAMES: [&str; 17] = [
        "opset 7", "opset 8", "opset 9", "opset 10", "opset 11", "opset 12", "opset 13",
        "opset 14", "opset 15", "opset 16", "opset 17", "opset 18", "opset 19", "opset 20",
        "opset 21", "opset 22", "opset 23",
    ];
    let one =
        |(name, opset): (&&'static str, u64)| case(name, out(net(BATCH), "z").model(opset), Sound);
    NAMES.iter().zip(7..).map(one).collect()
}

fn norm(graph: Graph) -> Graph {
    graph
        .floats("scale", &[8], &[1.0, 0.5, 2.0, 1.5, 1.0, 0.8, 1.2, 0.9])
        .floats("shift", &[8], &numbers(8, 5, 0.3))
        .floats("mean", &[8], &numbers(8, 6, 0.3))
        .floats("var", &[8], &[1.0, 0.6, 0.7, 1.1, 0.9, 1.2, 0.4, 1.0])
}

const NORM: [&str; 5] = ["c", "scale", "shift", "mean", "var"];

/// Layers that mix values of one image, and some that would mix images in training.
fn layers() -> Vec<Case> {
    let alone = |operator: &'static str, opset| {
        middle(opset, move |graph| {
            norm(graph).op("n", operator, &["c"], &["m"], &[])
        })
    };
    vec![
        case(
            "batch norm of opset 7",
            middle(7, |g| {
                norm(g).op("bn", "BatchNormalization", &NORM, &["m"], &[])
            }),
            Sound,
        ),
        case(
            "batch norm of opset 9",
            middle(9, |g| {
                norm(g).op("bn", "BatchNormalization", &NORM, &["m"], &[])
            }),
            Sound,
        ),
        case(
            "batch norm of opset 15",
            middle(15, |g| {
                norm(g).op(
                    "bn",
                    "BatchNormalization",
                    &NORM,
                    &["m"],
                    &[("training_mode", Attr::Int(0))],
                )
            }),
            Sound,
        ),
        case(
            "instance norm",
            middle(13, |g| {
                // Pooling sees the mean, which this norm takes away; a cut at zero brings something of the image back.
                norm(g)
                    .op(
                        "in",
                        "InstanceNormalization",
                        &["c", "scale", "shift"],
                        &["i"],
                        &[],
                    )
                    .node("Relu", &["i"], "m", &[])
            }),
            Sound,
        ),
        case(
            "layer norm",
            middle(17, |g| {
                norm(g)
                    .node_with("Transpose", &["c"], "t", &[], &[("perm", &[0, 2, 3, 1])])
                    .op(
                        "ln",
                        "LayerNormalization",
                        &["t", "scale", "shift"],
                        &["l"],
                        &[("axis", Attr::Int(-1))],
                    )
                    .node_with("Transpose", &["l"], "m", &[], &[("perm", &[0, 3, 1, 2])])
            }),
            Sound,
        ),
        case(
            "group norm",
            middle(21, |g| {
                norm(g)
                    .op(
                        "gn",
                        "GroupNormalization",
                        &["c", "scale", "shift"],
                        &["i"],
                        &[("num_groups", Attr::Int(4))],
                    )
                    .node("Relu", &["i"], "m", &[])
            }),
            Sound,
        ),
        case(
            "local response norm",
            middle(13, |g| {
                g.op("lrn", "LRN", &["c"], &["m"], &[("size", Attr::Int(3))])
            }),
            Sound,
        ),
        case("leaky", alone("LeakyRelu", 16), Sound),
        case("hard swish", alone("HardSwish", 14), Sound),
        case("gelu", alone("Gelu", 20), Sound),
        case(
            "dropout at rest, opset 7",
            middle(7, |g| {
                g.op(
                    "d",
                    "Dropout",
                    &["c"],
                    &["m"],
                    &[("ratio", Attr::Float(0.5))],
                )
            }),
            Sound,
        ),
        case(
            "dropout at rest, opset 13",
            middle(13, |g| {
                g.floats("ratio", &[], &[0.5])
                    .weights("off", BOOL, &[], &[0])
                    .op("d", "Dropout", &["c", "ratio", "off"], &["m"], &[])
            }),
            Sound,
        ),
        case(
            "a gate of sigmoids at the end",
            tail(13, |g| {
                g.node("Sigmoid", &["z"], "s", &[])
                    .node("Mul", &["z", "s"], "out", &[])
            }),
            Sound,
        ),
        case(
            "attention",
            middle(13, |g| {
                g.longs("to_tokens", &[0, 8, 64])
                    .longs("to_map", &[0, 8, 8, 8])
                    .node("Reshape", &["c", "to_tokens"], "kv", &[])
                    .node_with("Transpose", &["kv"], "q", &[], &[("perm", &[0, 2, 1])])
                    .node("MatMul", &["q", "kv"], "s", &[])
                    .node("Softmax", &["s"], "a", &[("axis", -1)])
                    .node("MatMul", &["kv", "a"], "y", &[])
                    .node("Reshape", &["y", "to_map"], "m", &[])
            }),
            Sound,
        ),
    ]
}

fn channels_last(height: Dim, channels: Dim) -> Vec<u8> {
    let graph = Graph::default()
        .input("x", FLOAT, &[BATCH, height, Dim::Any("w"), channels])
        .node_with("Transpose", &["x"], "nchw", &[], &[("perm", &[0, 3, 1, 2])]);
    let graph = graph
        .floats("wc", &[8, 3, 3, 3], &numbers(216, 1, 0.6))
        .node_with(
            "Conv",
            &["nchw", "wc"],
            "c",
            &[],
            &[("kernel_shape", &[3, 3])],
        )
        .node("Relu", &["c"], "r", &[]);
    out(to_rows(graph, "r"), "z").model(13)
}

/// A last convolution whose sides of one are squeezed away, all of them.
fn squeezed(batch: Dim) -> Vec<u8> {
    conv(images(Graph::default(), batch))
        .node("GlobalAveragePool", &["c"], "g", &[])
        .floats("wk", &[10, 8, 1, 1], &numbers(80, 3, 3.0))
        .node("Conv", &["g", "wk"], "k", &[])
        .node("Squeeze", &["k"], "out", &[])
        .output_without_shape("out", FLOAT)
        .model(13)
}

/// `z` in another shape.
fn reshaped(shape: &[i64], dims: &[Dim]) -> Vec<u8> {
    net(BATCH)
        .longs("shape", shape)
        .node("Reshape", &["z", "shape"], "out", &[])
        .output("out", FLOAT, dims)
        .model(13)
}

fn shapes() -> Vec<Case> {
    let any = Dim::Any("n");
    let fixed = |n: u64| {
        net(Dim::Is(n))
            .output("z", FLOAT, &[Dim::Is(n), Dim::Is(10)])
            .model(13)
    };
    vec![
        case(
            "channels last",
            channels_last(Dim::Is(8), Dim::Is(3)),
            Sound,
        ),
        case(
            "channels last, any height",
            channels_last(Dim::Any("h"), Dim::Is(3)),
            Sound,
        ),
        with(
            "layout = \"nhwc\"",
            case(
                "channels last, nothing fixed",
                channels_last(Dim::Any("h"), Dim::Any("d")),
                Sound,
            ),
        ),
        case(
            "channels last, nothing said",
            channels_last(Dim::Any("h"), Dim::Any("d")),
            Refused(&["(B, H, W, C)", "layout = \"nhwc\""]),
        ),
        case("squeezed", squeezed(BATCH), Sound),
        case("squeezed, fixed batch of one", squeezed(Dim::Is(1)), Sound),
        case("fixed batch of one", fixed(1), Sound),
        case("fixed batch of four", fixed(4), Sound),
        case("fixed batch of sixty-four", fixed(64), Sound),
        case(
            "a batch of one that does not say so",
            reshaped(&[1, 10], &ROWS),
            Sound,
        ),
        case(
            "all images in one row",
            reshaped(&[1, -1], &[Dim::Is(1), any]),
            Sound,
        ),
        case(
            "sides of one behind",
            reshaped(
                &[-1, 10, 1, 1],
                &[BATCH, Dim::Is(10), Dim::Is(1), Dim::Is(1)],
            ),
            Sound,
        ),
        case(
            "a side of one between",
            reshaped(&[-1, 1, 10], &[BATCH, Dim::Is(1), Dim::Is(10)]),
            Sound,
        ),
        case(
            "a side of one before",
            reshaped(&[1, -1, 10], &[Dim::Is(1), any, Dim::Is(10)]),
            Refused(&["has shape [1, -1, 10]", "output = "]),
        ),
        case(
            "weights listed as inputs",
            {
                let graph = Graph::default().input("wf", FLOAT, &[Dim::Is(8), Dim::Is(10)]);
                out(to_rows(conv(images(graph, BATCH)), "c"), "z").model(8)
            },
            Sound,
        ),
        Case {
            beside: vec![("w.bin", raw_f32(&numbers(80, 9, 2.0)))],
            ..case(
                "weights beside",
                {
                    let graph = conv(images(Graph::default(), BATCH))
                        .node("GlobalAveragePool", &["c"], "g", &[])
                        .node("Flatten", &["g"], "f", &[])
                        .external_weights("w", &[8, 10], "w.bin")
                        .node("MatMul", &["f", "w"], "z", &[]);
                    out(graph, "z").model(13)
                },
                Sound,
            )
        },
        case(
            "constants as nodes",
            tail(13, |g| {
                let by = Attr::Tensor(FLOAT, vec![1], raw_f32(&[0.5]));
                g.op("by", "Constant", &[], &["by"], &[("value", by)]).node(
                    "Div",
                    &["z", "by"],
                    "out",
                    &[],
                )
            }),
            Sound,
        ),
        case(
            "two images at once",
            {
                let graph =
                    images(Graph::default(), BATCH).input("mask", FLOAT, &[BATCH, Dim::Is(10)]);
                out(
                    to_rows(conv(graph), "c").node("Add", &["z", "mask"], "out", &[]),
                    "out",
                )
                .model(13)
            },
            Refused(&["wants 2 inputs (x, mask)"]),
        ),
    ]
}

fn numbers_of_other_kinds() -> Vec<Case> {
    let half = |out_type| {
        let graph = Graph::default()
            .input("x", FLOAT16, &[BATCH, Dim::Is(3), Dim::Is(8), Dim::Is(8)])
            .weights(
                "wc",
                FLOAT16,
                &[8, 3, 3, 3],
                &raw_f16(&numbers(216, 1, 0.6)),
            )
            .node_with("Conv", &["x", "wc"], "c", &[], &[("kernel_shape", &[3, 3])])
            .node("Relu", &["c"], "r", &[])
            .node("GlobalAveragePool", &["r"], "g", &[])
            .node("Flatten", &["g"], "f", &[])
            .weights("wf", FLOAT16, &[8, 10], &raw_f16(&numbers(80, 3, 3.0)))
            .node("MatMul", &["f", "wf"], "y", &[])
            .node("Cast", &["y"], "z", &[("to", out_type as i64)]);
        graph.output("z", out_type, &ROWS).model(13)
    };
    let bytes = |nhwc: bool| {
        let dims = if nhwc { [8, 8, 3] } else { [3, 8, 8] };
        let graph = Graph::default()
            .input(
                "u",
                UINT8,
                &[BATCH, Dim::Is(dims[0]), Dim::Is(dims[1]), Dim::Is(dims[2])],
            )
            .node("Cast", &["u"], "v", &[("to", 1)])
            .floats("k", &[1], &[0.01])
            .node("Mul", &["v", "k"], "w", &[]);
        let graph = match nhwc {
            true => graph.node_with("Transpose", &["w"], "x", &[], &[("perm", &[0, 3, 1, 2])]),
            false => graph.node("Identity", &["w"], "x", &[]),
        };
        out(to_rows(conv(graph), "c"), "z").model(13)
    };
    let bfloat = {
        let raw: Vec<u8> = numbers(80, 3, 3.0)
            .iter()
            .flat_map(|z| half::bf16::from_f32(*z).to_le_bytes())
            .collect();
        let graph = conv(images(Graph::default(), BATCH))
            .node("GlobalAveragePool", &["c"], "g", &[])
            .node("Flatten", &["g"], "f", &[])
            .weights("wb", 16, &[8, 10], &raw)
            .node("Cast", &["wb"], "w", &[("to", 1)])
            .node("MatMul", &["f", "w"], "z", &[]);
        out(graph, "z").model(13)
    };
    vec![
        with(
            "precision = \"f16\"",
            case("f16 throughout", half(FLOAT16), Sound),
        ),
        with(
            "precision = \"f16\"",
            case("f16 inside", half(FLOAT), Sound),
        ),
        case(
            "f16 that nobody stated",
            half(FLOAT16),
            Refused(&["precision `f32`", "are `f16`", "precision = \"f16\""]),
        ),
        case("bf16 weights", bfloat, Sound),
        case(
            "f64 at the end",
            net(BATCH)
                .node("Cast", &["z"], "d", &[("to", DOUBLE as i64)])
                .output("d", DOUBLE, &ROWS)
                .model(13),
            Sound,
        ),
        with(BYTES, case("bytes", bytes(false), Sound)),
        with(BYTES, case("bytes, channels last", bytes(true), Sound)),
        case(
            "bytes that get floats",
            bytes(false),
            Refused(&["takes bytes", "scale = \"byte\""]),
        ),
    ]
}

/// `f`, quantised by each batch, times weights of eight bits.
fn by_batch(graph: Graph) -> Graph {
    let weights: Vec<u8> = (0..80u32).map(|i| (i * 37 % 251) as u8).collect();
    let graph = conv(graph)
        .node("Relu", &["c"], "r", &[])
        .node("GlobalAveragePool", &["r"], "g", &[])
        .node("Flatten", &["g"], "f", &[])
        .weights("wq", UINT8, &[8, 10], &weights)
        .weights("wz", UINT8, &[], &[128])
        .floats("ws", &[], &[0.02])
        .op(
            "dql",
            "DynamicQuantizeLinear",
            &["f"],
            &["q", "s", "zp"],
            &[],
        )
        .node("MatMulInteger", &["q", "wq", "zp", "wz"], "i", &[])
        .node("Cast", &["i"], "v", &[("to", 1)])
        .node("Mul", &["s", "ws"], "by", &[])
        .node("Mul", &["v", "by"], "out", &[]);
    out(graph, "out")
}

fn quantised() -> Vec<Case> {
    let dynamic = || by_batch(images(Graph::default(), BATCH)).model(13);
    let steps = |graph: Graph, from: &str, to: &str, name: &str, step: f32| {
        let (scale, quantised) = (format!("{name}_scale"), format!("{name}_q"));
        let zero = format!("{name}_zero");
        graph
            .floats(&scale, &[], &[step])
            .weights(&zero, UINT8, &[], &[128])
            .node("QuantizeLinear", &[from, &scale, &zero], &quantised, &[])
            .node("DequantizeLinear", &[&quantised, &scale, &zero], to, &[])
    };
    let fixed = {
        let graph = steps(images(Graph::default(), BATCH), "x", "xq", "x", 0.02).floats(
            "wc",
            &[8, 3, 3, 3],
            &numbers(216, 1, 0.6),
        );
        let graph = steps(graph, "wc", "wq", "wc", 0.005).node_with(
            "Conv",
            &["xq", "wq"],
            "c",
            &[],
            &[("kernel_shape", &[3, 3])],
        );
        let graph = steps(graph, "c", "cq", "c", 0.04).node("Relu", &["cq"], "r", &[]);
        let graph = to_rows(graph, "r");
        out(steps(graph, "z", "out", "z", 0.05), "out").model(13)
    };
    vec![
        case("quantised by fixed steps", fixed, Sound),
        case(
            "quantised by the batch",
            dynamic(),
            Refused(&["`dql` (DynamicQuantizeLinear)", "batch_size = 1"]),
        ),
        with(
            "batch_size = 1",
            case("quantised, one at a time", dynamic(), Sound),
        ),
        Case {
            by_batch: Some(8),
            ..with(
                "batch_size = 8",
                case("quantised, eight at a time", dynamic(), Sound),
            )
        },
        with(
            "batch_size = 12",
            case(
                "quantised, chunks cut batches",
                dynamic(),
                Refused(&["chunks of 32 samples", "`chunk_rows`", "12"]),
            ),
        ),
        case(
            "quantised, fixed batch of one",
            by_batch(images(Graph::default(), Dim::Is(1))).model(13),
            Sound,
        ),
    ]
}

/// Answers that other images of the batch decide.
fn of_batch() -> Vec<Case> {
    let training = [("training_mode", Attr::Int(1))];
    let over = |operator: &'static str, axes: &'static [i64]| {
        tail(13, move |g| {
            g.node_with(operator, &["z"], "m", &[("keepdims", 1)], &[("axes", axes)])
                .node("Sub", &["z", "m"], "out", &[])
        })
    };
    vec![
        case(
            "batch norm in training",
            middle(15, |g| {
                norm(g).op(
                    "bn1",
                    "BatchNormalization",
                    &NORM,
                    &["m", "rm", "rv"],
                    &training,
                )
            }),
            Refused(&[
                "`bn1` (BatchNormalization)",
                "training mode",
                "model.eval()",
            ]),
        ),
        case(
            "batch norm by hand",
            // ReduceMean takes its axes as an attribute until operator set 17.
            over("ReduceMean", &[0]),
            Refused(&["asked alone", "`m` (ReduceMean)", "model.eval()"]),
        ),
        case(
            "the largest of the batch",
            over("ReduceMax", &[0, 1]),
            Refused(&["asked alone", "`m` (ReduceMax)"]),
        ),
        case(
            "softmax over the batch",
            tail(13, |g| {
                g.op("sm", "Softmax", &["z"], &["s"], &[("axis", Attr::Int(0))])
                    .node("Add", &["z", "s"], "out", &[])
            }),
            Refused(&["asked alone", "`sm` (Softmax)"]),
        ),
        case(
            "sums along the batch",
            tail(13, |g| {
                g.weights("axis", INT64, &[], &0i64.to_le_bytes()).op(
                    "cs",
                    "CumSum",
                    &["z", "axis"],
                    &["out"],
                    &[],
                )
            }),
            Refused(&["asked alone", "`cs` (CumSum)"]),
        ),
        case(
            "the batch's size",
            tail(13, |g| {
                g.node("Shape", &["z"], "shape", &[])
                    .longs("first", &[0])
                    .node("Gather", &["shape", "first"], "n", &[])
                    .node("Cast", &["n"], "nf", &[("to", 1)])
                    .op("by_n", "Div", &["z", "nf"], &["out"], &[])
            }),
            Refused(&["asked alone", "`nf` (Cast)"]),
        ),
    ]
}

/// Answers that chance decides.
fn of_chance() -> Vec<Case> {
    let noise = |name: &'static str, operator: &'static str| {
        let graph = tail(15, move |g| {
            g.op("dice", operator, &["z"], &["n"], &[("dtype", Attr::Int(1))])
                .node("Add", &["z", "n"], "out", &[])
        });
        case(name, graph, Refused(&["asked twice", "`dice`", "chance"]))
    };
    vec![
        noise("normal noise", "RandomNormalLike"),
        noise("uniform noise", "RandomUniformLike"),
        case(
            "a noise of its own shape",
            tail(13, |g| {
                let attributes = [
                    ("shape", Attr::Ints(vec![1, 10])),
                    ("seed", Attr::Float(3.0)),
                ];
                g.op("dice", "RandomNormal", &[], &["n"], &attributes).node(
                    "Add",
                    &["z", "n"],
                    "out",
                    &[],
                )
            }),
            Refused(&["asked twice", "`dice` (RandomNormal)"]),
        ),
        case(
            "coins",
            tail(15, |g| {
                g.node("Sigmoid", &["z"], "p", &[])
                    .op("coin", "Bernoulli", &["p"], &["b"], &[])
                    .node("Mul", &["z", "b"], "out", &[])
            }),
            Refused(&["asked twice", "`coin` (Bernoulli)"]),
        ),
        case(
            "dropout in training",
            middle(13, |g| {
                g.floats("ratio", &[], &[0.5])
                    .weights("on", BOOL, &[], &[1])
                    .op("drop", "Dropout", &["c", "ratio", "on"], &["m"], &[])
            }),
            Refused(&["`drop` (Dropout)", "training mode"]),
        ),
        case(
            "dice that change nothing",
            tail(13, |g| {
                g.op(
                    "dice",
                    "RandomNormalLike",
                    &["z"],
                    &["n"],
                    &[("scale", Attr::Float(1e-9))],
                )
                .node("Add", &["z", "n"], "out", &[])
            }),
            Warned(&["`dice` (RandomNormalLike)", "random numbers"]),
        ),
    ]
}

fn last(operator: &'static str) -> Vec<u8> {
    tail(13, move |g| g.op("last", operator, &["z"], &["out"], &[]))
}

/// `exp(z)` and its sum over the classes, as `e` and `sum`.
fn exponentials(graph: Graph, of: &str) -> Graph {
    graph
        .longs("classes", &[1])
        .node("Exp", &[of], "e", &[])
        .node("ReduceSum", &["e", "classes"], "sum", &[("keepdims", 1)])
}

/// Features of length one.
fn normalised(graph: Graph) -> Graph {
    graph
        .node("GlobalAveragePool", &["c"], "g", &[])
        .node("Flatten", &["g"], "f", &[])
        .node_with(
            "ReduceL2",
            &["f"],
            "norm",
            &[("keepdims", 1)],
            &[("axes", &[1])],
        )
        .floats("eps", &[], &[1e-8])
        .node("Add", &["norm", "eps"], "length", &[])
        .node("Div", &["f", "length"], "unit", &[])
}

/// Weights of length one for each class, (8, 10).
fn unit_weights() -> Vec<f32> {
    let mut weights = numbers(80, 3, 1.0);
    for class in 0..10 {
        let norm = (0..8)
            .map(|i| weights[i * 10 + class].powi(2))
            .sum::<f32>()
            .sqrt();
        (0..8).for_each(|i| weights[i * 10 + class] /= norm);
    }
    weights
}

fn cosines(scale: f32) -> Vec<u8> {
    let graph = normalised(conv(images(Graph::default(), BATCH)))
        .floats("w", &[8, 10], &unit_weights())
        .floats("by", &[], &[scale])
        .node("MatMul", &["unit", "w"], "cosine", &[])
        .node("Mul", &["cosine", "by"], "out", &[]);
    out(graph, "out").model(13)
}

/// Outputs that are no logits, and some that look like it and are.
fn heads() -> Vec<Case> {
    const SOFTMAX: Verdict = Refused(&["probabilities", "output = \"z\""]);
    const SIGMOID: Verdict = Refused(&[
        "probabilities of a sigmoid",
        "output = \"z\"",
        "pre-sigmoid logits",
    ]);
    let times = |operator: &'static str, by: f32| {
        tail(13, move |g| {
            g.node(operator, &["z"], "p", &[("axis", 1)])
                .floats("by", &[1], &[by])
                .node("Mul", &["p", "by"], "out", &[])
        })
    };
    let plain = || Some(out(net(BATCH), "z").model(13));
    let spelt = |with_maximum: bool| {
        tail(13, move |g| {
            let g = match with_maximum {
                true => {
                    let g = g.node_with(
                        "ReduceMax",
                        &["z"],
                        "max",
                        &[("keepdims", 1)],
                        &[("axes", &[1])],
                    );
                    exponentials(g.node("Sub", &["z", "max"], "d", &[]), "d")
                }
                false => exponentials(g, "z"),
            };
            g.node("Div", &["e", "sum"], "out", &[])
        })
    };
    vec![
        case("softmax", times("Softmax", 1.0), SOFTMAX),
        with(
            "output_is = \"probabilities\"",
            case("softmax, stated", last("Softmax"), Sound),
        ),
        with(
            "output_is = \"log_probabilities\"",
            case("log-softmax, stated", last("LogSoftmax"), Sound),
        ),
        Case {
            plain: plain(),
            ..with(
                "output = \"z\"",
                case("softmax, the tensor before it", last("Softmax"), Sound),
            )
        },
        Case {
            plain: plain(),
            ..with(
                "output = \"z\"",
                case("sigmoid, the tensor before it", last("Sigmoid"), Sound),
            )
        },
        case(
            "softmax in per cent",
            times("Softmax", 100.0),
            Refused(&["softmax times 100", "output = \"z\""]),
        ),
        case(
            "half a softmax",
            times("Softmax", 0.5),
            Refused(&["softmax times 0.5", "output = \"z\""]),
        ),
        with(
            "output_is = \"probabilities\"",
            case(
                "per cent, stated",
                times("Softmax", 100.0),
                Refused(&["softmax times 100"]),
            ),
        ),
        case(
            "two log-softmaxes",
            times("LogSoftmax", 2.0),
            Refused(&["log-softmax times 2", "output = \"z\""]),
        ),
        case("softmax spelt out", spelt(false), SOFTMAX),
        case("softmax spelt out, less its maximum", spelt(true), SOFTMAX),
        case(
            "log-softmax spelt out",
            tail(13, |g| {
                exponentials(g, "z").node("Log", &["sum"], "l", &[]).node(
                    "Sub",
                    &["z", "l"],
                    "out",
                    &[],
                )
            }),
            Refused(&["log_probabilities", "output = \"z\""]),
        ),
        case(
            "softmax kept from its bounds",
            tail(13, |g| {
                g.node("Softmax", &["z"], "p", &[("axis", 1)])
                    .floats("low", &[], &[1e-7])
                    .floats("high", &[], &[1.0])
                    .node("Clip", &["p", "low", "high"], "out", &[])
            }),
            SOFTMAX,
        ),
        case(
            "mean of two softmaxes",
            tail(13, |g| {
                g.floats("two", &[], &[0.5])
                    .node("Mul", &["z", "two"], "y", &[])
                    .node("Softmax", &["z"], "p", &[("axis", 1)])
                    .node("Softmax", &["y"], "q", &[("axis", 1)])
                    .node("Mean", &["p", "q"], "out", &[])
            }),
            Refused(&["holds probabilities", "output_is = \"probabilities\""]),
        ),
        case(
            "squares to a hundred",
            tail(13, |g| {
                // No softmax that a reader of graphs would know, and probabilities in per cent all the same.
                g.longs("classes", &[1])
                    .node("Mul", &["z", "z"], "q", &[])
                    .node("ReduceSum", &["q", "classes"], "sum", &[("keepdims", 1)])
                    .floats("by", &[], &[100.0])
                    .node("Div", &["q", "sum"], "p", &[])
                    .node("Mul", &["p", "by"], "out", &[])
            }),
            Refused(&["has the sum 100", "output = "]),
        ),
        case("sigmoid", last("Sigmoid"), SIGMOID),
        with(
            "output_is = \"probabilities\"",
            case("sigmoid, called probabilities", last("Sigmoid"), SIGMOID),
        ),
        case("hard sigmoid", last("HardSigmoid"), SIGMOID),
        case(
            "sigmoid spelt out",
            tail(13, |g| {
                g.floats("one", &[], &[1.0])
                    .node("Neg", &["z"], "n", &[])
                    .node("Exp", &["n"], "e", &[])
                    .node("Add", &["e", "one"], "d", &[])
                    .node("Div", &["one", "d"], "out", &[])
            }),
            SIGMOID,
        ),
        case(
            "log of a sigmoid",
            tail(13, |g| {
                g.node("Sigmoid", &["z"], "p", &[])
                    .node("Log", &["p"], "out", &[])
            }),
            SIGMOID,
        ),
        case("tanh", last("Tanh"), Warned(&["tanh", "output = \"z\""])),
        case(
            "softsign",
            last("Softsign"),
            Warned(&["tanh", "output = \"z\""]),
        ),
        case(
            "cut at zero",
            last("Relu"),
            Warned(&["cut off", "output = \"z\""]),
        ),
        case("softplus", last("Softplus"), Warned(&["cut off"])),
        case("cosines", cosines(1.0), Warned(&["cosines", "temperature"])),
        case("cosines times their scale", cosines(30.0), Sound),
        case(
            "temperature",
            tail(13, |g| {
                g.floats("t", &[], &[1.5])
                    .node("Div", &["z", "t"], "out", &[])
            }),
            Sound,
        ),
        case(
            "distances, negated",
            tail(13, |g| {
                g.node("Mul", &["z", "z"], "d", &[])
                    .node("Neg", &["d"], "out", &[])
            }),
            Sound,
        ),
        case(
            "mean of two teachers",
            tail(13, |g| {
                g.floats("w2", &[8, 10], &numbers(80, 8, 2.0))
                    .node("MatMul", &["f", "w2"], "y", &[])
                    .node("Mean", &["z", "y"], "out", &[])
            }),
            Sound,
        ),
        case(
            "a constant sum",
            tail(13, |g| {
                g.node_with(
                    "ReduceMean",
                    &["z"],
                    "m",
                    &[("keepdims", 1)],
                    &[("axes", &[1])],
                )
                .node("Sub", &["z", "m"], "d", &[])
                .floats(
                    "shift",
                    &[10],
                    &[1.0, 2.0, 0.5, 1.5, 1.0, 0.0, 3.0, 1.0, 1.0, 2.0],
                )
                .node("Add", &["d", "shift"], "out", &[])
            }),
            Warned(&["has the sum 13"]),
        ),
        case(
            "the largest ones",
            net(BATCH)
                .longs("k", &[10])
                .op("top", "TopK", &["z", "k"], &["out", "which"], &[])
                .output("out", FLOAT, &ROWS)
                .model(13),
            Refused(&["sorted values", "`top` (TopK)"]),
        ),
    ]
}

/// Outputs that are no rows of logits at all, and rows that say nothing.
fn no_rows() -> Vec<Case> {
    let strings = Attr::Texts(vec!["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    vec![
        case(
            "labels",
            net(BATCH)
                .node("ArgMax", &["z"], "label", &[("axis", 1)])
                .output("label", INT64, &[BATCH, Dim::Is(1)])
                .model(13),
            Refused(&["`label` is i64"]),
        ),
        case(
            "labels as floats",
            tail(13, |g| {
                g.node("ArgMax", &["z"], "label", &[("axis", 1)]).node(
                    "Cast",
                    &["label"],
                    "out",
                    &[("to", 1)],
                )
            }),
            Refused(&["1 classes, the dataset has 10"]),
        ),
        case(
            "a map of names",
            net(BATCH)
                .op(
                    "zip",
                    "ai.onnx.ml:ZipMap",
                    &["z"],
                    &["named"],
                    &[("classlabels_strings", strings)],
                )
                .ends_in("named")
                .model(13),
            Refused(&["`named` is"]),
        ),
        case(
            "two outputs",
            net(BATCH)
                .node("Neg", &["z"], "a", &[])
                .output("a", FLOAT, &ROWS)
                .output("z", FLOAT, &ROWS)
                .model(13),
            Refused(&["several outputs (`a`, `z`)", "output = "]),
        ),
        with(
            "output = \"z\"",
            case(
                "one of two outputs",
                net(BATCH)
                    .node("Neg", &["z"], "a", &[])
                    .output("a", FLOAT, &ROWS)
                    .output("z", FLOAT, &ROWS)
                    .model(13),
                Sound,
            ),
        ),
        case(
            "the same to everybody",
            tail(13, |g| {
                g.floats("none", &[], &[0.0])
                    .floats("b", &[10], &numbers(10, 7, 2.0))
                    .node("Mul", &["z", "none"], "y", &[])
                    .node("Add", &["y", "b"], "out", &[])
            }),
            Refused(&["the teacher is constant", "16 different images"]),
        ),
        case(
            "one value for every class",
            tail(13, |g| {
                g.node_with(
                    "ReduceMean",
                    &["z"],
                    "m",
                    &[("keepdims", 1)],
                    &[("axes", &[1])],
                )
                .longs("wide", &[1, 10])
                .node("Expand", &["m", "wide"], "out", &[])
            }),
            Refused(&["the teacher is constant"]),
        ),
        case(
            "dead for some",
            tail(13, |g| {
                let g = g
                    .node_with(
                        "ReduceMax",
                        &["z"],
                        "m",
                        &[("keepdims", 1)],
                        &[("axes", &[1])],
                    )
                    .floats("bar", &[], &[1.2]);
                g.node("Greater", &["m", "bar"], "is", &[])
                    .node("Cast", &["is"], "alive", &[("to", 1)])
                    .node("Mul", &["z", "alive"], "out", &[])
            }),
            Warned(&["one value for every class"]),
        ),
        case(
            "no number for some",
            tail(13, |g| {
                let g = g
                    .node_with(
                        "ReduceMax",
                        &["z"],
                        "m",
                        &[("keepdims", 1)],
                        &[("axes", &[1])],
                    )
                    .floats("bar", &[], &[1.2]);
                g.node("Sub", &["m", "bar"], "d", &[])
                    .node("Sqrt", &["d"], "root", &[])
                    .floats("none", &[], &[0.0])
                    .node("Mul", &["root", "none"], "poison", &[])
                    .node("Add", &["z", "poison"], "out", &[])
            }),
            Refused(&["with NaN", "dataset show"]),
        ),
        with(
            "encoding = \"u8\"",
            case(
                "one class masked, in eight bits",
                tail(13, |g| {
                    let mut mask = [0.0; 10];
                    mask[3] = -1e4;
                    g.floats("mask", &[10], &mask)
                        .node("Add", &["z", "mask"], "out", &[])
                }),
                Refused(&["outliers", "`u8`", "encoding = \"f16\""]),
            ),
        ),
        with(
            "classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]",
            case(
                "a class twice",
                out(net(BATCH), "z").model(13),
                Refused(&["class 8 twice", "8 and at 9"]),
            ),
        ),
        with(
            "mean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]",
            case(
                "means of bytes",
                out(net(BATCH), "z").model(13),
                Refused(&["`mean` holds 123.675", "scale = \"byte\""]),
            ),
        ),
        with(
            "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\nscale = \"byte\"",
            case(
                "means of 0..1 for bytes",
                out(net(BATCH), "z").model(13),
                Refused(&["`mean` holds 0.485", "leave `scale = \"byte\"` out"]),
            ),
        ),
        case(
            "three means for a grey teacher",
            {
                let graph = Graph::default()
                    .input("x", FLOAT, &[BATCH, Dim::Is(1), Dim::Is(8), Dim::Is(8)])
                    .node("Flatten", &["x"], "f", &[])
                    .floats("w", &[64, 10], &numbers(640, 1, 0.3))
                    .node("MatMul", &["f", "w"], "z", &[]);
                out(graph, "z").model(13)
            },
            Refused(&["1 channel,", "one value each", "channels = 1"]),
        ),
        case(
            "no such input type",
            Graph::default()
                .input("x", INT64, &[BATCH, Dim::Is(192)])
                .node("Cast", &["x"], "z", &[("to", 1)])
                .output("z", FLOAT, &[BATCH, Dim::Is(192)])
                .model(13),
            Refused(&["`x` is i64"]),
        ),
    ]
}

/// Branches, loops and functions, and what can hide in them.
fn controls() -> Vec<Case> {
    /// `out` is what the branch that is taken makes.
    fn branch(opset: u64, taken: Graph, other: Graph) -> Vec<u8> {
        tail(opset, |g| {
            let branches = [
                ("then_branch", Attr::Body(taken)),
                ("else_branch", Attr::Body(other)),
            ];
            g.weights("yes", BOOL, &[], &[1])
                .op("if", "If", &["yes"], &["out"], &branches)
        })
    }
    let ends = |operator: &'static str, name: &'static str| {
        Graph::default()
            .op("inside", operator, &["z"], &[name], &[])
            .ends_in(name)
    };
    let noise = |name: &'static str| {
        Graph::default()
            .op("dice", "RandomNormalLike", &["z"], &["n"], &[])
            .node("Add", &["z", "n"], name, &[])
            .ends_in(name)
    };
    let turns = {
        let body = Graph::default()
            .input("i", INT64, &[])
            .input("go", BOOL, &[])
            .input("state", FLOAT, &ROWS)
            .node("Identity", &["go"], "go_on", &[])
            .node("Tanh", &["state"], "t", &[])
            .node("Add", &["state", "t"], "next", &[])
            .ends_in("go_on")
            .ends_in("next");
        tail(13, |g| {
            g.weights("three", INT64, &[], &3i64.to_le_bytes())
                .weights("yes", BOOL, &[], &[1])
                .op(
                    "loop",
                    "Loop",
                    &["three", "yes", "z"],
                    &["out"],
                    &[("body", Attr::Body(body))],
                )
        })
    };
    let called = |body: Graph| {
        out(
            net(BATCH).op("call", "local:head", &["z"], &["out"], &[]),
            "out",
        )
        .model_with(17, &[("head", &["a"], &["b"], body)])
    };
    vec![
        case(
            "a branch",
            branch(13, ends("Identity", "t"), ends("Neg", "e")),
            Sound,
        ),
        case(
            "a softmax in a branch",
            branch(13, ends("Softmax", "t"), ends("Identity", "e")),
            Refused(&["probabilities"]),
        ),
        case(
            "a sigmoid in a branch",
            branch(13, ends("Sigmoid", "t"), ends("Sigmoid", "e")),
            Refused(&["sigmoid", "`if` (If)"]),
        ),
        case(
            "dice in a branch",
            branch(13, noise("t"), ends("Identity", "e")),
            Refused(&["asked twice", "`dice` (RandomNormalLike)"]),
        ),
        case("a loop", turns, Sound),
        case(
            "a function",
            called(Graph::default().op(
                "",
                "LeakyRelu",
                &["a"],
                &["b"],
                &[("alpha", Attr::Float(0.5))],
            )),
            Sound,
        ),
        case(
            "a sigmoid in a function",
            called(Graph::default().op("", "Sigmoid", &["a"], &["b"], &[])),
            Refused(&["sigmoid", "output = \"z\""]),
        ),
        case(
            "dice in a function",
            called(
                Graph::default()
                    .op("fdice", "RandomNormalLike", &["a"], &["n"], &[])
                    .op("", "Add", &["a", "n"], &["b"], &[]),
            ),
            Refused(&["asked twice", "`fdice` (RandomNormalLike)"]),
        ),
    ]
}
