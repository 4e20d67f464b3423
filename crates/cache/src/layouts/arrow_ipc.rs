//! One chunk as an Arrow IPC file: one record batch, uncompressed, buffers aligned to 64 bytes.
//!
//! Writing is Arrow's own. Reading only *locates* the columns: it walks the footer, the schema and the batch's header
//! through verified flatbuffers, compares each with what the manifest says it must be, and checks every offset against
//! the file's length. What comes out is a handful of positions; after that a row is arithmetic on the map. Arrow's
//! decoder would do the same walk, but it trusts the header where a hostile one makes it panic.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, PrimitiveArray};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Schema, UInt8Type, UInt16Type,
    UInt32Type,
};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::ipc::{MessageHeader, MetadataVersion, Precision, Type};
use arrow::record_batch::RecordBatch;

use crate::encodings::{Column, Element};
use crate::source::Source;

const MAGIC: &[u8] = b"ARROW1";
/// Footer length and magic at the end of the file.
const TRAILER: usize = 10;
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The columns that every chunk begins with.
const SAMPLE: Column = Column {
    name: "sample",
    element: Element::U32,
    list: None,
};
const LABEL: Column = Column {
    name: "label",
    element: Element::U32,
    list: None,
};
/// The row's CRC and its label once more: a gather reads both, and each place that a row is spread over costs it a miss.
const CHECK: Column = Column {
    name: "check",
    element: Element::U32,
    list: Some(2),
};

/// A chunk in memory, ready to be written.
pub(crate) struct ChunkColumns {
    pub(crate) samples: Vec<u32>,
    pub(crate) labels: Vec<u32>,
    pub(crate) checks: Vec<u32>,
    /// Which rows are there.
    pub(crate) valid: Vec<bool>,
    /// The encoding's columns, each with its bytes.
    pub(crate) encoded: Vec<(Column, MutableBuffer)>,
}

/// Where the columns of a chunk lie in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkLayout {
    pub(crate) n_rows: usize,
    /// One bit a row, or nothing where every row is there.
    validity: Option<usize>,
    samples: usize,
    labels: usize,
    checks: usize,
    /// Places of the encoding's columns, in the codec's order.
    encoded: Vec<ColumnPlace>,
}

/// Where the rows of a column lie, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnPlace {
    start: usize,
    row_bytes: usize,
}

impl ColumnPlace {
    /// The bytes of `row`, counted from 0, in the file.
    #[inline]
    pub(crate) fn of(self, row: usize) -> Range<usize> {
        let start = self.start + row * self.row_bytes;
        start..start + self.row_bytes
    }
}

impl ChunkLayout {
    /// The byte and the bit that say whether `row` is there; `None` where all are.
    pub(crate) fn validity(&self, row: usize) -> Option<(usize, u8)> {
        self.validity.map(|start| (start + row / 8, 1 << (row % 8)))
    }

    pub(crate) fn sample(&self, row: usize) -> Range<usize> {
        element(self.samples, row)
    }

    pub(crate) fn label(&self, row: usize) -> Range<usize> {
        element(self.labels, row)
    }

    /// The row's CRC, and its label.
    #[inline]
    pub(crate) fn check(&self, row: usize) -> Range<usize> {
        let start = self.checks + CHECK.row_bytes() * row;
        start..start + CHECK.row_bytes()
    }

    /// The encoding's columns, in its order.
    #[inline]
    pub(crate) fn columns(&self) -> &[ColumnPlace] {
        &self.encoded
    }

    /// Where `row` lies in each of them.
    pub(crate) fn encoded(&self, row: usize) -> impl Iterator<Item = Range<usize>> {
        self.encoded.iter().map(move |place| place.of(row))
    }
}

fn element(start: usize, row: usize) -> Range<usize> {
    start + 4 * row..start + 4 * row + 4
}

