//! Where the content of a sparse file belongs, in each of GNU's four forms (GNU tar manual, "Storing Sparse Files").

use std::io::{self, Read};

use super::header::{self, BLOCK, Header};
use super::pax::{Records, decimal};
use super::{Archive, MAX_EXTENSION, bad, take_block};

/// A part of a file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// A file's extents, and its size with the holes.
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
    pub(super) size: u64,
}

impl Map {
    /// Extents in ascending order, within the file.
    fn check(numbers: &[u64], size: u64) -> io::Result<Self> {
        let wrong = || bad("a sparse file whose extents overlap or are beyond its end");
        let mut extents = Vec::new();
        let mut at = 0;
        let pairs = numbers.chunks(2);
        for pair in pairs {
            let &[offset, length] = pair else { return Err(wrong()) };
            let end = offset.checked_add(length).filter(|end| offset >= at && *end <= size).ok_or_else(wrong)?;
            at = end;
            extents.push(Extent { offset, length });
        }
        Ok(Self { extents, size })
    }
}

/// The oldest form: the list begins in the header and goes on in blocks that follow it.
pub(super) fn of_header<R: Read>(header: &Header, archive: &mut Archive<R>) -> io::Result<Map> {
    let (list, mut more) = header.sparse();
    let mut numbers = Vec::new();
    let mut add = |list: &[u8]| -> io::Result<()> {
        for pair in list.chunks_exact(24).take_while(|pair| pair.first() != Some(&0)) {
            for half in pair.chunks_exact(12) {
                numbers.push(header::size(half)?);
            }
        }
        Ok(())
    };
    add(list)?;
    let mut read = 0;
    while more {
        read += BLOCK;
        if read > MAX_EXTENSION {
            return Err(bad("a sparse file with too many extents"));
        }
        let block = take_block(&mut archive.inner)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        add(block.get(..504).unwrap_or_default())?;
        more = block.get(504).is_some_and(|flag| *flag != 0);
    }
    Map::check(&numbers, header.real_size()?)
}

/// The forms of extended headers. The last of them has its list in front of the content, from which it is read here.
pub(super) fn of_records<R: Read>(records: &Records, archive: &mut Archive<R>) -> io::Result<Option<Map>> {
    let version = (records.value("GNU.sparse.major"), records.value("GNU.sparse.minor"));
    let size = match records.number("GNU.sparse.realsize")? {
        Some(size) => Some(size),
        None => records.number("GNU.sparse.size")?,
    };
    let numbers = match version {
        (Some(b"1"), Some(b"0")) => in_content(archive)?,
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) => match (records.extents()?, size) {
            (Some(numbers), _) => numbers,
            // One hole.
            (None, Some(_)) => Vec::new(),
            (None, None) => return Ok(None),
        },
        _ => return Err(bad("a sparse file in a form of which nothing is known")),
    };
    Map::check(&numbers, size.ok_or_else(|| bad("a sparse file without a size"))?).map(Some)
}

/// Decimal numbers, one a line, in whole blocks: how many extents, then offset and length of each.
fn in_content<R: Read>(archive: &mut Archive<R>) -> io::Result<Vec<u64>> {
    let wrong = || bad("a sparse file whose map cannot be read");
    let mut text = Vec::new();
    let mut block = [0; BLOCK];
    let mut lines = 0;
    let mut wanted = None;
    while wanted.is_none_or(|wanted| lines < wanted) {
        if text.len() >= MAX_EXTENSION {
            return Err(bad("a sparse file with too many extents"));
        }
        archive.read_exact(&mut block)?;
        lines += block.iter().filter(|byte| **byte == b'\n').count();
        text.extend_from_slice(&block);
        if wanted.is_none() && lines > 0 {
            let count = text.split(|byte| *byte == b'\n').next().and_then(decimal).ok_or_else(wrong)?;
            let count = usize::try_from(count).ok().and_then(|count| count.checked_mul(2)).ok_or_else(wrong)?;
            wanted = Some(count.saturating_add(1));
        }
    }
    let numbers = text.split(|byte| *byte == b'\n').skip(1).take(wanted.unwrap_or_default().saturating_sub(1));
    numbers.map(|number| decimal(number).ok_or_else(wrong)).collect()
}
