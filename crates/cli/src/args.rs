//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Distil image classifiers from cached teacher logits.
///
/// Stage one runs the teacher once and writes its logits into a cache; stage two trains as many students from that cache
/// as you like.
#[derive(Debug, Parser)]
#[command(
    name = "logitcask",
    version,
    after_help = "Example:\n  logitcask teacher-logits pipelines/quick.toml\n  logitcask student pipelines/quick.toml"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a recipe's teachers over its views, into a cache
    TeacherLogits(TeacherLogits),
    /// Train a recipe's student from the cache
    Student(Student),
    /// Write a page about finished runs
    Report(Report),
    /// Show what recipes can name
    List(List),
    /// Look at caches
    #[command(subcommand)]
    Cache(Cache),
    /// Say what works on this machine, what does not, and what to type
    Doctor(Doctor),
}

/// A recipe and what to change in it.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The experiment, a TOML file
    pub(crate) recipe: PathBuf,
    /// Change a value of the recipe: `train.epochs=2`, `loss.0.temperature=2` (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// One JSON object per line on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask teacher-logits pipelines/quick.toml --set views.count=4"
)]
pub(crate) struct TeacherLogits {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// What runs the teacher
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) provider: String,
    /// Teacher sessions, each on one thread; all cores where absent
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logitcask student pipelines/quick.toml --set seed=2")]
pub(crate) struct Student {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// The run's folder; below `data/runs` where absent, named after the recipe
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Forget what an earlier, interrupted or finished run left in the folder
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Refuse any cache of the training split but the one with this id
    #[arg(long, value_name = "CACHE_ID")]
    pub(crate) expect: Option<String>,
    /// Where the student computes
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Compute threads; all cores where absent
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask report data/runs/demo/kd data/runs/demo/mcld --out data/runs/demo"
)]
pub(crate) struct Report {
    /// Folders of finished runs, or a folder that holds such folders
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Where the page goes; the first run's parent folder where absent
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logitcask list losses")]
pub(crate) struct List {
    /// What to list; everything where absent
    pub(crate) what: Option<Listed>,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Listed {
    Losses,
    Students,
    Datasets,
    Augmentations,
    Encodings,
    Providers,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List caches: size, teacher, views, encoding
    Ls(CacheLs),
}

#[derive(Debug, Args)]
pub(crate) struct CacheLs {
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also check a recipe: its files, its cache
    pub(crate) recipe: Option<PathBuf>,
}