/// The bytes of a chunk file.
pub(crate) fn to_bytes(
    columns: ChunkColumns,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, ArrowError> {
    let checks = columns.checks.iter().zip(&columns.labels);
    let checks: MutableBuffer = checks.flat_map(|(check, label)| [*check, *label]).collect();
    let plain = [(SAMPLE, columns.samples), (LABEL, columns.labels)];
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (column, values) in plain {
        fields.push(Field::new(column.name, DataType::UInt32, false));
        arrays.push(Arc::new(PrimitiveArray::<UInt32Type>::new(
            values.into(),
            None,
        )));
    }
    let checks = encoded_array(&CHECK, checks.into(), None)?;
    fields.push(Field::new(CHECK.name, checks.data_type().clone(), false));
    arrays.push(checks);
    let nulls = columns
        .valid
        .contains(&false)
        .then(|| NullBuffer::from(columns.valid));
    for (column, bytes) in columns.encoded {
        let array = encoded_array(&column, bytes.into(), nulls.clone())?;
        fields.push(Field::new(column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options)?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn encoded_array(
    column: &Column,
    bytes: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    // Inside a list every element is there; a missing row is a null list.
    let own_nulls = if column.list.is_none() {
        nulls.clone()
    } else {
        None
    };
    let values = match column.element {
        Element::U8 => primitive::<UInt8Type>(bytes, own_nulls),
        Element::U16 => primitive::<UInt16Type>(bytes, own_nulls),
        Element::U32 => primitive::<UInt32Type>(bytes, own_nulls),
        Element::F16 => primitive::<Float16Type>(bytes, own_nulls),
        Element::F32 => primitive::<Float32Type>(bytes, own_nulls),
    };
    let Some(n) = column.list else {
        return Ok(values);
    };
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    let n = i32::try_from(n)
        .map_err(|_| ArrowError::InvalidArgumentError(format!("{n} elements in a row")))?;
    Ok(Arc::new(FixedSizeListArray::try_new(
        item, n, values, nulls,
    )?))
}

fn primitive<T: ArrowPrimitiveType>(bytes: Buffer, nulls: Option<NullBuffer>) -> ArrayRef {
    let n = bytes.len() / size_of::<T::Native>();
    Arc::new(PrimitiveArray::<T>::new(
        ScalarBuffer::new(bytes, 0, n),
        nulls,
    ))
}

/// Finds the columns of a chunk, or says in which way the file is not what it must be.
pub(crate) fn locate(
    source: &Source,
    n_rows: usize,
    encoded: &[Column],
    metadata: &HashMap<String, String>,
) -> Result<ChunkLayout, String> {
    let footer_at = find_footer(source)?;
    let footer = bytes_of(source, footer_at.clone())?;
    let footer = arrow::ipc::root_as_footer(&footer)
        .map_err(|error| format!("its footer is damaged: {error}"))?;
    check_schema(footer.schema(), encoded, metadata)?;
    let (header, body) = find_batch(&footer, footer_at.start)?;
    let header = bytes_of(source, header)?;
    let batch = read_batch(&header, n_rows)?;
    let mut buffers = Buffers {
        batch,
        next: 0,
        body,
    };

    // Buffers come in the order of the schema: validity and values of a plain column; a list's validity, and then
    // validity and values of what it is made of.
    let mut plain = |column: &Column| -> Result<usize, String> {
        if column.list.is_some() {
            buffers.next(column.name, 0)?;
        }
        // A validity bitmap here could only claim that a label is missing; none is.
        buffers.next(column.name, 0)?;
        buffers.needed(column.name, n_rows * column.row_bytes())
    };
    let (samples, labels, checks) = (plain(&SAMPLE)?, plain(&LABEL)?, plain(&CHECK)?);
    let mut validity = None;
    let mut located = Vec::with_capacity(encoded.len());
    for (index, column) in encoded.iter().enumerate() {
        let own = buffers.next(column.name, n_rows.div_ceil(8))?;
        if index == 0 {
            validity = own;
        }
        if column.list.is_some() {
            buffers.next(column.name, 0)?;
        }
        located.push(ColumnPlace {
            start: buffers.needed(column.name, n_rows * column.row_bytes())?,
            row_bytes: column.row_bytes(),
        });
    }
    Ok(ChunkLayout {
        n_rows,
        validity,
        samples,
        labels,
        checks,
        encoded: located,
    })
}

fn bytes_of(source: &Source, range: Range<usize>) -> Result<Cow<'_, [u8]>, String> {
    let bytes = source.bytes(range);
    bytes.map_err(|error| format!("it cannot be read: {error}"))
}

/// Where the footer lies, by the trailer behind it.
fn find_footer(source: &Source) -> Result<Range<usize>, String> {
    let len =
        usize::try_from(source.len()).map_err(|_| "it is too large for this machine".to_owned())?;
    let trailer_at = len
        .checked_sub(TRAILER)
        .ok_or_else(|| format!("it ends after {len} bytes"))?;
    let trailer = bytes_of(source, trailer_at..len)?;
    let start = bytes_of(source, 0..len.min(MAGIC.len()))?;
    if &trailer[4..] != MAGIC || !start.starts_with(MAGIC) {
        return Err("it is not a whole Arrow file".to_owned());
    }
    let footer_len = i32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    let footer_at = usize::try_from(footer_len)
        .ok()
        .and_then(|footer_len| trailer_at.checked_sub(footer_len))
        .ok_or_else(|| format!("its footer has an impossible length, {footer_len}"))?;
    Ok(footer_at..trailer_at)
}

/// Where header and body of the one record batch lie, before the footer.
fn find_batch(
    footer: &arrow::ipc::Footer<'_>,
    footer_at: usize,
) -> Result<(Range<usize>, Range<usize>), String> {
    if footer
        .dictionaries()
        .is_some_and(|blocks| !blocks.is_empty())
    {
        return Err("it has dictionaries".to_owned());
    }
    let blocks = footer.recordBatches();
    let n_blocks = blocks.map_or(0, |blocks| blocks.len());
    let block = match blocks {
        Some(blocks) if n_blocks == 1 => blocks.get(0),
        _ => return Err(format!("it has {n_blocks} record batches, expected 1")),
    };
    let places = || {
        let start = usize::try_from(block.offset()).ok()?;
        let header_len = usize::try_from(block.metaDataLength()).ok()?;
        let body_at = start.checked_add(header_len)?;
        let body_end = body_at.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
        (body_end <= footer_at).then_some((start..body_at, body_at..body_end))
    };
    places().ok_or_else(|| "its record batch lies outside the file".to_owned())
}

/// The record batch that a header describes.
fn read_batch(header: &[u8], n_rows: usize) -> Result<arrow::ipc::RecordBatch<'_>, String> {
    let message = header
        .strip_prefix(&CONTINUATION)
        .and_then(|rest| rest.split_first_chunk())
        .and_then(|(n, rest)| rest.get(..usize::try_from(i32::from_le_bytes(*n)).ok()?))
        .ok_or_else(|| "its record batch has no header".to_owned())?;
    let message = arrow::ipc::root_as_message(message)
        .map_err(|error| format!("its batch header is damaged: {error}"))?;
    if message.header_type() != MessageHeader::RecordBatch {
        return Err("its block is not a record batch".to_owned());
    }
    let batch = message
        .header_as_record_batch()
        .ok_or_else(|| "its record batch has no header".to_owned())?;
    if batch.compression().is_some() {
        return Err("it is compressed".to_owned());
    }
    if batch.length() != n_rows as i64 {
        return Err(format!("it has {} rows, expected {n_rows}", batch.length()));
    }
    Ok(batch)
}

/// The buffers of a record batch, one after the other.
struct Buffers<'a> {
    batch: arrow::ipc::RecordBatch<'a>,
    next: usize,
    /// The bytes of the file that hold all buffers of the batch.
    body: Range<usize>,
}

impl Buffers<'_> {
    /// Where the next one starts, which must hold at least `n_bytes`; `None` where it is empty.
    fn next(&mut self, what: &str, n_bytes: usize) -> Result<Option<usize>, String> {
        let all = self.batch.buffers();
        let found = all
            .filter(|all| self.next < all.len())
            .map(|all| *all.get(self.next))
            .ok_or_else(|| format!("it has no buffer for {what}"))?;
        self.next += 1;
        if found.length() == 0 && n_bytes > 0 {
            return Ok(None);
        }
        let place = || {
            let offset = usize::try_from(found.offset()).ok()?;
            let length = usize::try_from(found.length()).ok()?;
            let at = self.body.start.checked_add(offset)?;
            (length >= n_bytes && at.checked_add(length)? <= self.body.end).then_some(at)
        };
        place().map(Some).ok_or_else(|| {
            format!(
                "its buffer for {what} lies outside the batch, or is shorter than {n_bytes} bytes"
            )
        })
    }

    /// The same of one that may not be empty.
    fn needed(&mut self, what: &str, n_bytes: usize) -> Result<usize, String> {
        self.next(what, n_bytes)?
            .ok_or_else(|| format!("its buffer for {what} is empty"))
    }
}

