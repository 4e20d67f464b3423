//! Where each image of a page lies in the file, so that one of them is read without its page.
//!
//! pyarrow makes a page of at least 1024 rows, and the Hub's files have a whole row group in one: for a sample drawn at
//! random that is 10 to 100 MB to read and to decode. But the images lie in it one after the other, as they are or in a
//! block of Snappy whose fragments can be read alone. Once a page was decoded whole, its images' places are known.

use bytes::Bytes;
use parquet::basic::CompressionCodec;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;

use super::reading::contradiction;
use super::snappy::Fragments;
use crate::files::PlacedFile;

/// Marks a row that is null.
const NULL: u32 = u32::MAX;

/// The images of one page, as ranges of the output of one body.
pub(super) struct Places {
    body: Body,
    /// (first byte, length) for each row.
    rows: Vec<(u32, u32)>,
}

/// What follows the header of a page of values.
struct Body {
    /// Where it begins in the file.
    start: u64,
    /// Where it is compressed; otherwise the file holds its output.
    fragments: Option<Fragments>,
}

/// A page of values, as it lies in the file and as it was decoded.
pub(super) struct DecodedBody {
    /// Where its bytes begin in the file.
    pub(super) start: u64,
    /// As they lie there.
    pub(super) stored: Bytes,
    /// Decompressed; beyond `n_levels` bytes of levels, which are never compressed.
    pub(super) output: Bytes,
    pub(super) n_levels: usize,
    pub(super) codec: CompressionCodec,
}

impl Places {
    /// None where the images do not lie in `body` as they are, or where it cannot be read in pieces: other encodings than
    /// PLAIN and other compressions than Snappy.
    pub(super) fn of(body: &DecodedBody, rows: &[Option<ByteArray>]) -> Option<Self> {
        let values = body.output.get(body.n_levels..)?;
        let rows = rows.iter().map(|row| match row {
            None => Some((NULL, 0)),
            Some(image) => place(values, image.data()),
        });
        let rows = rows.collect::<Option<_>>()?;
        let stored = body.stored.get(body.n_levels..)?;
        let fragments = match body.codec {
            CompressionCodec::UNCOMPRESSED => None,
            CompressionCodec::SNAPPY => Some(Fragments::of(stored)?),
            _ => return None,
        };
        Some(Self {
            body: Body {
                start: body.start + body.n_levels as u64,
                fragments,
            },
            rows,
        })
    }

    /// Reads the image of `row` into `image`; false where it is null.
    pub(super) fn read(
        &self,
        file: &PlacedFile,
        row: usize,
        image: &mut Vec<u8>,
    ) -> Result<bool, ParquetError> {
        let (start, n_bytes) = self.rows[row];
        if start == NULL {
            return Ok(false);
        }
        let (start, n_bytes) = (start as usize, n_bytes as usize);
        match &self.body.fragments {
            _ if n_bytes == 0 => image.clear(),
            None => {
                image.resize(n_bytes, 0);
                file.read_at(image, self.body.start + start as u64)?;
            }
            Some(fragments) => {
                let piece = fragments.around(start, n_bytes);
                let piece =
                    piece.ok_or_else(|| contradiction("an image lies outside of its page"))?;
                let (from, to) = piece.compressed;
                let mut block = piece.preamble();
                let n_preamble = block.len();
                block.resize(n_preamble + (to - from) as usize, 0);
                file.read_at(&mut block[n_preamble..], self.body.start + u64::from(from))?;
                let output = snap::raw::Decoder::new()
                    .decompress_vec(&block)
                    .map_err(|error| ParquetError::External(error.into()))?;
                image.clear();
                image.extend_from_slice(&output[piece.skip..][..n_bytes]);
            }
        }
        Ok(true)
    }
}

/// Where in `values` an image lies that the decoder took from there without copying it.
fn place(values: &[u8], image: &[u8]) -> Option<(u32, u32)> {
    if image.is_empty() {
        return Some((0, 0));
    }
    let start = image.as_ptr().addr().checked_sub(values.as_ptr().addr())?;
    let end = start.checked_add(image.len())?;
    // An address says nothing by itself: elsewhere in memory lie other bytes.
    let is_there = values.get(start..end)? == image;
    let start = u32::try_from(start).ok().filter(|&start| start != NULL)?;
    is_there.then_some((start, image.len() as u32))
}
