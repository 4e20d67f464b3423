//! Failures as a person meets them: what, where, and what to type next.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use crate::progress::harmless;

/// Why a command stops. Exit code 1: the work failed or a check said no. Exit code 2: it was asked wrongly.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
    asked_wrongly: bool,
}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The work failed, or a check said no.
    pub fn work(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            hint: None,
            asked_wrongly: false,
        }
    }

    /// The request itself cannot be obeyed.
    pub fn asked(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            asked_wrongly: true,
            ..Self::work(error)
        }
    }

    /// The file system said no: `cannot <action> <path>`.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |error| Self::work(format!("cannot {action} `{}`: {error}", path.display()))
    }

    /// Adds what to type next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, seen as a wrong request: a misspelt name in a recipe, say.
    pub fn as_asked(mut self) -> Self {
        self.asked_wrongly = true;
        self
    }

    /// What to type next, if that can be said.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// 1 or 2.
    pub fn code(&self) -> u8 {
        if self.asked_wrongly { 2 } else { 1 }
    }

    /// Prints it to stderr and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let red = crate::progress::style(console_red);
        eprintln!("{}: {}", red("error"), harmless(&self.to_string()));
        let mut source = self.error.source();
        while let Some(cause) = source {
            eprintln!("  because: {}", harmless(&cause.to_string()));
            source = cause.source();
        }
        if let Some(hint) = &self.hint {
            eprintln!("  hint: {}", harmless(hint));
        }
        ExitCode::from(self.code())
    }
}

fn console_red(text: &str) -> String {
    format!("\x1b[31;1m{text}\x1b[0m")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        logitcask_student::StudentError::from(error).into()
    }
}

/// Each crate's error already knows its remedy.
macro_rules! failure_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let hint = error.hint();
                Self { hint, ..Self::work(error) }
            }
        }
    )*};
}

failure_from!(
    logitcask_cache::CacheError,
    logitcask_dataset::DatasetError,
    logitcask_durable::ClaimError,
    logitcask_losses::LossError,
    logitcask_student::StudentError,
    logitcask_teacher::TeacherError,
);
