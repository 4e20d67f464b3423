//! A student as ONNX, read off its own forward pass.
//!
//! The student is run once on two blank images while `logitcask_layers::trace` writes down what it does; each step
//! becomes one node or a few. So a new student made of known operations exports without a word about it here. Feature
//! maps, channels last inside, are (N, C, H, W) in the file, as its readers expect.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Device, Tensor};
use logitcask_layers::trace::{Op, Step, Trace, trace};
use logitcask_layers::{Activation, ConvSpec, Mode};

use crate::onnx_file::{Attribute, Graph};
use crate::{Network, StudentError, sealed_tensors};

/// How a student is written.
#[derive(Clone, Debug, Default)]
pub struct OnnxSpec {
    /// Leave batch norms as nodes of their own. Else each disappears into the convolution before it, where there is one.
    pub keep_batch_norm: bool,
    /// Takes bytes 0..255 as floats, and normalises them inside.
    pub normalisation: Option<Normalisation>,
    /// Divides the logits, inside the last layer.
    pub temperature: Option<f64>,
    /// Facts to remember in the file.
    pub metadata: Vec<(String, String)>,
}

/// `pixel * scale + offset` per channel, in the order in which the student sees them.
#[derive(Clone, Debug)]
pub struct Normalisation {
    /// Factors, one per channel.
    pub scale: Vec<f32>,
    /// What is added after the factor, one per channel.
    pub offset: Vec<f32>,
    /// Whether the student sees channels in the reverse order of what comes in.
    pub reverse_channels: bool,
}

/// Under this name a safetensors file of weights says whose they are.
pub(crate) const WEIGHTS: &str = "logitcask.weights";

/// The name of the file's input: (batch, channels, height, width), f32.
pub(crate) const INPUT: &str = "pixels";
/// The name of its output: (batch, classes), f32.
pub(crate) const OUTPUT: &str = "logits";

/// The student as the bytes of an ONNX file, weights inside.
///
/// # Errors
/// If the student's forward pass does something that is not written down.
pub fn to_onnx(network: &Network, spec: &OnnxSpec) -> Result<Vec<u8>, StudentError> {
    let image = network.shape().image;
    let shape = (2, image.height, image.width, image.channels);
    let pixels = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
    let (logits, trace) = trace(|| network.forward(&pixels, Mode::Eval));
    let logits = logits?;
    let untraced = |what: &str| StudentError::Untraced {
        student: network.name().to_owned(),
        what: what.to_owned(),
    };
    let number = |tensor: &Tensor, what| trace.number(tensor).ok_or_else(|| untraced(what));
    let (pixels, output) = (
        number(&pixels, "its pixels")?,
        number(&logits, "its logits")?,
    );

    let mut graph = Graph::default();
    let input = match &spec.normalisation {
        None => INPUT.to_owned(),
        Some(normalisation) => normalise(&mut graph, normalisation),
    };
    let mut writer = Writer {
        student: network.name(),
        live: Live::new(&trace, output),
        weights: network.state()?.into_iter().collect(),
        values: HashMap::from([(pixels, input)]),
        pixels,
        output,
        graph,
        trace: &trace,
        spec,
    };
    for (name, var) in network.params().parameters() {
        if let Some(number) = trace.number(&var) {
            let name = writer.weight(&name)?;
            writer.values.insert(number, name);
        }
    }
    for step in &trace.steps {
        if writer.live.makes(step) {
            writer.write(step).map_err(|error| match error {
                Missing::Value => untraced(&format!("an input of {:?}", step.op)),
                Missing::Error(error) => error,
            })?;
        }
    }
    let n_classes = logits.dims()[1];
    let input_dims = [image.channels, image.height, image.width];
    let graph = writer.graph;
    Ok(graph.into_model(
        network.name(),
        (INPUT, &input_dims),
        (OUTPUT, &[n_classes]),
        &spec.metadata,
    ))
}

/// The student's weights and running statistics as a safetensors file, under PyTorch's names, with a digest of its own.
///
/// # Errors
/// What Candle reports.
pub fn to_safetensors(network: &Network) -> Result<Vec<u8>, StudentError> {
    let state = network.state()?;
    let tensors = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let facts = serde_json::json!({ "student": network.name() }).to_string();
    let written = sealed_tensors::to_bytes(WEIGHTS, &facts, tensors.collect());
    Ok(written.map_err(candle_core::Error::from)?)
}

