//! What can be typed.

use std::fmt;
use std::num::ParseFloatError;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use logitcask_student::Checkpoint;

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
    /// Stop at the next safe place when stdin ends: how a sweep's runs notice that it is gone
    #[arg(long, hide = true, global = true)]
    pub(crate) stop_with_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what is wrong with a recipe, line by line, before anything is paid
    Check(Check),
    /// Run a recipe's teachers over its views, into a cache
    TeacherLogits(TeacherLogits),
    /// Train a recipe's student from the cache
    Student(Student),
    /// Say what a trained student is worth, class by class
    Evaluate(Evaluate),
    /// Train a linear layer on a student's frozen features, for another dataset
    Probe(Probe),
    /// Write a trained student as ONNX or safetensors
    Export(Export),
    /// Train every combination of a recipe's lists, from one cache
    Sweep(Sweep),
    /// Write a page about finished runs
    Report(Report),
    /// Show what recipes can name
    List(List),
    /// Look at caches, check them, make caches from caches
    #[command(subcommand)]
    Cache(Cache),
    /// Look at datasets
    #[command(subcommand)]
    Dataset(Dataset),
    /// Measure this program on this machine
    #[command(subcommand)]
    Bench(Bench),
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
    after_help = "Ends with 2 where the recipe is wrong, with 1 where it cannot be obeyed now: a file is not there, the disk is \
                  full.\n\nExample:\n  logitcask check pipelines/quick.toml"
)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    #[command(flatten)]
    pub(crate) machine: TeacherMachine,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask teacher-logits pipelines/quick.toml --set views.count=4"
)]
pub(crate) struct TeacherLogits {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    #[command(flatten)]
    pub(crate) machine: TeacherMachine,
    /// Only this part of the chunks, `2/8` say; whoever completes a view makes it exist
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub(crate) part: String,
}

/// What a teacher runs on: flags, because they describe the machine and not the experiment.
#[derive(Debug, Args)]
pub(crate) struct TeacherMachine {
    /// What runs the teacher: `cpu`, `cuda` or `tensorrt`
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) provider: String,
    /// Teacher sessions, each on one thread, and as many threads that decode; all cores where absent
    #[arg(long, value_name = "N", value_parser = whole(1..=THREADS))]
    pub(crate) threads: Option<usize>,
    /// Which GPUs, one session each (repeatable); the first where absent
    #[arg(long = "gpu", value_name = "INDEX", value_parser = value_parser!(u32).range(0..1024))]
    pub(crate) gpus: Vec<u32>,
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
    /// Digest every image again instead of trusting names, lengths and times of the files
    #[arg(long)]
    pub(crate) verify_data: bool,
    /// Refuse any cache of the training split but the one with this id
    #[arg(long, value_name = "CACHE_ID")]
    pub(crate) expect: Option<String>,
    /// How caches are read: `map` for local disks, `read` for network file systems
    #[arg(long, value_name = "HOW", default_value = "map")]
    pub(crate) io: ReadBy,
    /// Where the student computes: `cpu`, or `cuda` (`cuda:1` for the second GPU) in a build for CUDA
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Let CUDA round the inputs of convolutions to TensorFloat-32: faster, three decimal digits
    #[arg(long)]
    pub(crate) tf32: bool,
    /// Compute threads; all cores where absent
    #[arg(long, value_name = "N", value_parser = whole(1..=THREADS))]
    pub(crate) threads: Option<usize>,
    /// Write what the first steps see, and what comes of it, for another framework to repeat
    #[arg(long, value_name = "DIR", requires = "fresh")]
    pub(crate) dump_batches: Option<PathBuf>,
    /// How many steps `--dump-batches` writes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        requires = "dump_batches",
        value_parser = whole(1..=1_000_000)
    )]
    pub(crate) dump_steps: usize,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Finished runs are lines of a `.jsonl` file beside the sweep; the same command does what is missing.\n\n\
                  Example:\n  logitcask sweep pipelines/studies/quick.toml --jobs 2\n  logitcask report pipelines/studies/quick.toml"
)]
pub(crate) struct Sweep {
    /// A recipe with a `[sweep]` section: `seed = [1, 2, 3]`, `"loss.0.name" = ["kd", "mcld"]`
    pub(crate) sweep: PathBuf,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// Where the runs' folders go; `data/runs/<the sweep's name>` where absent
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Runs side by side on each device, which share its threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole(1..=1024))]
    pub(crate) jobs: usize,
    /// Where students compute: a queue for each (repeatable)
    #[arg(long = "device", value_name = "NAME", default_value = "cpu")]
    pub(crate) devices: Vec<String>,
    /// Compute threads of all runs together; all cores where absent
    #[arg(long, value_name = "N", value_parser = whole(1..=THREADS))]
    pub(crate) threads: Option<usize>,
    /// What runs the teacher, where something is to be captured
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) provider: String,
    /// Run nothing: show what is finished and what is not
    #[arg(long)]
    pub(crate) show: bool,
    /// The configuration that the others are compared with, by its name in the leaderboard; the first where absent
    #[arg(long, value_name = "NAME")]
    pub(crate) reference: Option<String>,
    /// The leaderboard as one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// How chunk files are read.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum ReadBy {
    /// Mapped into memory.
    Map,
    /// By position, row by row.
    Read,
}

