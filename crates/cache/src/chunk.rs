//! One chunk: rows in, a file out; a file in, rows out, each checked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::buffer::MutableBuffer;

use crate::chunk_rows::{ChunkRows, NO_LABEL};
use crate::encodings::{Codec, Column, TopKRow};
use crate::gather::MAX_COLUMNS;
use crate::layouts::arrow_ipc::{self, ChunkColumns, ChunkLayout};
use crate::row_check::{head, row_check};
use crate::source::{Io, Source, prefetch, prefetch_line};
use crate::{CacheError, Manifest};

/// Which chunk of which cache a file holds.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPlace {
    pub(crate) view: u32,
    pub(crate) samples: Range<u32>,
}

impl ChunkPlace {
    pub(crate) fn new(
        manifest: &Manifest,
        view: u32,
        chunk: u32,
    ) -> Result<ChunkPlace, CacheError> {
        Ok(ChunkPlace {
            view,
            samples: manifest.chunk_range(chunk)?,
        })
    }

    /// What the file says about itself, so that one in a wrong place is refused.
    pub(crate) fn metadata(&self, manifest: &Manifest) -> HashMap<String, String> {
        let pairs = [
            ("logitcask.version", crate::sealed::VERSION.to_string()),
            ("logitcask.key", crate::key::hex(&manifest.key.digest())),
            ("logitcask.encoding", manifest.encoding.to_string()),
            ("logitcask.view", self.view.to_string()),
            ("logitcask.first_sample", self.samples.start.to_string()),
        ];
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

/// Encodes the rows of one chunk into the bytes of its file.
///
/// # Errors
/// Slices of a wrong length, labels out of range, logits that are not finite or that the encoding cannot hold: each
/// names the sample.
pub(crate) fn encode(
    manifest: &Manifest,
    place: &ChunkPlace,
    rows: &ChunkRows<'_>,
    path: &Path,
) -> Result<Vec<u8>, CacheError> {
    check_lengths(manifest, place, rows)?;
    let codec = manifest.encoding.codec(manifest.n_classes);
    let feature_codec = manifest.feature_codec();
    let n_rows = place.samples.len();
    let columns = manifest.columns();
    let mut encoded: Vec<(Column, MutableBuffer)> = columns
        .iter()
        .map(|&column| {
            (
                column,
                MutableBuffer::from_len_zeroed(n_rows * column.row_bytes()),
            )
        })
        .collect();
    let mut checks = Vec::with_capacity(n_rows);
    for (row, sample) in place.samples.clone().enumerate() {
        let label = rows.labels[row];
        check_label(manifest, sample, label)?;
        let mut slices: Vec<&mut [u8]> = encoded
            .iter_mut()
            .map(|(column, bytes)| {
                let row_bytes = column.row_bytes();
                &mut bytes.as_slice_mut()[row * row_bytes..][..row_bytes]
            })
            .collect();
        if !rows.valid.is_empty() && !rows.valid[row] {
            checks.push(row_check(head(sample, place.view, label), &[]));
            continue;
        }
        let logits = &rows.logits[row * manifest.n_classes..][..manifest.n_classes];
        check_finite(sample, place.view, logits)?;
        if let Some((step, spread)) = manifest.encoding.drowns(logits) {
            return Err(CacheError::Drowned {
                sample,
                view: place.view,
                step,
                spread,
                encoding: manifest.encoding.to_string(),
            });
        }
        codec
            .encode(logits, label, &mut slices)
            .map_err(|class| CacheError::OutOfRange {
                sample,
                view: place.view,
                class,
                value: logits[class],
                encoding: manifest.encoding.to_string(),
            })?;
        if let Some((codec, column)) = feature_codec.as_ref().zip(slices.last_mut()) {
            let features = &rows.features[row * manifest.feature_len..][..manifest.feature_len];
            encode_features(codec.as_ref(), features, column).map_err(|index| {
                CacheError::Feature {
                    sample,
                    view: place.view,
                    index,
                    value: features[index],
                }
            })?;
        }
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
        checks.push(row_check(head(sample, place.view, label), &slices));
    }
    let valid = if rows.valid.is_empty() {
        vec![true; n_rows]
    } else {
        rows.valid.to_vec()
    };
    let columns = ChunkColumns {
        samples: place.samples.clone().collect(),
        labels: rows.labels.to_vec(),
        checks,
        valid,
        encoded,
    };
    arrow_ipc::to_bytes(columns, place.metadata(manifest)).map_err(|source| CacheError::Arrow {
        path: path.to_path_buf(),
        source,
    })
}

/// Encodes a row of features; gives back the first that is no number, or too large for one of 16 bits.
fn encode_features(codec: &dyn Codec, features: &[f32], column: &mut [u8]) -> Result<(), usize> {
    match features.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(index),
        None => codec.encode(features, NO_LABEL, &mut [column]),
    }
}

fn check_lengths(
    manifest: &Manifest,
    place: &ChunkPlace,
    rows: &ChunkRows<'_>,
) -> Result<(), CacheError> {
    let n_rows = place.samples.len();
    let check = |what, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(CacheError::Length {
            what,
            expected,
            found,
        }),
    };
    check("labels", rows.labels.len(), n_rows)?;
    check("logits", rows.logits.len(), n_rows * manifest.n_classes)?;
    check(
        "features",
        rows.features.len(),
        n_rows * manifest.feature_len,
    )?;
    if !rows.valid.is_empty() {
        check("valid", rows.valid.len(), n_rows)?;
    }
    Ok(())
}

