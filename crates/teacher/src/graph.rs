//! What a teacher's graph is made of: nodes with their inputs, outputs and few attributes, and small constants.
//!
//! Read by a walk over the wire format; fields that nobody asks about are skipped by length, and ONNX Runtime remains the
//! judge of whether the model is valid.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{Field, Fields, walk_messages};

/// ONNX's numbers for element types.
const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const BOOL: u64 = 9;
const FLOAT16: u64 = 10;
const DOUBLE: u64 = 11;
const BFLOAT16: u64 = 16;

/// Constants of more elements are weights, whose values tell nothing.
const SMALL: usize = 16;

/// A graph, a branch of an `If`, the body of a loop, or a function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// In the file's order, which is an order in which they can run.
    pub(crate) nodes: Vec<Node>,
    /// Names of what it gives, in the file's order.
    pub(crate) outputs: Vec<String>,
    /// Constants of at most [`SMALL`] elements that the file itself holds, by name.
    constants: BTreeMap<String, Vec<f64>>,
    /// Output name -> index of the node that makes it.
    producers: BTreeMap<String, usize>,
}

/// One operation: its operator, what goes in and out, and small attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    name: String,
    pub(crate) operator: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    ints: BTreeMap<String, i64>,
    /// Branches and loop bodies.
    pub(crate) bodies: Vec<Graph>,
    /// The value of a `Constant` node, if it is small.
    constant: Option<Vec<f64>>,
}

/// Everything that is read from a model's bytes.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) graph: Graph,
    /// Local functions, by the operator's name that calls them.
    pub(crate) functions: BTreeMap<String, Graph>,
    /// Where weights lie that are not in the file.
    pub(crate) external: BTreeSet<String>,
    pub(crate) opset: u64,
    pub(crate) float_weights: usize,
    pub(crate) half_weights: usize,
    pub(crate) bfloat_weights: usize,
    /// How many graphs deep the walk is, so that a file made to nest without end cannot exhaust the stack.
    depth: usize,
}

impl Graph {
    /// The node whose result is called `tensor`.
    pub(crate) fn producer(&self, tensor: &str) -> Option<&Node> {
        self.producers.get(tensor).map(|index| &self.nodes[*index])
    }

    /// The values of a small constant.
    pub(crate) fn constant(&self, tensor: &str) -> Option<&[f64]> {
        let of_node = || self.producer(tensor)?.constant.as_ref();
        self.constants
            .get(tensor)
            .or_else(of_node)
            .map(Vec::as_slice)
    }

    /// The one number that a small constant is made of.
    pub(crate) fn number(&self, tensor: &str) -> Option<f64> {
        let values = self.constant(tensor)?;
        let first = *values.first()?;
        values.iter().all(|value| *value == first).then_some(first)
    }

    /// The nodes that `output` depends on, with those in branches and bodies, each beside the graph that it stands in.
    pub(crate) fn behind<'a>(
        &'a self,
        output: &str,
        functions: &'a BTreeMap<String, Graph>,
    ) -> Vec<(&'a Graph, &'a Node)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut called = BTreeSet::new();
        let mut wanted = vec![output.to_owned()];
        while let Some(tensor) = wanted.pop() {
            let Some(&index) = self.producers.get(&tensor) else {
                continue;
            };
            if seen.insert(index) {
                self.collect(
                    &self.nodes[index],
                    functions,
                    &mut called,
                    &mut wanted,
                    &mut found,
                );
            }
        }
        found
    }

    /// `node` and all that it holds; bodies read tensors of the graph around them by name.
    fn collect<'a>(
        &'a self,
        node: &'a Node,
        functions: &'a BTreeMap<String, Graph>,
        called: &mut BTreeSet<&'a str>,
        wanted: &mut Vec<String>,
        found: &mut Vec<(&'a Graph, &'a Node)>,
    ) {
        found.push((self, node));
        wanted.extend(node.inputs.iter().cloned());
        let function = functions
            .get(&node.operator)
            .filter(|_| called.insert(&node.operator));
        for body in node.bodies.iter().chain(function) {
            for node in &body.nodes {
                body.collect(node, functions, called, wanted, found);
            }
            wanted.extend(body.outputs.iter().cloned());
        }
    }
}

