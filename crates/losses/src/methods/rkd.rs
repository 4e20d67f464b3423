//! Relational knowledge distillation, on logits.
//!
//! Park et al., "Relational Knowledge Distillation", arXiv:1904.05068, equations 7 to 10; as in mdistiller
//! (`distillers/RKD.py`), with logits where the original has pooled features.
//!
//! - `distance = mean over pairs (i, j) of huber(D(s)_ij - D(t)_ij)`, `D_ij = |z_i - z_j|` (at least 1e-6 for i != j) divided
//!   by its mean over i != j
//! - `angle = mean over (i, j, k) of huber(A(s)_ijk - A(t)_ijk)`, `A_ijk` the cosine of the angle at i between j and k
//!
//! `huber(x)` is `x^2 / 2` up to 1, and `|x| - 1/2` beyond. Means are over B^2 and B^3, diagonals included. Weights 25 and 50
//! beside `ce` 1 are mdistiller's. On a batch of one both are 0, where the code gives NaN.
//!
//! The code forms all e_ij, (B, B, C), and all angles, (B, B, B). By the law of cosines an angle needs only the (B,
//! B) squared distances: `A_ijk = (D2_ij + D2_ik - D2_jk) / (2 D_ij D_ik)`; so nothing larger than (B, B) is kept,
//! and the angles of one j are made, used and dropped. Everything is computed in f64, whatever the logits are.

use crate::fused::{Closed, Outcome, Rows, Values, fused};
use crate::loss::{Component, ComponentSpec, LogitLoss, MethodRow, Needs, OptionRow, Setup};
use crate::ops::product;
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, View, for_each_row};
use crate::{LossError, Options, PreparedBatch};

pub(crate) const METHOD: MethodRow = MethodRow {
    name: "rkd",
    title: "Relational Knowledge Distillation",
    paper: "arXiv:1904.05068",
    components: &[
        ComponentSpec::new("distance", "distances between samples")
            .weight(25.0)
            .whole_batch("it compares pairs of samples"),
        ComponentSpec::new("angle", "angles between samples")
            .weight(50.0)
            .whole_batch("it compares triples of samples"),
    ],
    options: &[
        OptionRow::new(
            "squared",
            "false",
            "compare squared distances in `distance`; mdistiller",
        ),
        OptionRow::new(
            "epsilon",
            "1e-12",
            "the least squared distance of two samples in `distance`; mdistiller",
        ),
    ],
    build,
};

struct Rkd {
    squared: bool,
    least_square: f64,
}

fn build(options: &mut Options, _: &Setup<'_>) -> Result<Box<dyn LogitLoss>, LossError> {
    Ok(Box::new(Rkd {
        squared: options.flag("squared", false)?,
        least_square: options.positive("epsilon", 1e-12)?,
    }))
}

impl LogitLoss for Rkd {
    fn needs(&self) -> Needs {
        // Distances are between samples: a shift that differs from row to row changes them.
        Needs {
            absolute_logits: true,
            ..Needs::DENSE
        }
    }

    fn forward(&self, batch: &PreparedBatch) -> Result<Vec<Component>, LossError> {
        let values = fused(self, batch.student(), batch.teacher("rkd")?, &batch.labels)?;
        values.into_iter().map(Component::from_values).collect()
    }
}

/// Points nearer than this have no direction between them in `angle`.
const LEAST_LENGTH: f64 = 1e-12;

impl Closed for Rkd {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let points = in_f64(rows.student);
        let of_student = Distances::new(points.view());
        let of_teacher = Distances::new(in_f64(rows.teacher).view());
        let (distance, by_distance) = compare_distances(self, &of_student, &of_teacher);
        let (angle, by_angle) = compare_angles(&of_student, &of_teacher);
        Ok(Outcome {
            components: vec![Values::Whole(F::of(distance)), Values::Whole(F::of(angle))],
            pullback: Box::new(move |upstream, gradient| {
                let mut by_squares = Matrix::zeros(points.n_rows, points.n_rows);
                real::add_scaled(
                    &mut by_squares.data,
                    upstream[0][0].to_f64(),
                    &by_distance.data,
                );
                real::add_scaled(
                    &mut by_squares.data,
                    upstream[1][0].to_f64(),
                    &by_angle.data,
                );
                let by_points = pull_back(&by_squares, &points);
                for (out, g) in gradient.data.iter_mut().zip(by_points.data) {
                    *out += F::of(g);
                }
            }),
        })
    }
}

