//! CRIU's messages: the few protobuf messages of its `rpc.proto` that are used here.

/// A message in the making.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    /// A number: all of its kinds have the same form when they are not negative.
    pub(super) fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// A descriptor or process id.
    pub(super) fn id(&mut self, field: u64, value: i32) -> &mut Self {
        self.number(field, u64::from(value.unsigned_abs()))
    }

    /// Written when it holds: absent is false.
    pub(super) fn flag(&mut self, field: u64, on: bool) -> &mut Self {
        if on { self.number(field, 1) } else { self }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(&mut self, field: u64, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    pub(super) fn message(&mut self, field: u64, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One field of a message that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, up to its end or the first invalid byte.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "orphan-pts-master").id(2, 70_000);
        let mut outer = Message::default();
        outer.number(1, 6).flag(2, true).flag(3, false).message(5, &inner);
        let fields: Vec<_> = Fields(outer.as_bytes()).collect();
        assert_eq!(fields, [(1, Field::Number(6)), (2, Field::Number(1)), (5, Field::Bytes(inner.as_bytes()))]);
        let fields: Vec<_> = Fields(inner.as_bytes()).collect();
        assert_eq!(fields, [(1, Field::Bytes(b"orphan-pts-master")), (2, Field::Number(70_000))]);
    }

    #[test]
    fn cut_messages_end() {
        let mut message = Message::default();
        message.text(1, "some text").number(300, u64::MAX);
        for length in 0..message.as_bytes().len() {
            assert!(Fields(&message.as_bytes()[..length]).count() < 2);
        }
    }
}
