//! A split of a dataset, and the views of it that are wanted.

use std::sync::Arc;

use logitcask_dataset::{
    AugmentRow, Dataset, Fingerprint, ImageSize, Preprocess, Role, ViewFamily, ViewsSpec,
    input_size,
};

use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;

/// The seed of the views where the recipe gives none. It is not the recipe's own seed: ten students of ten seeds are to
/// share one cache.
const VIEWS_SEED: u64 = 1;

/// A split, what identifies it, and the views of it that are wanted.
#[derive(Clone)]
pub struct Split {
    /// Whether it is trained on or evaluated on.
    pub role: Role,
    /// The samples, opened as the recipe says.
    pub dataset: Arc<Dataset>,
    /// Digests of images and labels.
    pub fingerprint: Fingerprint,
    /// How a sample is shown.
    pub family: Arc<ViewFamily>,
    /// In how many views.
    pub n_views: u32,
    /// How many of them are captured at a time.
    pub views_per_pass: u32,
    /// Whether these are the views of `[views.strong]`.
    pub is_strong: bool,
    /// What the recipe calls them: `views.augment`, `views.clean`, `views.strong.augment`.
    pub(crate) views: &'static str,
}

impl Split {
    pub(crate) fn in_clean_view(&self, recipe: &Recipe) -> Outcome<Self> {
        let size = self.fingerprint.uniform_size();
        let family = ViewFamily::clean_of(&recipe.views, size, recipe.own.augmentations)?;
        Ok(Self {
            family: Arc::new(family),
            n_views: 1,
            views: "views.clean",
            ..self.clone()
        })
    }

    pub(crate) fn in_strong_views(&self, views: &ViewsSpec, own: &[AugmentRow]) -> Outcome<Self> {
        let only_outside = [
            ("strong", views.strong.is_some()),
            ("inconsistent", views.inconsistent),
            ("views_per_step", views.views_per_step != 1),
            ("views_per_pass", views.views_per_pass != 1),
        ];
        if let Some((key, _)) = only_outside.iter().find(|(_, given)| *given) {
            return Err(Failure::asked(format!(
                "`views.strong.{key}` is given, but `{key}` belongs into `[views]` alone"
            )));
        }
        let (family, n_views) = family(views, self.fingerprint.uniform_size(), own)?;
        Ok(Self {
            family: Arc::new(family),
            n_views,
            is_strong: true,
            views: "views.strong.augment",
            ..self.clone()
        })
    }

    /// `train split, 16 views` and the like.
    pub fn what(&self) -> String {
        match (self.role, self.n_views) {
            (Role::Train, n) if self.is_strong => format!("train split, {n} strong views"),
            (Role::Train, 1) => "train split, 1 view".to_owned(),
            (Role::Train, n) => format!("train split, {n} views"),
            (Role::Eval, _) => "evaluation split, clean view".to_owned(),
        }
    }

    /// The size of every view as a model sees it, after its preprocessing.
    ///
    /// # Errors
    /// If the views of different images have different sizes.
    pub fn input_size(&self, preprocess: &Preprocess) -> Outcome<ImageSize> {
        let (dataset, fingerprint) = (&self.dataset, &self.fingerprint);
        let views = self.views;
        Ok(input_size(
            dataset,
            fingerprint,
            &self.family,
            preprocess,
            views,
        )?)
    }
}

/// The family of `[views]` or `[views.strong]`, and how many of its views are wanted.
pub(crate) fn family(
    views: &ViewsSpec,
    size: Option<ImageSize>,
    own: &[AugmentRow],
) -> Outcome<(ViewFamily, u32)> {
    let seed = views.seed.unwrap_or(VIEWS_SEED);
    let family = ViewFamily::new_with(&views.augment, seed, size, own)?;
    let n_views = family.resolve_count(&views.count)?;
    Ok((family, n_views))
}
