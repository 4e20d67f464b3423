//! The key under which a teacher's logits are found again.

use logitcask_cache::CacheKey;
use logitcask_dataset::{Fingerprint, Preprocess, ViewFamily};

use crate::error::TeacherError;
use crate::model_file::ModelFile;
use crate::output::name_in;
use crate::spec::{Layout, TeacherSpec};
use crate::suspects::{self, Fault};

/// Everything that changes a logit, and nothing else. Needs the model's file but no session, so that finding a cache
/// costs no more than reading the file.
pub fn cache_key(
    spec: &TeacherSpec,
    file: &ModelFile,
    fingerprint: &Fingerprint,
    family: &ViewFamily,
) -> Result<CacheKey, TeacherError> {
    // Named or taken by default, the same output has the same key.
    let output = name_in(file, spec.output.as_deref())?;
    Ok(CacheKey {
        teacher: hex(&file.digest),
        output: output.to_owned(),
        images: hex(&fingerprint.images),
        views: family.identity(),
        batch: at_once(spec, file, output).map_or(String::new(), |rows| rows.to_string()),
        ..key_of_spec(spec)?
    })
}

/// What a recipe alone says of the key: all but the model, its output, the images and their views.
///
/// # Errors
/// If mean and standard deviation do not go together.
pub fn key_of_spec(spec: &TeacherSpec) -> Result<CacheKey, TeacherError> {
    let mut preprocess = Preprocess::new(&spec.preprocess)?.identity();
    match spec.layout {
        None => {}
        Some(Layout::Nchw) => preprocess.push_str("; nchw"),
        Some(Layout::Nhwc) => preprocess.push_str("; nhwc"),
    }
    let classes: Vec<String> = spec.classes.iter().flatten().map(u32::to_string).collect();
    Ok(CacheKey {
        output_is: spec.output_is.name().to_owned(),
        classes: classes.join(" "),
        features: spec.features.clone().unwrap_or_default(),
        preprocess,
        precision: spec.precision.to_string(),
        encoding: spec.encoding.clone(),
        ..CacheKey::default()
    })
}

/// Images per run as the recipe states it, where a row depends on it: where activations are quantised by the largest and
/// smallest of a run.
pub(crate) fn at_once(spec: &TeacherSpec, file: &ModelFile, output: &str) -> Option<usize> {
    let quantised = suspects::find(file, output, Fault::DynamicQuantisation);
    spec.batch_size
        .filter(|rows| *rows > 0 && quantised.is_some())
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}
