//! The shape of a convolution.

/// What a convolution looks like. Dilation is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels that come in.
    pub in_channels: usize,
    /// Channels that go out.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: usize,
    /// Groups of channels that do not see each other; `in_channels` for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl ConvSpec {
    /// Stride 1, no padding, one group, no bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel,
            stride: 1,
            padding: 0,
            groups: 1,
            bias: false,
        }
    }

    /// With this step between output pixels, in pixels of the input.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// With zeros around the image.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// With this many groups of channels.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// With a number added to each output channel, or without.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Refuses numbers that no convolution can have, and says why.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let &Self {
            in_channels,
            out_channels,
            kernel,
            stride,
            groups,
            ..
        } = self;
        if [in_channels, out_channels, kernel, stride, groups].contains(&0) {
            return Err(format!(
                "channels, kernel, stride and groups start at 1, found {self:?}"
            ));
        }
        if in_channels % groups != 0 || out_channels % groups != 0 {
            return Err(format!(
                "{groups} groups divide neither or only one of {in_channels} and {out_channels} channels"
            ));
        }
        Ok(())
    }
}
