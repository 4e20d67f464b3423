//! What a format finds: a split's labels, and where its images come from.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{DatasetError, Image, ImageError, ImageSize};

/// A split as its format found it: labels in memory, images still where they are.
pub struct Opened {
    /// Where its images come from.
    pub source: Box<dyn Source>,
    /// One per sample, below `n_classes`. Their order is that of the samples, which is a part of a cache's identity: it must
    /// follow from the files alone.
    pub labels: Vec<u32>,
    /// One per class, or none at all where the format knows no names.
    pub class_names: Vec<String>,
    /// At least as many classes as names and labels need.
    pub n_classes: usize,
    /// The size of every image, where the format fixes it.
    pub uniform_size: Option<ImageSize>,
    /// The files that a remembered fingerprint depends on; without any the images are digested every time.
    pub files: Arc<[PathBuf]>,
    /// What somebody should know who looks at the data, a sentence each.
    pub notes: Vec<String>,
}

/// What has been fetched for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The pixels are in the image: [`Image::reshape`] makes room for them.
    Pixels,
    /// The bytes of a JPEG, PNG, WebP or the like are in the image ([`Image::encoded_mut`]), still to be decoded.
    Encoded,
}

/// Why a sample could not be fetched. The two are kept apart by their types, so that `on_bad = "skip"` leaves out what
/// is wrong with a sample and never what is wrong with a disk.
#[derive(Debug)]
pub enum FetchError {
    /// The sample holds no image that can be used; the others may.
    Bad(ImageError),
    /// Its file cannot be read, today: the run stops, whatever `on_bad` says.
    Stop(DatasetError),
}

impl From<ImageError> for FetchError {
    fn from(error: ImageError) -> Self {
        Self::Bad(error)
    }
}

impl From<DatasetError> for FetchError {
    fn from(error: DatasetError) -> Self {
        Self::Stop(error)
    }
}

/// Where the images of a split come from. Several threads fetch from it at once, in any order: a file that they share is
/// read by position, never by a cursor.
pub trait Source: Send + Sync {
    /// Fetches sample `index`, which is in range, into an image whose buffers are reused. The same sample is the same image
    /// every time.
    ///
    /// # Errors
    /// [`FetchError::Bad`] where this sample holds no image that can be used; [`FetchError::Stop`] where its file cannot be read.
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError>;
    /// Where sample `index` lies, for messages: `` `train.parquet` row 17``.
    fn place(&self, index: u32) -> String;
    /// The first sample of each file, ascending, where files hold many samples; nothing where each image is a file.
    fn file_starts(&self) -> Vec<u32> {
        Vec::new()
    }
}
