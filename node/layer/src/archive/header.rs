//! One block of 512 bytes that describes what follows it.

use std::io;

use super::bad;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// Which of the formats that share the block's beginning it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Of the seventh edition of Unix: nothing but the beginning.
    V7,
    /// POSIX, with a prefix to the name.
    Ustar,
    /// GNU, which has other fields in the prefix's place.
    Gnu,
}

pub(super) struct Header([u8; BLOCK]);

impl Header {
    /// Nothing for a block of zeros.
    pub(super) fn parse(block: [u8; BLOCK]) -> io::Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Self(block);
        let wanted = octal(header.field(148, 8)).ok_or_else(|| bad("a header without a checksum"))?;
        let bytes = || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        // What some systems of old wrote.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if wanted != unsigned && i64::try_from(wanted) != Ok(signed) {
            return Err(bad("a header whose checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    pub(super) fn format(&self) -> Format {
        match self.field(257, 8) {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        match text(self.field(345, 155)) {
            prefix if self.format() == Format::Ustar && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<i64> {
        number(self.field(100, 8))
    }

    pub(super) fn uid(&self) -> io::Result<i64> {
        number(self.field(108, 8))
    }

    pub(super) fn gid(&self) -> io::Result<i64> {
        number(self.field(116, 8))
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        size(self.field(124, 12))
    }

    pub(super) fn modified(&self) -> io::Result<i64> {
        number(self.field(136, 12))
    }

    /// The beginning of the list of extents of a sparse file in GNU's old form, and whether more of it follows the header.
    pub(super) fn sparse(&self) -> (&[u8], bool) {
        (self.field(386, 96), self.field(482, 1) != [0])
    }

    pub(super) fn real_size(&self) -> io::Result<u64> {
        size(self.field(483, 12))
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn octal(field: &[u8]) -> Option<u64> {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !padding(byte)).map_or(start, |last| last + 1);
    let digits = field.get(start..end).unwrap_or_default();
    digits.iter().try_fold(0_u64, |number, byte| match byte {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Octal, or GNU's binary form for what does not fit.
pub(super) fn number(field: &[u8]) -> io::Result<i64> {
    let wrong = || bad("a number that is none");
    let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        return octal(field).and_then(|number| i64::try_from(number).ok()).ok_or_else(wrong);
    };
    // The sign is the second bit; the first says that it is binary.
    let first = i64::from(first & 0x7f) - if first & 0x40 != 0 { 0x80 } else { 0 };
    rest.iter().try_fold(first, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte))).ok_or_else(wrong)
}

pub(super) fn size(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| bad("a size below zero"))
}
