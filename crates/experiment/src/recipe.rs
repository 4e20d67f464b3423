//! A recipe: one TOML file, one experiment. Each section is a struct of the crate that obeys it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use logitcask_dataset::{DataSpec, ViewsSpec};
use logitcask_losses::LossSpec;
use logitcask_student::{EnsembleSpec, StudentSpec, TrainSpec};
use logitcask_teacher::TeacherSpec;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::own::Own;
use crate::problem::Problem;
use crate::ranges;

/// The whole experiment. Device and provider are flags: they describe the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// All randomness comes from here.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What the teacher sees and the student trains on.
    pub data: DataSpec,
    /// How a sample is shown.
    #[serde(default)]
    pub views: ViewsSpec,
    /// Who taught. Empty for a plain baseline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teacher: Vec<TeacherSpec>,
    /// How several teachers answer as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<EnsembleSpec>,
    /// Who learns; a recipe that only captures leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentSpec>,
    /// What is minimised, a weighted sum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss: Vec<LossSpec>,
    /// How long and how fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainSpec>,
    /// What else its names may mean. No part of the file.
    #[serde(skip)]
    pub own: Own,
}

fn default_seed() -> u64 {
    1
}

impl Recipe {
    /// Reads a recipe and applies overrides of the form `train.epochs=2` or `loss.0.temperature=2`.
    ///
    /// # Errors
    /// If the file cannot be read, a key is unknown, or a value does not fit (`docs/ranges.md`); if it is the recipe of a run
    /// and is not as the run wrote it.
    pub fn load(path: &Path, overrides: &[String]) -> Outcome<Self> {
        let text = Self::text(path)?;
        Self::parse(&text, overrides).map_err(|problem| problem.in_file(path))
    }

    /// The same, where its names may mean something of a program's own too.
    ///
    /// # Errors
    /// As [`load`](Self::load); if one of `own` has a name that another has.
    pub fn load_with(path: &Path, overrides: &[String], own: Own) -> Outcome<Self> {
        own.check()?;
        Ok(Self {
            own,
            ..Self::load(path, overrides)?
        })
    }

    /// A recipe's text, without the digest that it has in a run's folder.
    ///
    /// # Errors
    /// If the file cannot be read, or is not as the run wrote it.
    pub fn text(path: &Path) -> Outcome<String> {
        let text = fs::read_to_string(path).map_err(|source| {
            let failure = Failure::asked(RecipeError::Read {
                path: path.into(),
                source,
            });
            failure.with_hint(
                "recipes live under `pipelines/`; the smallest one is `pipelines/quick.toml`",
            )
        })?;
        let unsealed = logitcask_durable::unseal_comment(&text).map_err(|seal| {
            let path = path.into();
            Failure::work(RecipeError::Damaged { path, seal }).with_hint(
                "a run wrote this recipe; if it was changed on purpose, remove its last line, the digest",
            )
        })?;
        Ok(unsealed.map(str::to_owned).unwrap_or(text))
    }

    /// The same from text.
    pub(crate) fn parse(text: &str, overrides: &[String]) -> Result<Self, Problem> {
        let mut merged: toml::Value = toml::from_str(text).map_err(Problem::toml)?;
        for assignment in overrides {
            apply(&mut merged, assignment)?;
        }
        ranges::check(&merged)?;
        // Parsing the text itself gives errors that point at a line.
        let recipe: Recipe = toml::from_str(text).map_err(Problem::toml)?;
        if overrides.is_empty() {
            return Ok(recipe);
        }
        merged.try_into().map_err(|error: toml::de::Error| {
            let mut problem = Problem::toml(error);
            problem.message = format!("with {}: {}", overrides.join(" "), problem.message);
            problem
        })
    }

    /// The same from a tree of values: what a sweep makes of its file.
    pub(crate) fn from_value(value: toml::Value) -> Result<Self, Problem> {
        ranges::check(&value)?;
        value.try_into().map_err(Problem::toml)
    }

    /// The recipe as it is obeyed, overrides merged in, for a run's folder: with its digest as the last line.
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub(crate) fn to_sealed_toml(&self) -> Outcome<String> {
        Ok(logitcask_durable::seal_comment(&self.to_toml()?))
    }

