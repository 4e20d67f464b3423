//! A sweep: a recipe, and lists of what to put into it. It is expanded into runs here, and remembers the finished ones.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use logitcask_student::{EpochRecord, RunRecord};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::board::Entry;
use crate::failure::{Failure, Outcome};
use crate::problem::Problem;
use crate::ranges::MOST_RUNS;
use crate::recipe::{Recipe, collect_leaves, set};

/// A sweep's file, expanded.
pub struct Sweep {
    /// The sweep's file, as it was named.
    pub path: PathBuf,
    /// The file's name without its ending.
    pub name: String,
    /// Where the finished runs are: beside the file.
    pub lines: PathBuf,
    /// Every combination, by configuration and then by seed.
    pub runs: Vec<Planned>,
}

/// One combination of what the sweep's lists name.
#[derive(Clone)]
pub struct Planned {
    /// What tells it from the others, seed aside: `mcld`, `kd, count=4`.
    pub configuration: String,
    /// What it trains, seed included.
    pub recipe: Recipe,
}

/// Every recipe that a sweep's file stands for.
///
/// # Errors
/// If the file is no sweep, a list is empty, or a combination is no recipe.
pub fn recipes_of_sweep(path: &Path) -> Outcome<Vec<Recipe>> {
    let runs = Sweep::load(path)?.runs;
    Ok(runs.into_iter().map(|run| run.recipe).collect())
}

/// A line of the `.jsonl` file: all that a leaderboard or a report wants to know of a finished run.
#[derive(Clone, Serialize, Deserialize)]
pub struct Finished {
    /// What the run was: the merged recipe, the images and the teacher's rows that it read.
    pub key: String,
    /// What tells it from the others, seed aside: [`Planned::configuration`].
    pub configuration: String,
    /// The seed of its recipe.
    pub seed: u64,
    /// Where its checkpoints were left.
    pub run: PathBuf,
    /// The merged recipe as TOML, seed included.
    pub recipe: String,
    /// What it came to.
    pub record: RunRecord,
    /// The records of its epochs, from the first on.
    pub epochs: Vec<EpochRecord>,
}

impl Sweep {
    /// Reads and expands a sweep.
    ///
    /// # Errors
    /// If the file is no sweep, a list is empty, or a combination is no recipe.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::asked(format!("cannot read the sweep `{}`: {error}", path.display()))
                .with_hint("sweeps live under `pipelines/studies/`; the smallest one is `pipelines/studies/quick.toml`")
        })?;
        let runs = expand(&text).map_err(|problem| problem.in_file(path))?;
        Ok(Self {
            path: path.to_owned(),
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            lines: path.with_extension("jsonl"),
            runs,
        })
    }

    /// Removes what a sweep that was killed while it wrote down a finished run has left beside the lines. The caller holds the
    /// sweep's claim.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn tidy(&self) -> Outcome {
        let folder = match self.lines.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let lines = self.lines.file_name();
        let is_ours = |name: &str| lines.is_some_and(|lines| lines == name);
        logitcask_durable::remove_leftovers(folder, is_ours)
            .map(drop)
            .map_err(Failure::io("clean", folder))
    }

    /// The configurations, in the order of the file's lists.
    pub fn configurations(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for run in &self.runs {
            if !found.contains(&run.configuration) {
                found.push(run.configuration.clone());
            }
        }
        found
    }

    /// The finished runs that are this sweep's: lines of an earlier state of the file are left aside, as are lines that
    /// a later one replaces.
    ///
    /// # Errors
    /// If the file cannot be read or a line is none of ours.
    pub fn finished(&self) -> Outcome<Vec<Finished>> {
        let mut by_recipe = BTreeMap::new();
        for line in Finished::read_all(&self.lines)? {
            by_recipe.insert(placeless(&line.recipe), line);
        }
        let mut found = Vec::new();
        for run in &self.runs {
            if let Some(line) = by_recipe.get(&placeless(&run.recipe.to_toml()?)) {
                let configuration = run.configuration.clone();
                found.push(Finished {
                    configuration,
                    ..line.clone()
                });
            }
        }
        Ok(found)
    }
}

