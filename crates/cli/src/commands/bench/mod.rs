//! Measuring this program on this machine.

mod capture;
mod measures;
mod step;

use std::sync::atomic::AtomicBool;

use crate::args::Bench;
use logitcask_experiment::Outcome;

pub(crate) fn run(args: &Bench, stop: &AtomicBool) -> Outcome {
    match args {
        Bench::Capture(args) => capture::run(args, stop),
        Bench::Step(args) => step::run(args),
    }
}
