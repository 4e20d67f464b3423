//! Samples in a fixed order, and the pixels of one view.
//!
//! What flows through here:
//!
//! 1. [`Dataset::open`] finds a split's files, reads the labels and leaves the images where they are. A sample is known
//!    by its index, and the index never changes.
//! 2. [`Dataset::fingerprint`] digests every image once and remembers the result: it is what a cache of logits is keyed
//!    by. After it the dataset knows whether all images have one size, and which samples are bad.
//! 3. A [`ViewFamily`] says which augmented views there are. [`ViewFamily::draw`] is a pure function of
//!    (seed, sample, view): a crop drawn today is the crop drawn in a year, on any machine, in any order. What it
//!    returns, a [`View`], is a list of pixel operations with every parameter decided.
//! 4. [`render`] decodes, applies the view and normalises by a [`Preprocess`], straight into a [`PixelBatch`]; a
//!    [`Loader`] does it ahead of time on several threads and hands the batches over in order.
//!
//! ```
//! use logitcask_dataset::*;
//! # fn main() -> Result<(), DatasetError> {
//! let dataset = Dataset::open(&DataSpec::new("synthetic", ""), Role::Train)?;
//! let augment = vec![
//!     AugmentSpec::new("random_crop").with("size", 32).with("padding", 4),
//!     AugmentSpec::new("horizontal_flip"),
//! ];
//! let family = ViewFamily::new(&augment, 1, dataset.uniform_size())?;
//! assert_eq!(family.n_views(), Some(9 * 9 * 2));
//!
//! let preprocess = Preprocess::new(&PreprocessSpec::default())?;
//! let mut batch = PixelBatch::new(PixelLayout::Nchw);
//! render(&dataset, &family, &preprocess, &[(0, 0), (0, 1), (7, 0)], &mut batch)?;
//! assert_eq!(batch.pixels.len(), 3 * 3 * 32 * 32);
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows neither logits nor devices. It neither prints nor reads the environment.

mod augment;
mod batch;
mod codec;
mod dataset;
mod digests;
mod error;
mod exif;
mod files;
mod fingerprint;
mod formats;
mod loader;
mod memory;
mod nearest;
mod pixel_layout;
mod pixels;
mod preprocess;
mod sample;
mod scale;
mod shards;
mod show;
mod sources;
mod spec;
mod store;
mod view;
mod view_family;
mod view_size;
mod whole_pass;

pub use augment::{Augment, AugmentRow, AugmentSpec, Built, Choice, augmentations};
pub use batch::{BadSample, Mixed, PixelBatch, render, render_views};
pub use dataset::Dataset;
pub use digests::pixel_digests;
pub use error::{DatasetError, ImageError};
pub use fingerprint::Fingerprint;
pub use formats::{FetchError, Fetched, FormatRow, Opened, Source, format_keys, formats};
pub use loader::Loader;
pub use logitcask_philox::Stream;
pub use memory::Trust;
pub use pixel_layout::PixelLayout;
pub use pixels::{Interpolation, Pillow, Resampling, Step};
pub use preprocess::{ChannelOrder, Preprocess, PreprocessSpec};
pub use sample::{Image, ImageSize};
pub use scale::Scale;
pub use show::{contact_sheet, png, stack, write_npy, write_png};
pub use sources::{Checksum, PUBLICATIONS, Publication, RemoteFile, Unpack};
pub use spec::{
    DataSpec, MAX_BYTES, MAX_IMAGE_PIXELS, OnBad, Role, SampleWeights, Selection, SplitSpec,
    SyntheticSpec,
};
pub use view::{Mix, MixHow, View};
pub use view_family::{Count, Draw, ViewFamily, ViewsSpec, epoch_view};
pub use view_size::input_size;
