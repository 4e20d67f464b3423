//! What can go wrong between a cache and a trained student, and what to do next.

use std::path::PathBuf;

/// Everything that can go wrong between a cache and a trained student.
#[derive(Debug, thiserror::Error)]
pub enum StudentError {
    /// No student of that name.
    #[error("no student is named `{name}`")]
    UnknownStudent {
        /// The name in the recipe.
        name: String,
        /// The nearest name there is.
        nearest: Option<&'static str>,
    },
    /// The student cannot take these images.
    #[error("student `{name}` cannot take images of {height}x{width}: {why}")]
    ImageSize {
        /// The student's name in the recipe.
        name: String,
        /// Rows of pixels in the images.
        height: usize,
        /// Columns of pixels in the images.
        width: usize,
        /// What is in the way.
        why: String,
    },
    /// A setting that cannot be obeyed.
    #[error("`{setting}` {problem}")]
    Setting {
        /// The recipe's key, such as `train.epochs`.
        setting: &'static str,
        /// What is wrong with the value, found and expected.
        problem: String,
    },
    /// Fewer samples than one batch needs.
    #[error(
        "{n_samples} samples are selected for training, but `train.batch_size` is {batch_size}"
    )]
    TooFewSamples {
        /// Samples that are left for training.
        n_samples: usize,
        /// The recipe's `train.batch_size`.
        batch_size: usize,
    },
    /// Class counts that differ between two of dataset, cache and student.
    #[error("{left_name} has {left} classes, {right_name} has {right}")]
    Classes {
        /// Who has `left` classes.
        left_name: String,
        /// Classes of the first of the two.
        left: usize,
        /// Who has `right` classes.
        right_name: String,
        /// Classes of the second.
        right: usize,
    },
    /// The cache was made from other labels.
    #[error("sample {sample} has label {dataset} in the dataset, but {cache} in the cache")]
    Label {
        /// Index of the sample in the split, from 0.
        sample: u32,
        /// Label in the dataset.
        dataset: u32,
        /// Label in the cache.
        cache: u32,
    },
    /// The loss left the numbers.
    #[error(
        "{what} is {value} at epoch {epoch}, step {step}{}",
        in_parentheses(what, terms)
    )]
    NonFinite {
        /// The epoch in which it happened, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// The loss, or a logit.
        what: &'static str,
        /// What was met: NaN or an infinity.
        value: f64,
        /// Every term of the loss with its value; where it did not come to a loss, those of the step before.
        terms: String,
    },
    /// The checkpoint does not fit.
    #[error("checkpoint `{}` {problem}", path.display())]
    Checkpoint {
        /// The file that was read as a checkpoint.
        path: PathBuf,
        /// What is wrong, found and expected.
        problem: String,
    },
    /// A file that a run left is not as it was written.
    #[error("`{}` {problem}", path.display())]
    Damaged {
        /// The file: a record, or weights.
        path: PathBuf,
        /// What is wrong, as the end of a sentence.
        problem: String,
    },
    /// No calibration temperature can be had.
    #[error("no temperature can be fitted: {0}")]
    Calibration(
        /// Why none is best: no image was held out, or the loss still falls at an end of the range.
        &'static str,
    ),
    /// A student does something that cannot be exported.
    #[error(
        "student `{student}` cannot be exported: {what} is not written down by its forward pass"
    )]
    Untraced {
        /// The student's name.
        student: String,
        /// What no step of the traced pass has seen or made: `its pixels`, `its logits`, a parameter.
        what: String,
    },
    /// The loader gave fewer batches than it was asked for.
    #[error("the loader ended before the epoch did")]
    LoaderEnded,
    /// The file system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The file or folder that it was tried on.
        path: PathBuf,
        /// The file system's answer.
        source: std::io::Error,
    },
    /// The run's folder is another process's.
    #[error(transparent)]
    Claim(#[from] logitcask_durable::ClaimError),
    /// A sample, a split or a view cannot be had.
    #[error(transparent)]
    Dataset(#[from] logitcask_dataset::DatasetError),
    /// The teacher's rows cannot be had from their cache.
    #[error(transparent)]
    Cache(#[from] logitcask_cache::CacheError),
    /// A `[[loss]]` is wrong, or cannot be computed from a batch.
    #[error(transparent)]
    Loss(#[from] logitcask_losses::LossError),
    /// A layer cannot be built or computed, or weights do not fit.
    #[error(transparent)]
    Layers(#[from] logitcask_layers::Error),
    /// `init_from` names no file of weights.
    #[error("`{path}` is not a safetensors file")]
    WeightsFile {
        /// The file that `init_from` names.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: candle_core::Error,
    },
    /// `init_from` names the weights of another network.
    #[error("the weights in `{path}` are not this student's")]
    Weights {
        /// The file that `init_from` names, which was read.
        path: PathBuf,
        /// Which tensors are absent, too many, or of another shape.
        #[source]
        source: logitcask_layers::Error,
    },
    /// From the tensor library.
    #[error("the tensor library reports: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl StudentError {
    /// Whether it was asked wrongly, by a name or a setting, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Self::UnknownStudent { .. }
            | Self::ImageSize { .. }
            | Self::Setting { .. }
            | Self::TooFewSamples { .. } => true,
            Self::Dataset(error) => error.is_request(),
            Self::Cache(error) => error.is_request(),
            Self::Loss(error) => error.is_request(),
            Self::Classes { .. }
            | Self::Label { .. }
            | Self::NonFinite { .. }
            | Self::Checkpoint { .. }
            | Self::Damaged { .. }
            | Self::Calibration(_)
            | Self::Untraced { .. }
            | Self::LoaderEnded
            | Self::Io { .. }
            | Self::Claim(_)
            | Self::Layers(_)
            | Self::WeightsFile { .. }
            | Self::Weights { .. }
            | Self::Tensor(_) => false,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            StudentError::UnknownStudent { nearest, .. } => Some(match nearest {
                Some(nearest) => format!("did you mean `{nearest}`? `logitcask list students` shows all"),
                None => "`logitcask list students` shows all; a network that a program brings is known to that program alone".to_owned(),
            }),
            StudentError::Claim(claim) => claim.hint(),
            StudentError::TooFewSamples { n_samples: 0 | 1, .. } => {
                Some("select more: raise `data.limit`, or lower `train.held_out`".to_owned())
            }
            StudentError::TooFewSamples { n_samples, .. } => Some(format!(
                "set `train.batch_size` to {n_samples} or less, or raise `data.limit`"
            )),
            StudentError::Label { .. } => Some(
                "the cache belongs to another labelling of these images; run `logitcask teacher-logits RECIPE` again with a fresh \
                 cache folder"
                    .to_owned(),
            ),
            StudentError::NonFinite { epoch: 1, step: 1, .. } => Some(
                "nothing was learned yet, so the pixels or the teacher's rows are out of bounds: check `student.mean` and \
                 `student.std`, and look at `logitcask dataset show RECIPE --npy pixels.npy`"
                    .to_owned(),
            ),
            StudentError::NonFinite { .. } => Some(
                "lower `train.optimizer.lr`, add `warmup_epochs` to the schedule, or look at the term that left the \
                 numbers first"
                    .to_owned(),
            ),
            StudentError::Checkpoint { .. } => {
                Some("pass `--fresh` to start this run again from the first epoch".to_owned())
            }
            StudentError::Damaged { .. } => Some(
                "restore the file from a copy; or train the run again, by `logitcask student` with `--fresh`".to_owned(),
            ),
            StudentError::WeightsFile { .. } => Some(
                "convert a PyTorch file with `safetensors.torch.save_file(torch.load(\"x.pth\")[\"model\"], \
                 \"x.safetensors\")`"
                    .to_owned(),
            ),
            StudentError::Calibration(_) => Some(
                "train with `train.held_out = 500`, say: so many training images are then kept for this".to_owned(),
            ),
            StudentError::Dataset(error) => error.hint(),
            StudentError::Cache(error) => error.hint(),
            StudentError::Loss(error) => error.hint(),
            StudentError::Layers(error) => error.hint(),
            _ => None,
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| StudentError::Io {
            action,
            path,
            source,
        }
    }
}

fn in_parentheses(what: &str, terms: &str) -> String {
    match (terms, what) {
        ("", _) => String::new(),
        (terms, "the loss") => format!(" ({terms})"),
        (terms, _) => format!(" (the step before: {terms})"),
    }
}
