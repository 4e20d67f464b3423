//! Does this teacher take these images, and does it answer with logits? Asked on a few real images, before anything is paid.

use logitcask_cache::{CacheError, Encoding};
use logitcask_dataset::{PixelBatch, PixelLayout};

use super::Teacher;
use crate::error::TeacherError;
use crate::head::{self, Head};
use crate::head_shape::Shape;
use crate::rows::{self, Look};
use crate::session::Answer;
use crate::spec::OutputIs;
use crate::suspects::{self, Fault};
use crate::warning::Warning;

/// From this factor on, cosines are what a scaled head was trained with.
const SCALED: f64 = 5.0;

impl Teacher {
    /// Checks, on a batch of real images, that the teacher takes them, answers with `n_classes` values each, and that
    /// these are what the recipe says they are. What is doubtful goes into [`Teacher::warnings`].
    pub fn check(&mut self, batch: &PixelBatch, n_classes: usize) -> Result<(), TeacherError> {
        let n_means = self.spec.preprocess.mean.len();
        self.input
            .check_size(batch.channels, batch.height, batch.width, n_means)?;
        let answer = self.first_answer(batch)?;
        let found = answer.rows.len() / batch.n.max(1);
        if found != n_classes {
            return Err(TeacherError::ClassCount {
                teacher: found,
                dataset: n_classes,
            });
        }
        self.n_classes = Some(n_classes);
        self.feature_len = answer.feature_len;
        self.check_encoding(batch, &answer.rows, n_classes)?;
        self.check_quantisation()?;
        self.check_output(batch)
    }

    /// What the output really holds, judged by the answers to a batch of real images.
    pub fn judge_output(&mut self, batch: &PixelBatch) -> Result<OutputIs, TeacherError> {
        let (rows, width) = self.answer_as_given(batch)?;
        Ok(rows::judge(&rows, width))
    }

    /// The answer to a batch; where it fails, the attempts that tell why.
    fn first_answer(&mut self, batch: &PixelBatch) -> Result<Answer, TeacherError> {
        let error = match self.answer(batch, Vec::new()) {
            Err(error @ (TeacherError::Run { .. } | TeacherError::OutputShape { .. })) => error,
            answer => return answer,
        };
        if self.input.layout_is_guessed && self.takes_nhwc(batch) {
            return Err(TeacherError::TakesNhwc {
                input: self.input.to_string(),
            });
        }
        if self.input.fixed_batch.is_some() {
            return Err(error);
        }
        // Some exports call their batch dynamic and then reshape to a batch of one.
        self.input.fixed_batch = Some(1);
        let answer = self.answer(batch, Vec::new());
        let width = answer.as_ref().map_or(0, |answer| answer.width);
        if width < 2 {
            self.input.fixed_batch = None;
            return Err(error);
        }
        answer
    }

    /// Whether the other order of dimensions is taken.
    fn takes_nhwc(&mut self, batch: &PixelBatch) -> bool {
        let mut turned = PixelBatch::new(PixelLayout::Nhwc);
        (turned.n, turned.channels, turned.height, turned.width) =
            (batch.n, batch.channels, batch.height, batch.width);
        let plane = batch.height * batch.width;
        for image in batch.pixels.chunks_exact(batch.channels * plane) {
            let values = (0..plane).flat_map(|at| image.iter().skip(at).step_by(plane));
            turned.pixels.extend(values);
        }
        self.input.layout = PixelLayout::Nhwc;
        let taken = self.answer(&turned, Vec::new()).is_ok();
        self.input.layout = PixelLayout::Nchw;
        taken
    }

    /// Whether the recipe's encoding keeps what these rows say.
    fn check_encoding(
        &self,
        batch: &PixelBatch,
        rows: &[f32],
        n_classes: usize,
    ) -> Result<(), TeacherError> {
        let encoding = Encoding::parse(&self.spec.encoding)?;
        for (row, &(sample, view)) in rows.chunks_exact(n_classes).zip(&batch.requests) {
            if let Some((step, spread)) = encoding.drowns(row) {
                let encoding = encoding.to_string();
                return Err(CacheError::Drowned {
                    sample,
                    view,
                    step,
                    spread,
                    encoding,
                }
                .into());
            }
        }
        Ok(())
    }

    /// Where the batch decides how activations are quantised, the recipe must say what a batch is.
    fn check_quantisation(&self) -> Result<(), TeacherError> {
        if self.input.at_once.is_some() || self.input.fixed_batch == Some(1) {
            return Ok(());
        }
        let found = suspects::find(&self.file, &self.output.name, Fault::DynamicQuantisation);
        found.map_or(Ok(()), |node| Err(TeacherError::QuantisedByBatch { node }))
    }

