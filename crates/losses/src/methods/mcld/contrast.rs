//! The similarities of a batch, the three parts' losses on them, and the way back.
//!
//! All parts but `ccld_column` read one matrix of inner products, student rows by teacher rows and bank rows. So a
//! batch costs one product on the way in and one on the way back, whatever parts are on.

use candle_core::Tensor;

use super::normalize::Vectors;
use super::{Category, Instance, Mcld, Sample};
use crate::LossError;
use crate::fused::{Closed, Outcome, Rows, Values, per_sample, with_view};
use crate::ops::product;
use crate::ops::real::{self, Real};
use crate::ops::rows::{Matrix, View, for_each_row};
use crate::ops::softmax::{softmax, softmax_where};

/// A method and the bank of this step.
pub(super) struct Evaluation<'a> {
    pub(super) method: &'a Mcld,
    pub(super) bank: Option<(Tensor, &'a [u32])>,
}

impl Closed for Evaluation<'_> {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError> {
        let Mcld {
            instance,
            sample,
            category,
            normalize,
            ..
        } = *self.method;
        let Rows {
            student,
            teacher,
            labels,
        } = rows;
        let n = student.n_rows;

        let mut candidates = teacher.data.to_vec();
        let mut candidate_labels = labels.to_vec();
        if let Some((bank, bank_labels)) = &self.bank {
            with_view::<F, _>(bank, |bank| candidates.extend_from_slice(bank.data))?;
            candidate_labels.extend_from_slice(bank_labels);
        }
        let n_candidates = candidate_labels.len();
        let candidates = View {
            data: &candidates,
            n_rows: n_candidates,
            n_cols: teacher.n_cols,
        };

        let a = Vectors::student_rows(student, normalize);
        let b = Vectors::teacher_rows(candidates, normalize);
        let similarity = product::times_transposed(a.view(), b.view());
        let same_class = |i: usize, j: usize| labels[i] == candidate_labels[j];

        let by_instance = Contrast::new(&similarity, instance.temperature, |i, row, slope| {
            let is_candidate =
                |j: usize| j == i || instance.reading == Instance::Plain || !same_class(i, j);
            let log_sum = softmax_where(slope, row, instance.temperature, is_candidate);
            slope[i] -= F::one();
            log_sum - row[i].to_f64() / instance.temperature
        });

        let by_category = match category.reading {
            Category::Column => None,
            reading => Some(Contrast::new(
                &similarity,
                category.temperature,
                |i, row, slope| {
                    let is_positive = |j: usize| j < n && same_class(i, j);
                    let log_sum = softmax_where(slope, row, category.temperature, |j| {
                        j < n || !same_class(i, j)
                    });
                    let mut target = vec![F::zero(); row.len()];
                    let log_positives = if reading == Category::LabelIn {
                        softmax_where(&mut target, row, category.temperature, is_positive)
                    } else {
                        let positives: Vec<usize> = (0..n).filter(|&j| is_positive(j)).collect();
                        let share = 1.0 / positives.len() as f64;
                        positives.iter().for_each(|&j| target[j] = F::of(share));
                        let sum: f64 = positives.iter().map(|&j| row[j].to_f64()).sum();
                        sum * share / category.temperature
                    };
                    real::update(slope, &target, |p, target| p - target);
                    log_sum - log_positives
                },
            )),
        };

        let by_sample = match sample.reading {
            Sample::Within => None,
            Sample::TeacherAnchor => {
                let picks = square(&similarity).transposed();
                Some(Contrast::new(
                    &picks,
                    sample.temperature,
                    |i, row, slope| {
                        let log_sum = softmax(slope, row, sample.temperature);
                        slope[i] -= F::one();
                        log_sum - row[i].to_f64() / sample.temperature
                    },
                ))
            }
        };
        let within = match sample.reading {
            Sample::TeacherAnchor => None,
            Sample::Within => Some(within(a.view(), b.view(), labels, sample.temperature)),
        };
        let columns = match category.reading {
            Category::Column => Some(Columns::new(rows, self.method)),
            _ => None,
        };

        let mut components = vec![by_instance.values()];
        components.extend(by_sample.as_ref().map(Contrast::values));
        let pull_within = within.map(|mut within| {
            components.append(&mut within.components);
            within.pullback
        });
        components.extend(by_category.as_ref().map(Contrast::values));
        components.extend(columns.as_ref().map(|columns| Values::Whole(columns.value)));
        Ok(Outcome {
            components,
            pullback: Box::new(move |upstream, gradient| {
                let mut by_similarity = Matrix::zeros(n, n_candidates);
                by_instance.pull_back(upstream[0], &mut by_similarity);
                if let Some(part) = &by_category {
                    part.pull_back(upstream[2], &mut by_similarity);
                }
                if let Some(part) = &by_sample {
                    let mut by_picks = Matrix::zeros(n, n);
                    part.pull_back(upstream[1], &mut by_picks);
                    let by_picks = by_picks.transposed();
                    for i in 0..n {
                        real::add_scaled(
                            &mut by_similarity.row_mut(i)[..n],
                            F::one(),
                            by_picks.row(i),
                        );
                    }
                }
                let mut by_rows = product::times(by_similarity.view(), b.view());
                if let Some(pull_within) = &pull_within {
                    pull_within(&upstream[1..2], &mut by_rows);
                }
                let by_logits = a.pull_back(by_rows);
                real::add_scaled(&mut gradient.data, F::one(), &by_logits.data);
                if let Some(columns) = &columns {
                    columns.pull_back(upstream[2][0], gradient);
                }
            }),
        })
    }
}

