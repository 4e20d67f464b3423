//! One flipped bit in each file that a run or a cache leaves, through the real binary: the verb that reads the file names it
//! and stops, or what comes out is what came out before. A file of a new kind fails here until it has its row.
//!
//! Two flips in one file of each kind. With `LOGITCASK_FULL=1` one small file of each kind is flipped in every byte, and each
//! other file in 64.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bench::{Bench, ROOT, Run};
use logitcask_philox::{Purpose, Stream};

/// What reads a file of a kind.
enum Reader {
    /// Runs it with a copy of the scene in this state. What it leaves or prints is the outcome.
    Verb(fn(&Scene) -> (Run, Vec<u8>)),
    /// None of ours: why.
    Nobody(&'static str),
}
use Reader::{Nobody, Verb};

/// Every kind of file: where it lies in the scene (`*` within a name), and what reads it. The first row that fits counts.
const KINDS: &[(&str, Reader)] = &[
    ("data/train.parquet", Nobody(GIVEN)),
    ("data/test.parquet", Nobody(GIVEN)),
    ("data/teacher.onnx", Nobody(GIVEN)),
    ("recipe.toml", Nobody(GIVEN)),
    ("sweep.toml", Nobody(GIVEN)),
    ("cache/*/cache.json", Verb(student)),
    ("cache/*/view=*/view.json", Verb(student)),
    ("cache/*/view=*/part-*.arrow", Verb(student)),
    ("cache/*/view=*/part-*.arrow", Verb(verify)),
    ("archive/*/archive.json", Verb(unpack)),
    ("archive/*/view=*/view.json", Verb(unpack)),
    ("archive/*/view=*/parquet.json", Verb(unpack)),
    ("archive/*/view=*/part-*.parquet", Verb(unpack)),
    ("exported/cache.json", Nobody(EXPORTED)),
    ("exported/README.md", Nobody(EXPORTED)),
    ("exported/data/train-*.parquet", Nobody(EXPORTED)),
    // The fingerprint is looked for before the pixels; a damaged one is made anew from the images.
    ("data/.logitcask/fingerprint-*.json", Verb(student)),
    ("data/.logitcask/pixels-*.bin", Verb(student)),
    ("run/recipe.toml", Verb(evaluate)),
    ("run/recipe.toml", Verb(report)),
    ("run/metrics.jsonl", Verb(report)),
    ("run/metrics.jsonl", Verb(resume)),
    ("run/run.json", Verb(report)),
    ("run/times.json", Verb(resume)),
    ("run/last.safetensors", Verb(resume)),
    ("run/last.safetensors", Verb(evaluate)),
    ("run/best.safetensors", Verb(evaluate)),
    ("run/epoch-*.safetensors", Verb(init_from)),
    // Each record has checksums of its own, and is written again from `metrics.jsonl` where they do not hold.
    ("run/events.out.tfevents.logitcask", Verb(resume)),
    ("weights.safetensors", Verb(init_from)),
    (
        "student.onnx",
        Nobody(
            "as a teacher it has another digest then, and so another key: its rows mix with no others",
        ),
    ),
    ("diverged/stopped.txt", Verb(doctor)),
    ("diverged/*", Nobody(AS_RUN)),
    ("sweep.jsonl", Verb(sweep)),
    (
        "sweep/capture.toml",
        Nobody("written anew before each capture"),
    ),
    ("sweep/*/*", Nobody(AS_RUN)),
    ("report/*", Nobody("pages are for people")),
];
const GIVEN: &str = "given to the scene, not left by it";
const EXPORTED: &str = "an export is for other tools and never comes back";
const AS_RUN: &str = "a run's folder as `run`";

/// Everything that the verbs leave, in a bench's folder.
struct Scene {
    bench: Bench,
    recipe: String,
    train_cache: String,
}

impl Scene {
    fn new() -> Self {
        let bench = Bench::new("flips");
        let data = bench.folder.join("data");
        fs::create_dir(&data).unwrap();
        for name in ["train.parquet", "test.parquet", "teacher.onnx"] {
            fs::copy(
                Path::new(ROOT).join("data/digits").join(name),
                data.join(name),
            )
            .unwrap();
        }
        let at = data.to_str().unwrap().to_owned();
        let small = move |text: String| {
            text.replace("data/digits", &at)
                .replace("limit = 300", "limit = 64\nstore_pixels = true")
        };
        let recipe = bench.recipe(|text| {
            let short = "epochs = 2\nkeep_checkpoints = 1";
            let text = small(text).replace("epochs = 54", short);
            text.replace("count = 9", "count = 1")
        });
        let study = fs::read_to_string(Path::new(ROOT).join("pipelines/studies/quick.toml"));
        let study = small(study.unwrap())
            .replace("epochs = 36", "epochs = 1")
            // More than are there, so that it captures.
            .replace("count = 9", "count = 2")
            .replace("seed = [1, 2]", "seed = [1]");
        fs::write(bench.folder.join("sweep.toml"), study).unwrap();

        let captured = bench.run(&["teacher-logits", &recipe]).ok().stdout;
        let mut scene = Self {
            train_cache: captured.lines().last().unwrap().to_owned(),
            bench,
            recipe,
        };
        scene.fill();
        scene
    }

