//! Whether all views of a split have one size, told before anything is rendered.

use crate::{Dataset, DatasetError, Fingerprint, ImageSize, Preprocess, ViewFamily};

/// The one size of what a model is shown: of every image's views, after the model's own preprocessing. `views` is what
/// the recipe calls the family, for the error.
///
/// # Errors
/// [`DatasetError::ViewSizes`] with two samples whose views differ; an image that an augmentation is too large for; a
/// split without a single image.
pub fn input_size(
    dataset: &Dataset,
    fingerprint: &Fingerprint,
    family: &ViewFamily,
    preprocess: &Preprocess,
    views: &'static str,
) -> Result<ImageSize, DatasetError> {
    let mut known: Option<(ImageSize, u32)> = None;
    for &(size, first) in &fingerprint.sizes {
        let shown = family
            .output_size(size)
            .map_err(|error| error.of_sample(dataset.place(first)))?;
        let found = preprocess.output_size(shown)?;
        match known {
            None => known = Some((found, first)),
            Some((expected, other)) if expected != found => {
                return Err(DatasetError::ViewSizes {
                    views,
                    left: (dataset.place(other), expected),
                    right: (dataset.place(first), found),
                });
            }
            Some(_) => {}
        }
    }
    known
        .map(|(size, _)| size)
        .ok_or_else(|| DatasetError::Setting {
            key: "data".into(),
            found: "has no image that can be read: every sample is bad".into(),
        })
}