fn check_label(manifest: &Manifest, sample: u32, label: u32) -> Result<(), CacheError> {
    if label == NO_LABEL || (label as usize) < manifest.n_classes {
        return Ok(());
    }
    Err(CacheError::Label {
        sample,
        label,
        n_classes: manifest.n_classes,
    })
}

fn check_finite(sample: u32, view: u32, logits: &[f32]) -> Result<(), CacheError> {
    match logits.iter().position(|z| !z.is_finite()) {
        None => Ok(()),
        Some(class) => Err(CacheError::NonFinite {
            sample,
            view,
            class,
            value: logits[class],
        }),
    }
}

/// A chunk file, open and located.
pub(crate) struct Chunk {
    path: PathBuf,
    place: ChunkPlace,
    source: Source,
    layout: ChunkLayout,
}

/// One row, as it stands in the file and as its check vouches for it.
pub(crate) enum Row<T> {
    /// The label, and what was decoded.
    There(u32, T),
    /// The sample could not be decoded; its label is known all the same.
    Null(u32),
}

impl Chunk {
    /// Opens a chunk file and checks that its frame is what the manifest says. Rows are checked when they are read.
    pub(crate) fn open(
        path: &Path,
        manifest: &Manifest,
        place: ChunkPlace,
        io: Io,
    ) -> Result<Chunk, CacheError> {
        let source = Source::open(path, io)?;
        let layout = arrow_ipc::locate(
            &source,
            place.samples.len(),
            &manifest.columns(),
            &place.metadata(manifest),
        )
        .map_err(|problem| CacheError::damaged(path, problem))?;
        Ok(Chunk {
            path: path.to_path_buf(),
            place,
            source,
            layout,
        })
    }

    /// Refuses a file of another length than `view.json` says.
    pub(crate) fn check_file_len(&self, expected: u64) -> Result<(), CacheError> {
        let found = self.source.len();
        match found == expected {
            true => Ok(()),
            false => Err(CacheError::damaged(
                &self.path,
                format!("it has {found} bytes, expected {expected}"),
            )),
        }
    }

    /// Reads the row of `sample`, checks it, and decodes it into `logits`.
    ///
    /// # Errors
    /// If the check disagrees with the bytes, or the file cannot be read.
    #[inline]
    pub(crate) fn row(
        &self,
        sample: u32,
        codec: &dyn Codec,
        logits: &mut [f32],
    ) -> Result<Row<()>, CacheError> {
        self.checked_row(sample, |columns| codec.decode(columns, logits))
    }

    /// The same for a row of the k largest; the inner `None` comes from a dense encoding.
    pub(crate) fn top_k_row(
        &self,
        sample: u32,
        codec: &dyn Codec,
    ) -> Result<Row<Option<TopKRow>>, CacheError> {
        self.checked_row(sample, |columns| codec.decode_top_k(columns))
    }

    /// The same for the features beside the row, in a cache that has them.
    pub(crate) fn features(
        &self,
        sample: u32,
        codec: &dyn Codec,
        features: &mut [f32],
    ) -> Result<Row<()>, CacheError> {
        self.checked_row(sample, |columns| {
            codec.decode(&columns[columns.len() - 1..], features);
        })
    }

    #[inline]
    fn checked_row<T>(
        &self,
        sample: u32,
        decode: impl FnOnce(&[&[u8]]) -> T,
    ) -> Result<Row<T>, CacheError> {
        let unreadable = |error| CacheError::io("read", &self.path)(error);
        let row = (sample - self.place.samples.start) as usize;
        let Some(bytes) = self.source.mapped() else {
            return self
                .checked_row_by_reading(sample, row, decode)
                .map_err(unreadable)?;
        };
        let (check, label) = check_and_label(&bytes[self.layout.check(row)]);
        let is_there = self
            .layout
            .validity(row)
            .is_none_or(|(byte, bit)| bytes[byte] & bit != 0);
        let mut columns: [&[u8]; MAX_COLUMNS] = Default::default();
        let mut n_columns = 0;
        if is_there {
            for (column, range) in columns.iter_mut().zip(self.layout.encoded(row)) {
                *column = &bytes[range];
                n_columns += 1;
            }
        }
        // The bytes come into the first-level cache here, and are decoded from there.
        let columns = &columns[..n_columns];
        self.compare(
            sample,
            check,
            row_check(head(sample, self.place.view, label), columns),
        )?;
        Ok(if is_there {
            Row::There(label, decode(columns))
        } else {
            Row::Null(label)
        })
    }

