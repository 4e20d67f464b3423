//! What a program brings of its own: names that a recipe may say beside those of the registries.

use std::collections::HashSet;

use logitcask_dataset::{AugmentRow, FormatRow, augmentations, formats};
use logitcask_losses::{MethodRow, methods};
use logitcask_student::{ModelRow, models};

use crate::failure::{Failure, Outcome};

/// Rows of a program's own. A recipe that is [read](crate::read_checked) with them names them as it names ours, and all that
/// is done with it knows them: check, capture, training, evaluation. The command line knows ours alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// Formats that `data.format` may name.
    pub formats: &'static [FormatRow],
    /// For `views.augment`, `views.clean` and `views.strong.augment`.
    pub augmentations: &'static [AugmentRow],
    /// Students that `student.name` may name.
    pub students: &'static [ModelRow],
    /// For `name` in `[[loss]]`.
    pub losses: &'static [MethodRow],
}

impl Own {
    /// Nothing but what the registries name.
    pub const NONE: Own = Own {
        formats: &[],
        augmentations: &[],
        students: &[],
        losses: &[],
    };

    /// Refuses a name that stands for two things: caches and runs say names, and whoever reads them later takes ours.
    pub(crate) fn check(&self) -> Outcome {
        let formats = formats().iter().chain(self.formats).map(|row| row.name);
        let augmentations = augmentations().iter().chain(self.augmentations);
        let students = models().chain(self.students).map(|row| row.name);
        let losses = methods().iter().chain(self.losses).map(|row| row.name);
        once("dataset format", formats)?;
        once("augmentation", augmentations.map(|row| row.name))?;
        once("student", students)?;
        once("loss", losses)
    }
}

fn once(what: &str, mut names: impl Iterator<Item = &'static str>) -> Outcome {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => Err(Failure::asked(format!(
            "there are two of the {what} `{name}`: a program's own needs a name that no other has"
        ))),
    }
}
