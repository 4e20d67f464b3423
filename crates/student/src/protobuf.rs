//! What protocol buffers write: numbers, fixed floats, and bytes with their length. A page in place of a guest: we only
//! write, and only a dozen kinds of message.

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// An integer. Negative ones take ten bytes, as the format has it.
    pub(crate) fn int(&mut self, field: u32, value: i64) -> &mut Self {
        self.key(field, 0);
        self.varint(value as u64);
        self
    }

    /// A float of 32 bits.
    pub(crate) fn float(&mut self, field: u32, value: f32) -> &mut Self {
        self.key(field, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A float of 64 bits.
    pub(crate) fn double(&mut self, field: u32, value: f64) -> &mut Self {
        self.key(field, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A field of bytes or text, its length before it.
    pub(crate) fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    /// A field that is itself a message.
    pub(crate) fn message(&mut self, field: u32, value: &Message) -> &mut Self {
        self.bytes(field, &value.bytes)
    }

    /// As it is written to a file.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own guide (protobuf.dev, "Encoding").
    #[test]
    fn the_guides_examples() {
        let bytes = |write: fn(&mut Message)| {
            let mut message = Message::default();
            write(&mut message);
            message.into_bytes()
        };
        assert_eq!(
            bytes(|m| {
                m.int(1, 150).int(2, 0);
            }),
            [0x08, 0x96, 0x01, 0x10, 0]
        );
        let text = [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67];
        assert_eq!(
            bytes(|m| {
                m.bytes(2, "testing");
            }),
            text
        );
        let inside = bytes(|m| {
            let mut inner = Message::default();
            inner.int(1, 150);
            m.message(3, &inner);
        });
        assert_eq!(inside, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(
            bytes(|m| {
                m.int(1, -1);
            })
            .len(),
            11
        );
    }
}
