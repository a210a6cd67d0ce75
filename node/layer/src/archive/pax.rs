//! Extended headers of POSIX: records `LENGTH KEY=VALUE\n`, whose values may hold any bytes, newlines too.

use std::collections::BTreeMap;
use std::io;

use super::{Time, bad};

/// What the extended header of one entry says.
#[derive(Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Numbers of GNU's first sparse form, whose records come again and again.
    extents: Vec<u64>,
}

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let mut records = Self::default();
        let wrong = || bad("an extended header that cannot be read");
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length = bytes.get(..space).and_then(decimal).and_then(|length| usize::try_from(length).ok());
            let (record, rest) = length.and_then(|length| bytes.split_at_checked(length)).ok_or_else(wrong)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0).ok_or_else(wrong)?;
            let (key, value) = (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    // First an offset, then its length.
                    if records.extents.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") {
                        return Err(wrong());
                    }
                    records.extents.push(decimal(value).ok_or_else(wrong)?);
                }
                // A path ends at a NUL for the kernel, and not for whoever looked through the archive before.
                b"path" | b"linkpath" | b"GNU.sparse.name" if value.contains(&0) => return Err(wrong()),
                _ => drop(records.values.insert(key.to_vec(), value.to_vec())),
            }
            bytes = rest;
        }
        Ok(records)
    }

    /// The last value of this key; an empty one takes back those before it.
    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, key: &'static str) -> io::Result<Option<u64>> {
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("an extended header whose {key} is no number"));
        self.value(key).map(|value| decimal(value).ok_or_else(wrong)).transpose()
    }

    pub(super) fn modified(&self) -> io::Result<Option<Time>> {
        let wrong = || bad("an extended header whose mtime is no time");
        self.value("mtime").map(|value| time(value).ok_or_else(wrong)).transpose()
    }

    /// Extended attributes, by their names.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value.as_slice())))
    }

    /// Offsets and lengths of a sparse file in GNU's forms 0.0 and 0.1.
    pub(super) fn extents(&self) -> io::Result<Option<Vec<u64>>> {
        let wrong = || bad("a sparse file whose map is no list of numbers");
        match self.value("GNU.sparse.map") {
            Some(map) => map.split(|byte| *byte == b',').map(|part| decimal(part).ok_or_else(wrong)).collect(),
            None if self.extents.is_empty() => return Ok(None),
            None => Ok(self.extents.clone()),
        }
        .map(Some)
    }
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let number = |number: u64, byte: &u8| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, number).filter(|_| !digits.is_empty())
}

/// Seconds since 1970 with a fraction, both maybe below zero.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |value| (true, value));
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = parts.next().and_then(decimal).and_then(|seconds| i64::try_from(seconds).ok())?;
    let mut digits = parts.next().unwrap_or_default().to_vec();
    digits.resize(9, b'0');
    let nanoseconds = decimal(&digits).and_then(|digits| u32::try_from(digits).ok())?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}