/// Compares the file's schema with what it must be, name by name and type by type.
fn check_schema(
    schema: Option<arrow::ipc::Schema<'_>>,
    encoded: &[Column],
    metadata: &HashMap<String, String>,
) -> Result<(), String> {
    let schema = schema.ok_or_else(|| "it has no schema".to_owned())?;
    if schema.endianness() != arrow::ipc::Endianness::Little {
        return Err("it is not little-endian".to_owned());
    }
    let fields = schema
        .fields()
        .ok_or_else(|| "its schema has no fields".to_owned())?;
    let columns: Vec<&Column> = [&SAMPLE, &LABEL, &CHECK]
        .into_iter()
        .chain(encoded)
        .collect();
    if fields.len() != columns.len() {
        return Err(format!(
            "it has {} columns, expected {}",
            fields.len(),
            columns.len()
        ));
    }
    for (field, column) in fields.iter().zip(columns) {
        let name = field.name().unwrap_or_default();
        if name != column.name {
            return Err(format!(
                "it has a column `{name}` where `{}` belongs",
                column.name
            ));
        }
        let is_right = match column.list {
            None => is_of(&field, column.element),
            Some(n) => {
                let n_found = field.type_as_fixed_size_list().map(|list| list.listSize());
                let children = field.children();
                n_found.is_some_and(|found| usize::try_from(found) == Ok(n))
                    && children.is_some_and(|children| {
                        children.len() == 1 && is_of(&children.get(0), column.element)
                    })
            }
        };
        if !is_right {
            return Err(format!(
                "its column `{name}` is not of the type that the manifest says"
            ));
        }
    }
    for (key, wanted) in metadata {
        let found = schema.custom_metadata().and_then(|all| {
            let pair = all.iter().find(|pair| pair.key() == Some(key))?;
            pair.value()
        });
        if found != Some(wanted) {
            return Err(format!(
                "its `{key}` is `{}`, expected `{wanted}`",
                found.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn is_of(field: &arrow::ipc::Field<'_>, element: Element) -> bool {
    let unsigned = |bits: i32| {
        field.type_type() == Type::Int
            && field
                .type_as_int()
                .is_some_and(|int| !int.is_signed() && int.bitWidth() == bits)
    };
    let float = |precision: Precision| {
        field.type_type() == Type::FloatingPoint
            && field
                .type_as_floating_point()
                .is_some_and(|float| float.precision() == precision)
    };
    let plain = field.dictionary().is_none();
    plain
        && match element {
            Element::U8 => unsigned(8),
            Element::U16 => unsigned(16),
            Element::U32 => unsigned(32),
            Element::F16 => float(Precision::HALF),
            Element::F32 => float(Precision::SINGLE),
        }
}
