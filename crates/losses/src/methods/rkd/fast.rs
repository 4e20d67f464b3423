//! RKD's distances and angles on the CPU, each one operation for autograd.
//!
//! Why they are here: in Candle's operations a batch of 64 pays for a dozen (B, B, B) tensors and as many on the way back
//! (`benches/README-losses.md` has both), and at 256 rows of 1000 classes `squares` alone is (B, B, C), half a gigabyte.
//! Here nothing larger than (B, B) is kept, and the angles of one j are made, used and dropped.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Points nearer than this have no direction between them in `angle`.
pub(super) const LEAST_LENGTH: f64 = 1e-12;

/// [`super::squares`]: (B, C) points, contiguous f64, to (B, B).
pub(super) fn squares(z: &Tensor) -> Result<Tensor> {
    z.apply_op1(Squares)
}

/// [`super::angle`]: of (B, B) squared distances, f64; the teacher's are constant.
pub(super) fn angle(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let teacher = Distances::new(&values(teacher)?);
    let student_now = Distances::new(&values(student)?);
    let (value, slopes) = compare(&student_now, &teacher);
    let slopes = Tensor::from_vec(slopes, student.shape(), student.device())?;
    // A constant that is 0 in value, and has the slopes for its gradient.
    ((student - student.detach())? * slopes)?.sum_all()? + value
}

fn values(squares: &Tensor) -> Result<Vec<f64>> {
    squares.detach().flatten_all()?.to_vec1()
}

struct Squares;

impl CustomOp1 for Squares {
    fn name(&self) -> &'static str {
        "squared-distances"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = layout.shape().dims2()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("squared distances are of contiguous points");
        };
        let points = &storage.as_slice::<f64>()?[start..end];
        let mut squares = vec![0.0; n * n];
        squares.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            let own = &points[i * width..(i + 1) * width];
            pulp::Arch::new().dispatch(|| {
                for (square, other) in row.iter_mut().zip(points.chunks_exact(width)) {
                    *square = squared_distance(own, other);
                }
            });
        });
        Ok((CpuStorage::F64(squares), (n, n).into()))
    }

    /// With `H = G + G'`: `2 sum_j H_ij (z_i - z_j)`. Points are centred first, so that the two terms do not cancel.
    fn bwd(&self, points: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let both = (gradient + gradient.t()?)?;
        let centred = points.broadcast_sub(&points.mean_keepdim(0)?)?;
        let degrees = both.sum_keepdim(1)?;
        let by_points = (centred.broadcast_mul(&degrees)? - both.matmul(&centred)?)?;
        Ok(Some((by_points * 2.0)?))
    }
}

