//! DeiT-Ti: Touvron et al. (arXiv:2012.12877), a vision transformer, with timm's parameter names
//! (`deit_tiny_patch16_224`; no distillation token).
//!
//! Patches of 16x16 pixels become tokens of 192 numbers, a class token goes in front, learned positions are added; 12
//! blocks of attention and perceptron, each behind a layer norm and beside a shortcut; the class token, normalised once
//! more, is what the linear layer sees.
//!
//! Linear layers and the patches' convolution are this workspace's own. Between them work Candle's operations, each noted
//! for exporters.

use candle_core::{D, Tensor, Var};
use logitcask_layers::trace::{Op, noted};
use logitcask_layers::{Conv2d, ConvSpec, FeatureMap, Init, Linear, Mode, Result, Scope};

use super::student::{Head, ImageShape, ModelRow, Student};
use crate::StudentError;

pub(super) const ROWS: &[ModelRow] = &[ModelRow::imagenet(
    "deit_tiny",
    "arXiv:2012.12877",
    5_717_416,
    build,
)];

const PATCH: usize = 16;
const WIDTH: usize = 192;
const HEADS: usize = 3;
const DEPTH: usize = 12;
/// timm cuts the normal off at ±2, a hundred deviations away. Its biases start at zero; ours, like those of every
/// linear layer here, uniform in ±1 / sqrt(inputs).
const INIT: Init = Init::Normal {
    mean: 0.0,
    std: 0.02,
};

fn build(
    scope: &Scope,
    image: ImageShape,
    n_classes: usize,
) -> Result<Box<dyn Student>, StudentError> {
    let [rows, columns] = [image.height / PATCH, image.width / PATCH];
    let whole = image.height.is_multiple_of(PATCH) && image.width.is_multiple_of(PATCH);
    if !whole || rows * columns == 0 {
        return Err(image.refused_by("deit_tiny", "its patches are 16x16, and only whole ones"));
    }
    let n_tokens = 1 + rows * columns;
    let cls_token = scope.parameter("cls_token", &[1, 1, WIDTH], WIDTH, INIT)?;
    let pos_embed = scope.parameter("pos_embed", &[1, n_tokens, WIDTH], WIDTH, INIT)?;
    let patches = ConvSpec::new(image.channels, WIDTH, PATCH)
        .stride(PATCH)
        .bias(true);
    let patch_embed = scope.enter("patch_embed").enter("proj");
    let patch_embed = Conv2d::new(&patch_embed, patches, Init::UniformFanIn)?;
    let blocks = (0..DEPTH).map(|index| Block::new(&scope.enter("blocks").enter(index)));
    Ok(Box::new(DeitTiny {
        cls_token,
        pos_embed,
        patch_embed,
        blocks: blocks.collect::<Result<_>>()?,
        norm: LayerNorm::new(&scope.enter("norm"))?,
        head: Linear::new(&scope.enter("head"), WIDTH, n_classes, INIT)?,
    }))
}

