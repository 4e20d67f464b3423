//! Parquet in the Hugging Face image layout: `image: struct<bytes: binary, path: string>` beside `label: int64`.
//!
//! Footers and labels are read at opening, images when they are wanted, and never more of them are kept than a bound
//! says. A page is decoded whole when the first of its images is wanted, and kept while there is room for it
//! ([`cache`]); from then on the places of its images are known, and each is read by itself ([`places`]). So a pass in
//! order decodes each page once, and samples in any order cost what they are large. Where pages cannot be taken apart
//! (ZSTD, delta encodings) a sample costs its page.
//!
//! A page that cannot be read or decoded takes hundreds of images with it: that is the file's fault and stops the run,
//! whatever `on_bad` says. Bad samples are nulls, and bytes that are no image.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parquet::errors::ParquetError;

use self::cache::PageCache;
use self::labels::{Classes, Labels};
use self::pages::{ImageChunk, Pages};
use self::reading::{contradiction, unless_it_asserts};
use self::table::Table;
use super::classes::map_classes;
use super::labels::count_classes;
use super::opened::{FetchError, Fetched, Opened, Source};
use crate::files;
use crate::shards::check_shards;
use crate::{DataSpec, DatasetError, Image, ImageError, SplitSpec};

mod cache;
mod columns;
mod labels;
mod pages;
mod places;
mod reading;
mod snappy;
mod table;
#[cfg(test)]
mod tests;

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split)?;
    check_shards(spec, split, &paths)?;
    let (tables, mut classes) = read_tables(spec, &paths)?;
    if classes.labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    if classes.are_names && split != &spec.train {
        number_as_train(spec, split, &mut classes)?;
    }
    let Classes { labels, names, .. } = classes;
    let source = Tables::new(tables);
    let n_classes = count_classes(spec, names.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names: names,
        n_classes,
        uniform_size: None,
        files: paths.into(),
        notes: Vec::new(),
    })
}

/// As the first file's metadata tells them; none where labels are names, which number themselves ([`number_as_train`]).
pub(super) fn class_names(spec: &DataSpec, split: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    match find_files(&spec.root, split)?.first() {
        Some(path) => Ok(Table::open(path, spec, 0)?.class_names()),
        None => Ok(Vec::new()),
    }
}

fn read_tables(spec: &DataSpec, paths: &[PathBuf]) -> Result<(Vec<Table>, Classes), DatasetError> {
    let (mut tables, mut labels) = (Vec::new(), Labels::default());
    for path in paths {
        let table = Table::open(path, spec, labels.len())?;
        labels.read(&table)?;
        tables.push(table);
    }
    Ok((tables, labels.finish()))
}

/// Labels that are names number themselves by what the split shows. An evaluation split may show fewer of them, so its
/// classes are those of the train split, where that is there.
fn number_as_train(
    spec: &DataSpec,
    split: &SplitSpec,
    classes: &mut Classes,
) -> Result<(), DatasetError> {
    let paths = match find_files(&spec.root, &spec.train) {
        Err(DatasetError::SplitMissing { .. }) => return Ok(()),
        found => found?,
    };
    let (_, train) = read_tables(spec, &paths)?;
    let map = map_classes(&train.names, &classes.names, true);
    let map = map.map_err(|found| DatasetError::ClassNames {
        split: split.to_string(),
        found,
    })?;
    for label in &mut classes.labels {
        *label = map.as_ref().map_or(*label, |map| map[*label as usize]);
    }
    classes.names = train.names;
    Ok(())
}

