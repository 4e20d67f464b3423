//! The key under which a teacher's logits are found again.

use logitcask_cache::CacheKey;
use logitcask_dataset::{Fingerprint, Preprocess, ViewFamily};

use crate::error::TeacherError;
use crate::model_file::ModelFile;
use crate::output;
use crate::spec::{Layout, TeacherSpec};

/// Everything that changes a logit, and nothing else. Needs the model's file but no session, so that finding a cache
/// costs no more than reading the file.
pub fn cache_key(
    spec: &TeacherSpec,
    file: &ModelFile,
    fingerprint: &Fingerprint,
    family: &ViewFamily,
) -> Result<CacheKey, TeacherError> {
    let names: Vec<&str> = file.outputs.iter().map(String::as_str).collect();
    // Named or taken by default, the same output has the same key.
    let output = match (names.is_empty(), spec.output.as_deref()) {
        (true, stated) => stated.unwrap_or_default(),
        (false, stated) => names[output::choose(&names, stated)?],
    };
    let mut preprocess = Preprocess::new(&spec.preprocess)?.identity();
    match spec.layout {
        None => {}
        Some(Layout::Nchw) => preprocess.push_str("; nchw"),
        Some(Layout::Nhwc) => preprocess.push_str("; nhwc"),
    }
    let classes: Vec<String> = spec.classes.iter().flatten().map(u32::to_string).collect();
    Ok(CacheKey {
        teacher: hex(&file.digest),
        output: output.to_owned(),
        output_is: spec.output_is.name().to_owned(),
        classes: classes.join(" "),
        features: spec.features.clone().unwrap_or_default(),
        preprocess,
        precision: spec.precision.to_string(),
        images: hex(&fingerprint.images),
        views: family.identity(),
        encoding: spec.encoding.clone(),
    })
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}
