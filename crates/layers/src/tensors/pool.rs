//! Pooling: a window's values are so many shifted and thinned copies of the image, its *taps*.

use candle_core::{DType, Tensor};

use super::record::{made, put};
use crate::{FeatureMap, Result, kernels::PoolShape};

/// The largest value of each window. The first of equal ones gets the gradient, as in the kernels.
pub(crate) fn max_pool(map: &FeatureMap, x: &Tensor, shape: PoolShape) -> Result<FeatureMap> {
    let grid = Grid::of(shape, x.dims()[0]);
    let folded = grid.fold(x, f32::NEG_INFINITY)?;
    let mut y: Option<Tensor> = None;
    for tap in grid.taps() {
        let values = grid.tap(&folded, tap)?;
        y = Some(match y {
            None => values,
            Some(y) => y.maximum(&values)?,
        });
    }
    let y = y.expect("a window holds at least one value");
    let (dx, kept) = (map.slot(), y.clone());
    made(&y, &[map], &[], "max_pool2d", move |dy| {
        put(dx, || {
            let zeros = dy.zeros_like()?;
            let mut unclaimed = dy;
            let mut gradients = vec![];
            for tap in grid.taps() {
                let wins = grid.tap(&folded, tap)?.eq(&kept)?;
                let claimed = wins.where_cond(&unclaimed, &zeros)?;
                unclaimed = wins.where_cond(&zeros, &unclaimed)?;
                gradients.push(claimed);
            }
            grid.unfold(&gradients)
        })?;
        Ok(vec![])
    })
}

/// The sum of each window, times `shape.share`; padding counts as zeros.
pub(crate) fn avg_pool(map: &FeatureMap, x: &Tensor, shape: PoolShape) -> Result<FeatureMap> {
    let grid = Grid::of(shape, x.dims()[0]);
    let share = f64::from(shape.share);
    let folded = grid.fold(x, 0.0)?;
    let mut y: Option<Tensor> = None;
    for tap in grid.taps() {
        let values = grid.tap(&folded, tap)?;
        y = Some(match y {
            None => values,
            Some(y) => (y + values)?,
        });
    }
    let y = y
        .expect("a window holds at least one value")
        .affine(share, 0.0)?;
    let dx = map.slot();
    made(&y, &[map], &[], "avg_pool2d", move |dy| {
        put(dx, || {
            let each = dy.affine(share, 0.0)?;
            let gradients: Vec<Tensor> = grid.taps().map(|_| each.clone()).collect();
            grid.unfold(&gradients)
        })?;
        Ok(vec![])
    })
}

/// The mean of each channel over the image: a map of one pixel.
pub(crate) fn global_avg_pool(map: &FeatureMap, x: &Tensor) -> Result<FeatureMap> {
    let (batch, h, w, channels) = x.dims4()?;
    let share = 1.0 / (h * w) as f64;
    let ones = Tensor::ones((batch, 1, h * w), DType::F32, x.device())?;
    let sums = ones.matmul(&x.reshape((batch, h * w, channels))?)?;
    let y = sums.affine(share, 0.0)?.unsqueeze(1)?;
    let dx = map.slot();
    made(&y, &[map], &[], "global_avg_pool", move |dy| {
        put(dx, || {
            let each = dy.affine(share, 0.0)?;
            Ok(each.broadcast_as((batch, h, w, channels))?.contiguous()?)
        })?;
        Ok(vec![])
    })
}

/// An image, padded and cut into cells of `stride` x `stride` pixels, so that a tap is a plain range of cells.
#[derive(Clone, Copy)]
struct Grid {
    shape: PoolShape,
    batch: usize,
    rows: usize,
    columns: usize,
}

impl Grid {
    fn of(shape: PoolShape, batch: usize) -> Self {
        let PoolShape {
            kernel,
            stride,
            padding,
            ..
        } = shape;
        let cells = |len: usize, out: usize| {
            (len + padding)
                .div_ceil(stride)
                .max(out + (kernel - 1) / stride)
        };
        Self {
            shape,
            batch,
            rows: cells(shape.h, shape.oh),
            columns: cells(shape.w, shape.ow),
        }
    }

