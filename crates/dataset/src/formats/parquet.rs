//! Parquet in the Hugging Face image layout: `image: struct<bytes: binary, path: string>` beside `label: int64`.
//!
//! Parquet cannot be read a row at a time. A row group's images are read when the first of them is wanted and kept, as
//! the encoded bytes they are: what a run needs is in memory after one pass, and threads fill different groups at once.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, AsArray, LargeBinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{Fetched, Opened, Source, count_classes};
use crate::files::{self, PlacedFile};
use crate::shards::check_shards;
use crate::{DataSpec, DatasetError, Image, ImageError, SplitSpec};

/// The reader reserves room for a batch before it reads, so this is not left to what a footer claims.
const ROWS_AT_ONCE: usize = 1024;
const IMAGE_COLUMNS: &[&str] = &["image", "img"];
const LABEL_COLUMNS: &[&str] = &["label", "fine_label", "labels"];

pub(super) fn open(spec: &DataSpec, split: &SplitSpec) -> Result<Opened, DatasetError> {
    let root = files::existing_folder(&spec.root)?;
    let paths = find_files(root, split)?;
    check_shards(spec, split, &paths)?;
    let (mut tables, mut labels, mut class_names) = (Vec::new(), Vec::new(), Vec::new());
    for path in &paths {
        let table = Table::open(path, spec, labels.len())?;
        let before = labels.len();
        table.read_labels(&mut labels)?;
        table.check_rows(labels.len() - before)?;
        if class_names.is_empty() {
            class_names = table.class_names();
        }
        tables.push(table);
    }
    if labels.is_empty() {
        return Err(DatasetError::EmptySplit {
            split: split.to_string(),
            path: root.into(),
        });
    }
    let source = Tables::new(tables);
    let n_classes = count_classes(spec, class_names.len(), &labels, |i| source.place(i))?;
    Ok(Opened {
        source: Box::new(source),
        labels,
        class_names,
        n_classes,
        uniform_size: None,
        files: paths.into(),
        notes: Vec::new(),
    })
}

