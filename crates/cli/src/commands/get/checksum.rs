//! Digests of fetched files.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use logitcask_dataset::Checksum;
use md5::Md5;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::Sha256;

/// A digest and what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) algorithm: Algorithm,
    /// Lower-case hexadecimal digits, two a byte.
    pub(super) digits: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Md5,
    Sha256,
}

impl Digest {
    /// The number of digits tells the algorithm.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        let algorithm = match digits.len() {
            32 => Algorithm::Md5,
            64 => Algorithm::Sha256,
            _ => return None,
        };
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hexadecimal.then(|| Self {
            algorithm,
            digits: digits.to_ascii_lowercase(),
        })
    }

    pub(super) fn published(checksum: Checksum) -> Option<Self> {
        match checksum {
            Checksum::Sha256(digits) => Self::parse(digits),
            Checksum::Unpublished => None,
        }
    }

    pub(super) fn of_file(path: &Path, algorithm: Algorithm) -> io::Result<Self> {
        let digits = match algorithm {
            Algorithm::Md5 => digits_of::<Md5>(File::open(path)?)?,
            Algorithm::Sha256 => digits_of::<Sha256>(File::open(path)?)?,
        };
        Ok(Self { algorithm, digits })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.algorithm {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        };
        write!(f, "{algorithm} {}", self.digits)
    }
}

/// A digest is written as its digits: their number tells the algorithm.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digits)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        Self::parse(&digits)
            .ok_or_else(|| D::Error::custom("a digest has 32 or 64 hexadecimal digits"))
    }
}

fn digits_of<D: sha2::Digest>(mut file: File) -> io::Result<String> {
    let mut digest = D::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => digest.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of `abc` that RFC 1321, A.5 and FIPS 180-2, B.1 print.
    #[test]
    fn digests_are_the_standards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let md5 = Digest::of_file(&path, Algorithm::Md5).unwrap();
        assert_eq!(md5.digits, "900150983cd24fb0d6963f7d28e17f72");
        let sha256 = Digest::of_file(&path, Algorithm::Sha256).unwrap();
        assert_eq!(
            sha256.digits,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::parse(&md5.digits.to_uppercase()), Some(md5));
        assert_eq!(Digest::parse("900150983cd24fb0"), None);
        assert_eq!(Digest::parse(&"g".repeat(32)), None);
    }

    #[test]
    fn every_download_has_a_digest_that_cannot_be_forged() {
        let files = logitcask_dataset::PUBLICATIONS
            .iter()
            .flat_map(|publication| publication.files);
        for file in files {
            let digest = Digest::published(file.checksum);
            let algorithm = digest.map(|digest| digest.algorithm);
            assert_eq!(algorithm, Some(Algorithm::Sha256), "{}", file.url);
        }
    }
}
