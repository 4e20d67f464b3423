//! Which columns hold the images and the labels.

use arrow::datatypes::{DataType, Schema};
use parquet::basic::Type;
use parquet::schema::types::SchemaDescriptor;

use crate::{DataSpec, DatasetError};

const IMAGE_COLUMNS: &[&str] = &["image", "img"];
const LABEL_COLUMNS: &[&str] = &["label", "fine_label", "labels"];

/// The columns of one file that are read.
pub(super) struct Columns {
    /// The leaf of the images' bytes.
    pub(super) image_leaf: usize,
    /// The field of the labels.
    pub(super) label: usize,
    pub(super) label_kind: LabelKind,
}

/// What the labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelKind {
    Integers,
    /// Whole ones, as pandas makes of integers beside a null.
    Floats,
    Booleans,
    /// Text: the names of classes.
    Names,
}

impl Columns {
    /// Those that the recipe names, or those of the usual names.
    pub(super) fn find(
        path: &std::path::Path,
        spec: &DataSpec,
        schema: &Schema,
        leaves: &SchemaDescriptor,
    ) -> Result<Self, DatasetError> {
        let image = Wanted {
            what: "image",
            name: spec.image_column.as_deref(),
            usual: IMAGE_COLUMNS,
            kind: "struct<bytes, path> or bytes, one image a row",
        };
        let label = Wanted {
            what: "label",
            name: spec.label_column.as_deref(),
            usual: LABEL_COLUMNS,
            kind: "integers, whole floats, booleans or strings, one label a row",
        };
        let missing = |wanted: &Wanted<'_>| wanted.missing(path, schema);
        let (_, image_leaf) = image
            .find(schema, |field, data_type| {
                image_leaf(leaves, schema.field(field).name(), data_type)
            })
            .ok_or_else(|| missing(&image))?;
        let (label_field, label_kind) = label
            .find(schema, |_, data_type| label_kind(data_type))
            .ok_or_else(|| missing(&label))?;
        Ok(Self {
            image_leaf,
            label: label_field,
            label_kind,
        })
    }
}

/// A column that is looked for.
struct Wanted<'a> {
    what: &'static str,
    name: Option<&'a str>,
    usual: &'a [&'a str],
    /// What it must be of.
    kind: &'static str,
}

impl Wanted<'_> {
    /// The first field of a fitting name and type, and what `fits` says of it.
    fn find<T>(
        &self,
        schema: &Schema,
        fits: impl Fn(usize, &DataType) -> Option<T>,
    ) -> Option<(usize, T)> {
        let find = |name: &str| {
            let mut fields = schema.fields().iter().enumerate();
            fields.find_map(|(at, field)| {
                let found = (field.name() == name).then(|| fits(at, field.data_type()));
                Some((at, found.flatten()?))
            })
        };
        match self.name {
            Some(name) => find(name),
            None => self.usual.iter().find_map(|name| find(name)),
        }
    }

    fn missing(&self, path: &std::path::Path, schema: &Schema) -> DatasetError {
        let fields = schema.fields().iter();
        let columns: Vec<String> = fields
            .map(|field| format!("`{}`: {}", field.name(), field.data_type()))
            .collect();
        let name = self
            .name
            .map_or_else(|| self.usual.join("` or `"), str::to_owned);
        DatasetError::Column {
            path: path.into(),
            what: self.what,
            expected: format!("`{name}` of {}", self.kind),
            found: columns.join(", "),
        }
    }
}

/// The leaf of Parquet's own schema that holds the bytes of an image column.
fn image_leaf(leaves: &SchemaDescriptor, name: &str, data_type: &DataType) -> Option<usize> {
    let is_path: fn(&[String], &str) -> bool = match data_type {
        DataType::Struct(fields) => {
            let field = fields.iter().find(|field| field.name() == "bytes")?;
            is_bytes(field.data_type()).then_some(())?;
            |path, name| path.len() == 2 && path[0] == name && path[1] == "bytes"
        }
        _ => {
            is_bytes(data_type).then_some(())?;
            |path, name| path.len() == 1 && path[0] == name
        }
    };
    leaves.columns().iter().position(|leaf| {
        is_path(leaf.path().parts(), name)
            && leaf.physical_type() == Type::BYTE_ARRAY
            && leaf.max_rep_level() == 0
    })
}

fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Dictionary(_, values) => is_bytes(values),
        _ => false,
    }
}

fn label_kind(data_type: &DataType) -> Option<LabelKind> {
    match data_type {
        DataType::Dictionary(_, values) => label_kind(values),
        DataType::Boolean => Some(LabelKind::Booleans),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(LabelKind::Names),
        _ if data_type.is_integer() => Some(LabelKind::Integers),
        _ if data_type.is_floating() => Some(LabelKind::Floats),
        _ => None,
    }
}
