//! How alike two vectors are: cosine and correlation, and their gradients.
//!
//! `1 - cos` of nearly parallel vectors is a small difference of numbers near 1, and its gradient a small difference of
//! long vectors. So inner products are summed in f64, and the gradient is rearranged: equal vectors leave exactly
//! what the epsilon leaves.

use super::real::{self, Real};

/// Added to the product of the lengths, as DIST's and CSKD's authors do.
const EPSILON: f64 = 1e-8;

/// `cos = <u, v> / (|u| |v| + 1e-8)`; writes the derivative of `-cos` by `u` to `gradient`.
pub(crate) fn cosine<F: Real>(u: &[F], v: &[F], gradient: &mut [F]) -> f64 {
    let (uu, vv, uv) = inner_products(u, v);
    let bottom = (uu * vv).sqrt() + EPSILON;
    // d cos / d u = (v - k u) / bottom with k = <u, v> |v| / (|u| bottom), and v - k u = (v - u) + (1 - k) u.
    let ratio = if uu > 0.0 { (vv / uu).sqrt() } else { 0.0 };
    let remainder = F::of((bottom - uv * ratio) / bottom);
    let inverse = F::of(-1.0 / bottom);
    real::zip_into(gradient, u, v, |u, v| inverse * ((v - u) + remainder * u));
    uv / bottom
}

/// The cosine after both vectors have lost their means: `u` and `v` are left centred.
pub(crate) fn correlation<F: Real>(u: &mut [F], v: &mut [F], gradient: &mut [F]) -> f64 {
    centre(u);
    centre(v);
    let correlation = cosine(u, v, gradient);
    centre(gradient);
    correlation
}

/// The cosine without its gradient.
pub(crate) fn cosine_only<F: Real>(u: &[F], v: &[F]) -> f64 {
    let (uu, vv, uv) = inner_products(u, v);
    uv / ((uu * vv).sqrt() + EPSILON)
}

fn inner_products<F: Real>(u: &[F], v: &[F]) -> (f64, f64, f64) {
    (
        real::dot_in_f64(u, u),
        real::dot_in_f64(v, v),
        real::dot_in_f64(u, v),
    )
}

/// Subtracts the mean.
pub(crate) fn centre<F: Real>(x: &mut [F]) {
    let mean = F::of(real::sum(x).to_f64() / x.len() as f64);
    x.iter_mut().for_each(|x| *x -= mean);
}
