//! What a teacher's output is by the nodes that make it: logits, or what a softmax, a sigmoid or a tanh left of them.
//!
//! The walk goes from the output backwards through nodes that change no value or all values alike, and looks at the first
//! that does more. Softmax and its kin are known in every spelling: as operators of their own, and as the exponentials,
//! sums and quotients that an exporter makes of them.

use crate::graph::{Graph, Node};
use crate::head_shape::Shape;
use crate::model_file::ModelFile;

/// The end of a teacher's graph.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) shape: Shape,
    /// The node, as a person finds it in the file.
    pub(crate) node: String,
    /// The tensor before it, where it can be asked for.
    pub(crate) before: Option<String>,
    /// What the values were multiplied by afterwards.
    pub(crate) factor: f64,
}

/// What makes `output`, if it is anything but plain logits.
pub(crate) fn of(file: &ModelFile, output: &str) -> Option<Head> {
    let mut head = Walk {
        file,
        graph: &file.graph,
        depth: 0,
    }
    .head(output)?;
    // A graph's input holds pixels, and a constant no logits.
    head.before
        .take_if(|name| file.graph.producer(name).is_none());
    Some(head)
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    file: &'a ModelFile,
    graph: &'a Graph,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn head(self, output: &str) -> Option<Head> {
        let mut tensor = output.to_owned();
        let (mut factor, mut cut) = (1.0, None);
        // No chain of such nodes is longer, unless it runs in a circle.
        for _ in 0..1000 {
            let node = self.graph.producer(&tensor)?;
            if let Some((next, by)) = self.passed_through(node) {
                factor *= by;
                tensor = next;
                continue;
            }
            let head = |shape, before: Option<String>| Head {
                shape,
                node: node.to_string(),
                before,
                factor,
            };
            let before = || node.inputs.first().cloned();
            match node.operator.as_str() {
                // A softmax kept away from 0 and 1 is a softmax; logits that are cut off are told only if nothing else is.
                "Clip" => {
                    cut = cut.or_else(|| Some(head(Shape::Cut, before())));
                    tensor = before()?;
                }
                "Relu" | "Softplus" | "ThresholdedRelu" => return Some(head(Shape::Cut, before())),
                "Softmax" => return Some(head(Shape::Softmax, before())),
                "LogSoftmax" => return Some(head(Shape::LogSoftmax, before())),
                "Sigmoid" | "HardSigmoid" => return Some(head(Shape::Sigmoid, before())),
                "Tanh" | "Softsign" | "Erf" => return Some(head(Shape::Tanh, before())),
                "TopK" => return Some(head(Shape::Sorted, before())),
                "LpNormalization" => return Some(head(Shape::Cosine, None)),
                "If" | "Loop" | "Scan" => {
                    return self
                        .inside(node, &tensor)
                        .map(|shape| head(shape, None))
                        .or(cut);
                }
                _ if self.file.functions.contains_key(&node.operator) => {
                    let shape = self.inside(node, &tensor);
                    return shape
                        .map(|shape| head(shape, before().filter(|_| node.inputs.len() == 1)))
                        .or(cut);
                }
                _ => {
                    return self
                        .spelt_out(node)
                        .map(|(shape, before)| head(shape, before))
                        .or(cut);
                }
            }
        }
        None
    }

    /// The input that a node hands on as it is or multiplied by a number, and that number.
    fn passed_through(self, node: &Node) -> Option<(String, f64)> {
        let input = |index: usize| node.inputs.get(index).map(String::as_str);
        let first = input(0)?;
        match node.operator.as_str() {
            "Identity" | "Cast" | "CastLike" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze"
            | "Dropout" | "Transpose" | "Expand" | "QuantizeLinear" | "DequantizeLinear"
            | "Slice" | "Gather" => Some((first.to_owned(), 1.0)),
            "Neg" => Some((first.to_owned(), -1.0)),
            "Mul" => match (self.graph.number(first), self.graph.number(input(1)?)) {
                (None, Some(by)) => Some((first.to_owned(), by)),
                (Some(by), None) => Some((input(1)?.to_owned(), by)),
                _ => None,
            },
            "Div" => Some((first.to_owned(), 1.0 / self.graph.number(input(1)?)?)),
            "Add" | "Sub" => match (self.graph.number(first), self.graph.number(input(1)?)) {
                (None, Some(_)) => Some((first.to_owned(), 1.0)),
                (Some(_), None) => Some((
                    input(1)?.to_owned(),
                    if node.operator == "Sub" { -1.0 } else { 1.0 },
                )),
                _ => None,
            },
            _ => None,
        }
    }

    /// What a branch, a body or a function ends in.
    fn inside(self, node: &Node, tensor: &str) -> Option<Shape> {
        const DEEPEST: usize = 8;
        if self.depth == DEEPEST {
            return None;
        }
        let index = node.outputs.iter().position(|output| output == tensor)?;
        let function = self.file.functions.get(&node.operator);
        let mut bodies = node.bodies.iter().chain(function);
        bodies.find_map(|graph| {
            // A loop's body gives its condition first.
            let skipped = usize::from(node.operator == "Loop");
            let output = graph.outputs.get(index + skipped)?;
            let walk = Walk {
                graph,
                depth: self.depth + 1,
                ..self
            };
            walk.head(output).map(|head| head.shape)
        })
    }

    /// Softmax, log-softmax, sigmoid and cosine as an exporter spells them out, with the tensor before them.
    fn spelt_out(self, node: &Node) -> Option<(Shape, Option<String>)> {
        let input = |index: usize| node.inputs.get(index).map(String::as_str);
        match node.operator.as_str() {
            "Div" => self.quotient(input(0)?, input(1)?),
            "Reciprocal" => self.sigmoid(input(0)?),
            "Mul" => {
                let by_reciprocal = |value: &str, other: &str| {
                    let node = self.made_by(other, "Reciprocal")?;
                    self.quotient(value, node.inputs.first()?)
                };
                by_reciprocal(input(0)?, input(1)?).or_else(|| by_reciprocal(input(1)?, input(0)?))
            }
            "Sub" => self.log_softmax(input(0)?, input(1)?),
            "Log" => match self.head(input(0)?)? {
                Head {
                    shape: Shape::Softmax,
                    before,
                    ..
                } => Some((Shape::LogSoftmax, before)),
                Head {
                    shape: Shape::Sigmoid,
                    before,
                    ..
                } => Some((Shape::Sigmoid, before)),
                _ => None,
            },
            "MatMul" | "Gemm" | "Conv" | "FusedMatMul" => {
                let is_normalised = |tensor: &str| {
                    let head = self.head(tensor);
                    head.is_some_and(|head| head.shape == Shape::Cosine && head.factor.abs() == 1.0)
                };
                is_normalised(input(0)?).then_some((Shape::Cosine, None))
            }
            _ => None,
        }
    }

    fn quotient(self, above: &str, below: &str) -> Option<(Shape, Option<String>)> {
        if self.graph.number(above) == Some(1.0) {
            return self.sigmoid(below);
        }
        let (above, below) = (self.plain(above), self.plain(below));
        let norm = self.graph.producer(below)?;
        let of = self.plain(norm.inputs.first()?);
        match norm.operator.as_str() {
            "ReduceSum" if of == above => {
                let exponentials = self.made_by(above, "Exp")?;
                Some((
                    Shape::Softmax,
                    Some(self.without_maximum(exponentials.inputs.first()?)),
                ))
            }
            "ReduceL2" if of == above => Some((Shape::Cosine, None)),
            "Sqrt" | "Pow" => {
                let sum = self
                    .made_by(of, "ReduceSum")
                    .or_else(|| self.made_by(of, "ReduceSumSquare"))?;
                let squares = self.plain(sum.inputs.first()?);
                let is_square = |node: &Node| {
                    matches!(node.operator.as_str(), "Mul" | "Pow")
                        && node
                            .inputs
                            .first()
                            .is_some_and(|base| self.plain(base) == above)
                };
                let fits = squares == above || self.graph.producer(squares).is_some_and(is_square);
                fits.then_some((Shape::Cosine, None))
            }
            _ => None,
        }
    }

    /// `1 / (1 + exp(-x))`, told by what is below.
    fn sigmoid(self, below: &str) -> Option<(Shape, Option<String>)> {
        let sum = self.made_by(below, "Add")?;
        let (one, other) = (sum.inputs.first()?, sum.inputs.get(1)?);
        let other = match (self.graph.number(one), self.graph.number(other)) {
            (Some(1.0), _) => other,
            (_, Some(1.0)) => one,
            _ => return None,
        };
        let negative = self.made_by(other, "Exp")?.inputs.first()?;
        let before = self
            .made_by(negative, "Neg")
            .and_then(|node| node.inputs.first().cloned());
        Some((Shape::Sigmoid, before))
    }

    /// `x - log(sum(exp(x)))`.
    fn log_softmax(self, value: &str, sum: &str) -> Option<(Shape, Option<String>)> {
        let sum = self.graph.producer(self.plain(sum))?;
        let of = sum.inputs.first()?;
        let summed = match sum.operator.as_str() {
            "ReduceLogSumExp" => of,
            "Log" => {
                let sum = self.made_by(of, "ReduceSum")?;
                self.made_by(sum.inputs.first()?, "Exp")?.inputs.first()?
            }
            _ => return None,
        };
        let same = self.without_maximum(summed) == self.without_maximum(value);
        same.then(|| (Shape::LogSoftmax, Some(self.without_maximum(value))))
    }

    /// `y` for `y - max(y)`, which is subtracted so that no exponential overflows.
    fn without_maximum(self, tensor: &str) -> String {
        let inner = || {
            let node = self.made_by(tensor, "Sub")?;
            let maximum = self.made_by(node.inputs.get(1)?, "ReduceMax")?;
            let value = node.inputs.first()?;
            (maximum.inputs.first() == Some(value)).then(|| value.clone())
        };
        inner().unwrap_or_else(|| self.plain(tensor).to_owned())
    }

    /// The node that makes `tensor`, behind nodes that change no value, if it is of this kind.
    fn made_by(self, tensor: &str, operator: &str) -> Option<&'a Node> {
        self.graph
            .producer(self.plain(tensor))
            .filter(|node| node.operator == operator)
    }

    /// Back through nodes that keep a divisor what it is: copies, another shape, a floor against division by zero.
    fn plain<'t>(self, tensor: &'t str) -> &'t str
    where
        'a: 't,
    {
        let mut tensor = tensor;
        for _ in 0..100 {
            let Some(node) = self.graph.producer(tensor) else {
                break;
            };
            let keeps = match node.operator.as_str() {
                "Identity" | "Cast" | "Reshape" | "Expand" | "Clip" | "Unsqueeze" | "Squeeze" => {
                    true
                }
                "Add" | "Max" => node.inputs.get(1).is_some_and(|other| {
                    self.graph.number(other).is_some_and(|eps| eps.abs() < 1e-2)
                }),
                _ => false,
            };
            match node.inputs.first() {
                Some(first) if keeps => tensor = first,
                _ => break,
            }
        }
        tensor
    }
}
