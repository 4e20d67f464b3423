//! The pixels of a few views in 32 bytes each: what tells a student that it sees other images than its teacher saw.

use rayon::prelude::*;

use crate::batch::Scratch;
use crate::fingerprint::digest_pixels;
use crate::{Dataset, DatasetError, ViewFamily};

/// BLAKE3 of the u8 pixels of some (sample, view) pairs, with their size: the view itself, before any preprocessing. A
/// cache keeps a few of them, so that a student whose pixels differ from the teacher's is told so.
///
/// # Errors
/// A sample that cannot be decoded, whatever `on_bad` says: pairs are chosen among good samples.
pub fn pixel_digests(
    dataset: &Dataset,
    family: &ViewFamily,
    pairs: &[(u32, u32)],
) -> Result<Vec<[u8; 32]>, DatasetError> {
    pairs
        .par_iter()
        .map_init(Scratch::default, |scratch, &(sample, view)| {
            scratch.render(dataset, family, sample, view)?;
            let mut digest = blake3::Hasher::new();
            digest_pixels(&mut digest, scratch.image());
            Ok(digest.finalize().into())
        })
        .collect()
}
