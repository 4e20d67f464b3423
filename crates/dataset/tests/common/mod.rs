//! What the tests of formats share: tiny images, folders of them, shards, and one line of an error.
#![allow(dead_code, reason = "not every test needs every helper")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::path::Path;

use logitcask_dataset::*;

/// A PNG of 2 x 2 pixels of one grey, which tells images apart.
pub(crate) fn tile(grey: u8) -> Vec<u8> {
    let size = ImageSize {
        height: 2,
        width: 2,
        channels: 1,
    };
    png(&Image::from_pixels(size, vec![grey; 4])).unwrap()
}

/// Writes files, with the folders that they need.
pub(crate) fn write(root: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A folder of these files, and a recipe's `[data]` for it.
pub(crate) fn folder(format: &str, files: &[(&str, &[u8])]) -> (tempfile::TempDir, DataSpec) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    let mut spec = DataSpec::new(format, folder.path());
    spec.eval = Some("test".into());
    (folder, spec)
}

/// The grey of every sample's first pixel, which says which image it is.
pub(crate) fn greys(dataset: &Dataset) -> Vec<u8> {
    let mut image = Image::new();
    let greys = (0..dataset.len() as u32).map(|index| {
        dataset.decode(index, &mut image).unwrap();
        image.pixels()[0]
    });
    greys.collect()
}

pub(crate) fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A shard of images with a json label each.
pub(crate) fn shard(labels: &[&str]) -> Vec<u8> {
    let mut members = Vec::new();
    for (i, label) in labels.iter().enumerate() {
        members.push((format!("{i}.png"), tile(i as u8)));
        members.push((
            format!("{i}.json"),
            format!("{{\"label\": {label}}}").into_bytes(),
        ));
    }
    let members: Vec<(&str, &[u8])> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    tar_of(&members)
}

/// An idx file of bytes.
pub(crate) fn idx(dimensions: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend(body);
    bytes
}

/// What is wrong, why, and what to do about it, as a person reads them.
pub(crate) fn refused(spec: &DataSpec, role: Role) -> String {
    let error = Dataset::open(spec, role).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// Each of `words` in the refusal.
pub(crate) fn check_refused(spec: &DataSpec, role: Role, words: &[&str]) {
    let found = refused(spec, role);
    for word in words {
        assert!(found.contains(word), "`{word}` is not in: {found}");
    }
}

/// Each of `words` in the notes.
pub(crate) fn check_noted(dataset: &Dataset, words: &[&str]) {
    let found = dataset.notes().join("\n");
    for word in words {
        assert!(found.contains(word), "`{word}` is not in: {found}");
    }
}
