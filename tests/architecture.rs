//! The laws of the house that a machine can check, over `crates/*/src`. ARCHITECTURE.md says why they are laws.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. Imports point down.
const MAY_USE: &[(&str, &[&str])] = &[
    ("philox", &[]),
    ("durable", &[]),
    ("jpeg", &[]),
    ("suggest", &[]),
    ("dataset", &["philox", "durable", "jpeg", "suggest"]),
    ("cache", &["philox", "durable"]),
    ("losses", &["philox", "durable", "suggest"]),
    ("layers", &["philox", "durable"]),
    ("teacher", &["philox", "durable", "dataset", "cache"]),
    (
        "student",
        &[
            "philox", "durable", "suggest", "dataset", "cache", "losses", "layers",
        ],
    ),
    (
        "experiment",
        &[
            "philox", "durable", "suggest", "dataset", "cache", "losses", "layers", "teacher",
            "student",
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
    ("strsim", &["suggest"]),
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
    let mut n_enums = 0;
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
        n_enums += usize::from(body.contains("match self"));
    });
    assert_eq!(n_enums, 6, "five crates and the experiment's `Kind`");
}

/// A circle is one file in several pieces: none of them can be read, tested or moved by itself.
#[test]
fn no_file_imports_one_that_imports_it() {
    let mut n_edges = 0;
    for (name, _) in MAY_USE {
        let modules = Modules::of(name);
        let mut left = modules.imports();
        n_edges += left.values().map(BTreeSet::len).sum::<usize>();
        // Whoever imports nothing that is left is in no circle.
        loop {
            let free =
                |imports: &BTreeSet<&ModulePath>| imports.iter().all(|it| !left.contains_key(it));
            let free: Vec<&ModulePath> = left
                .iter()
                .filter(|(_, imports)| free(imports))
                .map(|(module, _)| *module)
                .collect();
            if free.is_empty() {
                break;
            }
            free.iter().for_each(|module| drop(left.remove(module)));
        }
        let shown: Vec<String> = left.keys().map(|path| path.join("/")).collect();
        assert!(
            left.is_empty(),
            "`{name}` has a circle through some of {shown:?}"
        );
    }
    assert!(n_edges > 500, "only {n_edges} imports were found");
}

/// `["report", "html"]`; the crate's root is empty.
type ModulePath = Vec<String>;

/// The files of a crate by module, and what each makes visible under another path.
struct Modules {
    code: BTreeMap<ModulePath, String>,
    reexports: BTreeMap<(ModulePath, String), ModulePath>,
}

impl Modules {
    fn of(name: &str) -> Self {
        let src = root().join("crates").join(name).join("src");
        let mut code = BTreeMap::new();
        for_each_file(|place, text| {
            let Ok(path) = place.path.strip_prefix(&src) else {
                return;
            };
            let module = path.with_extension("");
            let parts = module.iter().map(|part| part.to_str().unwrap().to_owned());
            let parts = parts.filter(|part| !["lib", "main", "mod"].contains(&part.as_str()));
            let lines: Vec<&str> = code_lines(text).map(|(_, line)| line).collect();
            code.insert(parts.collect(), lines.join("\n"));
        });
        let mut modules = Self {
            code,
            reexports: BTreeMap::new(),
        };
        let mut reexports = BTreeMap::new();
        for (module, text) in &modules.code {
            for (is_public, path) in uses(text) {
                if let Some(name) = path.last().filter(|_| is_public) {
                    let path = modules.absolute(module, &path);
                    reexports.insert((module.clone(), name.clone()), path);
                }
            }
        }
        modules.reexports = reexports;
        modules
    }

    /// A path of a `use` in `module`, from the crate's root; one into another crate leads nowhere in this.
    fn absolute(&self, module: &ModulePath, path: &[String]) -> ModulePath {
        let (mut base, mut rest) = (module.clone(), path);
        match path.first().map(String::as_str) {
            Some("crate") => (base, rest) = (Vec::new(), &path[1..]),
            Some("self") => rest = &path[1..],
            _ => {}
        }
        while rest.first().is_some_and(|part| part == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        base
    }

    /// The file that a path leads to, through whatever makes it visible.
    fn file_of(&self, path: &[String], depth: usize) -> ModulePath {
        let mut module = ModulePath::new();
        for (index, part) in path.iter().enumerate() {
            let inner = [module.clone(), vec![part.clone()]].concat();
            if self.code.contains_key(&inner) {
                module = inner;
            } else if let Some(elsewhere) = self.reexports.get(&(module.clone(), part.clone())) {
                let rest = [elsewhere.clone(), path[index + 1..].to_vec()].concat();
                return match depth < 8 {
                    true => self.file_of(&rest, depth + 1),
                    false => module,
                };
            } else {
                break;
            }
        }
        module
    }

    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let of = |module: &ModulePath, text: &str| {
            let paths = uses(text).into_iter().filter(|(is_public, _)| !is_public);
            let files = paths.map(|(_, path)| self.file_of(&self.absolute(module, &path), 0));
            let files = files.filter(|file| file != module && !file.is_empty());
            files
                .filter_map(|file| self.code.get_key_value(&file).map(|(key, _)| key))
                .collect()
        };
        let modules = self.code.iter().filter(|(module, _)| !module.is_empty());
        modules
            .map(|(module, text)| (module, of(module, text)))
            .collect()
    }
}

/// Every path that a file's `use` lines name, braces taken apart, and whether others see it there.
fn uses(text: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut public = false;
    for statement in text.split_inclusive(';') {
        let statement = statement.trim_end_matches(';');
        let start = statement.lines().position(|line| {
            let line = line.trim_start();
            public = line.starts_with("pub") && line.contains("use ");
            public || line.starts_with("use ")
        });
        let Some(start) = start else { continue };
        let lines: Vec<&str> = statement.lines().skip(start).collect();
        let joined = lines.join(" ");
        let (_, tree) = joined.split_once("use ").unwrap();
        for path in taken_apart(tree.trim()) {
            let path = path.split(" as ").next().unwrap_or_default();
            let parts = path.split("::").map(|part| part.trim().to_owned());
            found.push((public, parts.collect()));
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn taken_apart(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.trim_end_matches("::self").to_owned()];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut paths, mut depth, mut part) = (Vec::new(), 0, String::new());
    for letter in inner.chars().chain([',']) {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match letter == ',' && depth == 0 {
            true => {
                let part = std::mem::take(&mut part);
                let part = part.trim();
                if !part.is_empty() {
                    paths.extend(taken_apart(&format!("{}{part}", before.trim())));
                }
            }
            false => part.push(letter),
        }
    }
    paths
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

/// Whoever opens a file reads first what it is for.
#[test]
fn every_file_says_what_it_is_for() {
    for_each_file(|place, text| {
        let says = text
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
        assert!(
            says,
            "{}: begin with `//! ` and what it is for",
            place.path.display()
        );
    });
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
fn for_each_file(mut check: impl FnMut(&Place, &str)) {
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
