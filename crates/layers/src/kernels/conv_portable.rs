//! Convolution in plain Rust: any shape, any processor.

use std::ops::Range;

use rayon::prelude::*;

use super::ConvShape;

/// `y = conv(x, weight)`.
pub(crate) fn conv_forward(shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let (x_image, y_row) = (shape.h * shape.w * shape.ci, shape.ow * shape.co);
    y.par_chunks_mut(y_row).enumerate().for_each(|(row, y)| {
        let (image, oy) = (row / shape.oh, row % shape.oh);
        let x = &x[image * x_image..][..x_image];
        y.fill(0.0);
        for_each_tap(shape, oy, |tap, ox, x_pixel| {
            for group in 0..shape.groups {
                let (inputs, outputs) = channels(shape, group);
                let x = &x[x_pixel + inputs.start..][..inputs.len()];
                let y = &mut y[ox * shape.co..][outputs.clone()];
                for (i, &x) in x.iter().enumerate() {
                    let weight = &weight[(tap * inputs.len() + i) * shape.co..][outputs.clone()];
                    for (y, &weight) in y.iter_mut().zip(weight) {
                        *y += x * weight;
                    }
                }
            }
        });
    });
}

/// `dx`, the gradient of the input.
pub(crate) fn conv_backward_input(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let (x_image, y_image) = (shape.h * shape.w * shape.ci, shape.oh * shape.ow * shape.co);
    dx.par_chunks_mut(x_image)
        .zip(dy.par_chunks(y_image))
        .for_each(|(dx, dy)| {
            dx.fill(0.0);
            for oy in 0..shape.oh {
                for_each_tap(shape, oy, |tap, ox, x_pixel| {
                    for group in 0..shape.groups {
                        let (inputs, outputs) = channels(shape, group);
                        let dy = &dy[(oy * shape.ow + ox) * shape.co..][outputs.clone()];
                        let dx = &mut dx[x_pixel + inputs.start..][..inputs.len()];
                        for (i, dx) in dx.iter_mut().enumerate() {
                            let weight =
                                &weight[(tap * inputs.len() + i) * shape.co..][outputs.clone()];
                            *dx += weight
                                .iter()
                                .zip(dy)
                                .map(|(weight, dy)| weight * dy)
                                .sum::<f32>();
                        }
                    }
                });
            }
        });
}

/// `dw`, the gradient of the weight.
pub(crate) fn conv_backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (x_image, y_image) = (shape.h * shape.w * shape.ci, shape.oh * shape.ow * shape.co);
    // A fixed number of partial sums, whatever the number of threads, added in order.
    let images_per_part = shape.batch.div_ceil(8).max(1);
    let parts: Vec<Vec<f32>> = x
        .par_chunks(x_image * images_per_part)
        .zip(dy.par_chunks(y_image * images_per_part))
        .map(|(x, dy)| {
            let mut part = vec![0.0; dw.len()];
            for (x, dy) in x.chunks(x_image).zip(dy.chunks(y_image)) {
                add_weight_gradient(shape, x, dy, &mut part);
            }
            part
        })
        .collect();
    dw.fill(0.0);
    for part in &parts {
        for (dw, part) in dw.iter_mut().zip(part) {
            *dw += part;
        }
    }
}

fn add_weight_gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    for oy in 0..shape.oh {
        for_each_tap(shape, oy, |tap, ox, x_pixel| {
            for group in 0..shape.groups {
                let (inputs, outputs) = channels(shape, group);
                let x = &x[x_pixel + inputs.start..][..inputs.len()];
                let dy = &dy[(oy * shape.ow + ox) * shape.co..][outputs.clone()];
                for (i, &x) in x.iter().enumerate() {
                    let dw = &mut dw[(tap * inputs.len() + i) * shape.co..][outputs.clone()];
                    for (dw, &dy) in dw.iter_mut().zip(dy) {
                        *dw += x * dy;
                    }
                }
            }
        });
    }
}

/// Calls `visit(tap, ox, offset of the input pixel in its image)` for each tap of each output pixel of row `oy` that
/// lies inside the image.
fn for_each_tap(shape: &ConvShape, oy: usize, mut visit: impl FnMut(usize, usize, usize)) {
    for ky in 0..shape.kernel {
        let Some(y) = (oy * shape.stride + ky)
            .checked_sub(shape.padding)
            .filter(|&y| y < shape.h)
        else {
            continue;
        };
        for kx in 0..shape.kernel {
            for ox in 0..shape.ow {
                let x = (ox * shape.stride + kx)
                    .checked_sub(shape.padding)
                    .filter(|&x| x < shape.w);
                if let Some(x) = x {
                    visit(ky * shape.kernel + kx, ox, (y * shape.w + x) * shape.ci);
                }
            }
        }
    }
}

fn channels(shape: &ConvShape, group: usize) -> (Range<usize>, Range<usize>) {
    let (inputs, outputs) = (shape.ci / shape.groups, shape.co / shape.groups);
    (
        group * inputs..(group + 1) * inputs,
        group * outputs..(group + 1) * outputs,
    )
}
