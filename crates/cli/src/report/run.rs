//! A run as a report sees it.

use std::path::{Path, PathBuf};

use logitcask_experiment::{Entry, Failure, Finished, Outcome, RECIPE, Recipe, placeless};
use logitcask_student::{EpochRecord, RunRecord};

/// A run as a report sees it.
pub(crate) struct Run {
    /// What runs that differ in their seed alone share: the sweep's words, the recipe's losses, or a folder's name.
    pub(super) configuration: String,
    pub(super) seed: u64,
    pub(super) folder: PathBuf,
    pub(super) record: RunRecord,
    pub(super) epochs: Vec<EpochRecord>,
    pub(super) recipe: String,
}

impl Run {
    /// Reads a finished run.
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        let record = RunRecord::read(folder)?.ok_or_else(|| {
            Failure::work(format!("`{}` holds no finished run", folder.display()))
                .with_hint("give the folder of a run, as `student` printed it; an unfinished one continues by its own command")
        })?;
        let recorded = |key: &str| record.recorded.get(key).cloned().unwrap_or_default();
        Ok(Self {
            configuration: recorded("losses"),
            seed: recorded("seed").parse().unwrap_or_default(),
            epochs: EpochRecord::read_all(folder)?,
            recipe: recipe_of(folder)?,
            folder: folder.to_owned(),
            record,
        })
    }

    /// A finished run of a sweep.
    pub(crate) fn of_line(line: Finished) -> Self {
        Self {
            configuration: line.configuration,
            seed: line.seed,
            folder: line.run,
            record: line.record,
            epochs: line.epochs,
            recipe: line.recipe,
        }
    }

    pub(super) fn recorded(&self, key: &str) -> &str {
        self.record.recorded.get(key).map_or("", String::as_str)
    }

    /// The recipe without its seed and without places: equal for repetitions of one experiment.
    pub(super) fn experiment(&self) -> String {
        let mut recipe = placeless(&self.recipe)
            .parse::<toml::Table>()
            .unwrap_or_default();
        recipe.remove("seed");
        recipe.to_string()
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry {
            configuration: &self.configuration,
            seed: self.seed,
            record: &self.record,
        }
    }
}

/// A run's recipe; empty where a run has none.
fn recipe_of(folder: &Path) -> Outcome<String> {
    let path = folder.join(RECIPE);
    match logitcask_durable::exists(&path).map_err(Failure::io("read", &path))? {
        true => Recipe::text(&path),
        false => Ok(String::new()),
    }
}
