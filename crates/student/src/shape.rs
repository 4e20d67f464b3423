//! What a student looks at and what it tells apart: enough to build it again.

use serde::{Deserialize, Serialize};

use crate::ImageShape;

/// What a checkpoint says about its student, so that the student can be built again without the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentShape {
    /// Its name in the zoo.
    pub name: String,
    /// What it looks at.
    pub image: ImageShape,
    /// What it tells apart.
    pub n_classes: usize,
}