impl ReadBy {
    pub(crate) fn options(self) -> logitcask_cache::OpenOptions {
        let io = match self {
            ReadBy::Map => logitcask_cache::Io::Map,
            ReadBy::Read => logitcask_cache::Io::Read,
        };
        logitcask_cache::OpenOptions { io }
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Which {
    /// After the last epoch
    Last,
    /// After the epoch with the best evaluation
    Best,
}

impl Which {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Which::Last => Checkpoint::LAST,
            Which::Best => Checkpoint::BEST,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask evaluate data/runs/demo/kd\n\nOn other images of the same classes:\n  logitcask evaluate data/runs/demo/kd --dataset data/datasets/photos --format image_folder --split val"
)]
pub(crate) struct Evaluate {
    /// The run's folder
    pub(crate) run: PathBuf,
    /// Which of its checkpoints; both where absent
    #[arg(long, value_name = "WHICH")]
    pub(crate) checkpoint: Option<Which>,
    /// Another dataset than the recipe's
    #[arg(long, value_name = "DIR")]
    pub(crate) dataset: Option<PathBuf>,
    /// The format of that dataset, where it is not the recipe's: `logitcask list datasets`
    #[arg(long, value_name = "NAME", requires = "dataset")]
    pub(crate) format: Option<String>,
    /// Another split than the recipe's `data.eval`
    #[arg(long, value_name = "NAME")]
    pub(crate) split: Option<String>,
    /// Change a value of the run's recipe: `data.root=elsewhere` (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// One JSON object per checkpoint on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask probe data/runs/demo/kd --dataset pipelines/probe/digits.toml"
)]
pub(crate) struct Probe {
    /// The run's folder
    pub(crate) run: PathBuf,
    /// A recipe of `[data]`, `[views]` and `[train]`: what the linear layer learns, and how
    #[arg(long, value_name = "FILE")]
    pub(crate) dataset: PathBuf,
    /// Which of the run's checkpoints
    #[arg(long, value_name = "WHICH", default_value = "last")]
    pub(crate) checkpoint: Which,
    /// Change a value of the probe's recipe (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// As one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logitcask export data/runs/demo/kd --onnx kd.onnx --check")]
#[command(group(clap::ArgGroup::new("target").required(true).multiple(true).args(["onnx", "safetensors"])))]
pub(crate) struct Export {
    /// The run's folder
    pub(crate) run: PathBuf,
    /// Write an ONNX file
    #[arg(long, value_name = "FILE")]
    pub(crate) onnx: Option<PathBuf>,
    /// Write the weights under PyTorch's names
    #[arg(long, value_name = "FILE")]
    pub(crate) safetensors: Option<PathBuf>,
    /// Which of the run's checkpoints
    #[arg(long, value_name = "WHICH", default_value = "last")]
    pub(crate) checkpoint: Which,
    /// Leave batch norms as nodes of their own
    #[arg(long)]
    pub(crate) keep_batch_norm: bool,
    /// Take bytes 0..255 and normalise them inside
    #[arg(long)]
    pub(crate) with_normalisation: bool,
    /// Divide the logits by a temperature fitted on held-out training images
    #[arg(long)]
    pub(crate) calibrated: bool,
    /// Run the file through ONNX Runtime on the evaluation split and compare
    #[arg(long)]
    pub(crate) check: bool,
    /// Change a value of the run's recipe: `data.root=elsewhere` (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  logitcask report data/runs/demo/kd data/runs/demo/mcld --out data/runs/demo\n  logitcask report pipelines/studies/quick.toml"
)]
pub(crate) struct Report {
    /// Folders of finished runs, folders that hold such folders, or one sweep: its `.toml` or `.jsonl` file
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Where the page goes; beside the runs' folders where absent
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where caches are: the teacher's rows that students are compared with
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// The configuration that the others are compared with, by its name in the leaderboard; the first where absent
    #[arg(long, value_name = "NAME")]
    pub(crate) reference: Option<String>,
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
    /// List caches: teacher, dataset, views, encoding, size
    Ls(CacheLs),
    /// Everything about one cache
    Show(CacheShow),
    /// What a recipe's caches would take, in every encoding, and how long its teachers
    Plan(CachePlan),
    /// Check every digest and row; or ask the teacher again about some rows
    Verify(CacheVerify),
    /// Hold two caches of the same images against each other: top-1 flips, divergences, worst samples
    Diff(CacheDiff),
    /// How good a teacher is, from its cache alone
    Stats(CacheStats),
    /// Write a cache in another encoding, or as a Parquet archive
    Transcode(CacheTranscode),
    /// Unite partial captures of one key
    Merge(CacheMerge),
    /// Write a cache as a folder in the style of Hugging Face datasets, with a card
    Export(CacheExport),
    /// Remove caches by age or size; a dry run unless told otherwise
    Gc(CacheGc),
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
pub(crate) struct CacheShow {
    /// A folder, or the beginning or end of a name that `cache ls` shows
    pub(crate) cache: String,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CachePlan {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    #[command(flatten)]
    pub(crate) machine: TeacherMachine,
    /// Images that the teacher is tried on, to estimate its time; 0 leaves it alone
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole(0..=1_000_000))]
    pub(crate) images: usize,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask cache verify --recipe pipelines/quick.toml --recompute 500"
)]
pub(crate) struct CacheVerify {
    /// Caches: folders, or names that `cache ls` shows
    pub(crate) caches: Vec<String>,
    /// Verify the caches of this recipe
    #[arg(long)]
    pub(crate) recipe: Option<PathBuf>,
    /// Change a value of the recipe (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Ask the teacher again about so many random rows of each cache of the recipe
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=SAMPLES))]
    pub(crate) recompute: usize,
    /// What runs the teacher
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) provider: String,
    /// What the computation may be off by, as a share of the largest logit, beside the encoding's rounding; 1e-4, or 5e-3
    /// where the teacher computes in f16 or bf16
    #[arg(long, value_name = "SHARE", value_parser = number::<f32>(0.0..=1.0))]
    pub(crate) tolerance: Option<f32>,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CacheDiff {
    /// The reference
    pub(crate) first: String,
    /// What is held against it
    pub(crate) second: String,
    /// How many of the worst samples to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole(0..=SAMPLES))]
    pub(crate) worst: usize,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CacheStats {
    /// A folder, or a name that `cache ls` shows
    pub(crate) cache: String,
    /// How many contradicted labels to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole(0..=SAMPLES))]
    pub(crate) top: usize,
    /// Write a list of the samples whose labels the teacher contradicts, for a recipe's `data.exclude`
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_list: Option<PathBuf>,
    /// Write a weight for each sample, the teacher's mean probability of its label, for `data.sample_weights`
    #[arg(long, value_name = "FILE")]
    pub(crate) weight_list: Option<PathBuf>,
    /// How sure the teacher must be of a sample on the list of contradicted labels
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.9, value_parser = number::<f32>(0.0..=1.0))]
    pub(crate) confidence: f32,
    /// Also write `samples.parquet` (one row a sample) and `stats.svg` into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask cache transcode resnet56 --encoding u8\n\nFor keeping:\n  logitcask cache transcode resnet56 --layout parquet"
)]
pub(crate) struct CacheTranscode {
    /// A folder, or a name that `cache ls` shows
    pub(crate) cache: String,
    /// `logitcask list encodings`
    #[arg(long, value_name = "NAME", required_unless_present = "layout")]
    pub(crate) encoding: Option<String>,
    /// `parquet` packs the cache into an archive; `arrow` brings it back from one
    #[arg(long, value_name = "NAME", conflicts_with = "encoding")]
    pub(crate) layout: Option<ChunkFiles>,
    /// Keep half precision in the archive; f32, which every reader knows, otherwise
    #[arg(long, requires = "layout")]
    pub(crate) keep_f16: bool,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CacheMerge {
    /// Captures with one key, whole or partial
    #[arg(required = true)]
    pub(crate) sources: Vec<String>,
    /// Where the united cache goes
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
}

/// What the rows of a cache are kept in.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum ChunkFiles {
    /// Arrow files, mapped when they are read.
    Arrow,
    /// Parquet files, compressed.
    Parquet,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logitcask cache export resnet56 --out data/export/resnet56")]
pub(crate) struct CacheExport {
    /// A folder, or a name that `cache ls` shows
    pub(crate) cache: String,
    /// The folder to be made
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CacheGc {
    /// Caches to which nothing was written for so many days
    #[arg(long, value_name = "DAYS", value_parser = number(0.0..=1e6))]
    pub(crate) older_than_days: Option<f64>,
    /// The oldest, until the others fit into so many gigabytes
    #[arg(long, value_name = "GB", value_parser = number(0.0..=1e9))]
    pub(crate) max_gb: Option<f64>,
    /// Really remove them
    #[arg(long)]
    pub(crate) yes: bool,
    /// Where caches are
    #[arg(long, value_name = "DIR", default_value = "data/cache")]
    pub(crate) cache_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dataset {
    /// List the datasets whose official address is known
    Ls,
    /// What a recipe's dataset holds, and what a model would see of it
    Show(DatasetShow),
    /// Digest every image again, and say whether they are those of the last time
    Verify(DatasetVerify),
    /// Fetch a published dataset, check it and unpack it
    Get(DatasetGet),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 1 where images or labels have changed; caches of the images as they were are not found any more.\n\nExample:\n  logitcask dataset verify pipelines/quick.toml"
)]
pub(crate) struct DatasetVerify {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask dataset show pipelines/quick.toml --index 0 --index 1 --png sheet.png"
)]
pub(crate) struct DatasetShow {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// The evaluation split instead of the training split
    #[arg(long)]
    pub(crate) eval: bool,
    /// Which samples to draw (repeatable)
    #[arg(long, value_name = "SAMPLE", default_values_t = [0])]
    pub(crate) index: Vec<u32>,
    /// Which views of each
    #[arg(long, value_name = "A..B", default_value = "0..8")]
    pub(crate) views: String,
    /// Draw them on a contact sheet
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Write the very tensor that the teacher sees, as a NumPy array
    #[arg(long, value_name = "FILE")]
    pub(crate) npy: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask dataset get cifar10\n\nWithout a network:\n  logitcask dataset get cifar10 --from cifar-10-binary.tar.gz"
)]
pub(crate) struct DatasetGet {
    /// `logitcask dataset ls` shows them
    pub(crate) name: String,
    /// A mirror or a file that is here, instead of the official address; for a dataset of several files the address or
    /// the folder above them
    #[arg(long, value_name = "URL|FILE")]
    pub(crate) from: Option<String>,
    /// Where it goes; `data/datasets/<name>` where absent
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// The MD5 or SHA-256 that the file must have instead of the published one, for a mirror that packed it anew (once
    /// per file)
    #[arg(long, value_name = "HEX")]
    pub(crate) checksum: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// A whole capture (decode, views, files) beside the same sessions on ready tensors, in turns
    Capture(BenchCapture),
    /// Seconds per training step of a student, on random data
    Step(BenchStep),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Files go into a scratch folder below `--cache-dir` and are removed again.\n\nExample:\n  logitcask bench capture pipelines/quick.toml --json"
)]
pub(crate) struct BenchCapture {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    #[command(flatten)]
    pub(crate) machine: TeacherMachine,
    /// How often each is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole(1..=1000))]
    pub(crate) rounds: usize,
    /// About how long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = number(0.01..=86_400.0))]
    pub(crate) seconds: f64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask bench step --student resnet8x4 --loss ce --loss kd --threads 1 --json"
)]
pub(crate) struct BenchStep {
    /// `logitcask list students`
    #[arg(long, value_name = "NAME", default_value = "resnet8x4")]
    pub(crate) student: String,
    /// Images per step
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = whole(2..=65_536))]
    pub(crate) batch_size: usize,
    /// Classes; those of the published student where absent
    #[arg(long, value_name = "C", value_parser = whole(1..=1_000_000))]
    pub(crate) classes: Option<usize>,
    /// Height and width of the images; those of the published student where absent
    #[arg(long, value_name = "PIXELS", value_parser = whole(1..=16_384))]
    pub(crate) image_size: Option<usize>,
    /// `logitcask list losses`, or an entry as a recipe has it: `{ name = "kd", temperature = 2 }` (repeatable: the sum)
    #[arg(long = "loss", value_name = "LOSS", default_value = "ce")]
    pub(crate) losses: Vec<String>,
    /// Compute threads; all cores where absent
    #[arg(long, value_name = "N", value_parser = whole(1..=THREADS))]
    pub(crate) threads: Option<usize>,
    /// Where the student computes: `cpu`, or `cuda` in a build for CUDA
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// Let CUDA round the inputs of convolutions to TensorFloat-32
    #[arg(long)]
    pub(crate) tf32: bool,
    /// The most that kernels may use; the best that this processor has where absent
    #[arg(long, value_name = "SET")]
    pub(crate) instructions: Option<InstructionSet>,
    /// Steps that are measured
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole(1..=1_000_000))]
    pub(crate) steps: usize,
    /// Steps before them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole(0..=1_000_000))]
    pub(crate) warmup: usize,
    /// Begin each measured step when a line arrives on stdin, and answer it with one: to take turns with other programs
    #[arg(long)]
    pub(crate) paced: bool,
    /// As one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// The most threads and GPU sessions that are started for anybody.