    /// The recipe as it is obeyed, overrides merged in.
    ///
    /// # Errors
    /// If it cannot be written as TOML, which would be a defect.
    pub fn to_toml(&self) -> Outcome<String> {
        toml::to_string(self).map_err(Failure::work)
    }
}

#[derive(Debug, thiserror::Error)]
enum RecipeError {
    #[error("cannot read the recipe `{}`", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("recipe `{}` is damaged or was changed: {seal}", path.display())]
    Damaged {
        path: PathBuf,
        seal: logitcask_durable::BrokenSeal,
    },
}

/// Sets one value in the tree: `a.b.0.c=value`. The value is read as TOML, or taken as a string where it is none.
fn apply(recipe: &mut toml::Value, assignment: &str) -> Result<(), Problem> {
    let wrong = |message: String| Problem {
        message,
        hint: Some(
            "overrides look like `--set train.epochs=2 --set loss.0.temperature=4`".to_owned(),
        ),
    };
    let (path, text) = assignment
        .split_once('=')
        .ok_or_else(|| wrong(format!("`{assignment}` is not an assignment")))?;
    let value = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let steps: Vec<&str> = path.trim().split('.').collect();
    set(recipe, &steps, value).map_err(|why| wrong(format!("`{path}`: {why}")))
}

/// Missing tables are created on the way; the sections themselves refuse what is created in vain.
pub(crate) fn set(
    place: &mut toml::Value,
    steps: &[&str],
    value: toml::Value,
) -> Result<(), String> {
    let Some((&step, rest)) = steps.split_first() else {
        *place = value;
        return Ok(());
    };
    let inner = match place {
        toml::Value::Table(table) => table
            .entry(step)
            .or_insert_with(|| toml::Value::Table(toml::Table::new())),
        toml::Value::Array(items) => {
            let n_items = items.len();
            step.parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index))
                .ok_or_else(|| {
                    format!("`{step}` is not one of the list's {n_items} positions, counted from 0")
                })?
        }
        _ => {
            return Err(format!(
                "there is a plain value where `{step}` should lead further"
            ));
        }
    };
    set(inner, rest, value)
}

/// Every plain value below `value` with its path, `loss.0.temperature`.
pub(crate) fn collect_leaves(
    value: &toml::Value,
    path: String,
    found: &mut BTreeMap<String, String>,
) {
    let below = |name: &str| match path.is_empty() {
        true => name.to_owned(),
        false => format!("{path}.{name}"),
    };
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                collect_leaves(value, below(name), found);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (index, value) in items.iter().enumerate() {
                collect_leaves(value, below(&index.to_string()), found);
            }
        }
        leaf => {
            found.insert(path, leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(assignments: &[&str], expected: &str) {
        let text = "seed = 1\n[train]\nepochs = 3\n[[loss]]\nname = \"kd\"\n";
        let mut recipe = toml::from_str::<toml::Value>(text).unwrap();
        let outcome = assignments.iter().try_for_each(|a| apply(&mut recipe, a));
        match outcome {
            Ok(()) => assert_eq!(toml::to_string(&recipe).unwrap().trim(), expected.trim()),
            Err(problem) => assert_eq!(problem.message, expected),
        }
    }

    #[test]
    fn overrides_reach_tables_lists_and_strings() {
        check(
            &[
                "train.epochs=2",
                "loss.0.name=mcld",
                "student.name=\"resnet8\"",
            ],
            "seed = 1\n\n[[loss]]\nname = \"mcld\"\n\n[student]\nname = \"resnet8\"\n\n[train]\nepochs = 2\n",
        );
    }

    #[test]
    fn overrides_that_lead_nowhere_say_where() {
        check(
            &["loss.1.name=kd"],
            "`loss.1.name`: `1` is not one of the list's 1 positions, counted from 0",
        );
        check(
            &["seed.x=1"],
            "`seed.x`: there is a plain value where `x` should lead further",
        );
        check(&["epochs"], "`epochs` is not an assignment");
    }
}
