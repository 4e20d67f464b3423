//! Decoded pixels on disk: for datasets that fit, decoding is paid once.
//!
//! The file lies in `.logitcask/` in the dataset's folder and is named by the `images` digest and the decoders, so it is
//! found again wherever the dataset moves, and never mistaken for another's. Layout, little-endian: the magic, the
//! number of samples as u64, the table's check as u64, the table, then the pixels. The table holds per sample its offset as
//! u64, height, width, channels and check as u32. A sample's check is CRC-32C over its index, height, width and channels
//! (u32 each) and its pixels, as a row's of a cache is, and is computed anew at each fetch; the table's runs over the table.
//!
//! A store of the first layout, `LCPIXEL1`, had no checks. It is written anew.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, Digest};
use rayon::prelude::*;

use crate::files::PlacedFile;
use crate::formats::{FetchError, Fetched, Source};
use crate::{Dataset, DatasetError, Image, ImageError, ImageSize};

const MAGIC: &[u8; 8] = b"LCPIXEL2";
/// Begins files of the first kind, which have no checks and are written again.
const FIRST_MAGIC: &[u8; 8] = b"LCPIXEL1";
/// A change of decoder may change lossy pixels: part of the file's name.
const DECODERS: &str = "png0.18-jpeg2-webp0.2";
const HEAD: usize = 24;
const ENTRY: usize = 24;

impl Dataset {
    /// From now on reads decoded pixels from a file of them, which is written first if it is not there. That takes as
    /// many bytes as all pixels together. Bad samples are left out of it and stay bad.
    ///
    /// `progress` is told (samples done, samples in all), first of the fingerprint and then of the writing.
    ///
    /// # Errors
    /// A bad sample, unless `on_bad = "skip"`; a folder that cannot be written; a dataset that has no folder; a file that
    /// is damaged. A sample whose pixels have changed on the disk since is an error of whatever reads it, and no bad sample.
    pub fn store_pixels(&mut self, progress: &dyn Fn(u64, u64)) -> Result<PathBuf, DatasetError> {
        if self.opened.files.is_empty() {
            return Err(DatasetError::Setting {
                key: "data.format".into(),
                found: format!(
                    "is `{}`, which has no folder to keep decoded pixels in",
                    self.spec.format
                ),
            });
        }
        let images = blake3::Hash::from(self.fingerprint(progress)?.images).to_hex();
        let name = format!("pixels-{}-{DECODERS}.bin", &images[..16]);
        let path = self.spec.root.join(".logitcask").join(name);
        if is_to_be_written(&path)? {
            self.write_store(&path, progress)?;
        }
        let stored = Stored::open(path.clone(), self.len())?;
        let original = std::mem::replace(&mut self.opened.source, Box::new(NoSource));
        self.opened.source = Box::new(Stored {
            original: Some(original),
            ..stored
        });
        Ok(path)
    }

    fn write_store(&self, path: &Path, progress: &dyn Fn(u64, u64)) -> Result<(), DatasetError> {
        const BLOCK: u32 = 512;
        let io_error = |source| DatasetError::Io {
            action: "write",
            path: path.into(),
            source,
        };
        let n_samples = self.len() as u32;
        let mut failed = None;
        let fill = |file: &mut std::io::BufWriter<std::fs::File>| {
            use std::io::{Seek, SeekFrom};
            file.write_all(MAGIC)?;
            file.write_all(&u64::from(n_samples).to_le_bytes())?;
            let mut entries = vec![0u8; n_samples as usize * ENTRY];
            file.write_all(&[0; 8])?;
            file.write_all(&entries)?;
            let mut offset = (HEAD + entries.len()) as u64;
            for start in (0..n_samples).step_by(BLOCK as usize) {
                progress(start.into(), n_samples.into());
                let block: Vec<_> = (start..n_samples.min(start + BLOCK))
                    .into_par_iter()
                    .map(|index| {
                        let mut image = Image::new();
                        self.try_decode(index, &mut image).map(|()| image)
                    })
                    .collect();
                for (index, image) in (start..).zip(block) {
                    let image = match image {
                        Ok(image) => image,
                        Err(FetchError::Bad(_)) if self.skips_bad() => continue,
                        Err(error) => {
                            failed = Some(self.failed(index, error));
                            return Err(std::io::Error::other("a sample that cannot be had"));
                        }
                    };
                    let entry = &mut entries[index as usize * ENTRY..][..ENTRY];
                    entry[..8].copy_from_slice(&offset.to_le_bytes());
                    entry[8..20].copy_from_slice(&bytes_of(image.size()));
                    let check = sample_check(index, image.size(), image.pixels());
                    entry[20..].copy_from_slice(&check.to_le_bytes());
                    file.write_all(image.pixels())?;
                    offset += image.pixels().len() as u64;
                }
            }
            progress(n_samples.into(), n_samples.into());
            file.seek(SeekFrom::Start(16))?;
            file.write_all(&table_check(&entries).to_le_bytes())?;
            file.write_all(&entries)
        };
        if let Some(folder) = path.parent() {
            logitcask_durable::create_dir_all(folder).map_err(io_error)?;
        }
        let written = logitcask_durable::write_atomic(path, fill);
        match failed {
            Some(error) => Err(error),
            None => written.map_err(io_error),
        }
    }
}