    /// Row and column of each value of a window.
    fn taps(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let kernel = self.shape.kernel;
        (0..kernel).flat_map(move |y| (0..kernel).map(move |x| (y, x)))
    }

    /// `(B, H, W, C)` to `(B, rows, stride, columns, stride, C)`, with `padding` around.
    fn fold(&self, x: &Tensor, padding: f32) -> Result<Tensor> {
        let PoolShape {
            h,
            w,
            channels,
            stride,
            padding: before,
            ..
        } = self.shape;
        let [height, width] = [self.rows * stride, self.columns * stride];
        let x = pad(x, 1, before, height - before - h, padding)?;
        let x = pad(&x, 2, before, width - before - w, padding)?;
        Ok(x.contiguous()?.reshape(&[
            self.batch,
            self.rows,
            stride,
            self.columns,
            stride,
            channels,
        ])?)
    }

    /// `(B, OH, OW, C)`: the value at `(y, x)` of each window.
    fn tap(&self, folded: &Tensor, (y, x): (usize, usize)) -> Result<Tensor> {
        let PoolShape {
            oh,
            ow,
            channels,
            stride,
            ..
        } = self.shape;
        let taken = folded
            .narrow(1, y / stride, oh)?
            .narrow(2, y % stride, 1)?
            .narrow(3, x / stride, ow)?
            .narrow(4, x % stride, 1)?;
        Ok(taken
            .contiguous()?
            .reshape((self.batch, oh, ow, channels))?)
    }

    /// `(B, H, W, C)`: each tap's gradient `(B, OH, OW, C)`, in the order of [`Grid::taps`], added where it came from.
    fn unfold(&self, gradients: &[Tensor]) -> Result<Tensor> {
        let PoolShape {
            h,
            w,
            channels,
            oh,
            ow,
            stride,
            padding,
            ..
        } = self.shape;
        let mut rows = vec![];
        for row in 0..stride {
            let mut columns = vec![];
            for column in 0..stride {
                let mut sum: Option<Tensor> = None;
                for ((y, x), gradient) in self.taps().zip(gradients) {
                    if (y % stride, x % stride) != (row, column) {
                        continue;
                    }
                    let (top, left) = (y / stride, x / stride);
                    let placed = pad(gradient, 1, top, self.rows - oh - top, 0.0)?;
                    let placed = pad(&placed, 2, left, self.columns - ow - left, 0.0)?;
                    sum = Some(match sum {
                        None => placed,
                        Some(sum) => (sum + placed)?,
                    });
                }
                columns.push(match sum {
                    Some(sum) => sum,
                    // A stride beyond the window: no tap looks here.
                    None => Tensor::zeros(
                        (self.batch, self.rows, self.columns, channels),
                        DType::F32,
                        gradients[0].device(),
                    )?,
                });
            }
            rows.push(Tensor::stack(&columns, 3)?); // (B, rows, columns, stride, C)
        }
        let folded = Tensor::stack(&rows, 2)?;
        let [height, width] = [self.rows * stride, self.columns * stride];
        Ok(folded
            .reshape((self.batch, height, width, channels))?
            .narrow(1, padding, h)?
            .narrow(2, padding, w)?
            .contiguous()?)
    }
}

/// `before` and `after` further places of `value` along a dimension.
fn pad(x: &Tensor, dim: usize, before: usize, after: usize, value: f32) -> Result<Tensor> {
    let more = |len: usize| {
        let mut dims = x.dims().to_vec();
        dims[dim] = len;
        Tensor::full(value, dims, x.device())
    };
    let mut parts = vec![];
    if before > 0 {
        parts.push(more(before)?);
    }
    parts.push(x.clone());
    if after > 0 {
        parts.push(more(after)?);
    }
    Ok(Tensor::cat(&parts, dim)?)
}