    /// The same without a map: a read by position for each column.
    #[cold]
    fn checked_row_by_reading<T>(
        &self,
        sample: u32,
        row: usize,
        decode: impl FnOnce(&[&[u8]]) -> T,
    ) -> io::Result<Result<Row<T>, CacheError>> {
        let (check, label) = check_and_label(&self.source.bytes(self.layout.check(row))?);
        let is_there = match self.layout.validity(row) {
            None => true,
            Some((byte, bit)) => self.source.bytes(byte..byte + 1)?[0] & bit != 0,
        };
        let mut columns = Vec::new();
        if is_there {
            for range in self.layout.encoded(row) {
                columns.push(self.source.bytes(range)?);
            }
        }
        let columns: Vec<&[u8]> = columns.iter().map(AsRef::as_ref).collect();
        let computed = row_check(head(sample, self.place.view, label), &columns);
        Ok(self
            .compare(sample, check, computed)
            .map(|()| match is_there {
                true => Row::There(label, decode(&columns)),
                false => Row::Null(label),
            }))
    }

    /// The row of `sample`, of so many columns; `None` where the file is not mapped or has another number of them.
    #[inline]
    pub(crate) fn locate<const COLUMNS: usize>(&self, sample: u32) -> Option<Located<'_, COLUMNS>> {
        let bytes = self.source.mapped()?;
        let row = (sample - self.place.samples.start) as usize;
        let places: &[_; COLUMNS] = self.layout.columns().try_into().ok()?;
        Some(Located {
            check: bytes[self.layout.check(row)].first_chunk()?,
            columns: places.map(|place| &bytes[place.of(row)]),
            view: self.place.view,
            sample,
            is_there: match self.layout.validity(row) {
                None => true,
                Some((byte, bit)) => bytes[byte] & bit != 0,
            },
        })
    }

    /// What the columns `sample` and `label` say about a row. They are for other readers: to a gather position is
    /// arithmetic, and the label stands beside the check.
    pub(crate) fn stored_columns(&self, sample: u32) -> io::Result<(u32, u32)> {
        let row = (sample - self.place.samples.start) as usize;
        let one = |range: Range<usize>| -> io::Result<u32> {
            Ok(number(&self.source.bytes(range)?, 0..4))
        };
        Ok((one(self.layout.sample(row))?, one(self.layout.label(row))?))
    }

    /// All bytes of the file.
    pub(crate) fn file_bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        self.source.bytes(0..self.source.len() as usize)
    }

    pub(crate) fn samples(&self) -> Range<u32> {
        self.place.samples.clone()
    }

    fn compare(&self, sample: u32, found: u32, computed: u32) -> Result<(), CacheError> {
        if found == computed {
            return Ok(());
        }
        let (path, view) = (self.path.clone(), self.place.view);
        Err(CacheError::DamagedRow {
            path,
            sample,
            view,
            found,
            computed,
        })
    }
}

/// A row of a mapped file, found but not read yet.
#[derive(Clone, Copy)]
pub(crate) struct Located<'a, const COLUMNS: usize> {
    check: &'a [u8; 8],
    /// The row's bytes in each of the encoding's columns.
    pub(crate) columns: [&'a [u8]; COLUMNS],
    view: u32,
    sample: u32,
    /// Whether the sample could be decoded.
    pub(crate) is_there: bool,
}

impl<const COLUMNS: usize> Located<'_, COLUMNS> {
    /// Asks the memory for the row, without waiting for it.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_line(&self.check[0]); // eight bytes at a multiple of eight
        for column in self.columns {
            prefetch(column);
        }
    }

    /// The check and the label that stand in the file.
    #[inline]
    pub(crate) fn check_and_label(&self) -> (u32, u32) {
        check_and_label(self.check)
    }

    /// What the check begins with.
    #[inline]
    pub(crate) fn head(&self, label: u32) -> [u8; 16] {
        head(self.sample, self.view, label)
    }
}

/// The two numbers of the `check` column.
#[inline]
fn check_and_label(bytes: &[u8]) -> (u32, u32) {
    (number(bytes, 0..4), number(bytes, 4..8))
}

/// The number at `range`, four bytes that [`arrow_ipc::locate`] has found to lie in the file.
fn number(bytes: &[u8], range: Range<usize>) -> u32 {
    let bytes = bytes[range].first_chunk();
    u32::from_le_bytes(*bytes.expect("a range of four bytes has four bytes"))
}