    fn check_output(&mut self, batch: &PixelBatch) -> Result<(), TeacherError> {
        let output = self.output.name.clone();
        let (rows, width) = self.answer_as_given(batch)?;
        let look = rows::look(&rows, width);
        if look.all_same && !all_alike(batch) || batch.n > 0 && look.n_flat == batch.n {
            let n_images = batch.n;
            return Err(TeacherError::Constant { output, n_images });
        }
        if let Some(node) = suspects::find(&self.file, &output, Fault::Training) {
            return Err(TeacherError::Training { node });
        }
        let (holds, stated) = (rows::judge(&rows, width), self.spec.output_is);
        let head = head::of(&self.file, &output);
        check_holds(&output, head.clone(), holds, stated)?;
        match look.total {
            Some(sum) if look.positive && stated == OutputIs::Logits => {
                Err(TeacherError::ScaledProbabilities { output, sum })
            }
            _ => {
                self.warnings = self.doubts(output, head, &look, batch.n);
                Ok(())
            }
        }
    }

    fn doubts(
        &self,
        output: String,
        head: Option<Head>,
        look: &Look,
        n_rows: usize,
    ) -> Vec<Warning> {
        let mut doubts = Vec::new();
        if self.spec.output_is != OutputIs::Logits {
            return doubts;
        }
        if (1..n_rows).contains(&look.n_flat) {
            doubts.push(Warning::FlatRows {
                output: output.clone(),
                n_flat: look.n_flat,
            });
        }
        let by_nodes = head.filter(|head| is_doubtful(head, look.largest));
        doubts.extend(match (by_nodes, look.total, look.within) {
            (
                Some(Head {
                    shape,
                    node,
                    before,
                    ..
                }),
                ..,
            ) => Some(Warning::Head {
                output,
                shape,
                node,
                before,
            }),
            (None, Some(sum), _) => Some(Warning::ConstantSum { output, sum }),
            (None, None, Some((low, high))) => Some(Warning::Within { output, low, high }),
            (None, None, None) => None,
        });
        doubts
    }

    /// Whole rows, nothing made of them, and values per row.
    pub(super) fn answer_as_given(
        &mut self,
        batch: &PixelBatch,
    ) -> Result<(Vec<f32>, usize), TeacherError> {
        let whole = self.output.as_given();
        let mut answer = Answer::default();
        self.workers[0].forward(&self.input, &whole, None, batch, &mut answer)?;
        Ok((answer.rows, answer.width))
    }
}

/// Refuses an output of which the nodes before it (its `head`) or its values say something else than the recipe.
fn check_holds(
    output: &str,
    head: Option<Head>,
    holds: OutputIs,
    stated: OutputIs,
) -> Result<(), TeacherError> {
    match head {
        Some(head) if is_refused(&head, holds, stated) => Err(TeacherError::NoLogits {
            output: output.to_owned(),
            shape: head.shape,
            node: head.node,
            before: head.before,
            factor: head.factor,
        }),
        head if holds != stated => Err(TeacherError::OutputIsNot {
            output: output.to_owned(),
            found: holds,
            stated,
            before: head.and_then(|head| head.before),
        }),
        _ => Ok(()),
    }
}

/// Whether the nodes say that the output is not what the recipe says, and no `output_is` could say it.
fn is_refused(head: &Head, holds: OutputIs, stated: OutputIs) -> bool {
    match head.shape {
        Shape::Sigmoid | Shape::Sorted => true,
        // Plain probabilities have an `output_is` of their own, which the message for them names.
        Shape::Softmax => holds != OutputIs::Probabilities && stated != OutputIs::LogProbabilities,
        Shape::LogSoftmax => {
            holds != OutputIs::LogProbabilities && stated != OutputIs::Probabilities
        }
        Shape::Tanh | Shape::Cut | Shape::Cosine => false,
    }
}

/// Whether the nodes say that the output, whose largest |z| is `largest`, may be no logits. Cosines are doubtful where
/// their factor is small and bounds them.
fn is_doubtful(head: &Head, largest: f32) -> bool {
    let bound = 1.001 * head.factor.abs();
    head.shape != Shape::Cosine || head.factor.abs() < SCALED && f64::from(largest) <= bound
}

/// Whether every image is the first one: then the same answer to all of them is right.
fn all_alike(batch: &PixelBatch) -> bool {
    let values = batch.channels * batch.height * batch.width;
    let mut images = batch.pixels.chunks_exact(values.max(1));
    let first = images.next().unwrap_or_default();
    images.all(|image| image == first)
}