struct DeitTiny {
    cls_token: Var,
    pos_embed: Var,
    patch_embed: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Student for DeitTiny {
    fn features(&self, pixels: &FeatureMap, _: Mode) -> Result<Tensor> {
        let keep = pixels.keeps();
        let patches = self.patch_embed.forward(pixels)?;
        let [batch, rows, columns, _] = patches.dims();
        let patches = reshape(&patches.to_tensor()?, &[batch, rows * columns, WIDTH])?;
        let cls_token = parameter(&self.cls_token, keep).broadcast_as((batch, 1, WIDTH))?;
        let tokens = Tensor::cat(&[&cls_token, &patches], 1)?;
        let tokens = noted(Op::Concat { dim: 1 }, &[&self.cls_token, &patches], tokens);
        let placed = tokens.broadcast_add(&parameter(&self.pos_embed, keep))?;
        let mut tokens = noted(Op::Add, &[&tokens, &self.pos_embed], placed);
        for block in &self.blocks {
            tokens = block.forward(&tokens, keep)?;
        }
        // Each token is normalised by itself, so one is enough. Out of a larger tensor Candle would add it up in another
        // order, though not where the batch is of one image: the same image is to have the same logits in both.
        let class = tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let class = noted(Op::Select { dim: 1, index: 0 }, &[&tokens], class);
        self.norm.forward(&class, keep)
    }

    fn head(&self) -> &dyn Head {
        &self.head
    }

    /// Measured: Candle's operations copy more than ours.
    fn maps_at_once(&self) -> usize {
        13
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(scope: &Scope) -> Result<Self> {
        let [attn, mlp] = [scope.enter("attn"), scope.enter("mlp")];
        Ok(Self {
            norm1: LayerNorm::new(&scope.enter("norm1"))?,
            qkv: Linear::new(&attn.enter("qkv"), WIDTH, 3 * WIDTH, INIT)?,
            proj: Linear::new(&attn.enter("proj"), WIDTH, WIDTH, INIT)?,
            norm2: LayerNorm::new(&scope.enter("norm2"))?,
            fc1: Linear::new(&mlp.enter("fc1"), WIDTH, 4 * WIDTH, INIT)?,
            fc2: Linear::new(&mlp.enter("fc2"), 4 * WIDTH, WIDTH, INIT)?,
        })
    }

    /// (B, tokens, width) to the same.
    fn forward(&self, tokens: &Tensor, keep: bool) -> Result<Tensor> {
        let attended = self.attention(&self.norm1.forward(tokens, keep)?, keep)?;
        let tokens = add(tokens, &attended)?;
        add(&tokens, &self.perceptron(&tokens, keep)?)
    }

    fn perceptron(&self, tokens: &Tensor, keep: bool) -> Result<Tensor> {
        let mut hidden = each_token(&self.fc1, &self.norm2.forward(tokens, keep)?, keep)?;
        hidden = noted(Op::Gelu, &[&hidden], hidden.gelu_erf()?); // the exact one, as timm's
        each_token(&self.fc2, &hidden, keep)
    }

    fn attention(&self, tokens: &Tensor, keep: bool) -> Result<Tensor> {
        let (batch, n_tokens, _) = tokens.dims3()?;
        let per_head = WIDTH / HEADS;
        // What is assigned again is free in evaluation; what is shadowed would stay until the end.
        let mut qkv = each_token(&self.qkv, tokens, keep)?;
        qkv = reshape(&qkv, &[batch, n_tokens, 3, HEADS, per_head])?;
        qkv = permute(&qkv, &[2, 0, 3, 1, 4])?;
        let part = |index| {
            let part = qkv.get(index)?;
            Ok(noted(Op::Select { dim: 0, index }, &[&qkv], part))
        };
        let [query, key, value]: [Result<Tensor>; 3] = [part(0), part(1), part(2)];
        let mut scores = matmul(&query?, &permute(&key?, &[0, 1, 3, 2])?)?;
        let root = (per_head as f64).sqrt();
        scores = noted(Op::Scale(1.0 / root), &[&scores], (&scores / root)?);
        let mut mixed = matmul(&softmax(&scores)?, &value?)?;
        mixed = permute(&mixed, &[0, 2, 1, 3])?;
        mixed = reshape(&mixed, &[batch, n_tokens, WIDTH])?;
        each_token(&self.proj, &mixed, keep)
    }
}

/// A parameter as Candle's operations see it: tracked only in a pass that will be walked back.
fn parameter(var: &Var, keep: bool) -> Tensor {
    match keep {
        true => var.as_tensor().clone(),
        false => var.as_detached_tensor(),
    }
}

fn each_token(linear: &Linear, tokens: &Tensor, keep: bool) -> Result<Tensor> {
    let (batch, n_tokens, width) = tokens.dims3()?;
    let rows = reshape(tokens, &[batch * n_tokens, width])?;
    let made = match keep {
        true => linear.forward(&rows)?,
        false => linear.without_gradient(&rows)?,
    };
    reshape(&made, &[batch, n_tokens, made.dims()[1]])
}

fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(noted(Op::Add, &[a, b], a.broadcast_add(b)?))
}

fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(noted(Op::MatMul, &[a, b], a.matmul(b)?))
}

fn reshape(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    Ok(noted(Op::Reshape, &[x], x.reshape(dims)?))
}

fn permute(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let made = x.permute(dims)?.contiguous()?;
    let dims = dims.to_vec();
    Ok(noted(Op::Permute { dims }, &[x], made))
}

/// Over the last dimension. The largest score is taken off first, so that no exponential overflows; it cancels, and
/// needs no gradient.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let powers = scores.broadcast_sub(&largest)?.exp()?;
    let made = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
    Ok(noted(Op::Softmax, &[scores], made))
}

/// Added to the variance in every layer norm; timm's value.
const EPS: f64 = 1e-6;

/// Over the last dimension.
struct LayerNorm {
    weight: Var,
    bias: Var,
}

impl LayerNorm {
    fn new(scope: &Scope) -> Result<Self> {
        Ok(Self {
            weight: scope.parameter("weight", &[WIDTH], WIDTH, Init::Constant(1.0))?,
            bias: scope.parameter("bias", &[WIDTH], WIDTH, Init::Constant(0.0))?,
        })
    }

    fn forward(&self, tokens: &Tensor, keep: bool) -> Result<Tensor> {
        let centred = tokens.broadcast_sub(&tokens.mean_keepdim(D::Minus1)?)?;
        let var = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(var + EPS)?.sqrt()?)?;
        let made = normed
            .broadcast_mul(&parameter(&self.weight, keep))?
            .broadcast_add(&parameter(&self.bias, keep))?;
        let inputs: [&Tensor; 3] = [tokens, &self.weight, &self.bias];
        Ok(noted(Op::LayerNorm { eps: EPS }, &inputs, made))
    }
}