/// Holds the place of a source while it changes hands.
struct NoSource;

impl Source for NoSource {
    fn fetch(&self, _: u32, _: &mut Image) -> Result<Fetched, FetchError> {
        Err(ImageError::Null.into())
    }

    fn place(&self, _: u32) -> String {
        String::new()
    }
}

/// A store that is not there, or has no checks.
fn is_to_be_written(path: &Path) -> Result<bool, DatasetError> {
    let mut magic = Vec::new();
    let read = |file: std::fs::File| file.take(8).read_to_end(&mut magic);
    match logitcask_durable::open(path).and_then(read) {
        Ok(_) => Ok(magic == FIRST_MAGIC),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(DatasetError::Io {
            action: "read",
            path: path.into(),
            source,
        }),
    }
}

/// Height, width and channels.
fn bytes_of(size: ImageSize) -> [u8; 12] {
    let mut bytes = [0; 12];
    let numbers = [size.height, size.width, size.channels];
    for (field, n) in bytes.chunks_exact_mut(4).zip(numbers) {
        field.copy_from_slice(&(n as u32).to_le_bytes());
    }
    bytes
}

fn sample_check(index: u32, size: ImageSize, pixels: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&index.to_le_bytes());
    digest.update(&bytes_of(size));
    digest.update(pixels);
    digest.finalize() as u32
}

fn table_check(table: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, table)
}

struct Stored {
    file: PlacedFile,
    /// Of each sample; no size where it is bad.
    entries: Vec<Entry>,
    /// Still asked for bad samples, which it has the reason for, and for where a sample lies.
    original: Option<Box<dyn Source>>,
}

struct Entry {
    offset: u64,
    size: ImageSize,
    check: u32,
}

impl Stored {
    fn open(path: PathBuf, n_samples: usize) -> Result<Self, DatasetError> {
        let file = PlacedFile::open(path)?;
        let damaged = |problem: String| Err(damaged(&file, problem));
        let mut head = [0u8; HEAD];
        let expected = (HEAD + n_samples * ENTRY) as u64;
        if file.n_bytes < expected {
            return damaged(format!(
                "expected at least {expected} bytes, found {}",
                file.n_bytes
            ));
        }
        file.read_named(&mut head, 0)?;
        if &head[..8] != MAGIC || head[8..16] != (n_samples as u64).to_le_bytes() {
            return damaged("its header is another one".into());
        }
        let mut table = vec![0u8; n_samples * ENTRY];
        file.read_named(&mut table, HEAD as u64)?;
        if head[16..] != table_check(&table).to_le_bytes() {
            return damaged("its table does not have the check that stands before it".into());
        }
        let mut entries = Vec::with_capacity(n_samples);
        for (index, entry) in table.chunks_exact(ENTRY).enumerate() {
            let word = |at: usize| {
                u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
            };
            let offset = u64::from(word(0)) | u64::from(word(4)) << 32;
            let [height, width, channels] = [word(8), word(12), word(16)];
            let n_bytes = u64::from(height) * u64::from(width) * u64::from(channels.min(3));
            let end = offset.checked_add(n_bytes);
            if channels > 3 || end.is_none_or(|end| end > file.n_bytes) {
                return damaged(format!("the pixels of sample {index} lie outside"));
            }
            let [height, width, channels] = [height, width, channels].map(|n| n as usize);
            let size = ImageSize {
                height,
                width,
                channels,
            };
            let check = word(20);
            entries.push(Entry {
                offset,
                size,
                check,
            });
        }
        Ok(Self {
            file,
            entries,
            original: None,
        })
    }
}

fn damaged(file: &PlacedFile, problem: String) -> DatasetError {
    DatasetError::StoredPixels {
        path: file.path.clone(),
        problem,
    }
}

impl Source for Stored {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let &Entry {
            offset,
            size,
            check,
        } = &self.entries[index as usize];
        if size.n_bytes() == 0 {
            return match &self.original {
                Some(source) => source.fetch(index, image),
                None => Err(ImageError::Null.into()),
            };
        }
        let pixels = image.reshape(size);
        self.file.read_named(pixels, offset)?;
        if sample_check(index, size, pixels) != check {
            let problem = format!("the pixels of sample {index} do not have its check");
            return Err(damaged(&self.file, problem).into());
        }
        Ok(Fetched::Pixels)
    }

    fn place(&self, index: u32) -> String {
        self.original
            .as_ref()
            .map_or_else(String::new, |source| source.place(index))
    }

    fn file_starts(&self) -> Vec<u32> {
        self.original
            .as_ref()
            .map_or_else(Vec::new, |source| source.file_starts())
    }
}