impl Finished {
    /// As the leaderboard wants it.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            configuration: &self.configuration,
            seed: self.seed,
            record: &self.record,
        }
    }

    /// Every line of a file; none where there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is none of ours or not as it was written.
    pub fn read_all(path: &Path) -> Outcome<Vec<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| {
                Failure::work(format!("cannot read `{}`: {error}", path.display()))
            })?,
        };
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(index, line)| {
                Self::of_line(line).map_err(|problem| {
                    Failure::work(format!(
                        "line {} of `{}` is not a finished run: {problem}",
                        index + 1,
                        path.display()
                    ))
                    .with_hint("remove the line, and the sweep trains that run again")
                })
            })
            .collect()
    }

    /// Lines of earlier versions carry no digest.
    fn of_line(line: &str) -> Result<Self, String> {
        let unsealed = logitcask_durable::unseal_json(line).map_err(|seal| seal.to_string())?;
        let line = unsealed.as_deref().unwrap_or(line);
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    /// Adds this run to the file. It is rewritten beside and renamed, so that it is whole whenever the process dies; what
    /// other hands have added meanwhile stays.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn append(&self, path: &Path) -> Outcome {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        let line = serde_json::to_string(self).map_err(Failure::work)?;
        let line = logitcask_durable::seal_json(&line);
        let written = text.and_then(|text| {
            logitcask_durable::write_atomic(path, |file| {
                file.write_all(text.as_bytes())?;
                if !(text.is_empty() || text.ends_with('\n')) {
                    file.write_all(b"\n")?;
                }
                writeln!(file, "{line}")
            })
        });
        written
            .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))
    }
}

/// A merged recipe with the names of its dataset and teachers but not with their folders: images and teachers are known
/// by their digests, and a dataset that moved makes no new run.
pub fn placeless(recipe: &str) -> String {
    let Ok(mut value) = recipe.parse::<Table>() else {
        return recipe.to_owned();
    };
    if let Some(Value::Table(data)) = value.get_mut("data") {
        forget_folder(data, "root");
    }
    if let Some(Value::Array(teachers)) = value.get_mut("teacher") {
        for teacher in teachers.iter_mut().filter_map(Value::as_table_mut) {
            forget_folder(teacher, "onnx");
        }
    }
    value.to_string()
}

fn forget_folder(table: &mut Table, key: &str) {
    if let Some(Value::String(path)) = table.get_mut(key)
        && let Some(name) = Path::new(path.as_str()).file_name()
    {
        *path = name.to_string_lossy().into_owned();
    }
}

/// One list of a sweep.
struct Axis {
    path: String,
    values: Vec<Value>,
    labels: Vec<String>,
}

const SEED: &str = "seed";

