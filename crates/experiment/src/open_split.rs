//! Opening a split of a recipe: its images are read and digested, and whoever watches is told what is left out.

use std::sync::Arc;

use logitcask_dataset::{Dataset, Fingerprint, Role, Trust, ViewFamily};

use crate::event::{self, Watch, with_progress};
use crate::failure::{Failure, Outcome};
use crate::recipe::Recipe;
use crate::split::{Split, family};

impl Split {
    /// A recipe's evaluation split, alone.
    ///
    /// # Errors
    /// If the recipe names none, or it cannot be read.
    pub fn open_eval(recipe: &Recipe, watch: &Watch<'_>) -> Outcome<Self> {
        match recipe.data.eval {
            Some(_) => Self::open(recipe, Role::Eval, Trust::ModificationTimes, watch),
            None => Err(Failure::asked("the recipe names no evaluation split")
                .with_hint("name one, `--set data.eval=test` say")),
        }
    }

    /// A recipe's training split as evaluation would show it.
    ///
    /// # Errors
    /// If it cannot be read, or `views.clean` does not fit the images.
    pub fn open_train_in_clean_view(recipe: &Recipe, watch: &Watch<'_>) -> Outcome<Self> {
        Self::open(recipe, Role::Train, Trust::ModificationTimes, watch)?.in_clean_view(recipe)
    }

    pub(crate) fn open(
        recipe: &Recipe,
        role: Role,
        trust: Trust,
        watch: &Watch<'_>,
    ) -> Outcome<Self> {
        let mut dataset = Dataset::open_with(&recipe.data, role, recipe.own.formats)?;
        for note in dataset.notes() {
            event::note(watch, format!("{}: {note}", split_name(recipe, role)));
        }
        let announce = |bytes: u64| {
            if let Some(told) = first_look(&dataset, &split_name(recipe, role), bytes) {
                event::info(watch, told);
            }
        };
        let fingerprint = with_progress(watch, "reading images", "img", |progress| {
            dataset.fingerprint_trusting(trust, &announce, progress)
        })?;
        tell_bad(&dataset, &fingerprint, &split_name(recipe, role), watch)?;
        let size = fingerprint.uniform_size();
        let own = recipe.own.augmentations;
        let (family, n_views, views) = match role {
            Role::Train => {
                let (family, n_views) = family(&recipe.views, size, own)?;
                (family, n_views, "views.augment")
            }
            Role::Eval => {
                let family = ViewFamily::clean_of(&recipe.views, size, own)?;
                (family, 1, "views.clean")
            }
        };
        if recipe.data.store_pixels {
            if family.reduces() {
                return Err(Failure::asked(
                    "`views.augment` wants JPEGs decoded at a reduced resolution, which stored pixels cannot give",
                )
                .with_hint("keep `reduced = true` or `data.store_pixels = true`, not both"));
            }
            with_progress(watch, "storing pixels", "img", |progress| {
                dataset.store_pixels(progress)
            })?;
        }
        Ok(Self {
            role,
            dataset: Arc::new(dataset),
            fingerprint,
            family: Arc::new(family),
            n_views,
            views_per_pass: recipe.views.views_per_pass,
            is_strong: false,
            views,
        })
    }
}

/// What a first look at all images takes, where it takes a while: who has not waited for it before may think that it hangs.
fn first_look(dataset: &Dataset, split: &str, bytes: u64) -> Option<String> {
    const A_WHILE: u64 = 64 << 20;
    (bytes > A_WHILE).then(|| {
        format!(
            "{split}: all {} images are read once, {:.1} GB, so that caches know them; what comes of it is remembered in `{}`",
            dataset.len(),
            bytes as f64 / 1e9,
            dataset.spec().root.join(".logitcask").display()
        )
    })
}

/// Says which samples are left out, by `on_bad = "skip"`: how many, and the first of them with where they lie and why.
fn tell_bad(
    dataset: &Dataset,
    fingerprint: &Fingerprint,
    split: &str,
    watch: &Watch<'_>,
) -> Outcome {
    let n_bad = fingerprint.bad.len();
    if n_bad == 0 {
        return Ok(());
    }
    let mut lines = format!(
        "{n_bad} of the {} samples of {split} cannot be used and are left out (`on_bad = \"skip\"`):",
        dataset.len()
    );
    let named = dataset.name_bad()?;
    for bad in &named {
        lines += &format!("\n  {bad}");
    }
    if n_bad > named.len() {
        let more = n_bad - named.len();
        lines += &format!("\n  and {more} more; `logitcask dataset show RECIPE --json` lists all");
    }
    event::note(watch, lines);
    Ok(())
}

/// As the recipe names it: ``split `train` ``.
fn split_name(recipe: &Recipe, role: Role) -> String {
    let data = &recipe.data;
    let split = match role {
        Role::Train => Some(&data.train),
        Role::Eval => data.eval.as_ref(),
    };
    split.map_or_else(String::new, |split| format!("split `{split}`"))
}
