//! Pooling: maxima and means over windows of a map, and the mean over all of it.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{
    Error, FeatureMap, Result,
    buffer::Buffer,
    feature_map::note_maps,
    kernels::{self, PoolShape},
    tape::{self, Backward, Slot},
    tensors,
    trace::{Op, Value, note},
};

/// The largest value of each window; padding never wins.
///
/// # Errors
/// If the window does not fit, or would see nothing but padding.
pub fn max_pool2d(
    x: &FeatureMap,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<FeatureMap> {
    let shape = shape("max_pool2d", x, kernel, stride, padding)?;
    let made = match &x.tensor {
        None => max_pool(x, shape)?,
        Some(values) => tensors::max_pool(x, values, shape)?,
    };
    let op = || Op::MaxPool {
        kernel,
        stride,
        padding,
    };
    note_maps(op, &[x], &made);
    Ok(made)
}

fn max_pool(x: &FeatureMap, shape: PoolShape) -> Result<FeatureMap> {
    let dims = out_dims(x, shape);
    let mut y = x.room(dims.iter().product());
    let mut winner = vec![0; y.len()];
    kernels::max_pool_forward(shape, &x.values, &mut y, &mut winner);
    let tracked = match x.slot() {
        Some(dx) => tape::record(
            &[x.tracked()],
            &[],
            MaxPoolBackward {
                shape,
                winner,
                dx,
                x_len: x.values.len(),
            },
        )?,
        None => None,
    };
    Ok(FeatureMap::made(y, dims, tracked, x.keeps()))
}

/// The mean of each window; padding counts as zeros, PyTorch's default.
///
/// # Errors
/// If the window does not fit, or would see nothing but padding.
pub fn avg_pool2d(
    x: &FeatureMap,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<FeatureMap> {
    let shape = shape("avg_pool2d", x, kernel, stride, padding)?;
    let made = match &x.tensor {
        None => avg_pool(x, shape)?,
        Some(values) => tensors::avg_pool(x, values, shape)?,
    };
    let op = || Op::AvgPool {
        kernel,
        stride,
        padding,
    };
    note_maps(op, &[x], &made);
    Ok(made)
}

/// The mean of each channel over the image: `(B, H, W, C)` to a tensor `(B, C)`.
///
/// # Errors
/// If the image is empty.
pub fn global_avg_pool(x: &FeatureMap) -> Result<Tensor> {
    let [batch, h, w, channels] = x.dims();
    if h * w == 0 {
        return Err(misfit("global_avg_pool", x, "at least one pixel".into()));
    }
    // One window over the image laid out as one column.
    let pixels = h * w;
    let share = 1.0 / pixels as f32;
    let shape = PoolShape {
        h: pixels,
        w: 1,
        channels,
        oh: 1,
        ow: 1,
        kernel: pixels,
        stride: 1,
        padding: 0,
        share,
    };
    let pooled = match &x.tensor {
        None => avg_pool(x, shape)?,
        Some(values) => tensors::global_avg_pool(x, values)?,
    };
    let made = pooled.to_tensor_shaped(&[batch, channels])?;
    note(|| Op::GlobalAvgPool, &[x.as_value()], Value::Tensor(&made));
    Ok(made)
}

fn avg_pool(x: &FeatureMap, shape: PoolShape) -> Result<FeatureMap> {
    let dims = out_dims(x, shape);
    let mut y = x.room(dims.iter().product());
    kernels::avg_pool_forward(shape, &x.values, &mut y);
    let tracked = match x.slot() {
        Some(dx) => tape::record(
            &[x.tracked()],
            &[],
            AvgPoolBackward {
                shape,
                dx,
                x_len: x.values.len(),
            },
        )?,
        None => None,
    };
    Ok(FeatureMap::made(y, dims, tracked, x.keeps()))
}

fn out_dims(x: &FeatureMap, shape: PoolShape) -> [usize; 4] {
    [x.dims()[0], shape.oh, shape.ow, shape.channels]
}

fn shape(
    name: &str,
    x: &FeatureMap,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<PoolShape> {
    let [_, h, w, channels] = x.dims();
    if stride == 0
        || kernel == 0
        || 2 * padding > kernel
        || h + 2 * padding < kernel
        || w + 2 * padding < kernel
    {
        let window = format!(
            "an image that holds a {kernel}x{kernel} window with padding {padding} and stride {stride}"
        );
        return Err(misfit(name, x, window));
    }
    let out = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    let share = 1.0 / (kernel * kernel) as f32;
    Ok(PoolShape {
        h,
        w,
        channels,
        oh: out(h),
        ow: out(w),
        kernel,
        stride,
        padding,
        share,
    })
}

fn misfit(name: &str, x: &FeatureMap, expected: String) -> Error {
    Error::Shape {
        layer: name.into(),
        expected,
        found: format!("{:?}", x.dims()),
    }
}

struct MaxPoolBackward {
    shape: PoolShape,
    winner: Vec<u32>,
    dx: Arc<Slot>,
    x_len: usize,
}

impl Backward for MaxPoolBackward {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        let mut dx = Buffer::for_overwrite(self.x_len);
        kernels::max_pool_backward(self.shape, &dy, &self.winner, &mut dx);
        self.dx.put(dx);
        Ok(vec![])
    }
}

struct AvgPoolBackward {
    shape: PoolShape,
    dx: Arc<Slot>,
    x_len: usize,
}

impl Backward for AvgPoolBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        let mut dx = Buffer::for_overwrite(self.x_len);
        kernels::avg_pool_backward(self.shape, &dy, &mut dx);
        self.dx.put(dx);
        Ok(vec![])
    }
}
