//! What a split is: one digest over its images, one over its labels, and what a pass over all of them finds out.

use serde::{Deserialize, Serialize};

use crate::{Image, ImageSize};

/// Part of what is digested: to be raised when any of it changes.
pub(crate) const VERSION: &str = "logitcask images 1";

/// To be raised when a decoder's pixels change: what was remembered before is computed anew, and a cache's key changes only
/// where the pixels did. 2: grey of sixteen bits is clipped.
pub(crate) const DECODING: u8 = 2;

/// What a split is, whatever its files are called and wherever they lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// BLAKE3 over the digests of all images in order. Of lossless images the decoded pixels are digested, so that the
    /// same images agree in every such format; of lossy ones the files, because decoders may differ.
    #[serde(with = "hex")]
    pub images: [u8; 32],
    /// BLAKE3 over the labels in order.
    #[serde(with = "hex")]
    pub labels: [u8; 32],
    /// The number of samples, bad ones included.
    pub n_samples: u64,
    /// The different sizes of the images, each with the first sample that has it, in the order of these samples.
    pub sizes: Vec<(ImageSize, u32)>,
    /// The samples whose image cannot be had, ascending.
    pub bad: Vec<u32>,
}

impl Fingerprint {
    /// The size of every image, where all are alike.
    pub fn uniform_size(&self) -> Option<ImageSize> {
        match self.sizes.as_slice() {
            [(size, _)] => Some(*size),
            _ => None,
        }
    }
}

/// (height, width, channels) as u32 and the pixels: what says that two images are the same.
pub(crate) fn digest_pixels(digest: &mut blake3::Hasher, image: &Image) {
    let ImageSize {
        height,
        width,
        channels,
    } = image.size();
    for n in [height, width, channels] {
        digest.update(&(n as u32).to_le_bytes());
    }
    digest.update(image.pixels());
}

/// Their number as u64 and the labels.
pub(crate) fn digest_labels(labels: &[u32]) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    digest
        .update(b"logitcask labels 1")
        .update(&(labels.len() as u64).to_le_bytes());
    for label in labels {
        digest.update(&label.to_le_bytes());
    }
    digest.finalize().into()
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(blake3::Hash::from(*bytes).to_hex().as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        blake3::Hash::from_hex(text)
            .map(Into::into)
            .map_err(D::Error::custom)
    }
}