/// One loss per row of a matrix of similarities: its values, and d loss_i / d similarity_ij.
struct Contrast<F> {
    losses: Vec<f64>,
    slopes: Matrix<F>,
}

impl<F: Real> Contrast<F> {
    /// `f(i, row, slope)` returns the loss of row i and writes its derivatives by `row / temperature`.
    fn new(
        similarity: &Matrix<F>,
        temperature: f64,
        f: impl Fn(usize, &[F], &mut [F]) -> f64 + Sync,
    ) -> Self {
        let mut slopes = Matrix::zeros(similarity.n_rows, similarity.n_cols);
        let losses = for_each_row(&mut slopes.data, similarity.n_cols, |i, slope| {
            let loss = f(i, similarity.row(i), slope);
            real::scale(slope, F::of(1.0 / temperature));
            loss
        });
        Self { losses, slopes }
    }

    fn values(&self) -> Values<F> {
        Values::PerSample(self.losses.iter().map(|&loss| F::of(loss)).collect())
    }

    fn pull_back(&self, upstream: &[F], by_similarity: &mut Matrix<F>) {
        for (i, &upstream) in upstream.iter().enumerate() {
            if upstream != F::zero() {
                real::add_scaled(by_similarity.row_mut(i), upstream, self.slopes.row(i));
            }
        }
    }
}

/// The similarities within the batch, without the bank.
fn square<F: Real>(similarity: &Matrix<F>) -> Matrix<F> {
    let n = similarity.n_rows;
    let data = similarity
        .view()
        .rows()
        .flat_map(|row| row[..n].iter().copied())
        .collect();
    Matrix {
        data,
        n_rows: n,
        n_cols: n,
    }
}

/// `scld_within`: gradients are by the student's vectors.
fn within<F: Real>(a: View<'_, F>, b: View<'_, F>, labels: &[u32], temperature: f64) -> Outcome<F> {
    per_sample(a.n_rows, a.n_cols, |i, [gradient]| {
        let label = labels[i] as usize;
        let mut agreement = vec![F::zero(); a.n_cols];
        real::zip_into(&mut agreement, a.row(i), b.row(i), |a, b| a * b);
        let log_sum = softmax(gradient, &agreement, temperature);
        gradient[label] -= F::one();
        let inverse = F::of(1.0 / temperature);
        real::update(gradient, b.row(i), |p, b| inverse * p * b);
        [log_sum - agreement[label].to_f64() / temperature]
    })
}

/// `ccld_column`: every class of the student picks its own among the teacher's classes.
struct Columns<F> {
    value: F,
    slopes: Matrix<F>,
    student: Vectors<F>,
    teacher: Vectors<F>,
}

impl<F: Real> Columns<F> {
    fn new(rows: Rows<'_, F>, method: &Mcld) -> Self {
        let temperature = method.category.temperature;
        let student = Vectors::student_columns(rows.student, method.normalize);
        let teacher = Vectors::teacher_columns(rows.teacher, method.normalize);
        let similarity = product::times_transposed(student.view(), teacher.view());
        let contrast = Contrast::new(&similarity, temperature, |c, row, slope| {
            let log_sum = softmax(slope, row, temperature);
            slope[c] -= F::one();
            log_sum - row[c].to_f64() / temperature
        });
        let mean = contrast.losses.iter().sum::<f64>() / contrast.losses.len() as f64;
        Self {
            value: F::of(mean),
            slopes: contrast.slopes,
            student,
            teacher,
        }
    }

    fn pull_back(&self, upstream: F, gradient: &mut Matrix<F>) {
        if upstream == F::zero() {
            return;
        }
        let by_columns = product::times(self.slopes.view(), self.teacher.view());
        let by_logits = self.student.pull_back(by_columns);
        let n_classes = F::of(self.slopes.n_rows as f64);
        real::add_scaled(&mut gradient.data, upstream / n_classes, &by_logits.data);
    }
}