/// Which steps lead to the logits, and how often each value is used by those.
struct Live {
    uses: HashMap<usize, usize>,
    made_by_conv: HashSet<usize>,
}

impl Live {
    fn new(trace: &Trace, output: usize) -> Self {
        let mut uses = HashMap::from([(output, 1)]);
        let mut made_by_conv = HashSet::new();
        for step in trace.steps.iter().rev() {
            if uses.contains_key(&step.output) {
                for &input in &step.inputs {
                    *uses.entry(input).or_insert(0) += 1;
                }
                if matches!(step.op, Op::Conv { .. }) {
                    made_by_conv.insert(step.output);
                }
            }
        }
        Self { uses, made_by_conv }
    }

    fn makes(&self, step: &Step) -> bool {
        self.uses.contains_key(&step.output) && !step.inputs.contains(&step.output)
    }

    /// Whether a value is a convolution's, and nobody else wants it.
    fn is_lone_conv(&self, value: usize) -> bool {
        self.made_by_conv.contains(&value) && self.uses.get(&value) == Some(&1)
    }
}

struct Writer<'a> {
    /// Its name, for messages.
    student: &'a str,
    graph: Graph,
    trace: &'a Trace,
    live: Live,
    spec: &'a OnnxSpec,
    weights: HashMap<String, Tensor>,
    /// The name in the file of each value.
    values: HashMap<usize, String>,
    pixels: usize,
    output: usize,
}

enum Missing {
    Value,
    Error(StudentError),
}

impl<E: Into<StudentError>> From<E> for Missing {
    fn from(error: E) -> Self {
        Missing::Error(error.into())
    }
}

/// Adds a node of max or average pooling.
fn pool(graph: &mut Graph, op: &Op, x: &str, name: &str) {
    match *op {
        Op::MaxPool {
            kernel,
            stride,
            padding,
        } => graph.node("MaxPool", &[x], &window(kernel, stride, padding), name),
        Op::AvgPool {
            kernel,
            stride,
            padding,
        } => {
            let mut attributes = window(kernel, stride, padding);
            attributes.push(("count_include_pad", Attribute::Int(1)));
            graph.node("AveragePool", &[x], &attributes, name);
        }
        _ => {
            let pooled = graph.fresh();
            graph.node("GlobalAveragePool", &[x], &[], &pooled);
            graph.node("Flatten", &[&pooled], &[], name);
        }
    }
}

/// Channels of a map (B, H, W, C) in groups, transposed with those.
fn shuffle(graph: &mut Graph, groups: usize, dims: &[usize], x: &str, name: &str) {
    let (channels, groups) = (dims[3] as i64, groups as i64);
    let image = [dims[1] as i64, dims[2] as i64];
    let apart = graph.ints(
        "shape",
        &[-1, groups, channels / groups, image[0], image[1]],
    );
    let together = graph.ints("shape", &[-1, channels, image[0], image[1]]);
    let [split, turned] = [graph.fresh(), graph.fresh()];
    graph.node("Reshape", &[x, &apart], &[], &split);
    graph.node("Transpose", &[&split], &order(&[0, 2, 1, 3, 4]), &turned);
    graph.node("Reshape", &[&turned, &together], &[], name);
}

