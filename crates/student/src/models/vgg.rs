//! VGG with batch norm: Simonyan and Zisserman (arXiv:1409.1556), in the form that distillation papers use for CIFAR,
//! with mdistiller's parameter names. VGG8, with one convolution in each block, is of those papers' own making.
//!
//! Five blocks of 3x3 convolutions (with biases) of 64, 128, 256, 512 and 512 channels, 2x2 max pooling after the first
//! three, global average pooling, one linear layer. Images of 64x64 are pooled a fourth time, as mdistiller does for
//! Tiny-ImageNet. The biases of the convolutions change nothing, since a norm takes them off again; they are kept for
//! the sake of checkpoints.

use candle_core::Tensor;
use logitcask_layers::{
    FeatureMap, Init, Linear, Mode, Result, Scope, global_avg_pool, max_pool2d,
};

use super::conv_bn::{ConvBn, conv3x3};
use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

const PAPER: &str = "arXiv:1409.1556 with batch norm and one linear layer";
const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];

#[rustfmt::skip] // a table
pub(super) const ROWS: &[ModelRow] = &[
    ModelRow::cifar("vgg8", PAPER, 3_965_028, |s, i, c| build("vgg8", [1, 1, 1, 1, 1], s, i, c)),
    ModelRow::cifar("vgg11", PAPER, 9_277_284, |s, i, c| build("vgg11", [1, 1, 2, 2, 2], s, i, c)),
    ModelRow::cifar("vgg13", PAPER, 9_462_180, |s, i, c| build("vgg13", [2, 2, 2, 2, 2], s, i, c)),
    ModelRow::cifar("vgg16", PAPER, 14_774_436, |s, i, c| build("vgg16", [2, 2, 3, 3, 3], s, i, c)),
    ModelRow::cifar("vgg19", PAPER, 20_086_692, |s, i, c| build("vgg19", [2, 2, 4, 4, 4], s, i, c)),
];

fn build(
    name: &str,
    repeats: [usize; 5],
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    if image.height < 8 || image.width < 8 {
        return Err(image.refused_by(name, "three poolings halve it, so it needs 8x8 at least"));
    }
    let mut blocks = Vec::new();
    let mut channels = image.channels;
    for (block, (width, n_convs)) in WIDTHS.into_iter().zip(repeats).enumerate() {
        let scope = scope.enter(format!("block{block}"));
        blocks.push(convs(&scope, channels, width, n_convs)?);
        channels = width;
    }
    let n_pools = if (image.height, image.width) == (64, 64) {
        4
    } else {
        3
    };
    let init = Init::Normal {
        mean: 0.0,
        std: 0.01,
    };
    let classifier = Linear::new(&scope.enter("classifier"), channels, n_classes, init)?;
    Ok(Box::new(Vgg {
        blocks,
        n_pools,
        classifier,
    }))
}

/// A block's convolutions, the first from `channels` and all to `width`.
fn convs(scope: &Scope, mut channels: usize, width: usize, n_convs: usize) -> Result<Vec<ConvBn>> {
    let mut convs = Vec::new();
    for index in 0..n_convs {
        // Each ReLU takes a place in the `Sequential` too, though it has no parameters.
        let spec = conv3x3(channels, width, 1).bias(true);
        convs.push(ConvBn::placed(scope, 3 * index, spec, Init::KaimingFanOut)?);
        channels = width;
    }
    Ok(convs)
}

struct Vgg {
    blocks: Vec<Vec<ConvBn>>,
    n_pools: usize,
    classifier: Linear,
}

impl Student for Vgg {
    fn features(&self, pixels: &FeatureMap, mode: Mode) -> Result<Tensor> {
        let mut x = pixels.clone();
        for (index, block) in self.blocks.iter().enumerate() {
            for conv in block {
                x = conv.relu(x, mode)?;
            }
            if index < self.n_pools {
                x = max_pool2d(&x, 2, 2, 0)?;
            }
        }
        global_avg_pool(&x)
    }

    fn head(&self) -> &dyn Head {
        &self.classifier
    }
}
