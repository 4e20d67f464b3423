//! What a teacher's file says about itself before any session is made: its digest, the weight files beside it, and its
//! graph.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::TeacherError;
use crate::graph::{Graph, Model};

/// What was read from an ONNX file without running it.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// BLAKE3 of the file; with weights in files of their own, of the file followed by each of them with its name. For a
    /// model in one file this is what `b3sum` prints.
    pub digest: [u8; 32],
    /// The weight files beside it, as they are named in the model, sorted.
    pub external: Vec<PathBuf>,
    /// Bytes of the model and its weight files together.
    pub bytes: u64,
    /// The version of the standard operator set, 0 where the file does not say.
    pub opset: u64,
    /// Most of the weights are f16.
    pub half: bool,
    /// Most of the weights are bf16.
    pub bfloat: bool,
    /// The graph's outputs, in order; empty where the file does not say.
    pub outputs: Vec<String>,
    pub(crate) graph: Graph,
    /// Local functions, by the operator's name that calls them.
    pub(crate) functions: BTreeMap<String, Graph>,
}

impl ModelFile {
    /// Reads the file at `path` and hashes it together with its external weight files.
    pub fn read(path: &Path) -> Result<ModelFile, TeacherError> {
        let bytes = std::fs::read(path).map_err(unreadable(path))?;
        let model = match is_ort_format(&bytes) {
            true => Model::default(),
            false => Model::read(&bytes).ok_or_else(|| TeacherError::NotOnnx {
                path: path.to_owned(),
                looks_like: looks_like(&bytes),
            })?,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut total = bytes.len() as u64;
        let mut external = Vec::new();
        for location in model.external {
            let (relative, length) = hash_weights(path, &location, &mut hasher)?;
            total += length;
            external.push(relative);
        }
        Ok(ModelFile {
            digest: hasher.finalize().into(),
            external,
            bytes: total,
            opset: model.opset,
            half: model.half_weights > model.float_weights,
            bfloat: model.bfloat_weights > model.float_weights,
            outputs: model.graph.outputs.clone(),
            graph: model.graph,
            functions: model.functions,
        })
    }

    /// Whether `tensor` is made inside the graph and no output of it. Such a one can be asked for all the same.
    pub fn is_inner(&self, tensor: &str) -> bool {
        self.graph.producer(tensor).is_some() && !self.outputs.iter().any(|name| name == tensor)
    }
}

/// Hashes the weight file that `model` names by `location`, with the name and both lengths before the content. Returns
/// its path below the model's folder, and how many bytes it has.
fn hash_weights(
    model: &Path,
    location: &str,
    hasher: &mut blake3::Hasher,
) -> Result<(PathBuf, u64), TeacherError> {
    let relative = stay_beside(model, location)?;
    let path = model.parent().unwrap_or(Path::new("")).join(&relative);
    let file = File::open(&path).map_err(unreadable(&path))?;
    let length = file.metadata().map_err(unreadable(&path))?.len();
    hasher
        .update(&(location.len() as u64).to_le_bytes())
        .update(location.as_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update_reader(file).map_err(unreadable(&path))?;
    Ok((relative, length))
}

/// What turns the file system's error into one that names the model's or the weights' file.
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> TeacherError {
    let path = path.to_owned();
    move |source| TeacherError::ModelUnreadable { path, source }
}

/// A weight file must lie in the model's folder or below it: a model from elsewhere must not be able to name any file
/// of this machine.
fn stay_beside(model: &Path, location: &str) -> Result<PathBuf, TeacherError> {
    // Written on Windows or not, both separators count.
    let relative: PathBuf = location.replace('\\', "/").into();
    let climbs = relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    if climbs || location.is_empty() || location.contains(':') {
        return Err(TeacherError::ExternalDataClimbsOut {
            path: model.to_owned(),
            location: location.to_owned(),
        });
    }
    Ok(relative)
}

fn is_ort_format(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ORTM")
}

fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [] => Some("an empty file"),
        _ if bytes.starts_with(b"version https://git-lfs") => Some("a Git LFS pointer"),
        _ if bytes.starts_with(b"PK") => Some("a zip file (a PyTorch checkpoint?)"),
        _ if bytes.starts_with(b"\x89HDF") => Some("an HDF5 file"),
        _ if bytes.starts_with(b"<") => Some("a web page"),
        _ if bytes.get(8) == Some(&b'{') => Some("a safetensors file"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn model_with_weights_at(location: &str) -> Vec<u8> {
        let entry = [message(1, b"location"), message(2, location.as_bytes())].concat();
        let tensor = [vec![2 << 3, 1], message(13, &entry)].concat();
        let node = [message(2, b"logits"), message(4, b"Gemm")].concat();
        let output = message(12, &message(1, b"logits"));
        let graph = [message(1, &node), message(5, &tensor), output].concat();
        [
            vec![1 << 3, 8],
            message(7, &graph),
            message(8, &[2 << 3, 13]),
        ]
        .concat()
    }

    #[test]
    fn weights_beside_the_model_count_in_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.onnx");
        std::fs::write(&path, model_with_weights_at("teacher.bin")).unwrap();
        assert!(
            matches!(
                ModelFile::read(&path),
                Err(TeacherError::ModelUnreadable { .. })
            ),
            "the weights are missing"
        );
        std::fs::write(folder.path().join("teacher.bin"), [1, 2, 3]).unwrap();
        let one = ModelFile::read(&path).unwrap();
        let producer = one.graph.producer("logits").unwrap();
        assert_eq!(
            (one.opset, producer.operator.as_str(), one.external.len()),
            (13, "Gemm", 1)
        );
        assert_eq!(one.outputs, ["logits"]);
        std::fs::write(folder.path().join("teacher.bin"), [1, 2, 4]).unwrap();
        assert_ne!(one.digest, ModelFile::read(&path).unwrap().digest);
    }

    #[test]
    fn weights_elsewhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.onnx");
        for location in [
            "../weights.bin",
            "/etc/passwd",
            "a/../../b",
            "..\\weights.bin",
            "C:weights.bin",
            "",
        ] {
            std::fs::write(&path, model_with_weights_at(location)).unwrap();
            let found = ModelFile::read(&path);
            assert!(
                matches!(found, Err(TeacherError::ExternalDataClimbsOut { .. })),
                "{location}: {found:?}"
            );
        }
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.onnx");
        for (bytes, expected) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04.........", "zip"),
            (b"<html></html>", "web page"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = ModelFile::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
