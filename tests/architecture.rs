//! The laws of the house that a machine can check, over `crates/*/src`. ARCHITECTURE.md says why they are laws.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. Imports point down.
const MAY_USE: &[(&str, &[&str])] = &[
    ("philox", &[]),
    ("durable", &[]),
    ("jpeg", &[]),
    ("dataset", &["philox", "durable", "jpeg"]),
    ("cache", &["philox", "durable"]),
    ("losses", &["philox", "durable"]),
    ("layers", &["philox", "durable"]),
    ("teacher", &["philox", "durable", "dataset", "cache"]),
    (
        "student",
        &["philox", "durable", "dataset", "cache", "losses", "layers"],
    ),
    (
        "experiment",
        &[
            "philox", "durable", "dataset", "cache", "losses", "layers", "teacher", "student",
        ],
    ),
    (
        "cli",
        &[
            "philox",
            "durable",
            "dataset",
            "cache",
            "losses",
            "layers",
            "teacher",
            "student",
            "experiment",
        ],
    ),
];

/// The one heavy thing that each crate keeps away from all others.
const KEPT_BY: &[(&str, &[&str])] = &[
    ("ort", &["teacher"]),
    (
        "candle-core",
        &["losses", "layers", "student", "experiment", "cli"],
    ),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("image", &["dataset"]),
    ("memmap2", &["cache", "dataset"]),
    ("arrow", &["cache", "dataset"]),
    ("parquet", &["cache", "dataset"]),
];

#[test]
fn imports_point_down() {
    for (name, allowed) in MAY_USE {
        for dependency in dependencies(name) {
            if let Some(ours) = dependency.strip_prefix("logitcask-") {
                assert!(allowed.contains(&ours), "`{name}` may not use `{ours}`");
            }
            if let Some((_, keepers)) = KEPT_BY.iter().find(|(heavy, _)| *heavy == dependency) {
                assert!(
                    keepers.contains(name),
                    "`{name}` may not use `{dependency}`: that is for {keepers:?}"
                );
            }
        }
    }
    let folders = fs::read_dir(root().join("crates")).unwrap();
    for folder in folders {
        let folder = folder.unwrap().file_name().into_string().unwrap();
        assert!(
            MAY_USE.iter().any(|(name, _)| *name == folder),
            "`{folder}` has no place in the house yet"
        );
    }
}

#[test]
fn philox_needs_nothing_and_durable_only_digests_and_the_system() {
    assert_eq!(dependencies("philox"), Vec::<String>::new());
    // The file server's time, and whether a process is there: std cannot ask for either.
    assert_eq!(dependencies("durable"), ["blake3", "rustix"]);
}

#[test]
fn only_cli_talks_reads_the_environment_or_exits() {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "eprint!(",
        "env::var",
        "env::args",
        "process::exit",
        "clap::",
    ];
    for_each_line(|place, line| {
        if place.name != "cli" {
            place.forbid(line, &words);
        }
    });
}

#[test]
fn losses_touch_no_file() {
    for_each_line(|place, line| {
        if place.name == "losses" {
            place.forbid(line, &["std::fs", "std::io", "File::"]);
        }
    });
}

#[test]
fn files_appear_through_durable() {
    let words = [
        "File::create",
        "fs::write(",
        "fs::OpenOptions",
        "fs::rename",
    ];
    for_each_line(|place, line| {
        if place.name != "durable" {
            place.forbid(line, &words);
        }
    });
}

#[test]
fn absent_means_not_found_and_no_other_error() {
    // A file's kind may be asked of what was found; of a path, `durable` answers, and can also fail.
    let asked_of = |line: &str, question: &str| {
        let receivers = ["found", "kind", "entry", "entry_type()"];
        let before = line.split(question).next().unwrap_or_default();
        line.contains(question) && !receivers.iter().any(|it| before.ends_with(it))
    };
    for_each_file(|place, text| {
        if place.path.ends_with("durable/src/look.rs") {
            return;
        }
        for (line_number, line) in code_lines(text) {
            let is_wrong = [".exists()", "try_exists"]
                .iter()
                .any(|word| line.contains(word))
                || [".is_dir()", ".is_file()", ".is_symlink()"]
                    .iter()
                    .any(|word| asked_of(line, word));
            let at = format!("{}:{line_number}: `{}`", place.path.display(), line.trim());
            assert!(
                !is_wrong,
                "{at}: ask `durable`, and let its error stop the work"
            );
        }
        let code: Vec<&str> = code_lines(text).map(|(_, line)| line).collect();
        let code = code.join("\n");
        for statement in code.split([';', '{', '}']) {
            let asks = [
                "fs::read",
                "fs::metadata",
                "fs::symlink_metadata",
                "File::open(",
                ".read_dir(",
            ];
            let drops = [
                ".ok()",
                "unwrap_or",
                "is_ok",
                "is_err",
                "map_or(",
                ".flatten()",
                "Result::ok",
            ];
            let has = |words: &[&str]| words.iter().any(|word| statement.contains(word));
            // What the kernel tells about a process is no file of ours.
            let is_wrong = has(&asks) && has(&drops) && !statement.contains("/proc");
            assert!(
                !is_wrong || place.path.ends_with("teacher/src/provenance.rs"),
                "{}: an error is taken for an answer in `{}`",
                place.path.display(),
                statement.trim()
            );
        }
    });
}