/// `<split>.parquet` or `<split>-*.parquet`, in the folder itself or where the Hub keeps them.
fn find_files(root: &Path, split: &SplitSpec) -> Result<Vec<PathBuf>, DatasetError> {
    let name = match split {
        SplitSpec::Files(files) => return files::listed_files(root, split, files),
        SplitSpec::Name(name) => name,
    };
    for folder in [
        root.to_path_buf(),
        root.join("data"),
        root.join("plain_text"),
    ] {
        let whole = folder.join(format!("{name}.parquet"));
        if files::is_file(&whole)? {
            return Ok(vec![whole]);
        }
        if files::is_folder(&folder)? {
            let parts = files::files_named(&folder, &format!("{name}-"), ".parquet")?;
            if !parts.is_empty() {
                return Ok(parts);
            }
        }
    }
    Err(DatasetError::SplitMissing {
        split: name.clone(),
        path: root.into(),
        expected: format!("`{name}.parquet` or `{name}-*.parquet`"),
    })
}

/// All files of a split, as row groups.
struct Tables {
    tables: Vec<Table>,
    groups: Vec<Group>,
    cache: PageCache,
}

struct Group {
    table: usize,
    /// Its number in the file.
    group: usize,
    /// The index of its first sample.
    start: u32,
    /// Found when the first of its images is wanted.
    pages: OnceLock<Pages>,
}

impl Tables {
    fn new(tables: Vec<Table>) -> Self {
        let (mut groups, mut start) = (Vec::new(), 0);
        for (table_index, table) in tables.iter().enumerate() {
            for (group, n_rows) in table.group_rows().enumerate() {
                groups.push(Group {
                    table: table_index,
                    group,
                    start,
                    pages: OnceLock::new(),
                });
                start += n_rows as u32;
            }
        }
        Self {
            tables,
            groups,
            cache: PageCache::default(),
        }
    }

    fn number_of_group(&self, index: u32) -> usize {
        self.groups.partition_point(|group| group.start <= index) - 1
    }

    /// Reads an encoded image into `image`; false where it is null.
    fn read(&self, number: usize, index: u32, image: &mut Vec<u8>) -> Result<bool, ParquetError> {
        let group = &self.groups[number];
        let table = &self.tables[group.table];
        let chunk = table.images(group.group);
        let pages = group.pages(&chunk)?;
        let row = (index - group.start) as usize;
        let (page_number, page) = pages
            .of(row)
            .ok_or_else(|| contradiction(format!("no page holds row {row}")))?;
        let row = row - page.rows.start;
        let key = (number as u32, page_number);
        let kept = match (self.cache.get(key), page.places.get()) {
            (Some(kept), _) => kept,
            (None, Some(Some(places))) => return places.read(&table.file.0, row, image),
            (None, _) => {
                let load = || {
                    let (images, places) = unless_it_asserts(|| chunk.load(pages, page))?;
                    page.places.get_or_init(|| places);
                    Ok(images)
                };
                let expected = chunk.weight(pages, page);
                self.cache.get_or_load(key, expected, load)?
            }
        };
        let Some(encoded) = &kept.rows[row] else {
            return Ok(false);
        };
        image.clear();
        image.extend_from_slice(encoded.data());
        Ok(true)
    }
}

impl Group {
    fn pages(&self, chunk: &ImageChunk<'_>) -> Result<&Pages, ParquetError> {
        if let Some(pages) = self.pages.get() {
            return Ok(pages);
        }
        let found = unless_it_asserts(|| chunk.find_pages())?;
        Ok(self.pages.get_or_init(|| found))
    }
}

impl Source for Tables {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, FetchError> {
        let number = self.number_of_group(index);
        let is_there = self.read(number, index, &mut image.encoded);
        let is_there = is_there.map_err(|source| {
            let group = &self.groups[number];
            self.tables[group.table].error(Some(group.group), source)
        })?;
        match is_there {
            true => Ok(Fetched::Encoded),
            false => Err(ImageError::Null.into()),
        }
    }

    fn place(&self, index: u32) -> String {
        let table = &self.tables[self.groups[self.number_of_group(index)].table];
        format!(
            "`{}` row {}",
            table.file.0.name(),
            index as usize - table.start
        )
    }

    fn file_starts(&self) -> Vec<u32> {
        let starts = self.tables.iter().map(|table| table.start as u32);
        starts.collect()
    }
}
