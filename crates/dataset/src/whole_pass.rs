//! The pass over all images of a split that finds its fingerprint, and which samples are bad.
//!
//! It decodes everything that a damaged file could hide, so that a sample is either good in all its views or bad
//! in all of them, whichever window of it a view looks at. What it finds is remembered beside the dataset.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::codec;
use crate::fingerprint::{VERSION, digest_labels, digest_pixels};
use crate::memory::Memory;
use crate::{
    Dataset, DatasetError, FetchError, Fetched, Fingerprint, Image, ImageError, ImageSize, Trust,
};

/// Bad samples that are named; the others are counted.
const NAMED: usize = 10;

impl Dataset {
    /// The fingerprint of the split, computed with all of rayon's threads or remembered from an earlier time.
    ///
    /// It is remembered in `.logitcask/` in the dataset's folder, under the names, sizes and modification times of the
    /// split's files. Where that folder cannot be written it is computed anew each time. `progress` is told
    /// (samples done, samples in all).
    ///
    /// # Errors
    /// Bad samples, unless `on_bad = "skip"`; a file that cannot be read, whatever it says.
    pub fn fingerprint(&self, progress: &dyn Fn(u64, u64)) -> Result<Fingerprint, DatasetError> {
        self.fingerprint_trusting(Trust::ModificationTimes, &|_| (), progress)
    }

    /// The same, with a say in when a remembered one will do. Where none does, `announce` is told first how many bytes of files
    /// are going to be read.
    ///
    /// # Errors
    /// As [`Self::fingerprint`].
    pub fn fingerprint_trusting(
        &self,
        trust: Trust,
        announce: &dyn Fn(u64),
        progress: &dyn Fn(u64, u64),
    ) -> Result<Fingerprint, DatasetError> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let memory = Memory::of(self)?;
        let remembered = match &memory {
            Some(memory) => self.recall(memory, trust)?,
            None => None,
        };
        let fingerprint = match remembered {
            Some(fingerprint) => fingerprint,
            None => {
                if let Some(memory) = &memory {
                    announce(memory.bytes);
                }
                let computed = self.compute(progress)?;
                if let Some(memory) = &memory {
                    memory.keep(&computed);
                }
                computed
            }
        };
        if !self.skips_bad() {
            self.refuse_bad(&fingerprint.bad)?;
        }
        Ok(self.fingerprint.get_or_init(|| fingerprint).clone())
    }

    /// What is remembered of the split, if its files have the names, lengths and modification times of then.
    ///
    /// # Errors
    /// If a file cannot be looked at.
    pub fn remembered_fingerprint(&self) -> Result<Option<Fingerprint>, DatasetError> {
        let memory = Memory::of(self)?;
        memory.map_or(Ok(None), |memory| {
            self.recall(&memory, Trust::ModificationTimes)
        })
    }

    fn recall(&self, memory: &Memory, trust: Trust) -> Result<Option<Fingerprint>, DatasetError> {
        let is_of_these = |known: &Fingerprint| {
            known.n_samples == self.len() as u64 && known.labels == digest_labels(self.labels())
        };
        Ok(memory.recall(trust)?.filter(is_of_these))
    }

    /// The first ten bad samples that the fingerprint found, each with where it lies and why it cannot be had.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn name_bad(&self) -> Result<Vec<String>, DatasetError> {
        let bad = self.fingerprint.get().map_or(&[][..], |known| &known.bad);
        self.reasons(bad).map(|reasons| {
            let named = reasons.into_iter();
            named
                .map(|(index, reason)| format!("{}: {}", self.place(index), in_one_line(&reason)))
                .collect()
        })
    }

    fn compute(&self, progress: &dyn Fn(u64, u64)) -> Result<Fingerprint, DatasetError> {
        /// Enough to keep the threads busy, few enough that progress is seen to move.
        const BLOCK: u32 = 2048;
        let n_samples = self.len() as u32;
        let mut digest = blake3::Hasher::new();
        digest
            .update(VERSION.as_bytes())
            .update(&u64::from(n_samples).to_le_bytes());
        let (mut bad, mut firsts) = (Vec::new(), HashMap::new());
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
                        firsts.entry(size).or_insert(index);
                    }
                    Err(FetchError::Bad(_)) => {
                        digest.update(&[0; 32]);
                        bad.push(index);
                    }
                    Err(error) => return Err(self.failed(index, error)),
                }
            }
        }
        progress(n_samples.into(), n_samples.into());
        let mut sizes: Vec<(ImageSize, u32)> = firsts.into_iter().collect();
        sizes.sort_by_key(|&(_, first)| first);
        Ok(Fingerprint {
            images: digest.finalize().into(),
            labels: digest_labels(self.labels()),
            n_samples: n_samples.into(),
            sizes,
            bad,
        })
    }

    /// The digest of one image and its size; an error where any part of it cannot be decoded.
    fn digest_sample(
        &self,
        index: u32,
        image: &mut Image,
    ) -> Result<([u8; 32], ImageSize), FetchError> {
        let fetched = self.opened.source.fetch(index, image)?;
        let mut digest = blake3::Hasher::new();
        if fetched == Fetched::Pixels || codec::is_lossless(&image.encoded) {
            if fetched == Fetched::Encoded {
                self.decode_fetched(image)?;
            }
            digest.update(b"pixels");
            digest_pixels(&mut digest, image);
            return Ok((digest.finalize().into(), image.size()));
        }
        let encoded = std::mem::take(&mut image.encoded);
        let checked = codec::check(&encoded, self.reading(), image);
        image.encoded = encoded;
        let mut size = checked?;
        digest
            .update(b"file")
            .update(&(size.channels as u32).to_le_bytes());
        if let Some(orientation) = self.orientation(&image.encoded) {
            // The same file gives other pixels than where it is taken as it is stored.
            digest.update(b"exif").update(&[orientation as u8]);
            size = orientation.size(size);
        }
        digest.update(&image.encoded);
        Ok((digest.finalize().into(), size))
    }

    fn refuse_bad(&self, bad: &[u32]) -> Result<(), DatasetError> {
        let mut reasons = self.reasons(bad)?.into_iter();
        match (reasons.next(), bad.len()) {
            (None, _) => Ok(()),
            (Some((index, source)), 1) => Err(self.bad(index, source)),
            (Some((index, source)), n_bad) => Err(DatasetError::BadSamples {
                n_bad,
                n_samples: self.len(),
                others: reasons.map(|(index, _)| self.place(index)).collect(),
                first: Box::new(self.bad(index, source)),
            }),
        }
    }

    /// Why the first of these bad samples are bad, by looking at them again.
    fn reasons(&self, bad: &[u32]) -> Result<Vec<(u32, ImageError)>, DatasetError> {
        let mut image = Image::new();
        let mut reasons = Vec::new();
        for &index in bad.iter().take(NAMED) {
            match self.digest_sample(index, &mut image) {
                Ok(_) => {}
                Err(FetchError::Bad(reason)) => reasons.push((index, reason)),
                Err(FetchError::Stop(error)) => return Err(error),
            }
        }
        Ok(reasons)
    }
}

/// An error with its causes behind it.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
