//! One file, with its footer read.

use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::columns::Columns;
use super::pages::ImageChunk;
use super::reading::{Placed, unless_it_asserts};
use crate::files::PlacedFile;
use crate::{DataSpec, DatasetError};

/// The reader reserves room for a batch before it reads, so this is not left to what a footer claims.
const ROWS_AT_ONCE: usize = 1024;

pub(super) struct Table {
    pub(super) file: Placed,
    pub(super) columns: Columns,
    /// The index of the first sample.
    pub(super) start: usize,
    metadata: ArrowReaderMetadata,
}

impl Table {
    pub(super) fn open(path: &Path, spec: &DataSpec, start: usize) -> Result<Self, DatasetError> {
        let file = Placed(Arc::new(PlacedFile::open(path.into())?));
        let load = || ArrowReaderMetadata::load(&file, Default::default());
        let metadata = unless_it_asserts(load).map_err(|source| DatasetError::Parquet {
            path: path.into(),
            group: None,
            source,
        })?;
        let columns = Columns::find(path, spec, metadata.schema(), metadata.parquet_schema())?;
        Ok(Self {
            file,
            columns,
            start,
            metadata,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.0.path
    }

    pub(super) fn error(&self, group: Option<usize>, source: ParquetError) -> DatasetError {
        DatasetError::Parquet {
            path: self.path().into(),
            group,
            source,
        }
    }

    /// The rows of each row group, as the footer has them.
    pub(super) fn group_rows(&self) -> impl Iterator<Item = i64> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| group.num_rows())
    }

    pub(super) fn images(&self, group: usize) -> ImageChunk<'_> {
        let group = self.metadata.metadata().row_group(group);
        ImageChunk {
            file: &self.file,
            footer: group.column(self.columns.image_leaf),
            n_rows: group.num_rows() as usize,
        }
    }

    /// Hands the label column to `take`, piece by piece, in order.
    pub(super) fn read_labels(
        &self,
        mut take: impl FnMut(ArrayRef) -> Result<(), DatasetError>,
    ) -> Result<(), DatasetError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [self.columns.label]);
        let build = || {
            ParquetRecordBatchReaderBuilder::new_with_metadata(
                self.file.clone(),
                self.metadata.clone(),
            )
            .with_projection(mask)
            .with_batch_size(ROWS_AT_ONCE)
            .build()
        };
        let failed = |source| self.error(None, source);
        let mut reader = unless_it_asserts(build).map_err(failed)?;
        loop {
            let next = unless_it_asserts(|| Ok(reader.next().transpose()?));
            match next.map_err(failed)? {
                Some(batch) => take(Arc::clone(batch.column(0)))?,
                None => return Ok(()),
            }
        }
    }

    /// From the metadata that Hugging Face's `datasets` leaves in the schema; empty where there is none.
    pub(super) fn class_names(&self) -> Vec<String> {
        let schema = self.metadata.schema();
        let label = schema.field(self.columns.label).name();
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
}