fn expand(text: &str) -> Result<Vec<Planned>, Problem> {
    let wrong = |message: String| Problem {
        message,
        hint: Some(
            "a sweep is a recipe and a section such as `[sweep]` with `seed = [1, 2, 3]` and \
             `\"loss.0.name\" = [\"kd\", \"mcld\"]`"
                .to_owned(),
        ),
    };
    let mut base: Table = toml::from_str(text).map_err(Problem::toml)?;
    let Some(Value::Table(lists)) = base.remove("sweep") else {
        return Err(wrong("it has no `[sweep]` section".to_owned()));
    };
    let mut axes = Vec::new();
    for (path, list) in lists {
        match list {
            Value::Array(values) if !values.is_empty() => axes.push(Axis {
                labels: labels(&path, &values),
                path,
                values,
            }),
            _ => {
                return Err(wrong(format!(
                    "`sweep.{path}` is not a list with at least one element"
                )));
            }
        }
    }
    // Seeds vary fastest: they are the repetitions of a configuration.
    axes.sort_by_key(|axis| axis.path == SEED);
    let n_runs = axes
        .iter()
        .try_fold(1, |n: usize, axis| n.checked_mul(axis.values.len()))
        .filter(|n| *n <= MOST_RUNS)
        .ok_or_else(|| {
            let lengths: Vec<String> = axes
                .iter()
                .map(|axis| axis.values.len().to_string())
                .collect();
            wrong(format!(
                "its lists have {} combinations, expected at most {MOST_RUNS}",
                lengths.join(" x ")
            ))
        })?;
    let mut runs: Vec<Planned> = Vec::with_capacity(n_runs);
    for index in 0..n_runs {
        let mut value = Value::Table(base.clone());
        let mut rest = index;
        let mut parts = Vec::new();
        for axis in axes.iter().rev() {
            let at = rest % axis.values.len();
            rest /= axis.values.len();
            if axis.path != SEED {
                parts.insert(0, axis.labels[at].clone());
            }
            let steps: Vec<&str> = axis.path.split('.').collect();
            set(&mut value, &steps, axis.values[at].clone())
                .map_err(|why| wrong(format!("`sweep.\"{}\"`: {why}", axis.path)))?;
        }
        let configuration = parts.join(", ");
        let recipe = Recipe::from_value(value).map_err(|mut problem| {
            problem.message = format!("with {configuration}: {}", problem.message);
            problem
        })?;
        let seed = recipe.seed;
        let is_same = |run: &Planned| run.configuration == configuration && run.recipe.seed == seed;
        if !configuration.is_empty() && runs.iter().any(is_same) {
            return Err(wrong(format!(
                "`{configuration}` with seed {seed} is in its lists twice"
            )));
        }
        let losses = || recipe.loss.iter().map(|loss| loss.name.as_str());
        runs.push(Planned {
            configuration: match configuration.is_empty() {
                true => losses().collect::<Vec<_>>().join(" + "),
                false => configuration,
            },
            recipe,
        });
    }
    Ok(runs)
}

/// What to call each element of a list: a name, `key=value`, or whatever tells a table from the others.
fn labels(path: &str, values: &[Value]) -> Vec<String> {
    let key = path.rsplit('.').next().unwrap_or(path);
    let all: Vec<BTreeMap<String, String>> = values
        .iter()
        .map(|value| {
            let mut leaves = BTreeMap::new();
            collect_leaves(value, String::new(), &mut leaves);
            leaves
        })
        .collect();
    let names: Vec<String> = all.iter().map(names_of).collect();
    // The same augmentations everywhere say nothing; the name of a loss always does.
    let is_loss = path == "loss" || path.starts_with("loss.");
    let names = match is_loss || names.iter().any(|name| *name != names[0]) {
        true => names,
        false => vec![String::new(); values.len()],
    };
    values
        .iter()
        .enumerate()
        .map(|(index, value)| match value {
            Value::String(text) if key == "name" => text.clone(),
            Value::Table(_) => told_apart(index, &all, &names),
            Value::Array(items) if items.iter().any(Value::is_table) => {
                told_apart(index, &all, &names)
            }
            Value::String(text) => format!("{key}={text}"),
            plain => format!("{key}={plain}"),
        })
        .collect()
}

/// The names within an element, `ce + kd`; then, where others have the same ones, what else differs from those.
fn told_apart(index: usize, all: &[BTreeMap<String, String>], names: &[String]) -> String {
    let name = names[index].as_str();
    let alike: Vec<usize> = (0..all.len())
        .filter(|&other| names[other] == names[index])
        .collect();
    let differs = |path: &&String| {
        alike
            .iter()
            .any(|&other| all[other].get(*path) != all[index].get(*path))
    };
    let differing: Vec<&String> = all[index].keys().filter(differs).collect();
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let extra: Vec<String> = differing
        .iter()
        .map(|path| {
            let is_shared = differing
                .iter()
                .filter(|other| last(other) == last(path))
                .count()
                > 1;
            let key = if is_shared {
                (*path).clone()
            } else {
                last(path)
            };
            format!("{key}={}", all[index][*path].trim_matches('"'))
        })
        .collect();
    match (name.is_empty(), extra.is_empty()) {
        (false, true) => name.to_owned(),
        (false, false) => format!("{name} ({})", extra.join(" ")),
        (true, false) => extra.join(" "),
        // All that others have and this one has not.
        (true, true) => "default".to_owned(),
    }
}

