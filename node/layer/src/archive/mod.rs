//! Reads a tar archive entry by entry: those of the seventh edition, POSIX (ustar and PAX) and GNU.
//!
//! Where readers of archives disagree, this one agrees with Go's `archive/tar`, with which the tools for images write and read theirs: an
//! archive must not hold one thing for who looks through it and another for who unpacks it. So of a record that comes twice the last counts,
//! a size in the extended header goes over the one in the header, links and folders have no content whatever their size says, and global
//! extended headers describe nothing.

mod header;
mod pax;
mod sparse;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use header::{BLOCK, Format, Header};
use pax::Records;
pub use sparse::Extent;
use sparse::Map;

/// Most bytes that describe one entry, a kind of description: a long name, an extended header, a list of extents.
const MAX_EXTENSION: usize = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// Another name of a file.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
    /// What no tool for images writes, by its letter.
    Unknown(u8),
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Since 1970, rounded down.
    pub seconds: i64,
    /// Since then, below a billion.
    pub nanoseconds: u32,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it is written.
    pub name: PathBuf,
    /// Where a link leads.
    pub link: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with the setuid, setgid and sticky bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed.
    pub modified: Time,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// What of the file is in the archive, in this order; the rest is holes.
    pub extents: Vec<Extent>,
}

/// An archive that is being read. As a [`Read`] it gives the content of the entry last given, without its holes.
#[derive(Debug)]
pub struct Archive<R> {
    inner: R,
    /// Bytes of content that are still to come, and of the padding after them.
    left: u64,
    padding: u64,
}

/// What was said of an entry before its header.
#[derive(Default)]
struct Described {
    records: Records,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// Begins at the start of an archive.
    pub const fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry, past what was not read of the one before; nothing at the archive's end.
    ///
    /// # Errors
    /// When what is read is no archive, or ends in the middle.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut described: Option<Described> = None;
        loop {
            self.skip()?;
            let block = take_block(&mut self.inner)?;
            let Some(header) = block.map(Header::parse).transpose()?.flatten() else {
                if described.is_some() {
                    return Err(bad("the description of an entry that does not follow"));
                }
                if block.is_some() {
                    self.end()?;
                }
                return Ok(None);
            };
            match header.type_flag() {
                b'x' => {
                    let records = Records::parse(&self.extension(&header)?)?;
                    described.get_or_insert_default().records = records;
                }
                b'L' => described.get_or_insert_default().name = Some(without_end(self.extension(&header)?)),
                b'K' => described.get_or_insert_default().link = Some(without_end(self.extension(&header)?)),
                b'g' => {
                    self.extension(&header)?;
                }
                _ => return self.entry(&header, described.unwrap_or_default()).map(Some),
            }
        }
    }

    /// An archive ends with two blocks of zeros. One alone hides what follows from some readers.
    fn end(&mut self) -> io::Result<()> {
        match take_block(&mut self.inner)? {
            Some(block) if block.iter().any(|byte| *byte != 0) => Err(bad("a lone block of zeros")),
            _ => Ok(()),
        }
    }

    /// The content of an entry that describes another.
    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        self.content_of(header.size()?)?;
        if self.left > MAX_EXTENSION as u64 {
            return Err(bad("an extended header of more than 1 MiB"));
        }
        let mut content = Vec::new();
        self.by_ref().read_to_end(&mut content)?;
        Ok(content)
    }

    fn entry(&mut self, header: &Header, described: Described) -> io::Result<Entry> {
        let Described { records, name, link } = described;
        let or_header = |value: Option<&[u8]>, header: Vec<u8>| value.map_or(header, <[u8]>::to_vec);
        let name = name.unwrap_or_else(|| {
            or_header(records.value("GNU.sparse.name").or_else(|| records.value("path")), header.name())
        });
        let link = link.unwrap_or_else(|| or_header(records.value("linkpath"), header.link()));
        let kind = match header.type_flag() {
            b'0' | 0 if name.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' => Kind::File,
            b'S' if header.format() == Format::Gnu => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        };
        let stored = match kind {
            Kind::File | Kind::Unknown(_) => records.number("size")?.map_or_else(|| header.size(), Ok)?,
            _ => 0,
        };
        let map = match kind {
            Kind::File if header.type_flag() == b'S' => {
                let map = sparse::of_header(header, self)?;
                self.content_of(stored)?;
                Some(map)
            }
            Kind::File => {
                self.content_of(stored)?;
                sparse::of_records(&records, self)?
            }
            _ => {
                self.content_of(stored)?;
                None
            }
        };
        let Map { extents, size } = match map {
            Some(map) if map.extents.iter().map(|extent| extent.length).sum::<u64>() == self.left => map,
            Some(_) => return Err(bad("a sparse file whose content is not what its map says")),
            None => Map { extents: vec![Extent { offset: 0, length: self.left }], size: self.left },
        };
        let time = || header.modified().map(|seconds| Time { seconds, nanoseconds: 0 });
        Ok(Entry {
            name: path(name),
            link: path(link),
            kind,
            mode: u32::try_from(header.mode()? & 0o7777).unwrap_or_default(),
            uid: owner(records.number("uid")?, || header.uid())?,
            gid: owner(records.number("gid")?, || header.gid())?,
            modified: records.modified()?.map_or_else(time, Ok)?,
            xattrs: records.xattrs().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            size,
            extents,
        })
    }

    fn content_of(&mut self, bytes: u64) -> io::Result<()> {
        let whole = bytes.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| bad("a size beyond all bounds"))?;
        (self.left, self.padding) = (bytes, whole - bytes);
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let wanted = self.left + self.padding;
        let skipped = io::copy(&mut self.inner.by_ref().take(wanted), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

/// Nothing at the end of the stream, which is an error only within a block.
fn take_block(from: &mut impl Read) -> io::Result<Option<[u8; BLOCK]>> {
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(block))
}

/// GNU ends long names with a NUL.
fn without_end(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    name
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// The highest id means "leave as it is" to the kernel.
fn owner(extended: Option<u64>, header: impl Fn() -> io::Result<i64>) -> io::Result<u32> {
    let id = match extended {
        Some(id) => u32::try_from(id).ok(),
        None => u32::try_from(header()?).ok(),
    };
    id.filter(|id| *id != u32::MAX).ok_or_else(|| bad("an owner that is no id"))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
