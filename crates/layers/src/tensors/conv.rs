//! Convolution: three operations that cuDNN does on CUDA, and kernels on the CPU.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, Var};

use super::conv_part::{Conv, Part};
use super::pixels::{column_sums, pixels};
use super::record::{made, put};
use crate::{
    FeatureMap, Result,
    kernels::{self, ConvShape},
};

/// `x` is `(B, H, W, I)`, `weight` is `(kH, kW, I / groups, O)`, as kernels have it.
pub(crate) fn conv2d(
    map: &FeatureMap,
    x: &Tensor,
    shape: ConvShape,
    weight: &Var,
    bias: Option<&Var>,
) -> Result<FeatureMap> {
    // cuDNN's filters for channels-last maps are (O, kH, kW, I / groups). A kernel's worth of copying per step.
    let filter = weight
        .as_detached_tensor()
        .permute((3, 0, 1, 2))?
        .contiguous()?;
    let mut y = x.apply_op2_no_bwd(&filter, &Conv(Part::Output, shape))?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.as_detached_tensor())?;
    }
    let (dx, x, has_bias) = (map.slot(), x.clone(), bias.is_some());
    let parameters: Vec<&Tensor> = std::iter::once(weight)
        .chain(bias)
        .map(|var| var.as_tensor())
        .collect();
    made(&y, &[map], &parameters, "conv2d", move |dy| {
        let dfilter = x.apply_op2_no_bwd(&dy, &Conv(Part::FilterGradient, shape))?;
        let mut gradients = vec![dfilter.permute((1, 2, 3, 0))?.contiguous()?];
        if has_bias {
            gradients.push(column_sums(&pixels(&dy)?)?.squeeze(0)?);
        }
        put(dx, || {
            Ok(filter.apply_op2_no_bwd(&dy, &Conv(Part::InputGradient, shape))?)
        })?;
        Ok(gradients)
    })
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let [first_span, second_span] = self.spans([first_layout, second_layout])?;
        let first = &first.as_slice::<f32>()?[first_span.0..first_span.1];
        let second = &second.as_slice::<f32>()?[second_span.0..second_span.1];
        let [_, _, shape] = self.shapes();
        let conv = &self.1;
        let mut made = vec![0.0; shape.elem_count()];
        match self.0 {
            Part::Output => {
                kernels::conv_forward(conv, first, &outputs_last(conv, second), &mut made);
            }
            Part::InputGradient => {
                let weight = outputs_last(conv, first);
                kernels::conv_backward_input(conv, second, &weight, &mut made);
            }
            Part::FilterGradient => {
                kernels::conv_backward_weight(conv, first, second, &mut made);
                made = outputs_first(conv, &made);
            }
        }
        Ok((CpuStorage::F32(made), shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        first: &candle_core::CudaStorage,
        first_layout: &Layout,
        second: &candle_core::CudaStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let spans = self.spans([first_layout, second_layout])?;
        super::cudnn::run(self, [first, second], spans)
    }
}

/// `(O, rest)` to `(rest, O)`, which is what kernels want.
fn outputs_last(conv: &ConvShape, filter: &[f32]) -> Vec<f32> {
    transposed(filter, conv.co)
}

/// `(rest, O)` to `(O, rest)`.
fn outputs_first(conv: &ConvShape, weight: &[f32]) -> Vec<f32> {
    transposed(weight, weight.len() / conv.co)
}

fn transposed(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    (0..matrix.len())
        .map(|i| matrix[i % rows * columns + i / rows])
        .collect()
}