fn names_of(leaves: &BTreeMap<String, String>) -> String {
    let names: Vec<&str> = leaves
        .iter()
        .filter(|(path, _)| path.as_str() == "name" || path.ends_with(".name"))
        .map(|(_, name)| name.trim_matches('"'))
        .collect();
    names.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[data]\nformat = \"synthetic\"\n[[loss]]\nname = \"ce\"\n[train]\nepochs = 1\nbatch_size = 8\n\
                        optimizer = { name = \"sgd\", lr = 0.1 }\n";

    fn check(sweep: &str, expected: &[(&str, u64)]) {
        let runs = expand(&format!("{BASE}[sweep]\n{sweep}")).unwrap();
        let found: Vec<(&str, u64)> = runs
            .iter()
            .map(|run| (run.configuration.as_str(), run.recipe.seed))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_combination_once_and_seeds_vary_fastest() {
        check(
            "seed = [4, 5]\n\"loss.0.name\" = [\"kd\", \"mcld\"]",
            &[("kd", 4), ("kd", 5), ("mcld", 4), ("mcld", 5)],
        );
        check("seed = [1, 2]", &[("ce", 1), ("ce", 2)]);
        check(
            "\"train.epochs\" = [1, 2]\n\"views.count\" = [1, \"all\"]",
            &[
                ("epochs=1, count=1", 1),
                ("epochs=1, count=all", 1),
                ("epochs=2, count=1", 1),
                ("epochs=2, count=all", 1),
            ],
        );
    }

    #[test]
    fn whole_losses_are_called_by_what_tells_them_apart() {
        check(
            "loss = [[{ name = \"ce\" }], [{ name = \"ce\", weight = 0.1 }, { name = \"kd\", temperature = 4 }], \
             [{ name = \"ce\", weight = 0.1 }, { name = \"kd\", temperature = 2 }]]",
            &[
                ("ce", 1),
                ("ce + kd (temperature=4)", 1),
                ("ce + kd (temperature=2)", 1),
            ],
        );
        check(
            "views = [{ count = 1 }, { count = 4, draw = \"uniform\" }]",
            &[("count=1", 1), ("count=4 draw=uniform", 1)],
        );
        check(
            "\"loss.0\" = [{ name = \"kd\" }, { name = \"kd\", weight = 2.0 }]",
            &[("kd", 1), ("kd (weight=2.0)", 1)],
        );
    }

    #[test]
    fn what_is_no_sweep_is_refused() {
        let message = |sweep: &str| match expand(&format!("{BASE}{sweep}")) {
            Ok(_) => "accepted".to_owned(),
            Err(problem) => problem.message,
        };
        assert_eq!(message(""), "it has no `[sweep]` section");
        assert_eq!(
            message("[sweep]\nseed = []"),
            "`sweep.seed` is not a list with at least one element"
        );
        assert!(message("[sweep]\n\"train.epoch\" = [1]").contains("unknown field `epoch`"));
        assert!(
            message("[sweep]\n\"loss.1.name\" = [\"kd\"]")
                .contains("not one of the list's 1 positions")
        );
    }

    #[test]
    fn a_moved_dataset_is_the_same_recipe() {
        let text = "[data]\nformat = \"parquet\"\nroot = \"here/digits\"\n[[teacher]]\nonnx = \"here/t.onnx\"\nencoding = \"f16\"\n";
        let moved = text.replace("here/", "/elsewhere/");
        assert_ne!(text, moved);
        assert_eq!(placeless(text), placeless(&moved));
        assert_ne!(placeless(text), placeless(&text.replace("f16", "f32")));
        // A sweep over teachers compares files of different names.
        assert_ne!(
            placeless(text),
            placeless(&text.replace("t.onnx", "u.onnx"))
        );
    }
}
