//! Looking at caches, checking them, and making caches from caches.

mod compare;
mod picture;
mod plan;
mod print;
mod rework;
mod show;
mod verify;

use logitcask_experiment::Outcome;

use crate::args::Cache;

pub(crate) fn run(args: &Cache) -> Outcome {
    match args {
        Cache::Ls(args) => show::ls(args),
        Cache::Show(args) => show::show(args),
        Cache::Plan(args) => plan::plan(args),
        Cache::Verify(args) => verify::verify(args),
        Cache::Diff(args) => compare::diff(args),
        Cache::Stats(args) => compare::stats(args),
        Cache::Transcode(args) => rework::transcode(args),
        Cache::Merge(args) => rework::merge(args),
        Cache::Export(args) => rework::export(args),
        Cache::Gc(args) => rework::gc(args),
    }
}
