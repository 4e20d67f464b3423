//! How a method with a hand-written gradient enters Candle's autograd.
//!
//! Candle runs a loss op by op: every operation allocates its result, every gradient is zeroed and added. Here a
//! method computes all its components in one walk over the rows, and keeps what their gradients need; autograd sees
//! a single operation. In: the student's logits, (B, C). Out: one vector that holds the components one after the
//! other, B numbers for a component with a loss per sample, 1 for the others.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Storage, Tensor};

use crate::LossError;
use crate::ops::real::Real;
use crate::ops::rows::{Matrix, View, for_each_row};

/// The value of one component.
pub(crate) enum Values<F> {
    /// One loss per sample, (B,); the component is their mean.
    PerSample(Vec<F>),
    /// The batch has a loss only as a whole.
    Whole(F),
}

/// Adds to the (B, C) gradient what the derivatives by the components' values, `upstream`, make of it. `upstream`
/// has one slice per component, as long as the component has values.
pub(crate) type Pullback<F> = Box<dyn Fn(&[&[F]], &mut Matrix<F>) + Send + Sync>;

/// The components of one batch and the way back from them to the student's logits.
pub(crate) struct Outcome<F> {
    pub(crate) components: Vec<Values<F>>,
    pub(crate) pullback: Pullback<F>,
}

impl<F: Real> Outcome<F> {
    /// The components of both, those of `self` first.
    pub(crate) fn join(self, other: Outcome<F>) -> Outcome<F> {
        let (first, second) = (self.pullback, other.pullback);
        let split = self.components.len();
        let mut components = self.components;
        components.extend(other.components);
        Outcome {
            components,
            pullback: Box::new(move |upstream, gradient| {
                first(&upstream[..split], gradient);
                second(&upstream[split..], gradient);
            }),
        }
    }
}

/// What a method sees of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, F> {
    pub(crate) student: View<'a, F>,
    pub(crate) teacher: View<'a, F>,
    pub(crate) labels: &'a [u32],
}