fn in_f64<F: Real>(logits: View<'_, F>) -> Matrix<f64> {
    let data = logits.data.iter().map(|z| z.to_f64()).collect();
    Matrix {
        data,
        n_rows: logits.n_rows,
        n_cols: logits.n_cols,
    }
}

/// How far every two samples lie apart.
struct Distances {
    /// `|z_i - z_j|^2`, (B, B), from the differences themselves: equal rows give exactly 0.
    squares: Matrix<f64>,
    /// `1 / |z_i - z_j|`, 0 where the two coincide.
    inverse_lengths: Matrix<f64>,
}

impl Distances {
    fn new(points: View<'_, f64>) -> Self {
        let n = points.n_rows;
        let mut squares = Matrix::zeros(n, n);
        for_each_row(&mut squares.data, n, |i, row| {
            for (j, square) in row.iter_mut().enumerate() {
                *square = real::squared_distance(points.row(i), points.row(j));
            }
        });
        let mut inverse_lengths = squares.clone();
        for entry in &mut inverse_lengths.data {
            let length = entry.sqrt();
            *entry = if length < LEAST_LENGTH {
                0.0
            } else {
                1.0 / length
            };
        }
        Self {
            squares,
            inverse_lengths,
        }
    }

    /// `|z_i - z_j|` (or its square) as `distance` sees it, 0 on the diagonal; and the mean off the diagonal.
    fn lengths(&self, method: &Rkd) -> (Matrix<f64>, f64) {
        let n = self.squares.n_rows;
        let mut lengths = self.squares.clone();
        for (index, length) in lengths.data.iter_mut().enumerate() {
            let square = length.max(method.least_square);
            *length = match (index % (n + 1) == 0, method.squared) {
                (true, _) => 0.0,
                (false, true) => square,
                (false, false) => square.sqrt(),
            };
        }
        let n_pairs = (n * (n - 1)).max(1) as f64;
        let mean = lengths.data.iter().sum::<f64>() / n_pairs;
        (lengths, mean)
    }
}

/// `distance`, and its derivatives by the student's squared distances.
fn compare_distances(method: &Rkd, student: &Distances, teacher: &Distances) -> (f64, Matrix<f64>) {
    let n = student.squares.n_rows;
    let mut slopes = Matrix::zeros(n, n);
    if n == 1 {
        return (0.0, slopes);
    }
    let ((d_s, mean_s), (d_t, mean_t)) = (student.lengths(method), teacher.lengths(method));
    let n_entries = (n * n) as f64;
    let mut value = 0.0;
    let mut along = 0.0;
    for ((slope, d_s), d_t) in slopes.data.iter_mut().zip(&d_s.data).zip(&d_t.data) {
        let difference = d_s / mean_s - d_t / mean_t;
        value += huber(difference);
        *slope = difference.clamp(-1.0, 1.0) / n_entries;
        along += *slope * d_s;
    }
    // Through D / mean D: every distance also moves the mean.
    let by_mean = along / (mean_s * mean_s * (n * (n - 1)) as f64);
    for (index, slope) in slopes.data.iter_mut().enumerate() {
        let is_clamped = student.squares.data[index] <= method.least_square;
        *slope = match is_clamped || index % (n + 1) == 0 {
            true => 0.0,
            false if method.squared => *slope / mean_s - by_mean,
            // d D / d D^2 = 1 / (2 D)
            false => (*slope / mean_s - by_mean) / (2.0 * d_s.data[index]),
        };
    }
    (value / n_entries, slopes)
}

