//! A convolution and the batch norm behind it: what all but the wide residual networks and the transformer are made of.

use logitcask_layers::{
    Activation, BatchNorm, Conv2d, ConvSpec, FeatureMap, Init, Mode, Result, Scope,
};

/// Its methods take the map that they work on: where nobody else holds it, its memory serves the map after next.
pub(super) struct ConvBn {
    conv: Conv2d,
    bn: BatchNorm,
}

impl ConvBn {
    /// The names of the two differ from family to family: `conv1` and `bn1`, or the places in a `Sequential`.
    pub(super) fn new(conv: &Scope, bn: &Scope, spec: ConvSpec, init: Init) -> Result<Self> {
        Ok(Self {
            conv: Conv2d::new(conv, spec, init)?,
            bn: BatchNorm::new(bn, spec.out_channels)?,
        })
    }

    /// Named `conv1` and `bn1` for number 1.
    pub(super) fn numbered(
        scope: &Scope,
        number: usize,
        spec: ConvSpec,
        init: Init,
    ) -> Result<Self> {
        let conv = scope.enter(format!("conv{number}"));
        Self::new(&conv, &scope.enter(format!("bn{number}")), spec, init)
    }

    /// Named by their places, `first` and the one after it.
    pub(super) fn placed(scope: &Scope, first: usize, spec: ConvSpec, init: Init) -> Result<Self> {
        Self::new(&scope.enter(first), &scope.enter(first + 1), spec, init)
    }

    /// `relu(bn(conv(x)))`
    pub(super) fn relu(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        self.forward(x, mode, Activation::Relu, None)
    }

    /// `bn(conv(x))`
    pub(super) fn linear(&self, x: FeatureMap, mode: Mode) -> Result<FeatureMap> {
        self.forward(x, mode, Activation::None, None)
    }

    /// `bn(conv(x)) + residual`
    pub(super) fn add(
        &self,
        x: FeatureMap,
        residual: &FeatureMap,
        mode: Mode,
    ) -> Result<FeatureMap> {
        self.forward(x, mode, Activation::None, Some(residual))
    }

    /// `relu(bn(conv(x)) + residual)`
    pub(super) fn add_relu(
        &self,
        x: FeatureMap,
        residual: &FeatureMap,
        mode: Mode,
    ) -> Result<FeatureMap> {
        self.forward(x, mode, Activation::Relu, Some(residual))
    }

    fn forward(
        &self,
        x: FeatureMap,
        mode: Mode,
        activation: Activation,
        residual: Option<&FeatureMap>,
    ) -> Result<FeatureMap> {
        let y = self.conv.forward(&x)?;
        drop(x);
        self.bn.forward(&y, mode, activation, residual)
    }
}

/// A 3x3 convolution that keeps the size of the image, or halves it with stride 2.
pub(super) fn conv3x3(in_channels: usize, out_channels: usize, stride: usize) -> ConvSpec {
    ConvSpec::new(in_channels, out_channels, 3)
        .stride(stride)
        .padding(1)
}

/// A convolution of each pixel by itself.
pub(super) fn conv1x1(in_channels: usize, out_channels: usize) -> ConvSpec {
    ConvSpec::new(in_channels, out_channels, 1)
}

/// A 3x3 convolution of each channel by itself.
pub(super) fn depthwise(channels: usize, stride: usize) -> ConvSpec {
    conv3x3(channels, channels, stride).groups(channels)
}
