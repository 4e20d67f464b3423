//! cuDNN's convolutions over channels-last maps.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as InputAlgorithm,
    cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as OutputAlgorithm, cudnnConvolutionMode_t as ConvMode,
    cudnnMathType_t as MathType, cudnnTensorFormat_t as Format,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnError,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{CudaStorage, Error, Result, Shape, backend::BackendStorage};

use super::conv_part::{Conv, Part};
use crate::kernels::ConvShape;
use crate::tf32::TF32;

thread_local! {
    /// A handle belongs to its thread.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
}

/// Does `conv` with the elements `spans` of its two operands.
///
/// The algorithms are those that cuDNN's manual calls deterministic, so that a run can be repeated on the same device;
/// where cuDNN does not offer it for a shape, its heuristics choose.
pub(super) fn run(
    conv: &Conv,
    operands: [&CudaStorage; 2],
    spans: [(usize, usize); 2],
) -> Result<(CudaStorage, Shape)> {
    let device = operands[0].device().clone();
    let [first, second] = [part(operands[0], spans[0])?, part(operands[1], spans[1])?];
    let [_, _, shape] = conv.shapes();
    let handle = handle(&device)?;
    let d = Descriptors::new(&handle, &conv.1).map_err(Error::wrap)?;
    // SAFETY: every element is written below before anyone reads it: cuDNN answers with all of its output or an error.
    let mut made = unsafe { device.alloc::<f32>(shape.elem_count())? };
    let outcome = match conv.0 {
        Part::Output => {
            let op = ConvForward {
                conv: &d.conv,
                x: &d.x,
                w: &d.filter,
                y: &d.y,
            };
            let algorithm = OutputAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
            let (algorithm, bytes) = chosen(
                algorithm,
                |algorithm| op.get_workspace_size(algorithm),
                || op.pick_algorithm(),
            )?;
            let mut workspace = workspace(&device, bytes)?;
            // SAFETY: the descriptors say `shapes()`, contiguous and channels last; both operands and the result have
            // just that many elements, all on the device of the handle. cuDNN writes the whole result and, of the
            // workspace, the bytes that it asked for. What could still go wrong lies in cuDNN.
            unsafe {
                op.launch(
                    algorithm,
                    workspace.as_mut(),
                    ONCE,
                    &first,
                    &second,
                    &mut made,
                )
            }
        }
        Part::InputGradient => {
            let op = ConvBackwardData {
                conv: &d.conv,
                dx: &d.x,
                w: &d.filter,
                dy: &d.y,
            };
            let algorithm = InputAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
            let (algorithm, bytes) = chosen(
                algorithm,
                |algorithm| op.get_workspace_size(algorithm),
                || op.pick_algorithm(),
            )?;
            let mut workspace = workspace(&device, bytes)?;
            // SAFETY: as above, with the filter first and the gradient of the output second.
            unsafe {
                op.launch(
                    algorithm,
                    workspace.as_mut(),
                    ONCE,
                    &mut made,
                    &first,
                    &second,
                )
            }
        }
        Part::FilterGradient => {
            let op = ConvBackwardFilter {
                conv: &d.conv,
                x: &d.x,
                dw: &d.filter,
                dy: &d.y,
            };
            let algorithm = FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
            let (algorithm, bytes) = chosen(
                algorithm,
                |algorithm| op.get_workspace_size(algorithm),
                || op.pick_algorithm(),
            )?;
            let mut workspace = workspace(&device, bytes)?;
            // SAFETY: as above, with the input first and the gradient of the output second.
            unsafe {
                op.launch(
                    algorithm,
                    workspace.as_mut(),
                    ONCE,
                    &first,
                    &mut made,
                    &second,
                )
            }
        }
    };
    outcome.map_err(Error::wrap)?;
    Ok((CudaStorage::wrap_cuda_slice(made, device), shape))
}

/// The elements of an operand. Spans are of whole operands, so this also says that each holds what its descriptor promises.
fn part(operand: &CudaStorage, (start, end): (usize, usize)) -> Result<CudaView<'_, f32>> {
    operand
        .as_cuda_slice::<f32>()?
        .try_slice(start..end)
        .ok_or_else(|| Error::msg("an operand of conv2d is shorter than its shape"))
}

/// The result takes the place of what was there.
const ONCE: (f32, f32) = (1.0, 0.0);

struct Descriptors {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<f32>,
    y: TensorDescriptor<f32>,
    filter: FilterDescriptor<f32>,
}

impl Descriptors {
    /// cuDNN names dimensions in the order (N, C, H, W) whatever the format; the format says how they lie.
    fn new(handle: &Arc<Cudnn>, shape: &ConvShape) -> std::result::Result<Self, CudnnError> {
        let int = |n: usize| n as std::ffi::c_int;
        let ConvShape {
            batch,
            h,
            w,
            ci,
            oh,
            ow,
            co,
            kernel,
            stride,
            padding,
            groups,
        } = *shape;
        let map = |dims: [usize; 4]| {
            handle.create_4d_tensor::<f32>(Format::CUDNN_TENSOR_NHWC, dims.map(int))
        };
        let mut conv = handle.create_conv2d::<f32>(
            [int(padding); 2],
            [int(stride); 2],
            [1; 2],
            ConvMode::CUDNN_CROSS_CORRELATION,
        )?;
        conv.set_group_count(int(groups))?;
        conv.set_math_type(if TF32.load(Ordering::Relaxed) {
            MathType::CUDNN_DEFAULT_MATH
        } else {
            MathType::CUDNN_FMA_MATH
        })?;
        Ok(Self {
            conv,
            x: map([batch, ci, h, w])?,
            y: map([batch, co, oh, ow])?,
            filter: handle.create_4d_filter::<f32>(
                Format::CUDNN_TENSOR_NHWC,
                [co, ci / groups, kernel, kernel].map(int),
            )?,
        })
    }
}

/// The preferred algorithm with the bytes that it needs, or that of the heuristics.
fn chosen<A: Copy>(
    preferred: A,
    bytes: impl Fn(A) -> std::result::Result<usize, CudnnError>,
    pick: impl FnOnce() -> std::result::Result<A, CudnnError>,
) -> Result<(A, usize)> {
    if let Ok(bytes) = bytes(preferred) {
        return Ok((preferred, bytes));
    }
    let picked = pick().map_err(Error::wrap)?;
    Ok((picked, bytes(picked).map_err(Error::wrap)?))
}

fn workspace(device: &CudaDevice, bytes: usize) -> Result<Option<CudaSlice<u8>>> {
    match bytes {
        0 => Ok(None),
        // SAFETY: scratch memory of cuDNN's, which does not read what it has not written.
        bytes => unsafe { device.alloc::<u8>(bytes) }.map(Some),
    }
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| {
        if let Some(handle) = handles.get(&device.id()) {
            return Ok(Arc::clone(handle));
        }
        let handle = Cudnn::new(device.cuda_stream()).map_err(Error::wrap)?;
        handles.insert(device.id(), Arc::clone(&handle));
        Ok(handle)
    })
}
