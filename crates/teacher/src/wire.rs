//! The wire format of protocol buffers: read, numbers and pieces of bytes, field by field; and as much of writing as it takes
//! to add to a message.

/// One field of a protobuf message.
pub(crate) enum Field<'a> {
    Varint(u64),
    /// Of 32 bits, as a float's.
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    Other,
}

/// Iterates over the fields of a message; yields `None` inside where the bytes are not a message.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let (head, rest) = (self.0.get(..length)?, self.0.get(length..)?);
        self.0 = rest;
        Some(head)
    }

    /// The next field's number and value. `Some(None)` at the end, `None` where the bytes make no sense.
    pub(crate) fn next(&mut self) -> Option<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some(Some((tag >> 3, field)))
    }
}

/// Calls `visit` on each length-delimited field with this number.
pub(crate) fn walk_messages(
    bytes: &[u8],
    wanted: u64,
    visit: &mut dyn FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        if let (true, Field::Bytes(message)) = (number == wanted, field) {
            visit(message)?;
        }
    }
    Some(())
}

/// A field of bytes: a text, or a message inside.
pub(crate) fn message(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }
    bytes.extend_from_slice(content);
    bytes
}
