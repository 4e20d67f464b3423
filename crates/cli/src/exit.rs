//! Failures as a person meets them: what, where, and what to type next.

use std::error::Error;
use std::process::ExitCode;

use crate::progress::{harmless, style};
use logitcask_experiment::Failure;

/// Prints a failure to stderr. Exit code 1: the work failed or a check said no. Exit code 2: it was asked wrongly.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    let red = style(|text| format!("\x1b[31;1m{text}\x1b[0m"));
    eprintln!("{}: {}", red("error"), harmless(&failure.to_string()));
    let mut source = failure.source();
    while let Some(cause) = source {
        eprintln!("  because: {}", harmless(&cause.to_string()));
        source = cause.source();
    }
    if let Some(hint) = failure.hint() {
        eprintln!("  hint: {}", harmless(hint));
    }
    ExitCode::from(if failure.is_request() { 2 } else { 1 })
}
