//! What Parquet's own reader is given to read by, so that any number of threads share a file.

use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::files::{Cursor, PlacedFile};

/// Headers of pages are smaller; a larger one takes another read.
const HEADER: usize = 1024;

/// A file that is read by place. The reader for `std::fs::File` moves the one cursor that all its copies share.
#[derive(Clone)]
pub(super) struct Placed(pub(super) Arc<PlacedFile>);

impl Length for Placed {
    fn len(&self) -> u64 {
        self.0.n_bytes
    }
}

impl ChunkReader for Placed {
    type T = BufReader<Cursor<Arc<PlacedFile>>>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let cursor = Cursor::new(Arc::clone(&self.0), start);
        Ok(BufReader::with_capacity(HEADER, cursor))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.0.n_bytes) {
            return Err(ParquetError::EOF(format!(
                "expected {length} bytes from {start}, the file ends at {}",
                self.0.n_bytes
            )));
        }
        let mut bytes = vec![0; length];
        self.0.read_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// As [`Placed`], remembering what was asked for last: parquet's reader finds the pages of a column chunk, but does not
/// say where.
pub(super) struct Watched {
    file: Placed,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    header: u64,
    body: Option<(u64, Bytes)>,
}

impl Watched {
    pub(super) fn new(file: Placed) -> Arc<Self> {
        Arc::new(Self {
            file,
            last: Mutex::default(),
        })
    }

    /// Where the header that was read last begins.
    pub(super) fn header(&self) -> u64 {
        self.last().header
    }

    /// The bytes that were read last, a page without its header, and where they begin.
    pub(super) fn body(&self) -> Option<(u64, Bytes)> {
        self.last().body.clone()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Length for Watched {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Watched {
    type T = <Placed as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.last().header = start;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.file.get_bytes(start, length)?;
        self.last().body = Some((start, bytes.clone()));
        Ok(bytes)
    }
}

/// The decoder asserts where a file contradicts itself, as where a page refers to a dictionary that is not there: that too is
/// an error. It owns all that it touches, so nothing of ours is left half done.
pub(super) fn unless_it_asserts<T>(
    decode: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(contradiction("the file contradicts itself")))
}

pub(super) fn contradiction(found: impl Into<String>) -> ParquetError {
    ParquetError::General(found.into())
}
