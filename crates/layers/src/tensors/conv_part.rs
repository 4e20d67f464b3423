//! What a convolution consists of: three operations, and which operands each takes.

use candle_core::{Layout, Shape};

use crate::{Error, kernels::ConvShape};

/// One of the three operations that a convolution consists of. All operands are contiguous.
pub(super) struct Conv(pub(super) Part, pub(super) ConvShape);

/// What is computed, from what.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// `y (B, OH, OW, O)` from `x (B, H, W, I)` and the filter `(O, kH, kW, I / groups)`.
    Output,
    /// The gradient of `x` from the filter and that of `y`.
    InputGradient,
    /// The gradient of the filter from `x` and that of `y`.
    FilterGradient,
}

impl Conv {
    /// The shapes of both operands and of the result.
    pub(super) fn shapes(&self) -> [Shape; 3] {
        let s = &self.1;
        let x = Shape::from((s.batch, s.h, s.w, s.ci));
        let y = Shape::from((s.batch, s.oh, s.ow, s.co));
        let filter = Shape::from((s.co, s.kernel, s.kernel, s.ci / s.groups));
        match self.0 {
            Part::Output => [x, filter, y],
            Part::InputGradient => [filter, y, x],
            Part::FilterGradient => [x, y, filter],
        }
    }

    /// The part of each operand's storage that it takes, once it has turned out to be what it should be.
    pub(super) fn spans(&self, layouts: [&Layout; 2]) -> candle_core::Result<[(usize, usize); 2]> {
        let [first, second, _] = self.shapes();
        let span = |layout: &Layout, shape: &Shape| match layout.contiguous_offsets() {
            Some(span) if layout.shape() == shape => Ok(span),
            _ => Err(candle_core::Error::from(Error::Shape {
                layer: "conv2d".into(),
                expected: format!("a contiguous operand of {shape:?}"),
                found: format!("{layout:?}"),
            })),
        };
        Ok([span(layouts[0], &first)?, span(layouts[1], &second)?])
    }
}
