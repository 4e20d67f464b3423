//! Residual networks: He et al., "Deep residual learning for image recognition" (arXiv:1512.03385).
//!
//! A stem, stages of residual blocks, global average pooling, one linear layer. All stages but the first begin with
//! stride 2, and a 1x1 convolution with batch norm stands in the shortcut where the shape changes. There are three
//! kinds:
//! - `resnet8` ... `resnet110`, for CIFAR: section 4.2 of the paper, three stages of (depth - 2) / 6 basic blocks. The
//!   x4 ones are wider, as in "Contrastive representation distillation" (arXiv:1910.10699). Names are mdistiller's.
//! - `resnet18`, `resnet34`, `resnet50`, for ImageNet: the paper's table 1, named as in torchvision and, as there, with
//!   the stride of a bottleneck at its 3x3 convolution.
//! - `resnet18_cifar` and so on: the ImageNet plan after a 3x3 stem of stride 1, with mdistiller's names.

use candle_core::Tensor;
use logitcask_layers::{
    ConvSpec, FeatureMap, Init, Linear, Mode, Result, Scope, global_avg_pool, max_pool2d,
};

use super::conv_bn::{ConvBn, conv1x1, conv3x3};
use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

const PAPER: &str = "arXiv:1512.03385, section 4.2";
const WIDER: &str = "arXiv:1512.03385 widened as in arXiv:1910.10699";
const DEEPER: &str = "arXiv:1512.03385, table 1";
const DEEPER_CIFAR: &str = "arXiv:1512.03385, table 1, after a 3x3 stem";

const THIN: [usize; 4] = [16, 16, 32, 64];
const WIDE: [usize; 4] = [32, 64, 128, 256];

#[rustfmt::skip] // a table
pub(super) const ROWS: &[ModelRow] = &[
    ModelRow::cifar("resnet8", PAPER, 83_892, |s, i, c| cifar(8, THIN).build(s, i, c)),
    ModelRow::cifar("resnet14", PAPER, 181_108, |s, i, c| cifar(14, THIN).build(s, i, c)),
    ModelRow::cifar("resnet20", PAPER, 278_324, |s, i, c| cifar(20, THIN).build(s, i, c)),
    ModelRow::cifar("resnet32", PAPER, 472_756, |s, i, c| cifar(32, THIN).build(s, i, c)),
    ModelRow::cifar("resnet44", PAPER, 667_188, |s, i, c| cifar(44, THIN).build(s, i, c)),
    ModelRow::cifar("resnet56", PAPER, 861_620, |s, i, c| cifar(56, THIN).build(s, i, c)),
    ModelRow::cifar("resnet110", PAPER, 1_736_564, |s, i, c| cifar(110, THIN).build(s, i, c)),
    ModelRow::cifar("resnet8x4", WIDER, 1_233_540, |s, i, c| cifar(8, WIDE).build(s, i, c)),
    ModelRow::cifar("resnet32x4", WIDER, 7_433_860, |s, i, c| cifar(32, WIDE).build(s, i, c)),
    ModelRow::cifar("resnet18_cifar", DEEPER_CIFAR, 11_220_132, |s, i, c| R18.on_cifar().build(s, i, c)),
    ModelRow::cifar("resnet34_cifar", DEEPER_CIFAR, 21_328_292, |s, i, c| R34.on_cifar().build(s, i, c)),
    ModelRow::cifar("resnet50_cifar", DEEPER_CIFAR, 23_705_252, |s, i, c| R50.on_cifar().build(s, i, c)),
    ModelRow::imagenet("resnet18", DEEPER, 11_689_512, |s, i, c| R18.build(s, i, c)),
    ModelRow::imagenet("resnet34", DEEPER, 21_797_672, |s, i, c| R34.build(s, i, c)),
    ModelRow::imagenet("resnet50", DEEPER, 25_557_032, |s, i, c| R50.build(s, i, c)),
];

const R18: Plan = imagenet(Kind::Basic, [2, 2, 2, 2]);
const R34: Plan = imagenet(Kind::Basic, [3, 4, 6, 3]);
const R50: Plan = imagenet(Kind::Bottleneck, [3, 4, 6, 3]);

/// What tells one residual network from another.
#[derive(Clone, Copy)]
struct Plan {
    stem: Stem,
    stem_width: usize,
    kind: Kind,
    /// Width and number of blocks of each stage; a stage without blocks is none.
    stages: [(usize, usize); 4],
    /// What the source calls the shortcut and the linear layer.
    shortcut: &'static str,
    head: &'static str,
}

