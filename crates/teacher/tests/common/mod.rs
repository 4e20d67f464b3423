//! Small teachers, written as ONNX by hand so that no test needs a fixture, and what tests share.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

use std::path::{Path, PathBuf};

use logitcask_dataset::{
    DataSpec, Dataset, PixelBatch, Preprocess, PreprocessSpec, Role, ViewFamily, render,
};
use logitcask_teacher::{Device, ExecutionProvider, Runtime, Teacher, TeacherError, TeacherSpec};

pub const N_CLASSES: usize = 10;

/// ONNX's numbers for element types.
pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT64: u64 = 7;
pub const BOOL: u64 = 9;
pub const DOUBLE: u64 = 11;
pub const FLOAT16: u64 = 10;

/// A protobuf message in the making.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn varint(mut self, number: u64, value: u64) -> Self {
        self.put(number << 3);
        self.put(value);
        self
    }

    pub fn bytes(mut self, number: u64, content: impl AsRef<[u8]>) -> Self {
        self.put(number << 3 | 2);
        self.put(content.as_ref().len() as u64);
        self.0.extend_from_slice(content.as_ref());
        self
    }

    pub fn float(mut self, number: u64, value: f32) -> Self {
        self.put(number << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// One dimension of an input or output: a number, or a name for "any".
#[derive(Clone, Copy)]
pub enum Dim {
    Is(u64),
    Any(&'static str),
}

fn value_info(name: &str, element: u64, dims: &[Dim]) -> Message {
    let shape = dims.iter().fold(Message::default(), |shape, dim| {
        let dim = match dim {
            Dim::Is(size) => Message::default().varint(1, *size),
            Dim::Any(name) => Message::default().bytes(2, name),
        };
        shape.bytes(1, dim)
    });
    let tensor = Message::default().varint(1, element).bytes(2, shape);
    Message::default()
        .bytes(1, name)
        .bytes(2, Message::default().bytes(1, tensor))
}

/// An attribute of a node.
#[derive(Clone)]
pub enum Attr {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
    Texts(Vec<&'static str>),
    /// A branch, or a body.
    Body(Graph),
    /// Element type, sides and bytes of a tensor.
    Tensor(u64, Vec<u64>, Vec<u8>),
}

impl Attr {
    /// `AttributeProto`: the value's field, and the number of its type.
    fn message(&self, name: &str) -> Message {
        let message = Message::default().bytes(1, name);
        match self {
            Attr::Float(value) => message.float(2, *value).varint(20, 1),
            Attr::Int(value) => message.varint(3, *value as u64).varint(20, 2),
            Attr::Text(text) => message.bytes(4, text).varint(20, 3),
            Attr::Tensor(element, dims, raw) => message
                .bytes(5, tensor("", *element, dims, raw))
                .varint(20, 4),
            Attr::Body(graph) => message
                .bytes(6, graph.message.clone().bytes(2, "body"))
                .varint(20, 5),
            Attr::Ints(values) => values
                .iter()
                .fold(message, |m, v| m.varint(8, *v as u64))
                .varint(20, 7),
            Attr::Texts(texts) => texts
                .iter()
                .fold(message, |m, text| m.bytes(9, text))
                .varint(20, 8),
        }
    }
}

fn tensor(name: &str, element: u64, dims: &[u64], raw: &[u8]) -> Message {
    let tensor = dims
        .iter()
        .fold(Message::default(), |tensor, dim| tensor.varint(1, *dim));
    tensor.varint(2, element).bytes(8, name).bytes(9, raw)
}

/// A graph in the making: nodes are added in order, each reading names made before.
#[derive(Clone, Default)]
pub struct Graph {
    message: Message,
}

impl Graph {
    pub fn input(mut self, name: &str, element: u64, dims: &[Dim]) -> Self {
        self.message = self.message.bytes(11, value_info(name, element, dims));
        self
    }

    pub fn output(mut self, name: &str, element: u64, dims: &[Dim]) -> Self {
        self.message = self.message.bytes(12, value_info(name, element, dims));
        self
    }

    pub fn output_without_shape(mut self, name: &str, element: u64) -> Self {
        let tensor = Message::default().varint(1, element);
        let info = Message::default()
            .bytes(1, name)
            .bytes(2, Message::default().bytes(1, tensor));
        self.message = self.message.bytes(12, info);
        self
    }

    pub fn node(self, operator: &str, inputs: &[&str], output: &str, ints: &[(&str, i64)]) -> Self {
        self.node_with(operator, inputs, output, ints, &[])
    }

    pub fn node_with(
        mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        ints: &[(&str, i64)],
        lists: &[(&str, &[i64])],
    ) -> Self {
        let mut node = inputs
            .iter()
            .fold(Message::default(), |node, input| node.bytes(1, input));
        node = node.bytes(2, output).bytes(4, operator);
        for (name, value) in ints {
            node = node.bytes(
                5,
                Message::default()
                    .bytes(1, name)
                    .varint(3, *value as u64)
                    .varint(20, 2),
            );
        }
        for (name, values) in lists {
            let attribute = values
                .iter()
                .fold(Message::default().bytes(1, name), |m, v| {
                    m.varint(8, *v as u64)
                });
            node = node.bytes(5, attribute.varint(20, 7));
        }
        self.message = self.message.bytes(1, node);
        self
    }

    /// A node in full: `name`, operator with the domain before a colon, and every output.
    pub fn op(
        mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attr)],
    ) -> Self {
        let (domain, operator) = operator.split_once(':').unwrap_or(("", operator));
        let mut node = Message::default();
        for input in inputs {
            node = node.bytes(1, input);
        }
        for output in outputs {
            node = node.bytes(2, output);
        }
        node = node.bytes(3, name).bytes(4, operator);
        for (name, attribute) in attributes {
            node = node.bytes(5, attribute.message(name));
        }
        self.message = self.message.bytes(1, node.bytes(7, domain));
        self
    }

    pub fn weights(mut self, name: &str, element: u64, dims: &[u64], raw: &[u8]) -> Self {
        self.message = self.message.bytes(5, tensor(name, element, dims, raw));
        self
    }

    pub fn floats(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        self.weights(name, FLOAT, dims, &raw_f32(values))
    }

    pub fn longs(self, name: &str, values: &[i64]) -> Self {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.weights(name, INT64, &[values.len() as u64], &raw)
    }

    /// An output of which nothing is said but its name: what a branch ends in.
    pub fn ends_in(mut self, name: &str) -> Self {
        self.message = self.message.bytes(12, Message::default().bytes(1, name));
        self
    }

    pub fn external_weights(mut self, name: &str, dims: &[u64], location: &str) -> Self {
        let tensor = dims
            .iter()
            .fold(Message::default(), |tensor, dim| tensor.varint(1, *dim));
        let entry = Message::default().bytes(1, "location").bytes(2, location);
        self.message = self.message.bytes(
            5,
            tensor
                .varint(2, FLOAT)
                .bytes(8, name)
                .bytes(13, entry)
                .varint(14, 1),
        );
        self
    }

    pub fn model(self, opset: u64) -> Vec<u8> {
        self.model_with(opset, &[])
    }

    /// The same with functions: (name, inputs, outputs, body), in the domain `local`.
    pub fn model_with(self, opset: u64, functions: &[(&str, &[&str], &[&str], Graph)]) -> Vec<u8> {
        let import = |domain: &str, version| Message::default().bytes(1, domain).varint(2, version);
        let mut model = Message::default()
            .varint(1, if opset < 18 { 8 } else { 10 })
            .bytes(7, self.message.bytes(2, "graph"))
            .bytes(8, import("", opset));
        for domain in ["com.microsoft", "ai.onnx.ml", "local"] {
            model = model.bytes(8, import(domain, 1));
        }
        for (name, inputs, outputs, body) in functions {
            let mut function = Message::default().bytes(1, name);
            for input in *inputs {
                function = function.bytes(4, input);
            }
            for output in *outputs {
                function = function.bytes(5, output);
            }
            for node in body.nodes() {
                function = function.bytes(7, node);
            }
            model = model.bytes(25, function.bytes(9, import("", opset)).bytes(10, "local"));
        }
        model.0
    }

    /// The nodes' bytes, out of a graph that holds nothing but nodes.
    fn nodes(&self) -> Vec<Vec<u8>> {
        let (mut rest, mut nodes) = (&self.message.0[..], Vec::new());
        while let [tag, after @ ..] = rest {
            assert_eq!(*tag, 1 << 3 | 2, "a function's body holds nodes alone");
            let (mut length, mut at) = (0usize, 0);
            loop {
                length |= usize::from(after[at] & 0x7f) << (7 * at);
                at += 1;
                if after[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            nodes.push(after[at..at + length].to_vec());
            rest = &after[at + length..];
        }
        nodes
    }
}

/// The classifier's weights, (3, 10) and (10): small whole numbers, so that every path gives nearly the same sums.
pub fn weights() -> (Vec<f32>, Vec<f32>) {
    let w = (0..3 * N_CLASSES)
        .map(|i| ((i * 7) % 11) as f32 - 5.0)
        .collect();
    let b = (0..N_CLASSES).map(|i| (i % 3) as f32 * 0.5).collect();
    (w, b)
}

pub fn raw_f32(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

pub fn raw_f16(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| half::f16::from_f32(*value).to_le_bytes())
        .collect()
}

/// The plain teacher: mean of each channel, then one fully connected layer. `tail` continues from `gemm` and ends in
/// whatever outputs it declares.
pub fn classifier(batch: Dim, tail: impl FnOnce(Graph) -> Graph) -> Vec<u8> {
    let (w, b) = weights();
    let graph = Graph::default()
        .input("input", FLOAT, &[batch, Dim::Is(3), Dim::Is(8), Dim::Is(8)])
        .weights("w", FLOAT, &[3, N_CLASSES as u64], &raw_f32(&w))
        .weights("b", FLOAT, &[N_CLASSES as u64], &raw_f32(&b))
        .node("GlobalAveragePool", &["input"], "pooled", &[])
        .node("Flatten", &["pooled"], "flat", &[])
        .node("Gemm", &["flat", "w", "b"], "gemm", &[]);
    tail(graph).model(13)
}

/// `gemm` as the only output, called `logits`.
pub fn plain_tail(graph: Graph) -> Graph {
    graph.node("Identity", &["gemm"], "logits", &[]).output(
        "logits",
        FLOAT,
        &[Dim::Any("batch"), Dim::Is(10)],
    )
}

/// What [`classifier`] answers to a batch in (B, C, H, W), computed here.
pub fn expected(batch: &PixelBatch) -> Vec<f32> {
    let (w, b) = weights();
    let plane = batch.height * batch.width;
    let mut rows = Vec::new();
    for image in batch.pixels.chunks_exact(3 * plane) {
        let means: Vec<f32> = image
            .chunks_exact(plane)
            .map(|channel| channel.iter().sum::<f32>() / plane as f32)
            .collect();
        for class in 0..N_CLASSES {
            rows.push(
                b[class]
                    + (0..3)
                        .map(|channel| means[channel] * w[channel * N_CLASSES + class])
                        .sum::<f32>(),
            );
        }
    }
    rows
}

pub fn runtime() -> Runtime {
    Runtime::load(None, ExecutionProvider::Cpu)
        .expect("the tests need ONNX Runtime: run `make setup`")
}

/// A spec for the model at `path`; `more` is what else stands in the recipe.
pub fn spec(path: &Path, more: &str) -> TeacherSpec {
    let normal = if more.contains("mean") {
        ""
    } else {
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
    };
    toml::from_str(&format!(
        "onnx = {:?}\n{normal}{more}\n",
        path.display().to_string()
    ))
    .expect("a teacher spec")
}

pub fn write_model(folder: &Path, model: &[u8]) -> PathBuf {
    let path = folder.join("teacher.onnx");
    std::fs::write(&path, model).expect("the model is written");
    path
}

pub fn load(path: &Path, more: &str, sessions: usize) -> Result<Teacher, TeacherError> {
    Teacher::load(&runtime(), &spec(path, more), &Device::cpu(), sessions)
}

/// `n` images of 8 x 8 in colour, with labels of ten classes.
pub fn images(n: u32) -> Dataset {
    let mut data = DataSpec::new("synthetic", "");
    let synthetic = logitcask_dataset::SyntheticSpec {
        n_train: n,
        height: 8,
        width: 8,
        ..Default::default()
    };
    data.synthetic = Some(synthetic);
    data.n_classes = Some(N_CLASSES);
    Dataset::open(&data, Role::Train).expect("synthetic images need nothing")
}

/// The first `n` images as `teacher` wants them.
pub fn batch_for(teacher: &Teacher, n: u32) -> PixelBatch {
    let (dataset, preprocess) = (
        images(n),
        Preprocess::new(&teacher.spec().preprocess).expect("a preprocessing"),
    );
    let mut batch = PixelBatch::new(teacher.layout());
    let requests: Vec<(u32, u32)> = (0..n).map(|sample| (sample, 0)).collect();
    render(
        &dataset,
        &ViewFamily::clean(),
        &preprocess,
        &requests,
        &mut batch,
    )
    .expect("pixels");
    batch
}

/// The same images in (B, C, H, W), normalised by `preprocess`.
pub fn batch_nchw(n: u32, preprocess: &PreprocessSpec) -> PixelBatch {
    let preprocess = Preprocess::new(preprocess).expect("a preprocessing");
    let mut batch = PixelBatch::new(logitcask_dataset::PixelLayout::Nchw);
    let requests: Vec<(u32, u32)> = (0..n).map(|sample| (sample, 0)).collect();
    render(
        &images(n),
        &ViewFamily::clean(),
        &preprocess,
        &requests,
        &mut batch,
    )
    .expect("pixels");
    batch
}

pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance,
            "value {index}: found {found}, expected {expected}"
        );
    }
}