impl Node {
    /// An integer attribute; `default` where it is absent.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.ints.get(name).copied().unwrap_or(default)
    }

    /// How many outputs it has that are named, and thus asked for.
    pub(crate) fn n_outputs(&self) -> usize {
        self.outputs
            .iter()
            .filter(|output| !output.is_empty())
            .count()
    }
}

/// As a person finds it again: its name, or where it has none, that of its first output.
impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.outputs.first().map_or("", String::as_str);
        let name = if self.name.is_empty() {
            first
        } else {
            &self.name
        };
        write!(f, "`{name}` ({})", self.operator)
    }
}

impl Model {
    /// Walks `ModelProto`. `None` where the bytes are no such message.
    pub(crate) fn read(bytes: &[u8]) -> Option<Model> {
        let mut model = Model::default();
        let mut graph = None;
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (7, Field::Bytes(bytes)) => graph = Some(model.graph(bytes)?),
                (8, Field::Bytes(opset)) => model.opset(opset)?,
                (25, Field::Bytes(function)) => model.function(function)?,
                _ => {}
            }
        }
        model.graph = graph?;
        Some(model)
    }

    fn opset(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut domain, mut version) = (&[][..], 0);
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(name)) => domain = name,
                (2, Field::Varint(number)) => version = number,
                _ => {}
            }
        }
        if domain.is_empty() || domain == b"ai.onnx" {
            self.opset = version;
        }
        Some(())
    }

    fn function(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut name, mut graph) = (String::new(), Graph::default());
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(text)) => name = string(text),
                (5, Field::Bytes(output)) => graph.outputs.push(string(output)),
                (7, Field::Bytes(node)) => graph.push(self.node(node)?),
                _ => {}
            }
        }
        self.functions.insert(name, graph);
        Some(())
    }

    fn graph(&mut self, bytes: &[u8]) -> Option<Graph> {
        const DEEPEST: usize = 64;
        if self.depth == DEEPEST {
            return None;
        }
        self.depth += 1;
        let mut graph = Graph::default();
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(node)) => graph.push(self.node(node)?),
                (5, Field::Bytes(tensor)) => {
                    let (name, values) = self.tensor(tensor)?;
                    graph.constants.extend(values.map(|values| (name, values)));
                }
                (12, Field::Bytes(output)) => walk_messages(output, 1, &mut |name| {
                    graph.outputs.push(string(name));
                    Some(())
                })?,
                (15, Field::Bytes(sparse)) => self.sparse(sparse)?,
                _ => {}
            }
        }
        self.depth -= 1;
        Some(graph)
    }

    fn node(&mut self, bytes: &[u8]) -> Option<Node> {
        let mut node = Node::default();
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(name)) => node.inputs.push(string(name)),
                (2, Field::Bytes(name)) => node.outputs.push(string(name)),
                (3, Field::Bytes(name)) => node.name = string(name),
                (4, Field::Bytes(name)) => node.operator = string(name),
                (5, Field::Bytes(attribute)) => self.attribute(attribute, &mut node)?,
                _ => {}
            }
        }
        Some(node)
    }

    /// Attributes hold tensors (constants) and graphs (branches and loop bodies), either of which may name external files.
    fn attribute(&mut self, bytes: &[u8], node: &mut Node) -> Option<()> {
        let mut name = String::new();
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(text)) => name = string(text),
                (2, Field::Fixed32(value)) if name == "value_float" => {
                    node.constant = Some(vec![f64::from(f32::from_le_bytes(value))]);
                }
                (3, Field::Varint(value)) => {
                    if name == "value_int" {
                        node.constant = Some(vec![value as i64 as f64]);
                    }
                    node.ints.insert(name.clone(), value as i64);
                }
                (5 | 10, Field::Bytes(tensor)) => {
                    let (_, values) = self.tensor(tensor)?;
                    if name == "value" {
                        node.constant = values;
                    }
                }
                (6 | 11, Field::Bytes(graph)) => node.bodies.push(self.graph(graph)?),
                (22 | 23, Field::Bytes(sparse)) => self.sparse(sparse)?,
                _ => {}
            }
        }
        Some(())
    }

    fn sparse(&mut self, bytes: &[u8]) -> Option<()> {
        walk_messages(bytes, 1, &mut |tensor| self.tensor(tensor).map(drop))?;
        walk_messages(bytes, 2, &mut |tensor| self.tensor(tensor).map(drop))
    }

    /// Counts a tensor's elements and notes where they lie; returns its name, and its values if they are few.
    fn tensor(&mut self, bytes: &[u8]) -> Option<(String, Option<Vec<f64>>)> {
        let mut fields = Fields(bytes);
        let (mut elements, mut data_type) = (1u64, 0);
        let (mut name, mut data) = (String::new(), Data::default());
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Varint(dim)) => elements = elements.saturating_mul(dim),
                (1, Field::Bytes(packed)) => {
                    let mut dims = Fields(packed);
                    while !dims.0.is_empty() {
                        elements = elements.saturating_mul(dims.varint()?);
                    }
                }
                (2, Field::Varint(kind)) => data_type = kind,
                (8, Field::Bytes(text)) => name = string(text),
                (9, Field::Bytes(raw)) => data.raw = raw,
                (4 | 5 | 7 | 10, Field::Bytes(packed)) => data.packed = packed,
                (4, Field::Fixed32(value)) => {
                    data.floats.push(f64::from(f32::from_le_bytes(value)))
                }
                (5 | 7, Field::Varint(value)) => data.floats.push(value as i64 as f64),
                (13, Field::Bytes(entry)) => self.location(entry)?,
                _ => {}
            }
        }
        let elements = usize::try_from(elements).unwrap_or(usize::MAX);
        let count = match data_type {
            FLOAT => Some(&mut self.float_weights),
            FLOAT16 => Some(&mut self.half_weights),
            BFLOAT16 => Some(&mut self.bfloat_weights),
            _ => None,
        };
        if let Some(count) = count {
            *count = count.saturating_add(elements);
        }
        let values = (elements <= SMALL).then(|| data.values(data_type, elements));
        Some((name, values.flatten()))
    }

    /// One key and value about external data; `location` is the one that names a file.
    fn location(&mut self, bytes: &[u8]) -> Option<()> {
        let (mut key, mut value) = (&[][..], &[][..]);
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(text)) => key = text,
                (2, Field::Bytes(text)) => value = text,
                _ => {}
            }
        }
        if key == b"location" {
            self.external.insert(string(value));
        }
        Some(())
    }
}

