//! Recipes, and what is done with them: checked, captured and trained; the runs that a sweep stands for, and how runs compare.
//!
//! This crate stands between the stages and the people. It takes values and gives values; what happens on the way is told as
//! [`Event`]s to whoever watches, and what goes wrong is a [`Failure`]. It prints nothing, reads no environment and ends no
//! process.
//!
//! What a program has of its own, a network or a loss, a dataset format or an augmentation, goes into [`Own`], and recipes name
//! it beside ours: the crate's examples are one of each.
//!
//! Captures the embedded digits' teacher and trains a student of it:
//!
//! ```
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use logitcask_experiment::{Capture, Machine, Training, capture, read_checked, train};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir("../..")?;
//! # let scratch = tempfile::tempdir()?;
//! # let scratch = scratch.path();
//! let recipe_file = Path::new("pipelines/quick.toml");
//! let recipe = read_checked(recipe_file, &["train.epochs=4".to_owned()])?;
//! let (cache_dir, stop) = (scratch.join("cache"), AtomicBool::new(false));
//! let machine = Machine::cpu(2, &cache_dir);
//! let how = Capture { cache_dir: &cache_dir, machine: &machine, part: "1/1".parse()?, stop: &stop };
//! capture(recipe.clone(), &how, &|_| {})?;
//!
//! let folder = scratch.join("run");
//! let how = Training { out: Some(&folder), ..Training::new(recipe_file, &cache_dir, &stop) };
//! let run = train(recipe, &how, &|_| {})?;
//! let top1 = run.record.last.eval.map_or(0.0, |eval| eval.top1);
//! assert!(top1 > 0.5, "{top1} in {}", run.folder.display());
//! # Ok(())
//! # }
//! ```

mod board;
mod capture;
mod check;
mod claims;
mod device;
mod event;
mod experiment;
mod failure;
mod known;
mod machine;
mod open_cache;
mod open_split;
mod own;
mod problem;
mod ranges;
mod recipe;
mod run;
mod split;
mod statistics;
mod sweep;
mod teachers;
mod trained;
mod want;

pub use board::{Board, Cost, Entry, Row, reference};
pub use capture::{Capture, capture, check_has_teacher};
pub use check::{Finding, State, check, read_checked, read_checked_with};
pub use claims::claim;
pub use device::{describe_device, open_device};
pub use event::{Event, Watch};
pub use experiment::{Experiment, student_preprocess};
pub use failure::{Failure, Kind, Outcome};
pub use known::cache_named;
pub use machine::Machine;
pub use open_cache::{describe, is_near};
pub use own::Own;
pub use recipe::Recipe;
pub use run::{LAST_WORDS, RECIPE, Run, Training, objective, sections, symptoms, train};
pub use split::Split;
pub use statistics::{Interval, Summary};
pub use sweep::{Finished, Planned, Sweep, placeless, recipes_of_sweep};
pub use teachers::{Rows, Teachers, rows, without_dropout};
pub use trained::{Logits, Trained, eval_caches};
pub use want::{CacheWant, encoding_of, hex, teacher_seconds};

/// The tool and its version, as caches and runs record it.
pub const VERSION: &str = concat!("logitcask ", env!("CARGO_PKG_VERSION"));