/// The exit code is 2 for what was asked wrongly and 1 for what failed. Whoever adds an error decides: with no arm for all others
/// the compiler asks.
#[test]
fn every_error_says_whether_it_was_asked_wrongly() {
    let n_enums = std::cell::Cell::new(0);
    for_each_file(|place, text| {
        let Some((_, rest)) = text.split_once("pub fn is_request(&self) -> bool {") else {
            return;
        };
        let (body, _) = rest.split_once("\n    }\n").unwrap();
        let falls_through = body.contains("_ =>") || body.contains("matches!");
        assert!(
            !falls_through,
            "{}: an arm for all other errors",
            place.path.display()
        );
        n_enums.set(n_enums.get() + usize::from(body.contains("match self")));
    });
    assert_eq!(n_enums.get(), 6, "five crates and the experiment's `Kind`");
}

#[test]
fn unsafe_is_rare_and_reasoned() {
    for_each_file(|place, text| {
        let uses_unsafe =
            code_lines(text).any(|(_, line)| line.contains("unsafe ") || line.contains("unsafe{"));
        if !uses_unsafe {
            return;
        }
        let allowed = place.name == "layers" || place.name == "cache" || place.name == "dataset";
        assert!(
            allowed,
            "{}: unsafe code has no place here",
            place.path.display()
        );
        assert!(
            text.contains("SAFETY") || text.contains("# Safety"),
            "{}: unsafe code without its reasoning",
            place.path.display()
        );
    });
}

#[test]
fn randomness_comes_from_philox() {
    for (name, _) in MAY_USE {
        for dependency in dependencies(name) {
            let is_rng = ["rand", "fastrand", "oorandom", "rand_distr", "rand_chacha"]
                .contains(&dependency.as_str());
            assert!(
                !is_rng,
                "`{name}` uses `{dependency}`: all randomness comes from philox"
            );
        }
    }
}

#[test]
fn no_file_is_named_after_nothing() {
    for_each_file(|place, _| {
        let stem = place
            .path
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let vague = [
            "util", "utils", "helper", "helpers", "common", "misc", "manager", "context",
        ];
        assert!(
            !vague.contains(&stem.as_str()),
            "{}: what is in it?",
            place.path.display()
        );
    });
}

struct Place {
    name: String,
    path: PathBuf,
    line_number: usize,
}

impl Place {
    fn forbid(&self, line: &str, words: &[&str]) {
        for word in words {
            assert!(
                !line.contains(word),
                "{}:{}: `{word}` has no place in `{}`",
                self.path.display(),
                self.line_number,
                self.name
            );
        }
    }
}

fn for_each_line(check: impl Fn(&Place, &str)) {
    for_each_file(|place, text| {
        for (line_number, line) in code_lines(text) {
            let place = Place {
                name: place.name.clone(),
                path: place.path.clone(),
                line_number,
            };
            check(&place, line);
        }
    });
}

/// Every source file of every crate.
fn for_each_file(check: impl Fn(&Place, &str)) {
    let mut n_files = 0;
    for (name, _) in MAY_USE {
        let mut folders = vec![root().join("crates").join(name).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == "tests.rs") {
                    // A module of tests, as they stand at other files' ends.
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    n_files += 1;
                    let text = fs::read_to_string(&path).unwrap();
                    let place = Place {
                        name: (*name).to_owned(),
                        path,
                        line_number: 0,
                    };
                    check(&place, &text);
                }
            }
        }
    }
    assert!(n_files > 20, "only {n_files} source files were found");
}

/// Lines that are neither comments nor part of the tests at a file's end, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// The names under `[dependencies]` of a crate, for all systems and for some.
fn dependencies(name: &str) -> Vec<String> {
    let path = root().join("crates").join(name).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap();
    let mut section = "";
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" || section.ends_with(".dependencies]") {
            names.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    names.retain(|name| !name.is_empty() && !name.starts_with('#'));
    names
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
