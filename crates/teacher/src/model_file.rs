//! What a teacher's file says about itself before any session is made: its digest, the weight files beside it, which
//! operator makes which output.
//!
//! Only the few protobuf fields that these questions need are read, by a walk over the wire format; everything else is
//! skipped by length, and ONNX Runtime remains the judge of whether the model is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use crate::error::TeacherError;

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
    /// The graph's outputs, in order; empty where the file does not say.
    pub outputs: Vec<String>,
    /// Output name -> operator that makes it, for the outer graph.
    producers: BTreeMap<String, String>,
}

impl ModelFile {
    /// Reads the file at `path` and hashes it together with its external weight files.
    pub fn read(path: &Path) -> Result<ModelFile, TeacherError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| TeacherError::ModelUnreadable { path, source }
        };
        let bytes = std::fs::read(path).map_err(unreadable(path))?;
        let mut facts = Facts::default();
        if !is_ort_format(&bytes) {
            walk_model(&bytes, &mut facts).ok_or_else(|| TeacherError::NotOnnx {
                path: path.to_owned(),
                looks_like: looks_like(&bytes),
            })?;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut total = bytes.len() as u64;
        let mut external = Vec::new();
        for location in facts.external {
            let relative = stay_beside(path, &location)?;
            let file_path = folder.join(&relative);
            let file = File::open(&file_path).map_err(unreadable(&file_path))?;
            let length = file.metadata().map_err(unreadable(&file_path))?.len();
            hasher
                .update(&(location.len() as u64).to_le_bytes())
                .update(location.as_bytes());
            hasher.update(&length.to_le_bytes());
            hasher.update_reader(file).map_err(unreadable(&file_path))?;
            total += length;
            external.push(relative);
        }
        Ok(ModelFile {
            digest: hasher.finalize().into(),
            external,
            bytes: total,
            opset: facts.opset,
            half: facts.half_weights > facts.float_weights,
            outputs: facts.outputs,
            producers: facts.producers,
        })
    }

    /// The operator whose result is the output `name`, such as `Gemm` or `Softmax`; `None` where the file does not say.
    pub fn producer_of(&self, name: &str) -> Option<&str> {
        self.producers.get(name).map(String::as_str)
    }
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

#[derive(Default)]
struct Facts {
    /// How many graphs deep the walk is, so that a file made to nest without end cannot exhaust the stack.
    depth: usize,
    external: BTreeSet<String>,
    opset: u64,
    float_weights: usize,
    half_weights: usize,
    outputs: Vec<String>,
    producers: BTreeMap<String, String>,
}

/// One field of a protobuf message.
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Iterates over the fields of a message; yields `None` inside where the bytes are not a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let (head, rest) = (self.0.get(..length)?, self.0.get(length..)?);
        self.0 = rest;
        Some(head)
    }

    /// The next field's number and value. `Some(None)` at the end, `None` where the bytes make no sense.
    fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Other)?,
            _ => return None,
        };
        Some(Some((tag >> 3, field)))
    }
}

/// Walks `ModelProto`. `None` where the bytes are no such message.
fn walk_model(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let mut fields = Fields(bytes);
    let mut has_graph = false;
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (7, Field::Bytes(graph)) => {
                has_graph = true;
                walk_graph(graph, facts, true)?;
            }
            (8, Field::Bytes(opset)) => walk_opset(opset, facts)?,
            (25, Field::Bytes(function)) => {
                walk_messages(function, 7, &mut |node| walk_node(node, facts, false))?
            }
            _ => {}
        }
    }
    has_graph.then_some(())
}

fn walk_opset(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let (mut domain, mut version) = (&[][..], 0);
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(name)) => domain = name,
            (2, Field::Varint(number)) => version = number,
            _ => {}
        }
    }
    if domain.is_empty() || domain == b"ai.onnx" {
        facts.opset = version;
    }
    Some(())
}

