//! What an encoding does: rows of logits to columns of bytes, and back.

use super::top_k_row::TopKRow;
use crate::gather::ABREAST;

/// Writes and reads the rows of one encoding.
pub(crate) trait Codec: Send + Sync {
    /// The columns, in the order in which a row's check runs over them. At most [`MAX_COLUMNS`](crate::gather::MAX_COLUMNS).
    fn columns(&self) -> Vec<Column>;

    /// Encodes one row of finite logits into one slice per column, each of that column's `row_bytes`.
    ///
    /// # Errors
    /// The first class whose logit the encoding cannot hold.
    fn encode(&self, logits: &[f32], label: u32, columns: &mut [&mut [u8]]) -> Result<(), usize>;

    /// Decodes one row; the reverse of [`encode`](Codec::encode). A class whose logit the row does not hold is minus
    /// infinity: enough to count hits, and never handed out as a logit.
    fn decode(&self, columns: &[&[u8]], logits: &mut [f32]);

    /// Decodes several rows at once, the columns of each side by side, into as many rows of `logits` as it holds.
    fn decode_abreast(&self, columns: &[[&[u8]; ABREAST]], logits: &mut [f32]);

    /// Decodes a row of the k largest; `None` from a dense encoding.
    fn decode_top_k(&self, _columns: &[&[u8]]) -> Option<TopKRow> {
        None
    }
}

/// A column that rows of an encoding are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// What it is made of.
    pub(crate) element: Element,
    /// How many elements a row has, as a list; `None` for a plain column.
    pub(crate) list: Option<usize>,
}

impl Column {
    pub(crate) fn row_bytes(&self) -> usize {
        self.element.bytes() * self.list.unwrap_or(1)
    }
}

/// The element of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    U16,
    U32,
    F16,
    F32,
}

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::U16 | Element::F16 => 2,
            Element::U32 | Element::F32 => 4,
        }
    }
}
