//! What a network does, written down while it does it: the way to exporters.
//!
//! While [`trace`] runs a forward pass on this thread, every layer and operation notes a [`Step`]. Values are known by
//! identity, so a network that is made of this crate's layers needs no second description of itself. Where a network
//! calls Candle's own operations, it says so by [`noted`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Tensor, TensorId};

use crate::{Activation, ConvSpec, buffer::Buffer};

/// One operation. Feature maps are `(B, H, W, C)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A convolution; the scope's name leads to its parameters.
    Conv {
        /// Name of the scope that holds its weight and bias.
        layer: String,
        /// Channels, kernel, stride, padding, groups and bias.
        spec: ConvSpec,
    },
    /// Batch normalisation of the first input, plus the second if there is one, then the activation.
    BatchNorm {
        /// Name of the scope that holds its parameters and running statistics.
        layer: String,
        /// What follows the sum.
        activation: Activation,
        /// What is added to the variance.
        eps: f64,
    },
    /// `(rows, I)` to `(rows, O)`.
    Linear {
        /// Name of the scope that holds its weight and bias.
        layer: String,
    },
    /// The largest value of each window.
    MaxPool {
        /// Rows and columns of a window.
        kernel: usize,
        /// Pixels from one window to the next.
        stride: usize,
        /// Around the image; never wins.
        padding: usize,
    },
    /// The mean of each window.
    AvgPool {
        /// Rows and columns of a window.
        kernel: usize,
        /// Pixels from one window to the next.
        stride: usize,
        /// Zeros around the image, which count.
        padding: usize,
    },
    /// A map to a tensor `(B, C)`.
    GlobalAvgPool,
    /// The sum of two maps or, broadcast, tensors.
    Add,
    /// `max(x, 0)`.
    Relu,
    /// Maps side by side in their channels.
    ConcatChannels,
    /// Some channels of a map.
    Channels {
        /// The first channel that is kept, from 0.
        first: usize,
        /// How many channels are kept.
        width: usize,
    },
    /// Channels in another order: the first of each group, then the second of each.
    ShuffleChannels {
        /// Equal groups, taken in turn.
        groups: usize,
    },
    /// A map as a tensor of the same shape.
    ToTensor,
    /// A tensor `(B, H, W, C)` as a map.
    ToMap,
    /// Tensors one behind the other; one that has no batch dimension of its own (1) is repeated for each sample.
    Concat {
        /// The dimension along which they lie, from 0.
        dim: usize,
    },
    /// Another shape: that of the output, whose first dimension follows from the others.
    Reshape,
    /// Dimensions in another order.
    Permute {
        /// Where each comes from.
        dims: Vec<usize>,
    },
    /// One position of a dimension, which goes away.
    Select {
        /// The dimension that goes away, from 0.
        dim: usize,
        /// The position that is kept, from 0.
        index: usize,
    },
    /// Product of the last two dimensions.
    MatMul,
    /// Every value times this constant.
    Scale(f64),
    /// Over the last dimension.
    Softmax,
    /// Over the last dimension, times the second input, plus the third.
    LayerNorm {
        /// What is added to the variance.
        eps: f64,
    },
    /// `x` times the normal distribution's share below it, by the error function and not by tanh.
    Gelu,
}

/// An operation with the numbers of its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The operation and its settings.
    pub op: Op,
    /// Numbers of the values that it takes, in its own order.
    pub inputs: Vec<usize>,
    /// The value that was made.
    pub output: usize,
}

/// A forward pass as it was written down.
#[derive(Debug, Default)]
pub struct Trace {
    /// In the order in which they were done. A layer that is made of other layers notes itself after them; their values
    /// then lead nowhere.
    pub steps: Vec<Step>,
    /// The shape of each value.
    pub dims: Vec<Vec<usize>>,
    tensors: HashMap<TensorId, usize>,
    maps: HashMap<usize, usize>,
    /// Keeps what is known by its address from being freed, and its address from being used again.
    kept: Vec<Arc<Buffer>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Runs `forward` and writes down what it does on this thread.
pub fn trace<T>(forward: impl FnOnce() -> T) -> (T, Trace) {
    CURRENT.set(Some(Trace::default()));
    let made = forward();
    (made, CURRENT.take().unwrap_or_default())
}

/// Says that `made` is what `op` makes of `inputs`, and gives it back.
pub fn noted(op: Op, inputs: &[&Tensor], made: Tensor) -> Tensor {
    let inputs: Vec<Value> = inputs.iter().map(|&tensor| Value::Tensor(tensor)).collect();
    note(|| op, &inputs, Value::Tensor(&made));
    made
}

impl Trace {
    /// The number of a tensor that some step saw or made.
    pub fn number(&self, tensor: &Tensor) -> Option<usize> {
        self.tensors.get(&tensor.id()).copied()
    }

    fn value(&mut self, value: &Value) -> usize {
        let next = self.dims.len();
        let number = match value {
            Value::Tensor(tensor) => *self.tensors.entry(tensor.id()).or_insert(next),
            Value::Map(values, _) => {
                let address = Arc::as_ptr(values) as usize;
                *self.maps.entry(address).or_insert(next)
            }
        };
        if number == next {
            match value {
                Value::Tensor(tensor) => self.dims.push(tensor.dims().to_vec()),
                Value::Map(values, dims) => {
                    self.dims.push(dims.to_vec());
                    self.kept.push(Arc::clone(values));
                }
            }
        }
        number
    }
}

/// A value that an operation takes or makes, by what tells it from others.
pub(crate) enum Value<'a> {
    Tensor(&'a Tensor),
    /// A feature map's values, whose address tells it from others, and its dimensions.
    Map(&'a Arc<Buffer>, [usize; 4]),
}

/// Whether somebody traces on this thread.
pub(crate) fn is_tracing() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Costs a look at a thread-local where nobody traces.
pub(crate) fn note(op: impl FnOnce() -> Op, inputs: &[Value], made: Value) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(trace) = current {
            let inputs = inputs.iter().map(|value| trace.value(value)).collect();
            let output = trace.value(&made);
            trace.steps.push(Step {
                op: op(),
                inputs,
                output,
            });
        }
    });
}