impl Writer<'_> {
    fn write(&mut self, step: &Step) -> Result<(), Missing> {
        if let Op::Conv { .. } = step.op
            && self.folds(step.output)
        {
            return Ok(()); // its batch norm writes it
        }
        if let Op::BatchNorm {
            layer,
            activation,
            eps,
        } = &step.op
        {
            return self.batch_norm(step, layer, *activation, *eps);
        }
        let inputs = step.inputs.iter().map(|value| self.value(*value));
        let inputs: Vec<String> = inputs.collect::<Result<_, _>>()?;
        let x = inputs.first().ok_or(Missing::Value)?.clone();
        let all: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = self.name_of(step.output);
        let dims = self.trace.dims[step.output].clone();
        let graph = &mut self.graph;
        match &step.op {
            Op::Conv { layer, spec } => {
                let (weight, bias) = (self.tensor(layer, "weight")?, self.bias(layer, spec)?);
                self.conv(&x, layer, spec, &weight, bias, &name)?;
            }
            Op::BatchNorm { .. } => {}
            Op::Linear { layer } => self.linear(&x, layer, step.output == self.output, &name)?,
            op @ (Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool) => {
                pool(graph, op, &x, &name);
            }
            Op::Add => graph.node("Add", &all, &[], &name),
            Op::Relu => graph.node("Relu", &all, &[], &name),
            Op::MatMul => graph.node("MatMul", &all, &[], &name),
            Op::Gelu => graph.node("Gelu", &all, &[], &name),
            Op::Softmax => graph.node("Softmax", &all, &[("axis", Attribute::Int(-1))], &name),
            Op::LayerNorm { eps } => {
                let eps = Attribute::Float(*eps as f32);
                let attributes = [("axis", Attribute::Int(-1)), ("epsilon", eps)];
                graph.node("LayerNormalization", &all, &attributes, &name);
            }
            Op::Scale(factor) => {
                let factor = graph.floats("factor", &[], &[*factor as f32]);
                graph.node("Mul", &[&x, &factor], &[], &name);
            }
            Op::ConcatChannels => graph.node("Concat", &all, &[("axis", Attribute::Int(1))], &name),
            &Op::Channels { first, width } => {
                let [from, to, axis] =
                    [first, first + width, 1].map(|n| graph.ints("at", &[n as i64]));
                graph.node("Slice", &[&x, &from, &to, &axis], &[], &name);
            }
            &Op::ShuffleChannels { groups } => shuffle(graph, groups, &dims, &x, &name),
            // The file's input is a map already.
            Op::ToMap if step.inputs[0] == self.pixels => {
                self.values.insert(step.output, x);
                return Ok(());
            }
            Op::ToMap => graph.node("Transpose", &[&x], &order(&[0, 3, 1, 2]), &name),
            Op::ToTensor => graph.node("Transpose", &[&x], &order(&[0, 2, 3, 1]), &name),
            Op::Concat { dim } => {
                let repeated = self.repeated(step, &inputs)?;
                let repeated: Vec<&str> = repeated.iter().map(String::as_str).collect();
                let axis = [("axis", Attribute::Int(*dim as i64))];
                self.graph.node("Concat", &repeated, &axis, &name);
            }
            Op::Reshape => {
                let rest = dims[1..].iter().map(|&n| n as i64);
                let shape: Vec<i64> = std::iter::once(-1).chain(rest).collect();
                let shape = graph.ints("shape", &shape);
                graph.node("Reshape", &[&x, &shape], &[], &name);
            }
            Op::Permute { dims } => graph.node("Transpose", &[&x], &order(dims), &name),
            Op::Select { dim, index } => {
                let index = graph.int("index", *index as i64);
                let axis = [("axis", Attribute::Int(*dim as i64))];
                graph.node("Gather", &[&x, &index], &axis, &name);
            }
        }
        self.values.insert(step.output, name);
        Ok(())
    }

    /// Written as a convolution where there is one to fold it into.
    fn batch_norm(
        &mut self,
        step: &Step,
        layer: &str,
        activation: Activation,
        eps: f64,
    ) -> Result<(), Missing> {
        let residual = match step.inputs.get(1) {
            Some(residual) => Some(self.value(*residual)?),
            None => None,
        };
        let relus = activation == Activation::Relu;
        let name = self.name_of(step.output);
        // The last of norm, sum and activation bears the step's name.
        let normed = match residual.is_some() || relus {
            true => self.graph.fresh(),
            false => name.clone(),
        };
        match self.folds(step.inputs[0]) {
            true => self.folded(step.inputs[0], layer, eps, &normed)?,
            false => self.normalised(step.inputs[0], layer, eps, &normed)?,
        }
        let mut made = normed;
        if let Some(residual) = residual {
            let sum = match relus {
                true => self.graph.fresh(),
                false => name.clone(),
            };
            self.graph.node("Add", &[&made, &residual], &[], &sum);
            made = sum;
        }
        if relus {
            self.graph.node("Relu", &[&made], &[], &name);
        }
        self.values.insert(step.output, name);
        Ok(())
    }

    /// A norm with no convolution to fold it into.
    fn normalised(
        &mut self,
        value: usize,
        norm: &str,
        eps: f64,
        name: &str,
    ) -> Result<(), Missing> {
        let x = self.value(value)?;
        let mut inputs = vec![x];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weight(&format!("{norm}.{part}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let eps = [("epsilon", Attribute::Float(eps as f32))];
        self.graph.node("BatchNormalization", &inputs, &eps, name);
        Ok(())
    }

    /// A convolution with the norm behind it: weights and bias scaled per output channel, in f64.
    fn folded(&mut self, value: usize, norm: &str, eps: f64, name: &str) -> Result<(), Missing> {
        let is_conv = |step: &&Step| step.output == value;
        let conv = self
            .trace
            .steps
            .iter()
            .find(is_conv)
            .ok_or(Missing::Value)?;
        let Op::Conv { layer, spec } = &conv.op else {
            return Err(Missing::Value);
        };
        let x = self.value(conv.inputs[0])?;
        let part = |part| self.values_of(&format!("{norm}.{part}"));
        let (gamma, beta) = (part("weight")?, part("bias")?);
        let (mean, var) = (part("running_mean")?, part("running_var")?);
        let scale: Vec<f64> = std::iter::zip(&gamma, &var)
            .map(|(gamma, var)| gamma / (var + eps).sqrt())
            .collect();
        let mut weight = self.values_of(&format!("{layer}.weight"))?;
        let per_channel = weight.len() / scale.len();
        for (row, scale) in weight.chunks_exact_mut(per_channel).zip(&scale) {
            row.iter_mut().for_each(|w| *w *= scale);
        }
        let own = match spec.bias {
            true => self.values_of(&format!("{layer}.bias"))?,
            false => vec![0.0; scale.len()],
        };
        let bias: Vec<f32> = (0..scale.len())
            .map(|c| ((own[c] - mean[c]) * scale[c] + beta[c]) as f32)
            .collect();
        let shape = self.tensor(layer, "weight")?.dims().to_vec();
        let weight: Vec<f32> = weight.into_iter().map(|w| w as f32).collect();
        let weight = Tensor::from_vec(weight, shape, &Device::Cpu)?;
        let bias = Tensor::new(bias, &Device::Cpu)?;
        self.conv(&x, layer, spec, &weight, Some(bias), name)
    }

    fn conv(
        &mut self,
        x: &str,
        layer: &str,
        spec: &ConvSpec,
        weight: &Tensor,
        bias: Option<Tensor>,
        name: &str,
    ) -> Result<(), Missing> {
        let mut inputs = vec![x.to_owned()];
        inputs.push(self.graph.tensor(&format!("{layer}.weight"), weight)?);
        if let Some(bias) = &bias {
            inputs.push(self.graph.tensor(&format!("{layer}.bias"), bias)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut attributes = window(spec.kernel, spec.stride, spec.padding);
        attributes.push(("group", Attribute::Int(spec.groups as i64)));
        self.graph.node("Conv", &inputs, &attributes, name);
        Ok(())
    }

    fn linear(&mut self, x: &str, layer: &str, is_last: bool, name: &str) -> Result<(), Missing> {
        let temperature = self.spec.temperature.filter(|_| is_last).unwrap_or(1.0);
        let mut inputs = vec![x.to_owned()];
        for part in ["weight", "bias"] {
            let tensor = self.tensor(layer, part)?.affine(1.0 / temperature, 0.0)?;
            inputs.push(self.graph.tensor(&format!("{layer}.{part}"), &tensor)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let transposed = [("transB", Attribute::Int(1))];
        self.graph.node("Gemm", &inputs, &transposed, name);
        Ok(())
    }

    /// The inputs of a concatenation; a parameter among them is repeated for each sample of the batch.
    fn repeated(&mut self, step: &Step, inputs: &[String]) -> Result<Vec<String>, Missing> {
        let batch = self.trace.dims[step.output][0];
        let has_batch = |value: &&usize| self.trace.dims[**value][0] == batch;
        let example = step.inputs.iter().position(|value| has_batch(&value));
        let example = &inputs[example.ok_or(Missing::Value)?];
        let mut made = Vec::new();
        for (value, name) in step.inputs.iter().zip(inputs) {
            let dims = &self.trace.dims[*value];
            if dims[0] == batch {
                made.push(name.clone());
                continue;
            }
            let graph = &mut self.graph;
            let [size, shape, repeated] = [graph.fresh(), graph.fresh(), graph.fresh()];
            let first = [("start", Attribute::Int(0)), ("end", Attribute::Int(1))];
            graph.node("Shape", &[example], &first, &size);
            let rest: Vec<i64> = dims[1..].iter().map(|&n| n as i64).collect();
            let rest = graph.ints("shape", &rest);
            graph.node(
                "Concat",
                &[&size, &rest],
                &[("axis", Attribute::Int(0))],
                &shape,
            );
            graph.node("Expand", &[name, &shape], &[], &repeated);
            made.push(repeated);
        }
        Ok(made)
    }

    fn folds(&self, value: usize) -> bool {
        !self.spec.keep_batch_norm && self.live.is_lone_conv(value) && {
            let mut steps = self.trace.steps.iter();
            steps.any(|step| {
                matches!(step.op, Op::BatchNorm { .. })
                    && step.inputs[0] == value
                    && self.live.makes(step)
            })
        }
    }

    fn value(&self, value: usize) -> Result<String, Missing> {
        self.values.get(&value).cloned().ok_or(Missing::Value)
    }

    fn name_of(&mut self, value: usize) -> String {
        match value == self.output {
            true => OUTPUT.to_owned(),
            false => self.graph.fresh(),
        }
    }

    fn tensor(&self, layer: &str, part: &str) -> Result<Tensor, Missing> {
        let found = self.weights.get(&format!("{layer}.{part}")).cloned();
        found.ok_or(Missing::Value)
    }

    fn bias(&self, layer: &str, spec: &ConvSpec) -> Result<Option<Tensor>, Missing> {
        match spec.bias {
            true => Ok(Some(self.tensor(layer, "bias")?)),
            false => Ok(None),
        }
    }

    fn values_of(&self, name: &str) -> Result<Vec<f64>, Missing> {
        let tensor = self.weights.get(name).ok_or(Missing::Value)?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f64::from).collect())
    }

    /// A parameter under its own name.
    fn weight(&mut self, name: &str) -> Result<String, StudentError> {
        let absent = || StudentError::Untraced {
            student: self.student.to_owned(),
            what: format!("the parameter `{name}`"),
        };
        let tensor = self.weights.get(name).ok_or_else(absent)?;
        self.graph.tensor(name, tensor)
    }
}

fn normalise(graph: &mut Graph, normalisation: &Normalisation) -> String {
    let n_channels = normalisation.scale.len();
    let mut x = INPUT.to_owned();
    if normalisation.reverse_channels {
        let reversed: Vec<i64> = (0..n_channels as i64).rev().collect();
        let (order, made) = (graph.ints("channel_order", &reversed), graph.fresh());
        graph.node(
            "Gather",
            &[&x, &order],
            &[("axis", Attribute::Int(1))],
            &made,
        );
        x = made;
    }
    let dims = [1, n_channels, 1, 1];
    let scale = graph.floats("pixel_scale", &dims, &normalisation.scale);
    let offset = graph.floats("pixel_offset", &dims, &normalisation.offset);
    let [scaled, made] = [graph.fresh(), graph.fresh()];
    graph.node("Mul", &[&x, &scale], &[], &scaled);
    graph.node("Add", &[&scaled, &offset], &[], &made);
    made
}

fn window(kernel: usize, stride: usize, padding: usize) -> Vec<(&'static str, Attribute)> {
    let twice = |n: usize| vec![n as i64; 2];
    vec![
        ("kernel_shape", Attribute::Ints(twice(kernel))),
        ("strides", Attribute::Ints(twice(stride))),
        ("pads", Attribute::Ints(vec![padding as i64; 4])),
    ]
}

fn order(dims: &[usize]) -> [(&'static str, Attribute); 1] {
    let dims = dims.iter().map(|&n| n as i64).collect();
    [("perm", Attribute::Ints(dims))]
}
