//! A bench for end-to-end tests: a folder of its own, the digits' recipe, and the real binary.
#![allow(dead_code, reason = "each test file uses its part of the bench")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's root, from where recipes name their files.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// What a command left.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts that it succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }
}

/// A folder for one test.
pub(crate) struct Bench {
    pub(crate) folder: PathBuf,
    _kept: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(test: &str) -> Self {
        let kept = tempfile::Builder::new()
            .prefix(&format!("logitcask-{test}-"))
            .tempdir()
            .unwrap();
        Self {
            folder: kept.path().to_owned(),
            _kept: kept,
        }
    }

    /// The digits' KD recipe, changed by `edit`; returns its path.
    pub(crate) fn recipe(&self, edit: impl FnOnce(String) -> String) -> String {
        let text =
            fs::read_to_string(Path::new(ROOT).join("pipelines/digits/resnet-resnet8/kd.toml"))
                .unwrap();
        let edited = edit(text);
        let path = self.folder.join("recipe.toml");
        fs::write(&path, edited).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Runs a verb that knows `--cache-dir`, on the test's own caches.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        let cache_dir = self.cache_dir();
        let mut args = args.to_vec();
        args.extend(["--cache-dir", cache_dir.to_str().unwrap()]);
        self.run_plain(&args)
    }

    pub(crate) fn run_plain(&self, args: &[&str]) -> Run {
        let output = self.command(args).output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logitcask"));
        command.args(args).current_dir(ROOT).env("NO_COLOR", "1");
        command
    }

    /// No cache is there that a later command would read.
    pub(crate) fn assert_no_cache(&self) {
        let listed = self.run(&["cache", "ls", "--json"]).ok();
        assert_eq!(listed.stdout, "", "a cache was left behind");
    }
}
