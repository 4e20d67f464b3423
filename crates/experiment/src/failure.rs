//! Why an experiment does not go on: what, where, and what to do next.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use logitcask_cache::CacheError;
use logitcask_dataset::DatasetError;
use logitcask_durable::ClaimError;
use logitcask_losses::LossError;
use logitcask_student::StudentError;
use logitcask_teacher::TeacherError;

/// What every function of this crate returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why the work stops, and what to do next.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    hint: Option<String>,
}

/// The kinds of failures. Some are wrong requests, others are work that failed: [`Failure::is_request`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// A recipe or a sweep that is none: TOML that does not parse, an unknown key, a number out of its range.
    #[error("recipe `{}`: {message}", path.display())]
    Recipe {
        /// The file of the recipe or the sweep.
        path: PathBuf,
        /// What is wrong, with its line where that is known.
        message: String,
    },
    /// What is asked for cannot be done by anybody: a section is absent, two settings contradict each other.
    #[error("{0}")]
    Request(Box<dyn Error + Send + Sync>),
    /// The work failed, or a check said no.
    #[error("{0}")]
    Work(Box<dyn Error + Send + Sync>),
    /// The file system said no.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, `look for`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        source: std::io::Error,
    },
    /// A cache of logits.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A dataset or its views.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A claim on a folder that others use.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A loss, its options or its batch.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// A student or its training.
    #[error(transparent)]
    Student(#[from] StudentError),
    /// A teacher, or the library that runs it.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
}

impl Kind {
    /// Whether it was asked wrongly, which no second try mends.
    pub fn is_request(&self) -> bool {
        match self {
            Kind::Recipe { .. } | Kind::Request(_) => true,
            Kind::Work(_) | Kind::Io { .. } | Kind::Claim(_) => false,
            Kind::Cache(error) => error.is_request(),
            Kind::Dataset(error) => error.is_request(),
            Kind::Loss(error) => error.is_request(),
            Kind::Student(error) => error.is_request(),
            Kind::Teacher(error) => error.is_request(),
        }
    }

    /// Each crate's error knows its remedy.
    fn hint(&self) -> Option<String> {
        match self {
            Kind::Recipe { .. } | Kind::Request(_) | Kind::Work(_) | Kind::Io { .. } => None,
            Kind::Cache(error) => error.hint(),
            Kind::Dataset(error) => error.hint(),
            Kind::Claim(error) => error.hint(),
            Kind::Loss(error) => error.hint(),
            Kind::Student(error) => error.hint(),
            Kind::Teacher(error) => error.hint(),
        }
    }
}

impl Failure {
    /// The work failed, or a check said no.
    pub fn work(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Kind::Work(error.into()).into()
    }

    /// The request itself cannot be obeyed.
    pub fn asked(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Kind::Request(error.into()).into()
    }

    /// The file system said no: for `map_err`.
    pub fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| {
            let path = path.to_path_buf();
            let io = Kind::Io {
                action,
                path,
                source,
            };
            io.into()
        }
    }

    /// The same with another word on what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it is about.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What to do next, if that can be said: commands are those of `logitcask`.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether it was asked wrongly, which no second try mends. Programs end with 2 then, and with 1 where work failed.
    pub fn is_request(&self) -> bool {
        self.kind.is_request()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

impl<E: Into<Kind>> From<E> for Failure {
    fn from(error: E) -> Self {
        let kind = error.into();
        let hint = kind.hint();
        Self { kind, hint }
    }
}

impl From<candle_core::Error> for Kind {
    fn from(error: candle_core::Error) -> Self {
        StudentError::from(error).into()
    }
}
