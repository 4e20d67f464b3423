//! Wide residual networks: Zagoruyko and Komodakis (arXiv:1605.07146), with mdistiller's parameter names.
//!
//! A 3x3 stem, three stages of (depth - 4) / 6 blocks that normalise and activate *before* each convolution, a last
//! batch norm with ReLU, global average pooling, one linear layer. Where the width changes, the shortcut is a bare 1x1
//! convolution and, like the block, sees the activated input. No dropout.

use candle_core::Tensor;
use logitcask_layers::{
    Activation, BatchNorm, Conv2d, FeatureMap, Init, Linear, Mode, Result, Scope, global_avg_pool,
};

use super::conv_bn::{conv1x1, conv3x3};
use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

const PAPER: &str = "arXiv:1605.07146";

#[rustfmt::skip] // a table
pub(super) const ROWS: &[ModelRow] = &[
    ModelRow::cifar("wrn_16_1", PAPER, 180_916, |s, i, c| build(16, 1, s, i, c)),
    ModelRow::cifar("wrn_16_2", PAPER, 703_284, |s, i, c| build(16, 2, s, i, c)),
    ModelRow::cifar("wrn_40_1", PAPER, 569_780, |s, i, c| build(40, 1, s, i, c)),
    ModelRow::cifar("wrn_40_2", PAPER, 2_255_156, |s, i, c| build(40, 2, s, i, c)),
];

fn build(
    depth: usize,
    widen: usize,
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let conv1 = Conv2d::new(
        &scope.enter("conv1"),
        conv3x3(image.channels, 16, 1),
        Init::KaimingFanOut,
    )?;
    let mut blocks = Vec::new();
    let mut channels = 16;
    for (stage, width) in [16 * widen, 32 * widen, 64 * widen].into_iter().enumerate() {
        let scope = scope.enter(format!("block{}", stage + 1)).enter("layer");
        for index in 0..(depth - 4) / 6 {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            blocks.push(Block::new(&scope.enter(index), channels, width, stride)?);
            channels = width;
        }
    }
    Ok(Box::new(WideResNet {
        conv1,
        blocks,
        bn1: BatchNorm::new(&scope.enter("bn1"), channels)?,
        fc: Linear::new(&scope.enter("fc"), channels, n_classes, Init::UniformFanIn)?,
    }))
}

struct WideResNet {
    conv1: Conv2d,
    blocks: Vec<Block>,
    bn1: BatchNorm,
    fc: Linear,
}

impl Student for WideResNet {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = self.conv1.forward(pixels)?;
        for block in &self.blocks {
            x = block.forward(x, mode)?;
        }
        x = self.bn1.forward(&x, mode, Activation::Relu, None)?;
        global_avg_pool(&x)
    }

    fn head(&self) -> &dyn Head {
        &self.fc
    }
}

struct Block {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl Block {
    fn new(scope: &Scope, in_channels: usize, width: usize, stride: usize) -> Result<Self> {
        let conv = |name, spec| Conv2d::new(&scope.enter(name), spec, Init::KaimingFanOut);
        Ok(Self {
            bn1: BatchNorm::new(&scope.enter("bn1"), in_channels)?,
            conv1: conv("conv1", conv3x3(in_channels, width, stride))?,
            bn2: BatchNorm::new(&scope.enter("bn2"), width)?,
            conv2: conv("conv2", conv3x3(width, width, 1))?,
            shortcut: if in_channels == width {
                None
            } else {
                Some(conv(
                    "convShortcut",
                    conv1x1(in_channels, width).stride(stride),
                )?)
            },
        })
    }

    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let mut y = self.bn1.forward(&x, mode, Activation::Relu, None)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&y)?,
            None => x,
        };
        y = self.conv1.forward(&y)?;
        y = self.bn2.forward(&y, mode, Activation::Relu, None)?;
        y = self.conv2.forward(&y)?;
        y.add(&shortcut)
    }
}
