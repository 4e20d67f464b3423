//! The only crate that talks to people: arguments in, words on stderr, data on stdout, an exit code.
//!
//! `args` says what can be typed, and each file under `commands` is one verb. What a verb does is done by the libraries below,
//! `logitcask-experiment` first of all; they print nothing, but hand over events, and here these become words and bars.

#![expect(
    clippy::print_stderr,
    reason = "this is the crate that talks to people"
)]

/// A line of data on stdout. Where nobody reads on (`| head`), the process ends quietly; std's macro would panic.
macro_rules! println {
    () => { crate::progress::print_line(format_args!("")) };
    ($($line:tt)*) => { crate::progress::print_line(format_args!($($line)*)) };
}

mod args;
mod commands;
mod exit;
mod leaderboard;
mod machine;
mod progress;
mod report;
mod runtime;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

/// Runs the command line and gives its exit code.
pub fn main() -> ExitCode {
    // Clap answers `--help` with 0 and a wrong request with 2, as we do.
    let cli = args::Cli::parse();
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(&stop);
    if cli.stop_with_stdin {
        stop_with_stdin(&stop);
    }
    let outcome = match cli.command {
        args::Command::Check(args) => commands::check::run(&args),
        args::Command::TeacherLogits(args) => commands::teacher_logits::run(&args, &stop),
        args::Command::Student(args) => commands::student::run(&args, &stop),
        args::Command::Evaluate(args) => commands::evaluate::run(&args),
        args::Command::Probe(args) => commands::probe::run(&args),
        args::Command::Export(args) => commands::export::run(&args),
        args::Command::Sweep(args) => commands::sweep::run(&args, &stop),
        args::Command::Report(args) => commands::report::run(&args),
        args::Command::List(args) => commands::list::run(&args),
        args::Command::Cache(args) => commands::cache::run(&args),
        args::Command::Dataset(args) => commands::dataset::run(&args, &stop),
        args::Command::Bench(args) => commands::bench::run(&args, &stop),
        args::Command::Doctor(args) => commands::doctor::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::report(&failure),
    }
}

/// The first Ctrl-C asks for a stop at the next safe place, the second one ends the process.
fn stop_on_ctrl_c(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    // Without a handler Ctrl-C still ends the process, and what is on disk is whole: nothing to refuse here.
    let _ = ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        progress::say("stopping at the next safe place; press Ctrl-C again to stop at once");
    });
}

/// Whoever started this process holds the other end of its stdin: a kill closes that too, when nobody can say so any more.
fn stop_with_stdin(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        // However reading ends, there is nobody left to work for.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.store(true, Ordering::Relaxed);
    });
}
