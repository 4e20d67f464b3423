//! How to train: where to read and write, on what, and when to stop.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use logitcask_cache::OpenOptions;

/// Where a training reads and writes, what it runs on, and when it stops.
pub struct Training<'a> {
    /// Where the recipe was read: runs are named after it.
    pub recipe: &'a Path,
    /// The folder below which caches are looked for.
    pub cache_dir: &'a Path,
    /// The run's folder; where absent one below `data/runs`, named after the recipe, its seed and its digest.
    pub out: Option<&'a Path>,
    /// Forget what an earlier run left in the folder.
    pub fresh: bool,
    /// Digest every image again instead of trusting names, lengths and times of the files.
    pub verify_data: bool,
    /// At least 8 digits of the id that the training split's cache must have.
    pub expect: Option<&'a str>,
    /// How caches are read.
    pub options: OpenOptions,
    /// `cpu`, `cuda` or `cuda:1`.
    pub device: &'a str,
    /// Whether CUDA may round the inputs of convolutions to TensorFloat-32.
    pub tf32: bool,
    /// Compute threads; all cores where absent.
    pub threads: Option<usize>,
    /// Set to stop after the next step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

impl<'a> Training<'a> {
    /// On this machine's processor, into a folder named after the recipe.
    pub fn new(recipe: &'a Path, cache_dir: &'a Path, stop: &'a AtomicBool) -> Training<'a> {
        Training {
            recipe,
            cache_dir,
            out: None,
            fresh: false,
            verify_data: false,
            expect: None,
            options: OpenOptions::default(),
            device: "cpu",
            tf32: false,
            threads: None,
            stop,
        }
    }
}