/// In 8 sums, so that it can run on vectors.
#[inline(always)]
fn squared_distance(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (x_parts, y_parts) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest = x_parts.remainder().iter().zip(y_parts.remainder());
    let rest: f64 = rest.map(|(x, y)| (x - y) * (x - y)).sum();
    for (x, y) in x_parts.zip(y_parts) {
        for lane in 0..8 {
            sums[lane] += (x[lane] - y[lane]) * (x[lane] - y[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// How far every two samples lie apart.
struct Distances {
    n: usize,
    /// (B, B), row after row: `|z_i - z_j|^2`.
    squares: Vec<f64>,
    /// `1 / |z_i - z_j|`, 0 where the two coincide.
    inverse_lengths: Vec<f64>,
}

impl Distances {
    fn new(squares: &[f64]) -> Self {
        let inverse = |square: &f64| match square.sqrt() {
            length if length < LEAST_LENGTH => 0.0,
            length => 1.0 / length,
        };
        Self {
            n: (squares.len() as f64).sqrt() as usize,
            squares: squares.to_vec(),
            inverse_lengths: squares.iter().map(inverse).collect(),
        }
    }
}

/// The loss, and its derivatives by the student's squared distances, (B, B).
///
/// `D2_jk` is the side opposite to the angle at i, and `D2_ij` and `D2_ik` the sides along it. Task j makes, for every i,
/// the angles between j and all k; it owns row j of what is due to opposite sides, and of the transpose of what is
/// due to sides along, so tasks share nothing and add in one order.
fn compare(student: &Distances, teacher: &Distances) -> (f64, Vec<f64>) {
    let n = student.n;
    let of_task = |j: usize| {
        let (mut opposite, mut along, mut value) = (vec![0.0; n], vec![0.0; n], 0.0);
        for (i, along) in along.iter_mut().enumerate() {
            let (s, t) = (Sides::new(student, i, j), Sides::new(teacher, i, j));
            let angles = || angles_at(&s, &t, &mut opposite);
            let (total, slope) = pulp::Arch::new().dispatch(angles);
            value += total;
            *along = slope;
        }
        (value, opposite, along)
    };
    let tasks: Vec<_> = (0..n).into_par_iter().map(of_task).collect();
    let n_triples = (n as f64).powi(3);
    let mut slopes = vec![0.0; n * n];
    let mut total = 0.0;
    for (j, (value, opposite, along)) in tasks.into_iter().enumerate() {
        total += value;
        for i in 0..n {
            slopes[j * n + i] += opposite[i] / n_triples;
            slopes[i * n + j] += along[i] / n_triples;
        }
    }
    (total / n_triples, slopes)
}

/// The sides at i and j, and what the angles of one (i, j) need of one network.
struct Sides<'a> {
    /// `D2_ij`.
    square: f64,
    /// `1 / (2 D_ij)`.
    half_inverse: f64,
    /// `D2_ik` for all k.
    from_i: &'a [f64],
    /// `D2_jk` for all k.
    from_j: &'a [f64],
    /// `1 / D_ik` for all k.
    inverse: &'a [f64],
}

impl<'a> Sides<'a> {
    fn new(of: &'a Distances, i: usize, j: usize) -> Self {
        let n = of.n;
        Self {
            square: of.squares[i * n + j],
            half_inverse: 0.5 * of.inverse_lengths[i * n + j],
            from_i: &of.squares[i * n..(i + 1) * n],
            from_j: &of.squares[j * n..(j + 1) * n],
            inverse: &of.inverse_lengths[i * n..(i + 1) * n],
        }
    }
}

/// Angles side by side, so that they can run on vectors.
const LANES: usize = 16;

/// The sum over k of `huber(A(s)_ijk - A(t)_ijk)` and its derivative by `D2_ij` (as either side); adds to `opposite` the
/// derivatives by `D2_jk`.
#[inline(always)]
fn angles_at(s: &Sides<'_>, t: &Sides<'_>, opposite: &mut [f64]) -> (f64, f64) {
    // The last few k go one at a time, so that the others have a fixed number of lanes.
    let n = opposite.len();
    let whole = n - n % LANES;
    let mut sums = [[0.0; LANES]; 2];
    for first in (0..whole).step_by(LANES) {
        angles::<LANES>(first, s, t, opposite, &mut sums);
    }
    let mut of_rest = [[0.0; 1]; 2];
    for k in whole..n {
        angles::<1>(k, s, t, opposite, &mut of_rest);
    }
    let [value, slope] = sums.map(|lanes| lanes.iter().sum::<f64>());
    (value + of_rest[0][0], slope + of_rest[1][0])
}

/// `N` angles from k = `first` on; adds their values and their slopes to `sums`.
#[inline(always)]
fn angles<const N: usize>(
    first: usize,
    s: &Sides<'_>,
    t: &Sides<'_>,
    opposite: &mut [f64],
    sums: &mut [[f64; N]; 2],
) {
    let range = first..first + N;
    let of = |row: &'_ [f64]| -> [f64; N] { std::array::from_fn(|lane| row[range.clone()][lane]) };
    let (s_i, s_j, s_inverse) = (of(s.from_i), of(s.from_j), of(s.inverse));
    let (t_i, t_j, t_inverse) = (of(t.from_i), of(t.from_j), of(t.inverse));
    let opposite = &mut opposite[range.clone()];
    let s_inverse_square = 2.0 * s.half_inverse * s.half_inverse;
    for k in 0..N {
        let s_scale = s.half_inverse * s_inverse[k];
        let angle_s = (s.square + s_i[k] - s_j[k]) * s_scale;
        let angle_t = (t.square + t_i[k] - t_j[k]) * (t.half_inverse * t_inverse[k]);
        let difference = angle_s - angle_t;
        let slope = difference.clamp(-1.0, 1.0);
        sums[0][k] += slope * (difference - 0.5 * slope);
        opposite[k] -= slope * s_scale;
        // Twice, as j and k change places: the side from i to j as the first and as the second of the two.
        sums[1][k] += 2.0 * slope * (s_scale - angle_s * s_inverse_square);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::methods::rkd as plain;

    /// Both forms, on rows of which two coincide.
    #[test]
    fn it_is_the_plain_form() {
        let (n, width) = (21, 13);
        let wave = |phase: f64| {
            let z = |i: usize| 3.0 * (1.7 * (i % (width * (n - 1))) as f64 + phase).sin();
            let data: Vec<f64> = (0..n * width).map(z).collect();
            Tensor::from_vec(data, (n, width), &Device::Cpu).unwrap()
        };
        let (student, teacher) = (Var::from_tensor(&wave(0.0)).unwrap(), wave(2.0));
        type Form = (
            fn(&Tensor) -> Result<Tensor>,
            fn(&Tensor, &Tensor) -> Result<Tensor>,
        );
        let evaluate = |(squares, angle): Form| {
            let (s, t) = (squares(&student).unwrap(), squares(&teacher).unwrap());
            let value = angle(&s, &t).unwrap();
            let gradient = value.backward().unwrap().get(&student).unwrap().clone();
            let values = [s.flatten_all().unwrap(), value.reshape(1).unwrap()];
            let all = Tensor::cat(
                &[&values[0], &values[1], &gradient.flatten_all().unwrap()],
                0,
            );
            all.unwrap().to_vec1::<f64>().unwrap()
        };
        let (fast, plain) = (
            evaluate((squares, angle)),
            evaluate((plain::squares, plain::angle)),
        );
        for (at, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
            assert!(
                (fast - plain).abs() < 1e-12 * plain.abs().max(1.0),
                "{at}: {fast} {plain}"
            );
        }
    }
}