    fn fill(&mut self) {
        let (bench, recipe, cache) = (&self.bench, &*self.recipe, &*self.train_cache);
        let at = |name: &str| self.at(name);
        let archive = at("archive");
        let pack = ["cache", "transcode", cache, "--layout", "parquet"];
        bench
            .run_plain(&[&pack[..], &["--cache-dir", &archive]].concat())
            .ok();
        bench
            .run(&["cache", "export", cache, "--out", &at("exported")])
            .ok();
        let run = at("run");
        bench.run(&["student", recipe, "--out", &run]).ok();
        let (weights, onnx) = (at("weights.safetensors"), at("student.onnx"));
        bench
            .run_plain(&["export", &run, "--safetensors", &weights, "--onnx", &onnx])
            .ok();
        bench.run(&["report", &run, "--out", &at("report")]).ok();
        // Within the first epoch: a line of metrics that holds no numbers is one that `doctor` cannot read.
        let diverging = [
            "--set",
            "train.optimizer.lr=1e30",
            "--set",
            "data.limit=300",
        ];
        let diverged = at("diverged");
        let args = ["student", recipe, "--out", &diverged];
        let failed = bench.run(&[&args[..], &diverging].concat());
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        sweep(self).0.ok();
    }

    fn at(&self, name: &str) -> String {
        self.bench.folder.join(name).to_str().unwrap().to_owned()
    }

    /// A folder that is empty at first and of no interest to the test of what is left.
    fn scratch(&self) -> PathBuf {
        let scratch = self.bench.folder.join("scratch");
        if let Err(error) = fs::remove_dir_all(&scratch) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
        fs::create_dir(&scratch).unwrap();
        scratch
    }

    /// Every file by its path below the scene.
    fn files(&self) -> Vec<String> {
        let mut found: Vec<String> = contents(&self.bench.folder).into_keys().collect();
        found.retain(|name| !name.starts_with("scratch/"));
        found
    }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            found.insert(name.to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

/// What a run leaves that depends on the recipe alone.
fn results(run: &Path) -> Vec<u8> {
    let all = contents(run).into_iter();
    let ours = all.filter(|(name, _)| name.ends_with(".safetensors") || name == "metrics.jsonl");
    ours.flat_map(|(_, bytes)| bytes).collect()
}

fn train_in(scene: &Scene, out: &Path, more: &[&str]) -> (Run, Vec<u8>) {
    let args = ["student", &scene.recipe, "--out", out.to_str().unwrap()];
    let run = scene.bench.run(&[&args[..], more].concat());
    (run, results(out))
}

fn student(scene: &Scene) -> (Run, Vec<u8>) {
    train_in(scene, &scene.scratch(), &["--set", "train.epochs=1"])
}

fn init_from(scene: &Scene) -> (Run, Vec<u8>) {
    let whose = fs::read_to_string(scene.at("flipped")).unwrap();
    let from = format!("student.init_from=\"{whose}\"");
    let more = ["--set", "train.epochs=1", "--set", &from];
    train_in(scene, &scene.scratch(), &more)
}

/// A run that was killed before it said that it was finished.
fn resume(scene: &Scene) -> (Run, Vec<u8>) {
    let scratch = scene.scratch();
    for (name, bytes) in contents(Path::new(&scene.at("run"))) {
        if name != "run.json" {
            fs::write(scratch.join(name), bytes).unwrap();
        }
    }
    train_in(scene, &scratch, &[])
}

fn printed(run: Run) -> (Run, Vec<u8>) {
    let bytes = run.stdout.clone().into_bytes();
    (run, bytes)
}

fn verify(scene: &Scene) -> (Run, Vec<u8>) {
    let chunk = PathBuf::from(fs::read_to_string(scene.at("flipped")).unwrap());
    let cache = chunk.parent().unwrap().parent().unwrap();
    let verify = ["cache", "verify", cache.to_str().unwrap()];
    let run = scene.bench.run(&verify);
    // What is damaged is this verb's answer.
    let stderr = format!("{}{}", run.stdout, run.stderr);
    printed(Run { stderr, ..run })
}

fn unpack(scene: &Scene) -> (Run, Vec<u8>) {
    let scratch = scene.scratch();
    let archive = fs::read_dir(scene.at("archive")).unwrap().next().unwrap();
    let archive = archive.unwrap().path();
    let args = ["cache", "transcode", archive.to_str().unwrap()];
    let more = [
        "--layout",
        "arrow",
        "--cache-dir",
        scratch.to_str().unwrap(),
    ];
    let run = scene.bench.run_plain(&[&args[..], &more].concat());
    let files = contents(&scratch);
    (run, files.into_values().flatten().collect())
}

fn evaluate(scene: &Scene) -> (Run, Vec<u8>) {
    printed(scene.bench.run(&["evaluate", &scene.at("run")]))
}

fn report(scene: &Scene) -> (Run, Vec<u8>) {
    let scratch = scene.scratch();
    let out = scratch.to_str().unwrap();
    let run = scene.bench.run(&["report", &scene.at("run"), "--out", out]);
    let page = fs::read(scratch.join("report.md")).unwrap_or_default();
    (run, page)
}

fn doctor(scene: &Scene) -> (Run, Vec<u8>) {
    let run = scene.bench.run_plain(&["doctor", &scene.at("diverged")]);
    let stderr = format!("{}{}", run.stdout, run.stderr);
    printed(Run { stderr, ..run })
}

fn sweep(scene: &Scene) -> (Run, Vec<u8>) {
    let (file, out) = (scene.at("sweep.toml"), scene.at("sweep"));
    printed(scene.bench.run(&["sweep", &file, "--out", &out]))
}

/// Whether a path fits a pattern, name by name; a `*` stands for anything within a name.
fn fits(path: &str, pattern: &str) -> bool {
    let (path, pattern): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), pattern.split('/').collect());
    let name_fits = |(name, pattern): (&&str, &&str)| match pattern.split_once('*') {
        None => name == pattern,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    };
    path.len() == pattern.len() && path.iter().zip(&pattern).all(name_fits)
}

/// How many of a file's bytes are flipped, each by itself.
enum HowMany {
    Every,
    Some(u64),
}

impl HowMany {
    fn of(is_full: bool, is_first: bool, n_bytes: usize) -> Self {
        match is_full {
            true if is_first && n_bytes <= 2048 => Self::Every,
            true => Self::Some(64),
            false => Self::Some(2),
        }
    }
}

/// Which bytes, and which bit of each.
fn places(name: &str, n_bytes: usize, how_many: HowMany) -> Vec<(usize, u8)> {
    let digest = blake3::hash(name.as_bytes());
    let seed = u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap());
    let mut stream = Stream::new(seed, Purpose::VerifyRows, [0; 3]);
    let mut below = |n: usize| stream.below(n as u64) as usize;
    match how_many {
        HowMany::Every => (0..n_bytes).map(|at| (at, below(8) as u8)).collect(),
        HowMany::Some(n) => (0..n).map(|_| (below(n_bytes), below(8) as u8)).collect(),
    }
}