/// A method whose values and gradients are written out, once for both precisions.
pub(crate) trait Closed {
    fn evaluate<F: Real>(&self, rows: Rows<'_, F>) -> Result<Outcome<F>, LossError>;
}

/// Evaluates `method`; one tensor per component, (B,) or scalar. `student`, `teacher` are (B, C) on the host, of
/// one dtype.
pub(crate) fn fused(
    method: &impl Closed,
    student: &Tensor,
    teacher: &Tensor,
    labels: &[u32],
) -> Result<Vec<Tensor>, LossError> {
    match student.dtype() {
        DType::F64 => evaluate::<f64>(method, student, teacher, labels),
        _ => evaluate::<f32>(method, student, teacher, labels),
    }
}

fn evaluate<F: Real>(
    method: &impl Closed,
    student: &Tensor,
    teacher: &Tensor,
    labels: &[u32],
) -> Result<Vec<Tensor>, LossError> {
    let outcome = with_view(student, |student| {
        with_view(teacher, |teacher| {
            method.evaluate::<F>(Rows {
                student,
                teacher,
                labels,
            })
        })
    })???;
    let mut values = Vec::new();
    let mut spans = Vec::new();
    for component in &outcome.components {
        let start = values.len();
        match component {
            Values::PerSample(losses) => values.extend_from_slice(losses),
            Values::Whole(loss) => values.push(*loss),
        }
        spans.push(start..values.len());
    }
    let pullback = outcome.pullback;
    let (n_rows, n_cols) = student.dims2()?;
    let packed = {
        let spans = spans.clone();
        attach(
            student,
            values,
            spans.last().map_or(0, |last| last.end),
            move |upstream| {
                let upstream: Vec<&[F]> =
                    spans.iter().map(|span| &upstream[span.clone()]).collect();
                let mut gradient = Matrix::zeros(n_rows, n_cols);
                pullback(&upstream, &mut gradient);
                gradient.data
            },
        )?
    };
    let components = outcome.components.iter().zip(spans);
    components
        .map(|(component, span)| {
            let part = packed.narrow(0, span.start, span.len())?;
            Ok(match component {
                Values::PerSample(_) => part,
                Values::Whole(_) => part.squeeze(0)?,
            })
        })
        .collect()
}

/// A function of `input` whose values are known already, and whose pullback takes the derivatives by the values to
/// the derivatives by `input`.
pub(crate) fn attach<F: Real>(
    input: &Tensor,
    values: Vec<F>,
    shape: impl Into<Shape>,
    pullback: impl Fn(&[F]) -> Vec<F> + Send + Sync + 'static,
) -> Result<Tensor, LossError> {
    Ok(input.apply_op1(HandWritten {
        values,
        shape: shape.into(),
        pullback,
    })?)
}

/// The slice behind a contiguous tensor on the host.
pub(crate) fn with_view<F: Real, R>(
    tensor: &Tensor,
    f: impl FnOnce(View<'_, F>) -> R,
) -> Result<R, LossError> {
    let (n_rows, n_cols) = tensor.dims2()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| not_dense(tensor))?;
    match &*storage {
        Storage::Cpu(storage) => {
            let data = &F::cpu_storage_as_slice(storage)?[start..end];
            Ok(f(View {
                data,
                n_rows,
                n_cols,
            }))
        }
        _ => Err(not_dense(tensor)),
    }
}

fn not_dense(tensor: &Tensor) -> LossError {
    LossError::Shape {
        what: "logits",
        expected: "a contiguous tensor on the host".to_owned(),
        found: format!("{:?} on {:?}", tensor.layout(), tensor.device().location()),
    }
}

struct HandWritten<F, P> {
    values: Vec<F>,
    shape: Shape,
    pullback: P,
}

impl<F: Real, P: Fn(&[F]) -> Vec<F>> CustomOp1 for HandWritten<F, P> {
    fn name(&self) -> &'static str {
        "logit-loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((F::to_cpu_storage(&self.values), self.shape.clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let upstream: Vec<F> = upstream.flatten_all()?.to_vec1()?;
        let gradient = (self.pullback)(&upstream);
        Ok(Some(Tensor::from_vec(
            gradient,
            input.shape(),
            input.device(),
        )?))
    }
}

/// Components whose loss of a sample depends on that sample's student row alone, K of them.
///
/// `f(row_index, gradients)` returns the K losses of the row and fills their K gradients, all of length C.
pub(crate) fn per_sample<F: Real, const K: usize>(
    n_rows: usize,
    n_cols: usize,
    f: impl Fn(usize, [&mut [F]; K]) -> [f64; K] + Sync,
) -> Outcome<F> {
    let mut gradients = vec![F::zero(); n_rows * K * n_cols];
    let losses = for_each_row(&mut gradients, K * n_cols, |index, row| {
        let mut rest = row;
        let pieces = std::array::from_fn(|_| {
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(n_cols);
            rest = tail;
            piece
        });
        Losses(f(index, pieces))
    });
    let components =
        (0..K).map(|k| Values::PerSample(losses.iter().map(|losses| F::of(losses.0[k])).collect()));
    Outcome {
        components: components.collect(),
        pullback: Box::new(move |upstream, gradient| {
            for_each_row(&mut gradient.data, n_cols, |index, row| {
                for (k, upstream) in upstream.iter().enumerate() {
                    if upstream[index] != F::zero() {
                        let start = (index * K + k) * n_cols;
                        crate::ops::real::add_scaled(
                            row,
                            upstream[index],
                            &gradients[start..start + n_cols],
                        );
                    }
                }
            });
        }),
    }
}

#[derive(Clone)]
struct Losses<const K: usize>([f64; K]);

impl<const K: usize> Default for Losses<K> {
    fn default() -> Self {
        Self([0.0; K])
    }
}