fn walk_graph(bytes: &[u8], facts: &mut Facts, outer: bool) -> Option<()> {
    const DEEPEST: usize = 64;
    if facts.depth == DEEPEST {
        return None;
    }
    facts.depth += 1;
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(node)) => walk_node(node, facts, outer)?,
            (5, Field::Bytes(tensor)) => walk_tensor(tensor, facts)?,
            (12, Field::Bytes(output)) if outer => walk_messages(output, 1, &mut |name| {
                facts
                    .outputs
                    .push(String::from_utf8_lossy(name).into_owned());
                Some(())
            })?,
            (15, Field::Bytes(sparse)) => walk_sparse(sparse, facts)?,
            _ => {}
        }
    }
    facts.depth -= 1;
    Some(())
}

fn walk_node(bytes: &[u8], facts: &mut Facts, outer: bool) -> Option<()> {
    let mut fields = Fields(bytes);
    let mut operator = String::new();
    let mut outputs = Vec::new();
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Bytes(name)) => outputs.push(String::from_utf8_lossy(name).into_owned()),
            (4, Field::Bytes(name)) => operator = String::from_utf8_lossy(name).into_owned(),
            (5, Field::Bytes(attribute)) => walk_attribute(attribute, facts)?,
            _ => {}
        }
    }
    if outer {
        facts
            .producers
            .extend(outputs.into_iter().map(|output| (output, operator.clone())));
    }
    Some(())
}

/// Attributes hold tensors (constants) and graphs (branches and loop bodies), either of which may name external files.
fn walk_attribute(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (5 | 10, Field::Bytes(tensor)) => walk_tensor(tensor, facts)?,
            (6 | 11, Field::Bytes(graph)) => walk_graph(graph, facts, false)?,
            (22 | 23, Field::Bytes(sparse)) => walk_sparse(sparse, facts)?,
            _ => {}
        }
    }
    Some(())
}

fn walk_sparse(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    walk_messages(bytes, 1, &mut |tensor| walk_tensor(tensor, facts))?;
    walk_messages(bytes, 2, &mut |tensor| walk_tensor(tensor, facts))
}

fn walk_tensor(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    const FLOAT: u64 = 1;
    const FLOAT16: u64 = 10;
    let mut fields = Fields(bytes);
    let (mut elements, mut data_type) = (1u64, 0);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Varint(dim)) => elements = elements.saturating_mul(dim),
            (1, Field::Bytes(packed)) => {
                let mut dims = Fields(packed);
                while !dims.0.is_empty() {
                    elements = elements.saturating_mul(dims.varint()?);
                }
            }
            (2, Field::Varint(kind)) => data_type = kind,
            (13, Field::Bytes(entry)) => walk_external(entry, facts)?,
            _ => {}
        }
    }
    let elements = usize::try_from(elements).unwrap_or(usize::MAX);
    match data_type {
        FLOAT => facts.float_weights = facts.float_weights.saturating_add(elements),
        FLOAT16 => facts.half_weights = facts.half_weights.saturating_add(elements),
        _ => {}
    }
    Some(())
}

/// One key and value about external data; `location` is the one that names a file.
fn walk_external(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let (mut key, mut value) = (&[][..], &[][..]);
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(text)) => key = text,
            (2, Field::Bytes(text)) => value = text,
            _ => {}
        }
    }
    if key == b"location" {
        facts
            .external
            .insert(String::from_utf8_lossy(value).into_owned());
    }
    Some(())
}

/// Calls `visit` on each length-delimited field with this number.
fn walk_messages(
    bytes: &[u8],
    wanted: u64,
    visit: &mut dyn FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        if let (true, Field::Bytes(message)) = (number == wanted, field) {
            visit(message)?;
        }
    }
    Some(())
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
        assert_eq!(
            (one.opset, one.producer_of("logits"), one.external.len()),
            (13, Some("Gemm"), 1)
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

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = walk_model(&bytes, &mut Facts::default());
        }
    }
}
