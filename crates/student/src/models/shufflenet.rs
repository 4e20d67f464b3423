//! ShuffleNets as the distillation papers use them on CIFAR, with mdistiller's parameter names.
//!
//! A 1x1 stem to 24 channels, three stages that each begin with stride 2, global average pooling, one linear layer.
//! - `shufflenet_v1`: Zhang et al. (arXiv:1707.01083), 3 groups. A bottleneck of grouped 1x1 convolutions with the
//!   channels shuffled in between; at stride 2 the pooled input is kept beside what the block makes.
//! - `shufflenet_v2`: Ma et al. (arXiv:1807.11164), width 1. Half of the channels pass a block untouched.

use candle_core::Tensor;
use logitcask_layers::{
    FeatureMap, Init, Linear, Mode, Result, Scope, avg_pool2d, global_avg_pool,
};

use super::conv_bn::{ConvBn, conv1x1, depthwise};
use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

const V1: &str = "arXiv:1707.01083";
const V2: &str = "arXiv:1807.11164";

pub(super) const ROWS: &[ModelRow] = &[
    ModelRow::cifar("shufflenet_v1", V1, 949_258, build_v1),
    ModelRow::cifar("shufflenet_v2", V2, 1_355_528, build_v2),
];

const STEM_WIDTH: usize = 24;
const N_BLOCKS: [usize; 3] = [4, 8, 4];
/// PyTorch's own: mdistiller leaves it at that.
const INIT: Init = Init::UniformFanIn;

fn build_v1(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let stem = ConvBn::numbered(scope, 1, conv1x1(image.channels, STEM_WIDTH), INIT)?;
    let mut blocks: Vec<Box<dyn Block>> = Vec::new();
    let mut channels = STEM_WIDTH;
    for (stage, width) in [240, 480, 960].into_iter().enumerate() {
        for index in 0..N_BLOCKS[stage] {
            let scope = scope.enter(format!("layer{}", stage + 1)).enter(index);
            let stride = if index == 0 { 2 } else { 1 };
            blocks.push(Box::new(V1Block::new(&scope, channels, width, stride)?));
            channels = width;
        }
    }
    let linear = Linear::new(&scope.enter("linear"), channels, n_classes, INIT)?;
    Ok(Box::new(ShuffleNet {
        stem,
        blocks,
        last: None,
        linear,
    }))
}

fn build_v2(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let stem = ConvBn::numbered(scope, 1, conv1x1(image.channels, STEM_WIDTH), INIT)?;
    let mut blocks: Vec<Box<dyn Block>> = Vec::new();
    let mut channels = STEM_WIDTH;
    for (stage, width) in [116, 232, 464].into_iter().enumerate() {
        let scope = scope.enter(format!("layer{}", stage + 1));
        blocks.push(Box::new(V2Down::new(&scope.enter(0), channels, width)?));
        for index in 1..N_BLOCKS[stage] {
            blocks.push(Box::new(V2Block::new(&scope.enter(index), width)?));
        }
        channels = width;
    }
    let last = Some(ConvBn::numbered(scope, 2, conv1x1(channels, 1024), INIT)?);
    let linear = Linear::new(&scope.enter("linear"), 1024, n_classes, INIT)?;
    Ok(Box::new(ShuffleNet {
        stem,
        blocks,
        last,
        linear,
    }))
}

struct ShuffleNet {
    stem: ConvBn,
    blocks: Vec<Box<dyn Block>>,
    /// Version 2 ends in one more 1x1 convolution.
    last: Option<ConvBn>,
    linear: Linear,
}

trait Block: Send + Sync {
    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap>;
}

impl Student for ShuffleNet {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.relu(pixels.clone(), mode)?;
        for block in &self.blocks {
            x = block.forward(x, mode)?;
        }
        if let Some(last) = &self.last {
            x = last.relu(x, mode)?;
        }
        global_avg_pool(&x)
    }

    fn head(&self) -> &dyn Head {
        &self.linear
    }
}