#[derive(Clone, Copy)]
enum Stem {
    /// 3x3, stride 1: images keep their size.
    Small,
    /// 7x7, stride 2, then 3x3 max pooling, stride 2: a fourth of the size.
    Large,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Two 3x3 convolutions of one width.
    Basic,
    /// 1x1, 3x3, and 1x1 to four times the width.
    Bottleneck,
}

const fn cifar(depth: usize, widths: [usize; 4]) -> Plan {
    let n_blocks = (depth - 2) / 6;
    Plan {
        stem: Stem::Small,
        stem_width: widths[0],
        kind: Kind::Basic,
        stages: [
            (widths[1], n_blocks),
            (widths[2], n_blocks),
            (widths[3], n_blocks),
            (0, 0),
        ],
        shortcut: "downsample",
        head: "fc",
    }
}

const fn imagenet(kind: Kind, repeats: [usize; 4]) -> Plan {
    Plan {
        stem: Stem::Large,
        stem_width: 64,
        kind,
        stages: [
            (64, repeats[0]),
            (128, repeats[1]),
            (256, repeats[2]),
            (512, repeats[3]),
        ],
        shortcut: "downsample",
        head: "fc",
    }
}

impl Plan {
    const fn on_cifar(self) -> Self {
        Self {
            stem: Stem::Small,
            shortcut: "shortcut",
            head: "linear",
            ..self
        }
    }

    fn build(
        &self,
        scope: &Scope,
        image: ImageShape,
        n_classes: usize,
    ) -> Result<Box<dyn Student>, StudentError> {
        let spec = match self.stem {
            Stem::Small => conv3x3(image.channels, self.stem_width, 1),
            Stem::Large => ConvSpec::new(image.channels, self.stem_width, 7)
                .stride(2)
                .padding(3),
        };
        let stem = ConvBn::numbered(scope, 1, spec, Init::KaimingFanOut)?;
        let mut blocks = Vec::new();
        let mut channels = self.stem_width;
        for (stage, &(width, n_blocks)) in self.stages.iter().enumerate() {
            for index in 0..n_blocks {
                let scope = scope.enter(format!("layer{}", stage + 1)).enter(index);
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(self.block(&scope, channels, width, stride)?);
                channels = self.out_channels(width);
            }
        }
        let head = Linear::new(
            &scope.enter(self.head),
            channels,
            n_classes,
            Init::UniformFanIn,
        )?;
        Ok(Box::new(ResNet {
            stem,
            has_max_pool: matches!(self.stem, Stem::Large),
            blocks,
            head,
        }))
    }

    fn block(
        &self,
        scope: &Scope,
        in_channels: usize,
        width: usize,
        stride: usize,
    ) -> Result<Block> {
        let conv_bn = |number, spec| ConvBn::numbered(scope, number, spec, Init::KaimingFanOut);
        let (first, last) = match self.kind {
            Kind::Basic => (
                vec![conv_bn(1, conv3x3(in_channels, width, stride))?],
                conv_bn(2, conv3x3(width, width, 1))?,
            ),
            Kind::Bottleneck => (
                vec![
                    conv_bn(1, conv1x1(in_channels, width))?,
                    conv_bn(2, conv3x3(width, width, stride))?,
                ],
                conv_bn(3, conv1x1(width, 4 * width))?,
            ),
        };
        let out_channels = self.out_channels(width);
        let shortcut = if stride != 1 || in_channels != out_channels {
            let spec = conv1x1(in_channels, out_channels).stride(stride);
            let scope = scope.enter(self.shortcut);
            Some(ConvBn::placed(&scope, 0, spec, Init::KaimingFanOut)?)
        } else {
            None
        };
        Ok(Block {
            first,
            last,
            shortcut,
        })
    }

    fn out_channels(&self, width: usize) -> usize {
        match self.kind {
            Kind::Basic => width,
            Kind::Bottleneck => 4 * width,
        }
    }
}

struct ResNet {
    stem: ConvBn,
    has_max_pool: bool,
    blocks: Vec<Block>,
    head: Linear,
}

impl Student for ResNet {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.relu(pixels.clone(), mode)?;
        if self.has_max_pool {
            x = max_pool2d(&x, 3, 2, 1)?;
        }
        for block in &self.blocks {
            x = block.forward(x, mode)?;
        }
        global_avg_pool(&x)
    }

    fn head(&self) -> &dyn Head {
        &self.head
    }
}

struct Block {
    first: Vec<ConvBn>,
    last: ConvBn,
    shortcut: Option<ConvBn>,
}

impl Block {
    fn forward(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.linear(x.clone(), mode)?,
            None => x.clone(),
        };
        let mut y = x;
        for conv in &self.first {
            y = conv.relu(y, mode)?;
        }
        self.last.add_relu(y, &shortcut, mode)
    }
}
