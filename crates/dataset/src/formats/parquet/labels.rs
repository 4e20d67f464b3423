//! The labels of a split, as numbers of classes.
//!
//! Integers are the numbers themselves, and so are floats if they are whole. Of booleans `false` is class 0. Strings are
//! names: their classes are all that the split has, sorted by their bytes, as scikit-learn's `LabelEncoder` has them.
//! Where several files say what their numbers are called, the first one's order counts.

use std::collections::HashMap;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::columns::LabelKind;
use super::table::Table;
use crate::DatasetError;
use crate::formats::classes::map_classes;

#[derive(Default)]
pub(super) struct Labels {
    /// Of strings, the order in which they were met; classes once all are read.
    numbers: Vec<u32>,
    met: HashMap<String, u32>,
    class_names: Vec<String>,
    /// The file that told the names of the classes, or what the labels are.
    first: Option<(PathBuf, LabelKind)>,
}

/// All labels of a split.
pub(super) struct Classes {
    pub(super) labels: Vec<u32>,
    /// Empty where nobody told them.
    pub(super) names: Vec<String>,
    /// The names were the labels, so the split has no more of them than it shows.
    pub(super) are_names: bool,
}

impl Labels {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Reads those of one more file.
    pub(super) fn read(&mut self, table: &Table) -> Result<(), DatasetError> {
        let kind = table.columns.label_kind;
        self.check_kind(table, kind)?;
        let start = self.numbers.len();
        table.read_labels(|column| self.take(table, kind, column))?;
        check_rows(table, self.numbers.len() - start)?;
        match kind {
            LabelKind::Names => Ok(()),
            LabelKind::Booleans => {
                self.class_names = ["false", "true"].map(str::to_owned).into();
                Ok(())
            }
            LabelKind::Integers | LabelKind::Floats => self.agree(table, start),
        }
    }

    /// Numbers the classes: those that have names in the order of the names' bytes.
    pub(super) fn finish(self) -> Classes {
        let are_names = matches!(self.first, Some((_, LabelKind::Names)));
        if !are_names {
            return Classes {
                labels: self.numbers,
                names: self.class_names,
                are_names,
            };
        }
        let mut met: Vec<(String, u32)> = self.met.into_iter().collect();
        met.sort();
        let mut classes = vec![0; met.len()];
        for (class, (_, number)) in met.iter().enumerate() {
            classes[*number as usize] = class as u32;
        }
        let labels = self.numbers.iter().map(|&number| classes[number as usize]);
        Classes {
            labels: labels.collect(),
            names: met.into_iter().map(|(name, _)| name).collect(),
            are_names,
        }
    }

    fn check_kind(&mut self, table: &Table, kind: LabelKind) -> Result<(), DatasetError> {
        let is_number = |kind| matches!(kind, LabelKind::Integers | LabelKind::Floats);
        match &self.first {
            None => {
                self.first = Some((table.path().into(), kind));
                Ok(())
            }
            Some((_, first)) if *first == kind || is_number(*first) && is_number(kind) => Ok(()),
            Some((path, first)) => Err(DatasetError::ShardClasses {
                path: table.path().into(),
                reference: path.clone(),
                found: format!(
                    "its labels are {}, not {}",
                    kind.in_words(),
                    first.in_words()
                ),
            }),
        }
    }

    fn take(
        &mut self,
        table: &Table,
        kind: LabelKind,
        column: ArrayRef,
    ) -> Result<(), DatasetError> {
        let plain = match kind {
            LabelKind::Integers => DataType::Int64,
            LabelKind::Floats => DataType::Float64,
            LabelKind::Booleans => DataType::Boolean,
            LabelKind::Names => DataType::LargeUtf8,
        };
        let column = cast(&column, &plain).map_err(|error| table.error(None, error.into()))?;
        self.numbers.reserve(column.len());
        for row in 0..column.len() {
            let number = match column.is_null(row) {
                true => Err(Refused::Says("the label is null".into())),
                false => self.number(kind, &column, row),
            };
            let number = number.map_err(|refused| refused.at(table, self.numbers.len()))?;
            self.numbers.push(number);
        }
        Ok(())
    }

