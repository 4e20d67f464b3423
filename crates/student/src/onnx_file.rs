//! The messages of an ONNX file that a network needs, with the field numbers of `onnx.proto`.

use std::collections::HashSet;

use candle_core::{DType, Tensor};

use crate::StudentError;
use crate::protobuf::Message;

/// The first operator set that knows `Gelu`; `LayerNormalization` came with 17.
const OPSET: i64 = 20;
/// The file format that came with it.
const IR_VERSION: i64 = 9;

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The value of a node's attribute.
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

/// Nodes and constants in the making.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Message>,
    constants: Vec<Message>,
    names: HashSet<String>,
    n_values: usize,
}

impl Graph {
    /// A name for a value that nobody asks for by name.
    pub(crate) fn fresh(&mut self) -> String {
        self.n_values += 1;
        format!("value_{}", self.n_values)
    }

    /// One node with one output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
        output: &str,
    ) {
        let mut node = Message::default();
        for input in inputs {
            node.bytes(1, input);
        }
        node.bytes(2, output)
            .bytes(3, format!("{operator}_{}", self.nodes.len()));
        node.bytes(4, operator);
        for (name, attribute) in attributes {
            let mut message = Message::default();
            message.bytes(1, name);
            match attribute {
                Attribute::Float(value) => message.float(2, *value).int(20, 1),
                Attribute::Int(value) => message.int(3, *value).int(20, 2),
                Attribute::Ints(values) => {
                    for value in values {
                        message.int(8, *value);
                    }
                    message.int(20, 7)
                }
            };
            node.message(5, &message);
        }
        self.nodes.push(node);
    }

    /// A constant of f32.
    pub(crate) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, dims, FLOAT, bytes)
    }

    /// A list of integers.
    pub(crate) fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(name, &[values.len()], INT64, bytes)
    }

    /// An integer without dimensions, as a constant; gives back its name.
    pub(crate) fn int(&mut self, name: &str, value: i64) -> String {
        self.constant(name, &[], INT64, value.to_le_bytes().to_vec())
    }

    /// A tensor of any type, as a constant of f32; gives back its name.
    pub(crate) fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<String, StudentError> {
        let values = tensor
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        Ok(self.floats(name, tensor.dims(), &values))
    }

    /// Under `name`, or if that is taken, under one like it.
    fn constant(&mut self, name: &str, dims: &[usize], data_type: i64, bytes: Vec<u8>) -> String {
        let numbered = (1..).map(|n| match n {
            1 => name.to_owned(),
            n => format!("{name}_{n}"),
        });
        let mut free = numbered.filter(|name| !self.names.contains(name));
        let name = free.next().expect("there is always a next number");
        self.names.insert(name.clone());
        let mut constant = Message::default();
        for dim in dims {
            constant.int(1, *dim as i64);
        }
        constant.int(2, data_type).bytes(8, &name).bytes(9, bytes);
        self.constants.push(constant);
        name
    }

    /// The whole file. Input and output are f32 and have a batch dimension before the dimensions given.
    pub(crate) fn into_model(
        self,
        name: &str,
        input: (&str, &[usize]),
        output: (&str, &[usize]),
        metadata: &[(String, String)],
    ) -> Vec<u8> {
        let mut graph = Message::default();
        for node in &self.nodes {
            graph.message(1, node);
        }
        graph.bytes(2, name);
        for constant in &self.constants {
            graph.message(5, constant);
        }
        graph
            .message(11, &value_info(input))
            .message(12, &value_info(output));
        let mut opset = Message::default();
        opset.bytes(1, "").int(2, OPSET);
        let mut model = Message::default();
        model.int(1, IR_VERSION);
        model
            .bytes(2, "logitcask")
            .bytes(3, env!("CARGO_PKG_VERSION"));
        model.message(7, &graph).message(8, &opset);
        for (key, value) in metadata {
            let mut entry = Message::default();
            entry.bytes(1, key).bytes(2, value);
            model.message(14, &entry);
        }
        model.into_bytes()
    }
}

fn value_info((name, dims): (&str, &[usize])) -> Message {
    let mut shape = Message::default();
    let mut batch = Message::default();
    batch.bytes(2, "batch");
    shape.message(1, &batch);
    for dim in dims {
        let mut message = Message::default();
        message.int(1, *dim as i64);
        shape.message(1, &message);
    }
    let mut tensor = Message::default();
    tensor.int(1, FLOAT).message(2, &shape);
    let mut of_type = Message::default();
    of_type.message(1, &tensor);
    let mut info = Message::default();
    info.bytes(1, name).message(2, &of_type);
    info
}