struct V1Block {
    /// Of the first convolution: the stem is too thin to be grouped.
    groups: usize,
    stride: usize,
    squeeze: ConvBn,
    filter: ConvBn,
    expand: ConvBn,
}

impl V1Block {
    fn new(scope: &Scope, in_channels: usize, out_channels: usize, stride: usize) -> Result<Self> {
        let groups = if in_channels == STEM_WIDTH { 1 } else { 3 };
        let made = match stride {
            1 => out_channels,
            _ => out_channels - in_channels,
        };
        let middle = made / 4;
        let conv_bn = |number, spec| ConvBn::numbered(scope, number, spec, INIT);
        Ok(Self {
            groups,
            stride,
            squeeze: conv_bn(1, conv1x1(in_channels, middle).groups(groups))?,
            filter: conv_bn(2, depthwise(middle, stride))?,
            expand: conv_bn(3, conv1x1(middle, made).groups(3))?,
        })
    }
}

impl Block for V1Block {
    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let mut y = self.squeeze.relu(x.clone(), mode)?;
        if self.groups > 1 {
            y = y.shuffle_channels(self.groups)?;
        }
        y = self.filter.relu(y, mode)?;
        if self.stride == 1 {
            return self.expand.add_relu(y, &x, mode);
        }
        // The paper activates what is put together. The input is a ReLU's output, so its means need none.
        let made = self.expand.relu(y, mode)?;
        FeatureMap::concat(&[&made, &avg_pool2d(&x, 3, 2, 1)?])
    }
}

/// Halves the image; both branches see all channels.
struct V2Down {
    left_filter: ConvBn,
    left: ConvBn,
    right_in: ConvBn,
    right_filter: ConvBn,
    right: ConvBn,
}

impl V2Down {
    fn new(scope: &Scope, in_channels: usize, out_channels: usize) -> Result<Self> {
        let half = out_channels / 2;
        let conv_bn = |number, spec| ConvBn::numbered(scope, number, spec, INIT);
        Ok(Self {
            left_filter: conv_bn(1, depthwise(in_channels, 2))?,
            left: conv_bn(2, conv1x1(in_channels, half))?,
            right_in: conv_bn(3, conv1x1(in_channels, half))?,
            right_filter: conv_bn(4, depthwise(half, 2))?,
            right: conv_bn(5, conv1x1(half, half))?,
        })
    }
}

impl Block for V2Down {
    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let mut left = self.left_filter.linear(x.clone(), mode)?;
        left = self.left.relu(left, mode)?;
        let mut right = self.right_in.relu(x, mode)?;
        right = self.right_filter.linear(right, mode)?;
        right = self.right.relu(right, mode)?;
        FeatureMap::concat(&[&left, &right])?.shuffle_channels(2)
    }
}

/// Works on the second half of the channels; the shuffle at the end mixes the halves.
struct V2Block {
    half: usize,
    first: ConvBn,
    filter: ConvBn,
    last: ConvBn,
}

impl V2Block {
    fn new(scope: &Scope, channels: usize) -> Result<Self> {
        let half = channels / 2;
        let conv_bn = |number, spec| ConvBn::numbered(scope, number, spec, INIT);
        Ok(Self {
            half,
            first: conv_bn(1, conv1x1(half, half))?,
            filter: conv_bn(2, depthwise(half, 1))?,
            last: conv_bn(3, conv1x1(half, half))?,
        })
    }
}

impl Block for V2Block {
    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let kept = x.channels(0, self.half)?;
        let mut y = x.channels(self.half, self.half)?;
        drop(x);
        y = self.first.relu(y, mode)?;
        y = self.filter.linear(y, mode)?;
        y = self.last.relu(y, mode)?;
        FeatureMap::concat(&[&kept, &y])?.shuffle_channels(2)
    }
}