    fn number(&mut self, kind: LabelKind, column: &ArrayRef, row: usize) -> Result<u32, Refused> {
        match kind {
            LabelKind::Integers => class(column.as_primitive::<Int64Type>().value(row)),
            LabelKind::Booleans => Ok(column.as_boolean().value(row).into()),
            LabelKind::Floats => match column.as_primitive::<Float64Type>().value(row) {
                // Rust's cast saturates, so what is too large stays out of range.
                label if label.fract() == 0.0 => class(label as i64),
                label => Err(Refused::Says(format!(
                    "the label is `{label}`, which is no whole number"
                ))),
            },
            LabelKind::Names => {
                let name = column.as_string::<i64>().value(row);
                if let Some(&number) = self.met.get(name) {
                    return Ok(number);
                }
                let number = self.met.len() as u32;
                self.met.insert(name.to_owned(), number);
                Ok(number)
            }
        }
    }

    /// Brings the numbers of the file that was read last, from `start` on, to the first file's names.
    fn agree(&mut self, table: &Table, start: usize) -> Result<(), DatasetError> {
        let names = table.class_names();
        if names.is_empty() {
            return Ok(());
        }
        if self.class_names.is_empty() {
            self.class_names = names;
            self.first = Some((table.path().into(), table.columns.label_kind));
            return Ok(());
        }
        let differ = |found| DatasetError::ShardClasses {
            path: table.path().into(),
            reference: self
                .first
                .as_ref()
                .map_or_else(PathBuf::new, |(path, _)| path.clone()),
            found,
        };
        let Some(map) = map_classes(&self.class_names, &names, false).map_err(differ)? else {
            return Ok(());
        };
        for index in start..self.numbers.len() {
            let label = self.numbers[index];
            let mapped = map.get(label as usize).copied();
            self.numbers[index] = mapped.ok_or_else(|| DatasetError::LabelRange {
                place: place(table, index),
                label: label.into(),
                n_classes: names.len(),
            })?;
        }
        Ok(())
    }
}

impl LabelKind {
    fn in_words(self) -> &'static str {
        match self {
            Self::Integers => "integers",
            Self::Floats => "floats",
            Self::Booleans => "booleans",
            Self::Names => "strings",
        }
    }
}

/// Why a label is no class.
enum Refused {
    Says(String),
    OutOfRange(i64),
}

impl Refused {
    fn at(self, table: &Table, index: usize) -> DatasetError {
        let place = place(table, index);
        match self {
            Self::Says(found) => DatasetError::Label { place, found },
            Self::OutOfRange(label) => DatasetError::LabelRange {
                place,
                label,
                n_classes: 1 << 24,
            },
        }
    }
}

fn class(label: i64) -> Result<u32, Refused> {
    match label {
        -1 => Err(Refused::Says(
            "the label is `-1`, which marks a split without labels".into(),
        )),
        // A class count is a usize somewhere in memory per row: no real one comes near this.
        0..=0xFF_FFFF => Ok(label as u32),
        _ => Err(Refused::OutOfRange(label)),
    }
}

fn place(table: &Table, index: usize) -> String {
    format!(
        "sample {index} (`{}` row {})",
        table.file.0.name(),
        index - table.start
    )
}

/// The footer's row counts place every sample, so they must be those that were read.
fn check_rows(table: &Table, found: usize) -> Result<(), DatasetError> {
    let expected = table.group_rows().map(|rows| usize::try_from(rows).ok());
    let expected = expected
        .reduce(|a, b| a?.checked_add(b?))
        .unwrap_or(Some(0));
    if expected == Some(found) && u32::try_from(table.start + found).is_ok() {
        return Ok(());
    }
    Err(DatasetError::Malformed {
        path: table.path().into(),
        format: "Parquet",
        found: format!("its footer counts other than the {found} labels that were read"),
    })
}
