//! MobileNets, with mdistiller's parameter names.
//!
//! - `mobilenet_v2`: Sandler et al. (arXiv:1801.04381) as the distillation papers use it on CIFAR: half as wide,
//!   expansion 6, ReLU in place of ReLU6. Inverted residuals expand, filter each channel, and project; the expansion is there
//!   even where it is by 1. The stem has stride 2, and the second stage, of stride 2 in the paper, has stride 1.
//! - `mobilenet_v1`: Howard et al. (arXiv:1704.04861), for ImageNet.

use candle_core::Tensor;
use logitcask_layers::{ConvSpec, FeatureMap, Init, Linear, Mode, Result, Scope, global_avg_pool};

use super::conv_bn::{ConvBn, conv1x1, conv3x3, depthwise};
use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

const V1: &str = "arXiv:1704.04861";
const V2: &str = "arXiv:1801.04381 at half width";

pub(super) const ROWS: &[ModelRow] = &[
    ModelRow::cifar("mobilenet_v2", V2, 812_836, build_v2),
    ModelRow::imagenet("mobilenet_v1", V1, 4_231_976, build_v1),
];

/// (expansion, width before halving, blocks, stride of the first)
const V2_STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

fn build_v2(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let conv_bn = |name, spec| ConvBn::placed(&scope.enter(name), 0, spec, Init::KaimingFanOut);
    let stem = conv_bn("conv1", conv3x3(image.channels, 16, 2))?;
    let mut blocks = Vec::new();
    let mut channels = 16;
    for (stage, (expansion, full_width, n_blocks, first_stride)) in
        V2_STAGES.into_iter().enumerate()
    {
        for index in 0..n_blocks {
            let scope = scope
                .enter("blocks")
                .enter(stage)
                .enter(index)
                .enter("conv");
            let stride = if index == 0 { first_stride } else { 1 };
            let width = full_width / 2;
            blocks.push(InvertedResidual::new(
                &scope, channels, width, stride, expansion,
            )?);
            channels = width;
        }
    }
    let last = conv_bn("conv2", conv1x1(channels, 1280))?;
    let init = Init::Normal {
        mean: 0.0,
        std: 0.01,
    };
    let classifier = Linear::new(&scope.enter("classifier").enter(0), 1280, n_classes, init)?;
    Ok(Box::new(MobileNetV2 {
        stem,
        blocks,
        last,
        classifier,
    }))
}

struct MobileNetV2 {
    stem: ConvBn,
    blocks: Vec<InvertedResidual>,
    last: ConvBn,
    classifier: Linear,
}

impl Student for MobileNetV2 {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.relu(pixels.clone(), mode)?;
        for block in &self.blocks {
            x = block.forward(x, mode)?;
        }
        global_avg_pool(&self.last.relu(x, mode)?)
    }

    fn head(&self) -> &dyn Head {
        &self.classifier
    }
}

struct InvertedResidual {
    expand: ConvBn,
    filter: ConvBn,
    project: ConvBn,
    has_skip: bool,
}

impl InvertedResidual {
    fn new(
        scope: &Scope,
        in_channels: usize,
        out_channels: usize,
        stride: usize,
        expansion: usize,
    ) -> Result<Self> {
        let hidden = expansion * in_channels;
        // Each ReLU takes a place too.
        let conv_bn = |place, spec| ConvBn::placed(scope, place, spec, Init::KaimingFanOut);
        Ok(Self {
            expand: conv_bn(0, conv1x1(in_channels, hidden))?,
            filter: conv_bn(3, depthwise(hidden, stride))?,
            project: conv_bn(6, conv1x1(hidden, out_channels))?,
            has_skip: stride == 1 && in_channels == out_channels,
        })
    }

    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let mut y = self.expand.relu(x.clone(), mode)?;
        y = self.filter.relu(y, mode)?;
        if self.has_skip {
            self.project.add(y, &x, mode)
        } else {
            self.project.linear(y, mode)
        }
    }
}

/// (width, stride) of the separable layers after the stem: channels that go out, step of the depthwise part.
const V1_LAYERS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

fn build_v1(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let model = scope.enter("model");
    let conv_bn = |layer: usize, place, spec: ConvSpec| {
        ConvBn::placed(&model.enter(layer), place, spec, Init::UniformFanIn)
    };
    let mut layers = vec![conv_bn(0, 0, conv3x3(image.channels, 32, 2))?];
    let mut channels = 32;
    for (index, (width, stride)) in V1_LAYERS.into_iter().enumerate() {
        layers.push(conv_bn(index + 1, 0, depthwise(channels, stride))?);
        layers.push(conv_bn(index + 1, 3, conv1x1(channels, width))?);
        channels = width;
    }
    let fc = Linear::new(&scope.enter("fc"), channels, n_classes, Init::UniformFanIn)?;
    Ok(Box::new(MobileNetV1 { layers, fc }))
}

struct MobileNetV1 {
    layers: Vec<ConvBn>,
    fc: Linear,
}

impl Student for MobileNetV1 {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = pixels.clone();
        for layer in &self.layers {
            x = layer.relu(x, mode)?;
        }
        global_avg_pool(&x)
    }

    fn head(&self) -> &dyn Head {
        &self.fc
    }
}
