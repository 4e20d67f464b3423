//! JSON files that carry the digest of their own text as their last line, sealed by `durable`. A reader may ignore it, as
//! it is an ordinary member; we do not, so that a flipped byte in a class name or in a number is refused instead of believed.

use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CacheError;

/// No manifest of ours comes near this; a hostile one must not fill the memory.
const MAX_BYTES: u64 = 256 << 20;

/// What every file of a cache says about itself, whatever its version.
#[derive(serde::Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// The format's name, in every file.
pub(crate) const FORMAT: &str = "logitcask";
/// The format's version. Until the first tag it is 0 and may change.
pub(crate) const VERSION: u32 = 0;

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CacheError> {
    let text = to_text(path, value)?;
    logitcask_durable::write_atomic(path, |file| file.write_all(text.as_bytes()))
        .map_err(CacheError::io("write", path))
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CacheError> {
    let file = logitcask_durable::open(path).map_err(CacheError::io("open", path))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => CacheError::damaged(path, "it is not text"),
            _ => CacheError::Io {
                action: "read",
                path: path.to_path_buf(),
                source,
            },
        })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(CacheError::damaged(
            path,
            format!("it is larger than {MAX_BYTES} bytes"),
        ));
    }
    from_text(path, &text)
}

fn to_text<T: Serialize>(path: &Path, value: &T) -> Result<String, CacheError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| CacheError::Io {
        action: "encode",
        path: path.to_path_buf(),
        source: error.into(),
    })?;
    Ok(logitcask_durable::seal_json(&text))
}

fn from_text<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, CacheError> {
    let damaged = |problem: String| CacheError::damaged(path, problem);
    let not_json =
        |error: serde_json::Error| damaged(format!("it is not what the format says: {error}"));
    // The version comes first: a newer format may seal its files in another way.
    let header: Header = serde_json::from_str(text).map_err(not_json)?;
    if header.format != FORMAT {
        return Err(damaged(format!(
            "its format is `{}`, expected `{FORMAT}`",
            header.format
        )));
    }
    if header.version != VERSION {
        return Err(CacheError::Version {
            path: path.to_path_buf(),
            found: header.version,
            supported: VERSION,
        });
    }
    let unsealed =
        logitcask_durable::unseal_json(text).map_err(|seal| damaged(seal.to_string()))?;
    let unsealed = unsealed.ok_or_else(|| damaged("its last line is not its digest".to_owned()))?;
    serde_json::from_str(&unsealed).map_err(not_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct File {
        format: String,
        version: u32,
        names: Vec<String>,
    }

    fn file() -> File {
        File {
            format: FORMAT.into(),
            version: VERSION,
            names: vec!["a \"b\"".into(), ",\n  \"blake3\": \"".into()],
        }
    }

    #[test]
    fn a_sealed_file_comes_back_and_is_json() {
        let text = to_text(Path::new("x"), &file()).unwrap();
        assert_eq!(from_text::<File>(Path::new("x"), &text).unwrap(), file());
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["blake3"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn any_flipped_byte_and_any_truncation_is_refused() {
        let text = to_text(Path::new("x"), &file()).unwrap();
        for at in 0..text.len() {
            assert!(
                from_text::<File>(Path::new("x"), &text[..at]).is_err(),
                "truncated at {at}"
            );
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert!(
                    from_text::<File>(Path::new("x"), &flipped).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
}