const THREADS: u64 = 4096;
/// Samples are numbered in 32 bits.
const SAMPLES: u64 = u32::MAX as u64;

/// A whole number within a range, which the refusal names.
fn whole(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// A number within a range, likewise; neither infinity nor what is no number lies in one.
fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr<Err = ParseFloatError> + PartialOrd + fmt::Display + Clone,
{
    move |text| match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(number) => Err(format!(
            "{number} is not in {}..={}",
            range.start(),
            range.end()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Sets of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum InstructionSet {
    Avx512,
    Avx2,
    Portable,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  logitcask doctor pipelines/quick.toml\n\nWhy a run does not learn:\n  logitcask doctor data/runs/demo/kd"
)]
pub(crate) struct Doctor {
    /// Also check a recipe (its files, its cache), or say what ails a run
    #[arg(value_name = "RECIPE|RUN")]
    pub(crate) patient: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// A million threads were started, and a count of 2^64 - 1 made room for.
    #[test]
    fn each_number_of_the_command_line_has_a_range() {
        let n_flags = check(&Cli::command(), &["logitcask".to_owned()]);
        assert!(n_flags > 25, "{n_flags}");
    }

    /// Clap panics where a flag is parsed as another type than its field has, and only once it is used.
    #[test]
    fn each_number_is_parsed_as_what_it_is() {
        for words in [
            "student x --threads 2 --fresh --dump-batches y --dump-steps 3",
            "sweep x --jobs 2 --threads 2",
            "teacher-logits x --threads 2 --gpu 1",
            "cache plan x --images 0",
            "cache verify x --recompute 1 --tolerance 0.5",
            "cache diff x y --worst 3",
            "cache stats x --top 3 --confidence 0.5",
            "cache gc --older-than-days 1.5 --max-gb 0.5",
            "dataset show x --index 3",
            "bench capture x --rounds 1 --seconds 0.5",
            "bench step --batch-size 2 --classes 3 --image-size 8 --threads 1 --steps 1 --warmup 0",
        ] {
            let words = words.split(' ');
            let typed = std::iter::once("logitcask").chain(words);
            if let Err(error) = Cli::try_parse_from(typed) {
                panic!("{error}");
            }
        }
    }

    fn check(command: &clap::Command, words: &[String]) -> usize {
        let numbers = [
            TypeId::of::<usize>(),
            TypeId::of::<u32>(),
            TypeId::of::<f32>(),
            TypeId::of::<f64>(),
        ];
        let mut n_flags = 0;
        for argument in command.get_arguments() {
            let parsed = argument.get_value_parser().type_id();
            let is_number = numbers.iter().any(|number| parsed == *number);
            let Some(flag) = argument.get_long().filter(|_| is_number) else {
                continue;
            };
            n_flags += 1;
            for absurd in ["-1", "nan", "4294967552", "9223372036854775807"] {
                let typed = format!("--{flag}={absurd}");
                let error = Cli::try_parse_from(words.iter().chain([&typed])).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::ValueValidation,
                    "{words:?} {typed}"
                );
                assert!(error.to_string().contains(flag), "{error}");
            }
        }
        let below = command.get_subcommands().map(|command| {
            let words: Vec<String> = words
                .iter()
                .cloned()
                .chain([command.get_name().to_owned()])
                .collect();
            check(command, &words)
        });
        n_flags + below.sum::<usize>()
    }
}