impl Graph {
    fn push(&mut self, node: Node) {
        let index = self.nodes.len();
        let named = node.outputs.iter().filter(|output| !output.is_empty());
        self.producers
            .extend(named.map(|output| (output.clone(), index)));
        self.nodes.push(node);
    }
}

/// The three ways in which a tensor's values can be written.
#[derive(Default)]
struct Data<'a> {
    raw: &'a [u8],
    packed: &'a [u8],
    floats: Vec<f64>,
}

impl Data<'_> {
    /// `None` where the type is none that constants of interest have, or where values are missing.
    fn values(self, data_type: u64, elements: usize) -> Option<Vec<f64>> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let (chunks, _) = bytes.as_chunks::<N>();
            chunks.iter().map(|chunk| value(*chunk)).collect()
        }
        let raw = |bytes| match data_type {
            FLOAT => Some(each(bytes, |b| f64::from(f32::from_le_bytes(b)))),
            DOUBLE => Some(each(bytes, f64::from_le_bytes)),
            FLOAT16 => Some(each(bytes, |b| half::f16::from_le_bytes(b).to_f64())),
            INT32 => Some(each(bytes, |b| f64::from(i32::from_le_bytes(b)))),
            INT64 => Some(each(bytes, |b| i64::from_le_bytes(b) as f64)),
            BOOL => Some(each(bytes, |[b]: [u8; 1]| f64::from(b))),
            _ => None,
        };
        let values = match data_type {
            _ if !self.raw.is_empty() => raw(self.raw)?,
            _ if self.packed.is_empty() => self.floats,
            FLOAT | DOUBLE => raw(self.packed)?,
            FLOAT16 | BFLOAT16 => return None,
            _ => {
                let (mut packed, mut values) = (Fields(self.packed), Vec::new());
                while !packed.0.is_empty() {
                    values.push(packed.varint()? as i64 as f64);
                }
                values
            }
        };
        (values.len() == elements).then_some(values)
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Model::read(&bytes);
        }
    }
}
