//! One run of a sweep: what it is, where it goes, and what it came to.

use std::path::{Path, PathBuf};

use logitcask_experiment::{Failure, Finished, Outcome, Planned, Recipe};
use logitcask_student::{EpochRecord, RunRecord};

/// A run to be trained.
pub(super) struct Task {
    pub(super) key: String,
    pub(super) folder: PathBuf,
    pub(super) planned: Planned,
}

impl Task {
    pub(super) fn title(&self) -> String {
        format!(
            "{}, seed {}",
            self.planned.configuration, self.planned.recipe.seed
        )
    }

    pub(super) fn epochs(&self) -> u64 {
        self.planned
            .recipe
            .train
            .as_ref()
            .map_or(0, |train| train.epochs as u64)
    }

    /// The line for the file, once the run's folder says that it is finished.
    pub(super) fn finished(&self) -> Outcome<Finished> {
        let record = RunRecord::read(&self.folder)?.ok_or_else(|| {
            Failure::work(format!("`{}` holds no finished run", self.folder.display()))
        })?;
        Ok(Finished {
            key: self.key.clone(),
            configuration: self.planned.configuration.clone(),
            seed: self.planned.recipe.seed,
            run: self.folder.clone(),
            recipe: self.planned.recipe.to_toml()?,
            epochs: EpochRecord::read_all(&self.folder)?,
            record,
        })
    }
}

/// Writes a recipe for a process that is to obey it.
pub(super) fn write_recipe(path: &Path, recipe: &Recipe) -> Outcome {
    let text = recipe.to_toml()?;
    logitcask_durable::write_atomic(path, |file| {
        std::io::Write::write_all(file, text.as_bytes())
    })
    .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))
}