/// `angle`, and its derivatives by the student's squared distances.
///
/// `D2_jk` is the side opposite to the angle at i, and `D2_ij` and `D2_ik` the sides along it. Task j makes, for every i,
/// the angles between j and all k; it owns row j of what is due to opposite sides, and of the transpose of what is
/// due to sides along, so tasks share nothing and add in one order.
fn compare_angles(student: &Distances, teacher: &Distances) -> (f64, Matrix<f64>) {
    let n = student.squares.n_rows;
    let mut slopes = Matrix::zeros(n, 2 * n);
    let values = for_each_row(&mut slopes.data, 2 * n, |j, slopes| {
        let (opposite, along) = slopes.split_at_mut(n);
        let mut value = 0.0;
        for (i, along) in along.iter_mut().enumerate() {
            let (total, slope) = angles_at(student, teacher, i, j, opposite);
            value += total;
            *along = slope;
        }
        value
    });
    let n_triples = (n as f64).powi(3);
    let mut by_squares = Matrix::zeros(n, n);
    for j in 0..n {
        for i in 0..n {
            by_squares.data[j * n + i] += slopes.row(j)[i] / n_triples;
            by_squares.data[i * n + j] += slopes.row(j)[n + i] / n_triples;
        }
    }
    (values.iter().sum::<f64>() / n_triples, by_squares)
}

/// The sum over k of `huber(A(s)_ijk - A(t)_ijk)` and its derivative by `D2_ij` (as either side); adds to
/// `opposite` the derivatives by `D2_jk`.
fn angles_at(
    student: &Distances,
    teacher: &Distances,
    i: usize,
    j: usize,
    opposite: &mut [f64],
) -> (f64, f64) {
    let n = opposite.len();
    let (s, t) = (Sides::new(student, i, j), Sides::new(teacher, i, j));
    // The last few k go one at a time, so that the others have a fixed number of lanes.
    let mut sums = [[0.0; LANES]; 2];
    let whole = n - n % LANES;
    real::vectorized(
        #[inline(always)]
        || {
            for first in (0..whole).step_by(LANES) {
                angles::<LANES>(first, &s, &t, opposite, &mut sums);
            }
            for k in whole..n {
                let mut one = [[0.0; 1]; 2];
                angles::<1>(k, &s, &t, opposite, &mut one);
                sums[0][0] += one[0][0];
                sums[1][0] += one[1][0];
            }
        },
    );
    (sums[0].iter().sum(), sums[1].iter().sum())
}

const LANES: usize = 16;

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
        Self {
            square: of.squares.row(i)[j],
            half_inverse: 0.5 * of.inverse_lengths.row(i)[j],
            from_i: of.squares.row(i),
            from_j: of.squares.row(j),
            inverse: of.inverse_lengths.row(i),
        }
    }
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
    let (s_i, s_j, s_inverse) = (
        &s.from_i[range.clone()],
        &s.from_j[range.clone()],
        &s.inverse[range.clone()],
    );
    let (t_i, t_j, t_inverse) = (
        &t.from_i[range.clone()],
        &t.from_j[range.clone()],
        &t.inverse[range.clone()],
    );
    let opposite = &mut opposite[range];
    let s_inverse_square = 2.0 * s.half_inverse * s.half_inverse;
    for k in 0..N {
        let s_scale = s.half_inverse * s_inverse[k];
        let angle_s = (s.square + s_i[k] - s_j[k]) * s_scale;
        let angle_t = (t.square + t_i[k] - t_j[k]) * (t.half_inverse * t_inverse[k]);
        let difference = angle_s - angle_t;
        let w = difference.clamp(-1.0, 1.0);
        sums[0][k] += w * (difference - 0.5 * w);
        opposite[k] -= w * s_scale;
        // Twice, as j and k change places: the side from i to j as the first and as the second of the two.
        sums[1][k] += 2.0 * w * (s_scale - angle_s * s_inverse_square);
    }
}

/// From derivatives G by squared distances to derivatives by points: with `H = G + G'`,
/// `2 sum_j H_ij (z_i - z_j)`. Points are centred first, so that the two terms do not cancel.
fn pull_back(by_squares: &Matrix<f64>, points: &Matrix<f64>) -> Matrix<f64> {
    let mut symmetric = by_squares.transposed();
    real::add_scaled(&mut symmetric.data, 1.0, &by_squares.data);
    let mut centred = points.transposed();
    for_each_row(&mut centred.data, points.n_rows, |_, column| {
        crate::ops::similarity::centre(column)
    });
    let centred = centred.transposed();
    let mut out = product::times(symmetric.view(), centred.view());
    for i in 0..points.n_rows {
        let degree = real::sum(symmetric.row(i));
        real::update(out.row_mut(i), centred.row(i), |sum, z| {
            2.0 * (degree * z - sum)
        });
    }
    out
}

fn huber(x: f64) -> f64 {
    let w = x.clamp(-1.0, 1.0);
    w * (x - 0.5 * w)
}
