//! Batch normalisation with what usually follows it, a residual and a ReLU, in one pass.

use rayon::prelude::*;

use super::pixels::PIXELS;

/// Mean and (biased) variance of each channel over a batch.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
}

/// Each piece of work gives its sums around its own first pixel, so that a large mean costs no digits; pieces are
/// joined in f64, in order.
pub(crate) fn norm_moments(channels: usize, x: &[f32]) -> Moments {
    let parts: Vec<(usize, Vec<f32>)> = x
        .par_chunks(PIXELS * channels)
        .map(|x| {
            let shift = &x[..channels];
            let mut sums = vec![0f32; 2 * channels];
            let (sum, square) = sums.split_at_mut(channels);
            for x in x.chunks_exact(channels) {
                for (((sum, square), &x), &shift) in
                    sum.iter_mut().zip(square.iter_mut()).zip(x).zip(shift)
                {
                    let d = x - shift;
                    *sum += d;
                    *square += d * d;
                }
            }
            (x.len() / channels, sums)
        })
        .collect();
    let n = (x.len() / channels) as f64;
    let (mut mean, mut var) = (vec![0f32; channels], vec![0f32; channels]);
    for c in 0..channels {
        // Chan's formula: join (count, mean, sum of squares around the mean) piece by piece.
        let (mut count, mut centre, mut spread) = (0f64, 0f64, 0f64);
        for (part, (n_part, sums)) in parts.iter().enumerate() {
            let n_part = *n_part as f64;
            let sum = f64::from(sums[c]);
            let part_mean = f64::from(x[part * PIXELS * channels + c]) + sum / n_part;
            let part_spread = (f64::from(sums[channels + c]) - sum * sum / n_part).max(0.0);
            let delta = part_mean - centre;
            let total = count + n_part;
            centre += delta * n_part / total;
            spread += part_spread + delta * delta * count * n_part / total;
            count = total;
        }
        mean[c] = centre as f32;
        var[c] = (spread / n) as f32;
    }
    Moments { mean, var }
}

/// `y = x * scale + shift (+ residual)`, then the floor: 0 for a ReLU, minus infinity for none.
pub(crate) fn norm_forward(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    let channels = scale.len();
    let chunk = PIXELS * channels;
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    y.par_chunks_mut(chunk).enumerate().for_each(|(i, y)| {
        let from = i * chunk;
        let x = &x[from..from + y.len()];
        match residual {
            None => {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    for c in 0..channels {
                        y[c] = (x[c] * scale[c] + shift[c]).max(floor);
                    }
                }
            }
            Some(residual) => {
                let residual = &residual[from..from + y.len()];
                let pixels = y.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                for ((y, x), r) in pixels.zip(residual.chunks_exact(channels)) {
                    for c in 0..channels {
                        y[c] = (x[c] * scale[c] + shift[c] + r[c]).max(floor);
                    }
                }
            }
        }
    });
}

/// First `dy` is masked in place where the ReLU was shut (`y` is `Some`), which makes it the residual's gradient; then
/// `dx = a * dy + b * x + c`, with statistics of the batch (`moments`) taken as functions of `x`.
///
/// Returns the gradients of gamma and beta.
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel over plain slices; each is one thing"
)]
pub(crate) fn norm_backward(
    x: &[f32],
    y: Option<&[f32]>,
    moments: &Moments,
    gamma: &[f32],
    eps: f64,
    batch_statistics: bool,
    dy: &mut [f32],
    dx: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let channels = gamma.len();
    let chunk = PIXELS * channels;
    if let Some(y) = y {
        dy.par_chunks_mut(chunk)
            .zip(y.par_chunks(chunk))
            .for_each(|(dy, y)| {
                for (dy, &y) in dy.iter_mut().zip(y) {
                    *dy = if y > 0.0 { *dy } else { 0.0 };
                }
            });
    }
    let dy = &*dy;
    let parts: Vec<Vec<f32>> = x
        .par_chunks(chunk)
        .zip(dy.par_chunks(chunk))
        .map(|(x, dy)| {
            let mut sums = vec![0f32; 2 * channels];
            let (dot, sum) = sums.split_at_mut(channels);
            for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                for c in 0..channels {
                    dot[c] += dy[c] * (x[c] - moments.mean[c]);
                    sum[c] += dy[c];
                }
            }
            sums
        })
        .collect();
    let mut sums = vec![0f64; 2 * channels];
    for part in &parts {
        for (sum, &part) in sums.iter_mut().zip(part) {
            *sum += f64::from(part);
        }
    }
    let n = (x.len() / channels) as f64;
    let (mut a, mut b, mut shift) = (
        vec![0f32; channels],
        vec![0f32; channels],
        vec![0f32; channels],
    );
    let (mut dgamma, mut dbeta) = (vec![0f32; channels], vec![0f32; channels]);
    for c in 0..channels {
        let inverse = 1.0 / (f64::from(moments.var[c]) + eps).sqrt();
        let (dot, sum) = (sums[c], sums[channels + c]);
        dgamma[c] = (dot * inverse) as f32;
        dbeta[c] = sum as f32;
        let scale = f64::from(gamma[c]) * inverse;
        a[c] = scale as f32;
        if batch_statistics {
            let slope = -scale * inverse * inverse * dot / n;
            b[c] = slope as f32;
            shift[c] = (-scale * sum / n - slope * f64::from(moments.mean[c])) as f32;
        }
    }
    dx.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .zip(dy.par_chunks(chunk))
        .for_each(|((dx, x), dy)| {
            for ((dx, x), dy) in dx
                .chunks_exact_mut(channels)
                .zip(x.chunks_exact(channels))
                .zip(dy.chunks_exact(channels))
            {
                for c in 0..channels {
                    dx[c] = a[c] * dy[c] + b[c] * x[c] + shift[c];
                }
            }
        });
    (dgamma, dbeta)
}
