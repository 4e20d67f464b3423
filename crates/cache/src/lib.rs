//! Teacher logits on disk: written once, mapped ever after.
//!
//! A cache is a folder that belongs to one teacher, one split of one dataset and one family of views:
//!
//! ```text
//! data/cache/resnet56-0123456789ab/
//!     cache.json                  what the cache is: key, sizes, digests; written first, never changed
//!     view=0000/part-00000.arrow  the rows of consecutive samples; appears whole or not at all
//!     view=0000/view.json         the view's chunks and their digests; written last, makes the view exist
//! ```
//!
//! What flows through this crate:
//!
//! 1. A [`CacheKey`] names what changes a logit. [`find`] looks for its cache, and says what differs in the nearest one.
//! 2. A [`LogitWriter`] takes a [`Manifest`], says which chunks are missing, and turns [`ChunkRows`] into chunk files,
//!    row by row through an [`Encoding`]. Killed at any moment, it loses the chunk in work.
//! 3. A [`LogitCache`] maps the chunks and gathers rows by (sample, view) into a caller's buffer. Each row carries a
//!    CRC-32C over sample, view, label and bytes, which is computed anew at each gather: a wrong row is an error, whatever
//!    happened to the disk.
//!
//! This crate knows no image, model or tensor library. `docs/format.md` describes the files for other readers.

mod chunk;
mod chunk_rows;
mod claims;
mod diff;
mod distance;
mod encodings;
mod error;
mod folder;
mod gather;
mod gc;
mod key;
mod layouts;
mod maker;
mod manifest;
mod reader;
mod rework;
mod row_check;
mod sealed;
mod search;
mod source;
mod space;
mod stats;
mod verify;
mod view_file;
mod writer;

pub use chunk_rows::{ChunkRows, NO_LABEL};
pub use claims::clear_stale_claims;
pub use diff::{DiffReport, diff};
pub use distance::{DistanceSummary, Distances, Quantiles, RowDistance, TEMPERATURES};
pub use encodings::{Encoding, EncodingRow, REST_TEMPERATURES, Statistic, TopKRow, encodings};
pub use error::CacheError;
pub use folder::bytes_of;
pub use gc::{GcCandidate, GcPolicy, gc_plan, remove, remove_shells};
pub use key::{CacheKey, Difference};
pub use layouts::parquet::{export, find_archive, pack, unpack, write_samples};
pub use maker::{Maker, makers};
pub use manifest::{Manifest, PixelCheck};
pub use reader::{LogitCache, OpenOptions};
pub use rework::{MergeReport, merge, transcode};
pub use search::{Found, Summary, find, list, manifests};
pub use source::Io;
pub use space::{PlanRow, available, check_space, plan};
pub use stats::{ClassStats, N_BINS, ReliabilityBin, SampleStats, Stats, stats};
pub use verify::{Damage, VerifyReport, verify};
pub use view_file::{ChunkEntry, ViewFile};
pub use writer::LogitWriter;

/// The first of the largest.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, z) in logits.iter().enumerate() {
        if *z > logits[best] {
            best = class;
        }
    }
    best
}