/// As the first file's metadata tells them.
pub(super) fn class_names(spec: &DataSpec, split: &SplitSpec) -> Result<Vec<String>, DatasetError> {
    match find_files(&spec.root, split)?.first() {
        Some(path) => Ok(Table::open(path, spec, 0)?.class_names()),
        None => Ok(Vec::new()),
    }
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
        if whole.is_file() {
            return Ok(vec![whole]);
        }
        if folder.is_dir() {
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

/// One file, with its footer read.
struct Table {
    file: PlacedFile,
    metadata: ArrowReaderMetadata,
    image_column: usize,
    /// Set where the images are a struct and not plain bytes.
    image_field: Option<&'static str>,
    label_column: usize,
    /// The index of the first sample.
    start: usize,
}

impl Table {
    fn open(path: &Path, spec: &DataSpec, start: usize) -> Result<Self, DatasetError> {
        let file = PlacedFile::open(path.into())?;
        let load = || ArrowReaderMetadata::load(file.file(), Default::default());
        let metadata = unless_it_asserts(load).map_err(|source| DatasetError::Parquet {
            path: path.into(),
            source,
        })?;
        let schema = metadata.schema();
        let images = |t: &DataType| is_bytes(t) || bytes_field(t).is_some();
        let image_column = column(
            path,
            schema,
            "image",
            spec.image_column.as_deref(),
            IMAGE_COLUMNS,
            images,
        )?;
        let label_column = column(
            path,
            schema,
            "label",
            spec.label_column.as_deref(),
            LABEL_COLUMNS,
            DataType::is_integer,
        )?;
        let image_field = bytes_field(schema.field(image_column).data_type());
        Ok(Self {
            image_field,
            metadata: metadata.clone(),
            file,
            image_column,
            label_column,
            start,
        })
    }

    fn error(&self, source: ParquetError) -> DatasetError {
        DatasetError::Parquet {
            path: self.file.path.clone(),
            source,
        }
    }

    /// The batches of one column (a leaf of it, where `leaf` says so) in some row groups.
    fn read(&self, column: &str, groups: Vec<usize>) -> Result<Vec<RecordBatch>, ParquetError> {
        let file: File = self.file.file().try_clone()?;
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), [column]);
        unless_it_asserts(|| {
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
            let reader = builder
                .with_projection(mask)
                .with_row_groups(groups)
                .with_batch_size(ROWS_AT_ONCE)
                .build()?;
            let batches = reader.map(|batch| batch.map_err(ParquetError::from));
            batches.collect()
        })
    }

    fn read_labels(&self, labels: &mut Vec<u32>) -> Result<(), DatasetError> {
        let name = self.metadata.schema().field(self.label_column).name();
        let groups = (0..self.metadata.metadata().num_row_groups()).collect();
        for batch in self
            .read(name, groups)
            .map_err(|source| self.error(source))?
        {
            let column = cast(batch.column(0), &DataType::Int64)
                .map_err(|error| self.error(error.into()))?;
            for label in column.as_primitive::<Int64Type>() {
                labels.push(self.checked_label(labels.len(), label)?);
            }
        }
        Ok(())
    }

    /// The footer's row counts place every sample, so they must be those that were read.
    fn check_rows(&self, found: usize) -> Result<(), DatasetError> {
        let groups = self.metadata.metadata().row_groups().iter();
        let expected = groups.map(|group| usize::try_from(group.num_rows()).ok());
        let expected = expected
            .reduce(|a, b| a?.checked_add(b?))
            .unwrap_or(Some(0));
        if expected == Some(found) && u32::try_from(self.start + found).is_ok() {
            return Ok(());
        }
        Err(DatasetError::Malformed {
            path: self.file.path.clone(),
            format: "Parquet",
            found: format!("its footer counts other than the {found} labels that were read"),
        })
    }

    fn checked_label(&self, index: usize, label: Option<i64>) -> Result<u32, DatasetError> {
        let place = || {
            format!(
                "sample {index} (`{}` row {})",
                self.file.name(),
                index - self.start
            )
        };
        match label {
            None => Err(DatasetError::Label {
                place: place(),
                found: "the label is null".into(),
            }),
            Some(-1) => Err(DatasetError::Label {
                place: place(),
                found: "the label is `-1`, which marks a split without labels".into(),
            }),
            // A class count is a usize somewhere in memory per row: no real one comes near this.
            Some(label @ 0..=0xFF_FFFF) => Ok(label as u32),
            Some(label) => Err(DatasetError::LabelRange {
                place: place(),
                label,
                n_classes: 1 << 24,
            }),
        }
    }

    /// From the metadata that Hugging Face's `datasets` leaves in the schema.
    fn class_names(&self) -> Vec<String> {
        let schema = self.metadata.schema();
        let label = schema.field(self.label_column).name();
        let read = || -> Option<Vec<String>> {
            let info: serde_json::Value =
                serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
            let names = info
                .pointer("/info/features")?
                .get(label)?
                .get("names")?
                .as_array()?;
            names
                .iter()
                .map(|name| name.as_str().map(str::to_owned))
                .collect()
        };
        read().unwrap_or_default()
    }

    /// The encoded images of one row group, one array of bytes.
    fn read_images(&self, group: usize) -> Result<LargeBinaryArray, ParquetError> {
        let name = self.metadata.schema().field(self.image_column).name();
        let leaf = match self.image_field {
            Some(field) => format!("{name}.{field}"),
            None => name.clone(),
        };
        let batches = self.read(&leaf, vec![group])?;
        let columns: Vec<_> = batches
            .iter()
            .map(|batch| match self.image_field {
                Some(_) => {
                    let images = batch.column(0).as_struct();
                    // A null struct is a null image whatever its child says.
                    let nulls =
                        arrow::buffer::NullBuffer::union(images.nulls(), images.column(0).nulls());
                    cast(images.column(0), &DataType::LargeBinary)
                        .map(|bytes| with_nulls(bytes.as_binary::<i64>(), nulls))
                }
                None => cast(batch.column(0), &DataType::LargeBinary)
                    .map(|bytes| bytes.as_binary::<i64>().clone()),
            })
            .collect::<Result<_, _>>()?;
        let columns: Vec<&dyn Array> = columns.iter().map(|column| column as &dyn Array).collect();
        if columns.is_empty() {
            return Ok(LargeBinaryArray::new_null(0));
        }
        Ok(arrow::compute::concat(&columns)?.as_binary::<i64>().clone())
    }
}