#[test]
fn a_flipped_bit_is_told_by_whoever_reads_it() {
    let is_full = std::env::var_os("LOGITCASK_FULL").is_some();
    let scene = Scene::new();
    let files = scene.files();
    for file in &files {
        let is_known = KINDS.iter().any(|(pattern, _)| fits(file, pattern));
        assert!(
            is_known,
            "`{file}` is of a kind that has no row in this test"
        );
    }
    let (mut n_refused, mut n_same) = (0, 0);
    for (pattern, reader) in KINDS {
        let mut of_kind = files.iter().filter(|file| fits(file, pattern)).peekable();
        assert!(of_kind.peek().is_some(), "nothing leaves a `{pattern}`");
        let read = match reader {
            Verb(read) => read,
            Nobody(why) => {
                assert!(!why.is_empty());
                continue;
            }
        };
        let before = (n_refused, n_same);
        let n_files = if is_full { usize::MAX } else { 1 };
        for (index, file) in of_kind.take(n_files).enumerate() {
            let path = scene.bench.folder.join(file);
            fs::write(scene.at("flipped"), path.to_str().unwrap()).unwrap();
            let bytes = fs::read(&path).unwrap();
            let (whole, expected) = read(&scene);
            let how_many = HowMany::of(is_full, index == 0, bytes.len());
            // What ails the diverged run is what `doctor` says.
            assert!(
                whole.code == 0 || *pattern == "diverged/stopped.txt",
                "{}",
                whole.stderr
            );
            for (at, bit) in places(file, bytes.len(), how_many) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, flipped).unwrap();
                let (run, outcome) = read(&scene);
                fs::write(&path, &bytes).unwrap();
                let place = format!("bit {bit} of byte {at} of `{file}`: {}", run.stderr);
                assert!(!run.stderr.contains("panicked") && run.code >= 0, "{place}");
                if run.code == whole.code && outcome == expected {
                    n_same += 1;
                    continue;
                }
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(run.code > 0 && run.stderr.contains(name), "{place}");
                n_refused += 1;
            }
            fs::remove_file(scene.at("flipped")).unwrap();
        }
        let (refused, same) = (n_refused - before.0, n_same - before.1);
        eprintln!("{pattern}: {refused} refused by name, {same} changed nothing");
    }
    eprintln!("{n_refused} flips were refused by name, {n_same} changed nothing");
    assert!(n_refused > n_same, "{n_refused} refused, {n_same} the same");
}
