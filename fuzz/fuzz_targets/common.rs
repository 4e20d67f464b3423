use logitcask_dataset::{DataSpec, Dataset, Image, Role};

/// Opens files of these names and contents as a dataset and decodes a few samples. Errors are fine.
pub fn open(format: &str, files: &[(&str, &[u8])]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
    let Ok(dataset) = Dataset::open(&DataSpec::new(format, folder.path()), Role::Train) else {
        return;
    };
    let mut image = Image::new();
    for index in 0..dataset.len().min(4) as u32 {
        let _ = dataset.decode(index, &mut image);
    }
}

#[allow(dead_code, reason = "not every target reads two files")]
/// Two files out of one input: the first two bytes say where to cut.
pub fn cut(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = data.split_at_checked(2)?;
    let at = usize::from(u16::from_le_bytes([head[0], head[1]])).min(rest.len());
    Some(rest.split_at(at))
}
