//! The image column of one row group: its pages, and what is in them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parquet::basic::{CompressionCodec, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::SerializedPageReader;

use super::cache::PageImages;
use super::places::{DecodedBody, Places};
use super::reading::{Placed, Watched, contradiction};

/// Where the pages of a column chunk lie, by their headers. Written indices of pages are passed over: pyarrow writes none,
/// and the headers say the same.
pub(super) struct Pages {
    dictionary: Option<Range<u64>>,
    pub(super) data: Vec<DataPage>,
}

pub(super) struct DataPage {
    /// In the file, header and body.
    at: Range<u64>,
    /// Of the row group.
    pub(super) rows: Range<usize>,
    /// Known once it was decoded; nothing in it where its images cannot be read by themselves.
    pub(super) places: OnceLock<Option<Places>>,
}

impl Pages {
    /// The page that holds a row of the group, and its number.
    pub(super) fn of(&self, row: usize) -> Option<(u32, &DataPage)> {
        let number = self.data.partition_point(|page| page.rows.end <= row);
        Some((number as u32, self.data.get(number)?))
    }
}

/// The image column of a row group, as the footer describes it.
pub(super) struct ImageChunk<'a> {
    pub(super) file: &'a Placed,
    pub(super) footer: &'a ColumnChunkMetaData,
    pub(super) n_rows: usize,
}

impl ImageChunk<'_> {
    /// Finds the pages, reading their headers only.
    pub(super) fn find_pages(&self) -> Result<Pages, ParquetError> {
        let (start, n_bytes) = self.footer.byte_range();
        let watched = Watched::new(self.file.clone());
        let mut reader =
            SerializedPageReader::new(Arc::clone(&watched), self.footer, self.n_rows, None)?;
        let mut headers = Vec::new();
        while let Some(page) = reader.peek_next_page()? {
            headers.push((watched.header(), page));
            reader.skip_next_page()?;
        }
        let ends = headers.iter().skip(1).map(|(start, _)| *start);
        let ends = ends.chain([start + n_bytes]);
        let (mut dictionary, mut data, mut row) = (None, Vec::new(), 0);
        for ((start, page), end) in headers.iter().zip(ends) {
            let at = *start..end;
            if page.is_dict {
                dictionary = Some(at);
                continue;
            }
            // Nothing is repeated in this column, so a level is a row.
            let n_rows = page.num_levels.or(page.num_rows).unwrap_or(0);
            let rows = row..n_rows.saturating_add(row);
            row = rows.end;
            data.push(DataPage {
                at,
                rows,
                places: OnceLock::new(),
            });
        }
        if row != self.n_rows {
            return Err(contradiction(format!(
                "it has {} rows, but the pages of its images have {row}",
                self.n_rows
            )));
        }
        Ok(Pages { dictionary, data })
    }

    /// About what it takes to load a page, in bytes.
    pub(super) fn weight(&self, pages: &Pages, page: &DataPage) -> usize {
        let length = |at: &Range<u64>| (at.end - at.start) as usize;
        let dictionary = pages.dictionary.as_ref().map_or(0, length);
        // References into a dictionary are shorter than what they refer to, and a page that holds images is not.
        let refers = length(&page.at) < dictionary;
        let stored = length(&page.at) + if refers { dictionary } else { 0 };
        if self.footer.compression_codec() == CompressionCodec::UNCOMPRESSED {
            return stored;
        }
        let growth = self.footer.uncompressed_size() as f64 / self.footer.compressed_size() as f64;
        stored + (stored as f64 * growth) as usize
    }

    /// Reads and decodes a page, and finds the places of its images if they have any.
    pub(super) fn load(
        &self,
        pages: &Pages,
        page: &DataPage,
    ) -> Result<(PageImages, Option<Places>), ParquetError> {
        let (data, mut body) = self.read_page(&page.at)?;
        let mut n_bytes = data.buffer().len();
        let mut wanted = VecDeque::from([data]);
        if matches!(
            wanted[0].encoding(),
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY
        ) {
            let missing = || contradiction("a page refers to a dictionary that is not there");
            let at = pages.dictionary.as_ref().ok_or_else(missing)?;
            let (dictionary, its_body) = self.read_page(at)?;
            n_bytes += dictionary.buffer().len();
            check_dictionary(&dictionary)?;
            wanted.push_front(dictionary);
            body = its_body;
        }
        let rows = self.decode(wanted, page.rows.len())?;
        let places = Places::of(&body, &rows);
        n_bytes += size_of_val(&rows[..]);
        Ok((PageImages { rows, n_bytes }, places))
    }

    /// The one page that lies at a place.
    fn read_page(&self, at: &Range<u64>) -> Result<(Page, DecodedBody), ParquetError> {
        let alone = ColumnChunkMetaData::builder(self.footer.column_descr_ptr())
            .set_compression_codec(self.footer.compression_codec())
            .set_data_page_offset(at.start as i64)
            .set_total_compressed_size((at.end - at.start) as i64)
            .build()?;
        let watched = Watched::new(self.file.clone());
        let mut reader = SerializedPageReader::new(Arc::clone(&watched), &alone, 0, None)?;
        let missing = || contradiction("a page is not where its header was");
        let page = reader.get_next_page()?.ok_or_else(missing)?;
        let (start, stored) = watched.body().ok_or_else(missing)?;
        let mut body = DecodedBody {
            start,
            stored,
            output: page.buffer().clone(),
            n_levels: 0,
            codec: self.footer.compression_codec(),
        };
        if let Page::DataPageV2 {
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            ..
        } = page
        {
            body.n_levels = (def_levels_byte_len + rep_levels_byte_len) as usize;
            if !is_compressed {
                body.codec = CompressionCodec::UNCOMPRESSED;
            }
        }
        Ok((page, body))
    }

    /// The images of `n_rows` rows; each is a part of the page that it was in.
    fn decode(
        &self,
        pages: VecDeque<Page>,
        n_rows: usize,
    ) -> Result<Vec<Option<ByteArray>>, ParquetError> {
        let column = self.footer.column_descr_ptr();
        let whole = column.max_def_level();
        let mut reader =
            ColumnReaderImpl::<ByteArrayType>::new(column, Box::new(InMemory { pages }));
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (found, ..) = reader.read_records(n_rows, Some(&mut levels), None, &mut values)?;
        if found != n_rows {
            return Err(contradiction(format!(
                "a page holds {found} images, its header says {n_rows}"
            )));
        }
        if whole == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let row = |level| if level == whole { values.next() } else { None };
        Ok(levels.into_iter().map(row).collect())
    }
}

/// The decoder reserves room for as many values as the header claims; each takes 4 bytes at least.
fn check_dictionary(page: &Page) -> Result<(), ParquetError> {
    match page {
        Page::DictionaryPage {
            buf, num_values, ..
        } if *num_values as usize <= buf.len() / 4 => Ok(()),
        _ => Err(contradiction("its dictionary is shorter than it says")),
    }
}

/// Pages that are at hand, as the decoder takes them.
struct InMemory {
    pages: VecDeque<Page>,
}

impl Iterator for InMemory {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pages.pop_front().map(Ok)
    }
}

impl PageReader for InMemory {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Ok(self.pages.pop_front())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(self.pages.front().map(|page| PageMetadata {
            num_rows: None,
            num_levels: page.is_data_page().then(|| page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.pop_front();
        Ok(())
    }
}
