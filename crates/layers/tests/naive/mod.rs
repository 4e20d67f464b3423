//! The definitions, in f64, one loop per index.
#![allow(dead_code, reason = "each file of tests needs its part")]

use logitcask_layers::ConvSpec;

#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub(crate) batch: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) channels: usize,
}

impl Image {
    fn at(&self, n: usize, y: usize, x: usize, c: usize) -> usize {
        ((n * self.h + y) * self.w + x) * self.channels + c
    }

    fn after(&self, kernel: usize, stride: usize, padding: usize, channels: usize) -> Self {
        let out = |len: usize| (len + 2 * padding - kernel) / stride + 1;
        Self {
            batch: self.batch,
            h: out(self.h),
            w: out(self.w),
            channels,
        }
    }

    fn each(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        for n in 0..self.batch {
            for y in 0..self.h {
                for x in 0..self.w {
                    for c in 0..self.channels {
                        visit(n, y, x, c);
                    }
                }
            }
        }
    }
}

fn inside(o: usize, k: usize, stride: usize, padding: usize, len: usize) -> Option<usize> {
    (o * stride + k).checked_sub(padding).filter(|&i| i < len)
}

/// Calls `visit(y index, x index, weight index)` for every product of the convolution.
fn products(image: Image, spec: &ConvSpec, mut visit: impl FnMut(usize, usize, usize)) {
    let &ConvSpec {
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
        groups,
        ..
    } = spec;
    let (ci, co) = (in_channels / groups, out_channels / groups);
    let out = image.after(kernel, stride, padding, out_channels);
    out.each(|n, oy, ox, o| {
        for i in 0..ci {
            for ky in 0..kernel {
                for kx in 0..kernel {
                    let y = inside(oy, ky, stride, padding, image.h);
                    let x = inside(ox, kx, stride, padding, image.w);
                    if let (Some(y), Some(x)) = (y, x) {
                        let input = image.at(n, y, x, o / co * ci + i);
                        visit(
                            out.at(n, oy, ox, o),
                            input,
                            ((o * ci + i) * kernel + ky) * kernel + kx,
                        );
                    }
                }
            }
        }
    });
}

pub(crate) fn conv_forward(
    image: Image,
    spec: &ConvSpec,
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let out = image.after(spec.kernel, spec.stride, spec.padding, spec.out_channels);
    let mut y = vec![0.0; out.batch * out.h * out.w * out.channels];
    products(image, spec, |o, i, w| y[o] += x[i] * weight[w]);
    if let Some(bias) = bias {
        for (i, y) in y.iter_mut().enumerate() {
            *y += bias[i % bias.len()];
        }
    }
    y
}

pub(crate) fn conv_backward(
    image: Image,
    spec: &ConvSpec,
    x: &[f64],
    weight: &[f64],
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw, mut db) = (
        vec![0.0; x.len()],
        vec![0.0; weight.len()],
        vec![0.0; spec.out_channels],
    );
    products(image, spec, |o, i, w| {
        dx[i] += dy[o] * weight[w];
        dw[w] += dy[o] * x[i];
    });
    for (i, dy) in dy.iter().enumerate() {
        db[i % spec.out_channels] += dy;
    }
    (dx, dw, db)
}

/// Mean and biased variance per channel.
pub(crate) fn moments(channels: usize, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = (x.len() / channels) as f64;
    let per_channel = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        (0..channels)
            .map(|c| {
                x[c..]
                    .iter()
                    .step_by(channels)
                    .map(|&v| f(c, v))
                    .sum::<f64>()
                    / n
            })
            .collect()
    };
    let mean = per_channel(&|_, v| v);
    let var = per_channel(&|c, v| (v - mean[c]).powi(2));
    (mean, var)
}

pub(crate) struct Norm<'a> {
    pub(crate) channels: usize,
    pub(crate) gamma: &'a [f64],
    pub(crate) beta: &'a [f64],
    /// Mean and variance that do not depend on x.
    pub(crate) fixed: Option<(f64, f64)>,
    pub(crate) residual: Option<&'a Vec<f64>>,
    pub(crate) relu: bool,
}

impl Norm<'_> {
    fn moments(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        match self.fixed {
            Some((mean, var)) => (vec![mean; self.channels], vec![var; self.channels]),
            None => moments(self.channels, x),
        }
    }

    fn normalised(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mean, var) = self.moments(x);
        let inverse: Vec<f64> = var.iter().map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
        let hat = x
            .iter()
            .enumerate()
            .map(|(i, x)| (x - mean[i % self.channels]) * inverse[i % self.channels])
            .collect();
        (hat, inverse)
    }

    pub(crate) fn forward(&self, x: &[f64]) -> Vec<f64> {
        let (hat, _) = self.normalised(x);
        let value = |(i, hat): (usize, f64)| {
            let c = i % self.channels;
            let y = self.gamma[c] * hat + self.beta[c] + self.residual.map_or(0.0, |r| r[i]);
            if self.relu { y.max(0.0) } else { y }
        };
        hat.into_iter().enumerate().map(value).collect()
    }

    /// dx, dresidual, dgamma, dbeta
    pub(crate) fn backward(
        &self,
        x: &[f64],
        dy: &[f64],
    ) -> (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>) {
        let y = self.forward(x);
        let (hat, inverse) = self.normalised(x);
        let masked: Vec<f64> = std::iter::zip(dy, &y)
            .map(|(&d, &y)| if self.relu && y <= 0.0 { 0.0 } else { d })
            .collect();
        let (mut dgamma, mut dbeta) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for (i, d) in masked.iter().enumerate() {
            dgamma[i % self.channels] += d * hat[i];
            dbeta[i % self.channels] += d;
        }
        let n = (x.len() / self.channels) as f64;
        let dx = masked
            .iter()
            .enumerate()
            .map(|(i, d)| {
                let c = i % self.channels;
                let of_batch = if self.fixed.is_some() {
                    0.0
                } else {
                    (dbeta[c] + hat[i] * dgamma[c]) / n
                };
                self.gamma[c] * inverse[c] * (d - of_batch)
            })
            .collect();
        (dx, masked, dgamma, dbeta)
    }
}

/// Values and the gradient of x.
pub(crate) fn pool(
    image: Image,
    kernel: usize,
    stride: usize,
    padding: usize,
    largest: bool,
    x: &[f64],
    dy: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let out = image.after(kernel, stride, padding, image.channels);
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    out.each(|n, oy, ox, c| {
        let mut window = vec![];
        for ky in 0..kernel {
            for kx in 0..kernel {
                if let (Some(y), Some(x)) = (
                    inside(oy, ky, stride, padding, image.h),
                    inside(ox, kx, stride, padding, image.w),
                ) {
                    window.push(image.at(n, y, x, c));
                }
            }
        }
        let o = out.at(n, oy, ox, c);
        if largest {
            let best = window
                .iter()
                .copied()
                .reduce(|a, b| if x[b] > x[a] { b } else { a })
                .unwrap();
            y[o] = x[best];
            dx[best] += dy[o];
        } else {
            for i in window {
                y[o] += x[i] / (kernel * kernel) as f64;
                dx[i] += dy[o] / (kernel * kernel) as f64;
            }
        }
    });
    (y, dx)
}