/// The decoder asserts where a file contradicts itself, as where a page refers to a dictionary that is not there: that too is
/// an error. It owns all that it touches, so nothing of ours is left half done.
fn unless_it_asserts<T>(
    decode: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "the file contradicts itself".to_owned(),
        ))
    })
}

fn with_nulls(
    bytes: &LargeBinaryArray,
    nulls: Option<arrow::buffer::NullBuffer>,
) -> LargeBinaryArray {
    LargeBinaryArray::new(bytes.offsets().clone(), bytes.values().clone(), nulls)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// The field that holds the bytes of a struct of images.
fn bytes_field(data_type: &DataType) -> Option<&'static str> {
    let DataType::Struct(fields) = data_type else {
        return None;
    };
    let field = fields.iter().find(|field| field.name() == "bytes")?;
    is_bytes(field.data_type()).then_some("bytes")
}

fn column(
    path: &Path,
    schema: &Arc<Schema>,
    what: &'static str,
    wanted: Option<&str>,
    usual: &[&str],
    fits: impl Fn(&DataType) -> bool,
) -> Result<usize, DatasetError> {
    let find = |name: &str| {
        schema
            .fields()
            .iter()
            .position(|field| field.name() == name && fits(field.data_type()))
    };
    let found = match wanted {
        Some(name) => find(name),
        None => usual.iter().find_map(|name| find(name)),
    };
    found.ok_or_else(|| {
        let fields = schema.fields().iter();
        let columns: Vec<String> = fields
            .map(|field| format!("`{}`: {}", field.name(), field.data_type()))
            .collect();
        let kind = if what == "image" {
            "of struct<bytes, path> or of bytes"
        } else {
            "of integers"
        };
        DatasetError::Column {
            path: path.into(),
            what,
            expected: match wanted {
                Some(name) => format!("`{name}` {kind}"),
                None => format!("`{}` {kind}", usual.join("` or `")),
            },
            found: columns.join(", "),
        }
    })
}

/// All files of a split, as row groups.
struct Tables {
    tables: Vec<Table>,
    groups: Vec<Group>,
}

struct Group {
    table: usize,
    group: usize,
    /// The index of its first sample.
    start: u32,
    images: OnceLock<Result<LargeBinaryArray, String>>,
}

impl Tables {
    fn new(tables: Vec<Table>) -> Self {
        let (mut groups, mut start) = (Vec::new(), 0);
        for (table_index, table) in tables.iter().enumerate() {
            for (group, rows) in table.metadata.metadata().row_groups().iter().enumerate() {
                groups.push(Group {
                    table: table_index,
                    group,
                    start,
                    images: OnceLock::new(),
                });
                start += rows.num_rows() as u32;
            }
        }
        Self { tables, groups }
    }

    fn group_of(&self, index: u32) -> &Group {
        &self.groups[self.groups.partition_point(|group| group.start <= index) - 1]
    }
}

impl Source for Tables {
    fn fetch(&self, index: u32, image: &mut Image) -> Result<Fetched, ImageError> {
        let group = self.group_of(index);
        let images = group.images.get_or_init(|| {
            let read = self.tables[group.table].read_images(group.group);
            // Kept as text, because every sample of the group reports it and the reader's error cannot be cloned.
            read.map_err(|error| error.to_string())
        });
        let images = images
            .as_ref()
            .map_err(|error| ImageError::Io(std::io::Error::other(error.clone())))?;
        let row = (index - group.start) as usize;
        if row >= images.len() || images.is_null(row) {
            return Err(ImageError::Null);
        }
        image.encoded.clear();
        image.encoded.extend_from_slice(images.value(row));
        Ok(Fetched::Encoded)
    }

    fn place(&self, index: u32) -> String {
        let table = &self.tables[self.group_of(index).table];
        format!(
            "`{}` row {}",
            table.file.name(),
            index as usize - table.start
        )
    }

    fn file_starts(&self) -> Vec<u32> {
        let starts = self.tables.iter().map(|table| table.start as u32);
        starts.collect()
    }
}
