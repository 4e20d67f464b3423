//! The bytes of a chunk file: mapped, or read by position.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::buffer::Buffer;
use memmap2::Mmap;

use crate::CacheError;

/// How chunk files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Mapped into memory, without a copy. Right for local disks.
    ///
    /// A mapped file that is *replaced* stays what it was: the old one is held. A mapped file that is *truncated in
    /// place* cannot be survived: touching the lost pages kills the process (SIGBUS). Nothing of ours truncates; on
    /// file systems where others might, use [`Io::Read`].
    #[default]
    Map,
    /// Read by position for each row. Right for network file systems.
    Read,
}

/// An open chunk file.
pub(crate) enum Source {
    Map(Buffer),
    #[cfg(unix)]
    Read {
        file: File,
        len: u64,
    },
}

impl Source {
    pub(crate) fn open(path: &Path, io: Io) -> Result<Source, CacheError> {
        let file = logitcask_durable::open(path).map_err(CacheError::io("open", path))?;
        match io {
            Io::Map => map(&file)
                .map(Source::Map)
                .map_err(CacheError::io("map", path)),
            #[cfg(unix)]
            Io::Read => {
                let len = file.metadata().map_err(CacheError::io("read", path))?.len();
                Ok(Source::Read { file, len })
            }
            #[cfg(not(unix))]
            Io::Read => {
                let bytes = logitcask_durable::read(path).map_err(CacheError::io("read", path))?;
                Ok(Source::Map(Buffer::from_vec(bytes)))
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Source::Map(buffer) => buffer.len() as u64,
            #[cfg(unix)]
            Source::Read { len, .. } => *len,
        }
    }

    /// All bytes, where the file is mapped.
    #[inline]
    pub(crate) fn mapped(&self) -> Option<&[u8]> {
        match self {
            Source::Map(buffer) => Some(buffer.as_slice()),
            #[cfg(unix)]
            Source::Read { .. } => None,
        }
    }

    /// The bytes at `range`, borrowed where the file is mapped.
    ///
    /// # Errors
    /// If the range ends beyond the file, or the file cannot be read.
    pub(crate) fn bytes(&self, range: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Source::Map(buffer) => buffer
                .as_slice()
                .get(range)
                .map(Cow::Borrowed)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            #[cfg(unix)]
            Source::Read { file, len } => {
                use std::os::unix::fs::FileExt;
                if range.start > range.end || range.end as u64 > *len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut bytes = vec![0; range.len()];
                file.read_exact_at(&mut bytes, range.start as u64)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// Asks the memory for the beginning and the end of `bytes`; what lies between the processor fetches by itself
/// once it sees them read in order. Asking for all of it keeps more requests open than there is room for: rows of
/// 1000 f32 then take half as long again.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    const LINE: usize = 64;
    const ASKED: usize = 8;
    for line in bytes.chunks(LINE).take(ASKED) {
        prefetch_line(&line[0]);
    }
    // A row begins anywhere in a cache line, so it may reach into one more than its length says.
    if let Some(last) = bytes.last() {
        prefetch_line(last);
    }
}

/// Asks the memory for the cache line that holds `byte`.
#[inline]
pub(crate) fn prefetch_line(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint. It reads nothing that the program could see and faults on no address, and this one is
    // that of a live byte.
    #[expect(
        unsafe_code,
        reason = "the hint has no safe name in stable Rust; loads instead of it wait for memory"
    )]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// Maps a whole file. An empty file cannot be mapped and gives an empty buffer.
fn map(file: &File) -> io::Result<Buffer> {
    if file.metadata()?.len() == 0 {
        return Ok(Buffer::from_vec(Vec::<u8>::new()));
    }
    // SAFETY: a map is sound only while nobody changes the file. Chunk files appear by a rename and are never opened
    // for writing afterwards, by us or by any capture that resumes; replacing or removing one leaves the mapped inode
    // alone. What could still go wrong: another program that writes into the file in place changes bytes under a `&[u8]`
    // (a row's check then fails, or the compiler may have read a byte twice), and one that truncates it makes the next
    // access a SIGBUS. That is documented at `Io::Map`, and `Io::Read` is the way out.
    #[expect(unsafe_code, reason = "a file cannot be mapped without it")]
    let map = unsafe { Mmap::map(file)? };
    let start = NonNull::from(map.as_ref()).cast::<u8>();
    let len = map.len();
    // SAFETY: `start` points to `len` initialised bytes, which stay valid and in place until `map` is dropped. The
    // buffer owns `map` from here on and drops it last. A `Mmap` may be moved: the pages do not move with it.
    #[expect(
        unsafe_code,
        reason = "handing the map's memory to Arrow without a copy"
    )]
    let buffer = unsafe { Buffer::from_custom_allocation(start, len, Arc::new(map)) };
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_bytes_are_the_files_own_and_read_ones_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chunk");
        let written: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        logitcask_durable::write_atomic(&path, |file| std::io::Write::write_all(file, &written))
            .unwrap();
        let mapped = Source::open(&path, Io::Map).unwrap();
        let read = Source::open(&path, Io::Read).unwrap();
        let whole = mapped.mapped().unwrap().as_ptr_range();
        for range in [0..1, 64..128, 9_990..10_000] {
            let bytes = mapped.bytes(range.clone()).unwrap();
            assert!(
                matches!(bytes, Cow::Borrowed(_)) && whole.contains(&bytes.as_ptr()),
                "{range:?} was copied"
            );
            assert_eq!(*bytes, written[range.clone()]);
            assert_eq!(*read.bytes(range).unwrap(), *bytes);
        }
        for source in [mapped, read] {
            assert!(source.bytes(9_999..10_001).is_err());
        }
        // A map begins at a page, so that what is aligned in the file is aligned in memory.
        assert_eq!(whole.start as usize % 4096, 0);
    }
}
