//! Git's pkt-lines (gitprotocol-common(5)): four hexadecimal digits of length, then the data.

/// A pkt-line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pkt<'a> {
    /// Data, without the newline at its end.
    Data(&'a [u8]),
    /// `0000`: end of a list.
    Flush,
    /// `0001`: end of a section.
    Delimiter,
    /// `0002`: end of a response.
    End,
}

/// Bytes that are no pkt-lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not in git's wire format")]
pub struct BadPkt;

/// Reads pkt-lines one after another.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next pkt-line; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Pkt<'a>>, BadPkt> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(BadPkt)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadPkt);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| BadPkt)?;
        let length = usize::from_str_radix(digits, 16).map_err(|_| BadPkt)?;
        let (pkt, rest) = match length {
            0 => (Pkt::Flush, rest),
            1 => (Pkt::Delimiter, rest),
            2 => (Pkt::End, rest),
            3 => return Err(BadPkt),
            _ => {
                let (data, rest) = rest.split_at_checked(length - 4).ok_or(BadPkt)?;
                (Pkt::Data(data.strip_suffix(b"\n").unwrap_or(data)), rest)
            }
        };
        self.rest = rest;
        Ok(Some(pkt))
    }
}

/// Appends a data pkt-line. Data that is too long for a pkt-line is left out; ours is short.
pub(crate) fn write(out: &mut Vec<u8>, data: &str) {
    let length = data.len() + 4;
    if length <= 65520 {
        out.extend_from_slice(format!("{length:04x}").as_bytes());
        out.extend_from_slice(data.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        write(&mut out, "command=ls-refs\n");
        out.extend_from_slice(b"00010000");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.next(), Ok(Some(Pkt::Data(b"command=ls-refs"))));
        assert_eq!(reader.next(), Ok(Some(Pkt::Delimiter)));
        assert_eq!(reader.next(), Ok(Some(Pkt::Flush)));
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn broken_lines_are_errors() {
        for bad in ["00", "0003", "zzzz", "0010short", "+00a123456", "<htm"] {
            assert_eq!(Reader::new(bad.as_bytes()).next(), Err(BadPkt), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
