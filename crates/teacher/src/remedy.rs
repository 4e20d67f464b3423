//! What would have made a teacher better: found where its accuracy is measured, told by the error that refuses it.

use crate::figures::percent;

/// A setting that a teacher is better with.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// As it is written in a recipe.
    pub setting: String,
    /// With it, of `n_samples`.
    pub accuracy: f64,
    /// As the recipe is, of the same samples.
    pub stated: f64,
    /// How many were asked.
    pub n_samples: usize,
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the best that was found is {}: {} of {} images are right with it",
            self.setting,
            percent(self.accuracy),
            self.n_samples
        )
    }
}
