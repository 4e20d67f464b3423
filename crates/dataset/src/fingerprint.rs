use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::formats::Fetched;
use crate::{Dataset, DatasetError, Image, ImageError, ImageSize};

/// Part of what is digested: to be raised when any of it changes.
const VERSION: &str = "logitcask images 1";

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
    /// The size of every image, where all are alike.
    pub uniform_size: Option<ImageSize>,
    /// The samples whose image cannot be had, ascending. Empty unless `on_bad = "skip"`. The body of a lossy image is
    /// not decoded here, so one that is damaged inside shows up only when it is rendered.
    pub bad: Vec<u32>,
}

impl Dataset {
    /// The fingerprint of the split, computed with all of rayon's threads or remembered from an earlier time.
    ///
    /// It is remembered in `.logitcask/` in the dataset's folder, under the names, sizes and modification times of the
    /// split's files. Where that folder cannot be written it is computed anew each time. `progress` is told
    /// (samples done, samples in all).
    ///
    /// # Errors
    /// A bad sample, unless `on_bad = "skip"`.
    pub fn fingerprint(&self, progress: &dyn Fn(u64, u64)) -> Result<Fingerprint, DatasetError> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let memory = self.memory();
        let labels = digest_labels(self.labels());
        let remembered = memory
            .as_ref()
            .and_then(|path| remembered(path, self.len(), labels));
        let fingerprint = match remembered {
            Some(fingerprint) => fingerprint,
            None => {
                let computed = self.compute(labels, progress)?;
                if let Some(path) = &memory {
                    // A dataset on a read-only disk is no error; it only costs the pass again.
                    let _ = remember(path, &computed);
                }
                computed
            }
        };
        if let (Some(&index), false) = (fingerprint.bad.first(), self.skips_bad()) {
            // Remembered by a recipe that skips. This one does not: say what is wrong by looking again.
            let mut image = Image::new();
            self.digest_sample(index, &mut image)
                .map_err(|source| self.bad(index, source))?;
        }
        Ok(self.fingerprint.get_or_init(|| fingerprint).clone())
    }

    fn compute(
        &self,
        labels: [u8; 32],
        progress: &dyn Fn(u64, u64),
    ) -> Result<Fingerprint, DatasetError> {
        /// Enough to keep the threads busy, few enough that progress is seen to move.
        const BLOCK: u32 = 2048;
        let n_samples = self.len() as u32;
        let mut digest = blake3::Hasher::new();
        digest
            .update(VERSION.as_bytes())
            .update(&u64::from(n_samples).to_le_bytes());
        let (mut bad, mut sizes) = (Vec::new(), Sizes::None);
        for start in (0..n_samples).step_by(BLOCK as usize) {
            progress(start.into(), n_samples.into());
            let block: Vec<_> = (start..n_samples.min(start + BLOCK))
                .into_par_iter()
                .map_init(Image::new, |image, index| self.digest_sample(index, image))
                .collect();
            for (index, sample) in (start..).zip(block) {
                match sample {
                    Ok((sample, size)) => {
                        digest.update(&sample);
                        sizes.meet(size);
                    }
                    Err(source) if !self.skips_bad() => return Err(self.bad(index, source)),
                    Err(_) => {
                        digest.update(&[0; 32]);
                        bad.push(index);
                    }
                }
            }
        }
        progress(n_samples.into(), n_samples.into());
        Ok(Fingerprint {
            images: digest.finalize().into(),
            labels,
            n_samples: n_samples.into(),
            uniform_size: match sizes {
                Sizes::One(size) => Some(size),
                Sizes::None | Sizes::Many => None,
            },
            bad,
        })
    }

    fn digest_sample(
        &self,
        index: u32,
        image: &mut Image,
    ) -> Result<([u8; 32], ImageSize), ImageError> {
        let fetched = self.opened.source.fetch(index, image)?;
        if fetched == Fetched::Encoded && !codec::is_lossless(&image.encoded) {
            let mut size = codec::size(&image.encoded)?;
            size.channels = self.channels.unwrap_or(size.channels);
            let mut digest = blake3::Hasher::new();
            digest
                .update(b"file")
                .update(&(size.channels as u32).to_le_bytes());
            return Ok((digest.update(&image.encoded).finalize().into(), size));
        }
        if fetched == Fetched::Encoded {
            let encoded = std::mem::take(&mut image.encoded);
            let decoded = codec::decode(&encoded, self.channels, image);
            image.encoded = encoded;
            decoded?;
        }
        let mut digest = blake3::Hasher::new();
        digest.update(b"pixels");
        digest_pixels(&mut digest, image);
        Ok((digest.finalize().into(), image.size()))
    }

    /// Where this split's fingerprint is remembered; nowhere for a dataset that has no files.
    fn memory(&self) -> Option<PathBuf> {
        if self.opened.files.is_empty() {
            return None;
        }
        let mut key = blake3::Hasher::new();
        key.update(VERSION.as_bytes())
            .update(&[self.channels.unwrap_or(0) as u8]);
        for path in self.opened.files.iter() {
            let metadata = fs::metadata(path).ok()?;
            let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            let name = path.strip_prefix(&self.spec.root).unwrap_or(path);
            key.update(name.as_os_str().as_encoded_bytes()).update(&[0]);
            key.update(&metadata.len().to_le_bytes())
                .update(&modified.as_nanos().to_le_bytes());
        }
        let name = format!("fingerprint-{}.json", &key.finalize().to_hex()[..16]);
        Some(self.spec.root.join(".logitcask").join(name))
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

fn digest_labels(labels: &[u32]) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    digest
        .update(b"logitcask labels 1")
        .update(&(labels.len() as u64).to_le_bytes());
    for label in labels {
        digest.update(&label.to_le_bytes());
    }
    digest.finalize().into()
}

/// A memory that does not parse, or that speaks of other labels, is none.
fn remembered(path: &std::path::Path, n_samples: usize, labels: [u8; 32]) -> Option<Fingerprint> {
    let fingerprint: Fingerprint = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let fits = fingerprint.n_samples == n_samples as u64 && fingerprint.labels == labels;
    fits.then_some(fingerprint)
}

fn remember(path: &std::path::Path, fingerprint: &Fingerprint) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        logitcask_durable::create_dir_all(folder)?;
    }
    logitcask_durable::write_atomic(path, |file| {
        serde_json::to_writer_pretty(file, fingerprint).map_err(Into::into)
    })
}

enum Sizes {
    None,
    One(ImageSize),
    Many,
}

impl Sizes {
    fn meet(&mut self, size: ImageSize) {
        match self {
            Self::None => *self = Self::One(size),
            Self::One(known) if *known != size => *self = Self::Many,
            Self::One(_) | Self::Many => {}
        }
    }
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
