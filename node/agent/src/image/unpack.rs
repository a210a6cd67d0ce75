//! Unpacks a layer into a folder of its own, in the form that overlayfs mounted with `userxattr` reads.
//!
//! A layer is an untrusted archive. Every name in it is walked from the folder's descriptor with `openat2(RESOLVE_BENEATH)`, so that a `..`,
//! an absolute symbolic link or a hard link cannot reach anything outside; such a name fails the whole layer. Owners stay as in the archive:
//! the folder is only ever mounted id-mapped. Deletions become what overlayfs expects, the 0:0 character device and `user.overlay.opaque`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags, fsetxattr, linkat, mkdirat, mknodat, openat,
    openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::Digest as _;

use super::attributes::{Attributes, OPAQUE};
use super::below::{self, Found};
use super::reference::Digest;

/// Bounds of what one layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the archive, uncompressed.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000 }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// sha256 of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Device nodes that were left out: they would not work in a workspace.
    pub devices_skipped: u64,
}

/// The layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A name leads out of the layer.
    #[error(
        "the image's layer has the entry {name:?}, which leads out of the image through {how}: the image is broken or hostile"
    )]
    Escape {
        /// The entry.
        name: PathBuf,
        /// By what means.
        how: &'static str,
    },
    /// A hard link to nothing.
    #[error(
        "the image's layer has the hard link {name:?} to {target:?}, which is no file of that layer or of those below"
    )]
    HardLink {
        /// The entry.
        name: PathBuf,
        /// What it should be.
        target: PathBuf,
    },
    /// More bytes than [`Limits::bytes`].
    #[error("the image's layer holds more than {0} bytes: raise `node.max_layer_bytes` if it is meant to be that big")]
    TooBig(u64),
    /// More files than [`Limits::entries`].
    #[error("the image's layer holds more than {0} files: use an image with fewer in a layer")]
    TooMany(u64),
    /// Not a tar archive, cut short, or not decompressible.
    #[error("the image's layer is not a whole tar archive")]
    Archive(#[source] io::Error),
    /// The kernel refused to make an entry.
    #[error("the image's layer cannot be unpacked at {name:?}")]
    Entry {
        /// The entry.
        name: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Counts and hashes what passes, and ends with an error above the limit.
struct Meter<R> {
    inner: R,
    hash: sha2::Sha256,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += u64::try_from(count).unwrap_or(u64::MAX);
        if self.bytes > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "over the layer's limit"));
        }
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Decompresses by the content's first bytes (gzip, zstd, or plain): media types found in practice are often wrong.
pub(crate) fn decompress(file: std::fs::File) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = io::BufReader::with_capacity(256 * 1024, file);
    let head = io::BufRead::fill_buf(&mut reader)?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    })
}

/// Unpacks a tar stream into the empty folder `into`. `lower` are the folders of the layers below, topmost first: a folder that the archive
/// implies but does not describe takes its owner and mode from there.
///
/// # Errors
/// See [`UnpackError`]; what was unpacked until then stays in `into`, for the caller to remove.
pub fn unpack(archive: impl Read, into: &Path, lower: &[PathBuf], limits: Limits) -> Result<Unpacked, UnpackError> {
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| UnpackError::Entry { name: path.to_owned(), source: errno.into() })
    };
    let mut meter = Meter { inner: archive, hash: sha2::Sha256::new(), bytes: 0, limit: limits.bytes };
    let mut layer = Layer {
        root: open(into)?,
        lower: lower.iter().map(|p| open(p)).collect::<Result<_, _>>()?,
        folders: Vec::new(),
        room: limits.bytes,
        limit: limits.bytes,
    };
    let mut entries = 0;
    let mut devices_skipped = 0;
    let over = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => UnpackError::TooBig(limits.bytes),
        _ => UnpackError::Archive(error),
    };
    {
        let mut archive = tar::Archive::new(&mut meter);
        for entry in archive.entries().map_err(over)? {
            let mut entry = entry.map_err(over)?;
            entries += 1;
            if entries > limits.entries {
                return Err(UnpackError::TooMany(limits.entries));
            }
            let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
            if layer.apply(&name, &mut entry).map_err(|error| match error {
                UnpackError::Archive(source) => over(source),
                other => other,
            })? == Applied::DeviceSkipped
            {
                devices_skipped += 1;
            }
        }
    }
    layer.finish()?;
    // What follows the archive's end belongs to the digest.
    io::copy(&mut meter, &mut io::sink()).map_err(over)?;
    Ok(Unpacked {
        diff_id: Digest::from_bytes(meter.hash.finalize().into()),
        bytes: meter.bytes,
        entries,
        devices_skipped,
    })
}

#[derive(PartialEq, Eq)]
enum Applied {
    Made,
    DeviceSkipped,
}

struct Layer {
    root: OwnedFd,
    lower: Vec<OwnedFd>,
    /// Folders whose mode and time are set at the end: adding files changes the time and may need another mode.
    folders: Vec<(PathBuf, Attributes)>,
    /// Bytes that files may still have: a sparse file, or a copy from a layer below, is larger than what the archive has of it.
    room: u64,
    limit: u64,
}

/// Symbolic links on one path, as the kernel has it.
const MAX_LINKS: u32 = 40;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// The entry's path as plain components; nothing for the root itself.
fn components(name: &Path, of: &Path) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Escape { name: of.to_owned(), how: "\"..\"" });
            }
        }
    }
    Ok(clean)
}

impl Layer {
    fn apply<R: Read>(&mut self, name: &Path, entry: &mut tar::Entry<'_, R>) -> Result<Applied, UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        let path = components(name, name)?;
        let attributes = Attributes::read(entry).map_err(UnpackError::Archive)?;
        let kind = entry.header().entry_type();
        let Some(leaf) = path.file_name().map(OsStr::to_owned) else {
            // The root folder itself.
            if kind.is_dir() {
                self.folders.push((PathBuf::from("."), attributes));
            }
            return Ok(Applied::Made);
        };
        let (parent, parent_path) = self.parent(path.parent().unwrap_or(Path::new("")), name)?;
        let path = parent_path.join(&leaf);

        if let Some(hidden) = leaf.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(name, &parent_path, parent.as_fd(), hidden);
        }
        if kind.is_dir() {
            match here(parent.as_fd(), &leaf).map_err(failed)? {
                Here::Folder => {}
                Here::Mark => opaque_folder(parent.as_fd(), &leaf).map_err(failed)?,
                Here::Nothing => mkdirat(&parent, &leaf, Mode::from_raw_mode(0o700)).map_err(failed)?,
                Here::Link | Here::File => {
                    unlinkat(&parent, &leaf, AtFlags::empty()).map_err(failed)?;
                    mkdirat(&parent, &leaf, Mode::from_raw_mode(0o700)).map_err(failed)?;
                }
            }
            self.folders.push((path, attributes));
            return Ok(Applied::Made);
        }
        // The last entry of a name wins.
        match unlinkat(&parent, &leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(parent.as_fd(), &leaf).map_err(failed)?,
            Err(errno) => return Err(failed(errno)),
        }
        if kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            self.hard_link(name, Path::new(OsStr::from_bytes(&target)), parent.as_fd(), &leaf)?;
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().ok_or_else(|| failed(Errno::INVAL))?;
            symlinkat(OsStr::from_bytes(&target), &parent, &leaf).map_err(failed)?;
            attributes.set_owner(parent.as_fd(), &leaf).map_err(failed)?;
            attributes.set_time(parent.as_fd(), &leaf).map_err(failed)?;
        } else if kind.is_fifo() {
            mknodat(&parent, &leaf, FileType::Fifo, Mode::from_raw_mode(attributes.mode), 0).map_err(failed)?;
            attributes.set_owner(parent.as_fd(), &leaf).map_err(failed)?;
        } else if kind.is_character_special() || kind.is_block_special() {
            return Ok(Applied::DeviceSkipped);
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(&parent, &leaf, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
            let mut file = std::fs::File::from(fd);
            self.take_room(entry.size())?;
            let copied = if kind.is_gnu_sparse() {
                copy_with_holes(entry, &mut file)
            } else {
                io::copy(entry, &mut file).map(drop)
            };
            copied.map_err(|source| match source.raw_os_error() {
                // Writing failed with an error number; reading a bad archive has none.
                Some(_) => UnpackError::Entry { name: name.to_owned(), source },
                None => UnpackError::Archive(source),
            })?;
            attributes.set(file.as_fd()).map_err(failed)?;
        } else {
            return Err(UnpackError::Archive(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an entry of the unknown type {kind:?}"),
            )));
        }
        Ok(Applied::Made)
    }

    /// The folder that an entry goes into, and its path in the layer, with the folders on the way made where the archive leaves them out.
    /// Symbolic links on the way are those of the image: of this layer, or where it has nothing of that name, of the layers below.
    fn parent(&mut self, path: &Path, of: &Path) -> Result<(OwnedFd, PathBuf), UnpackError> {
        let escape = || UnpackError::Escape { name: of.to_owned(), how: "a symbolic link" };
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        if let Ok(fd) = self.open_folder(path) {
            return Ok((fd, path.to_owned()));
        }
        let mut at = PathBuf::new();
        let mut rest: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
        let mut links = 0;
        while let Some(component) = rest.pop_front() {
            if component == ".." {
                if !at.pop() {
                    return Err(escape());
                }
                continue;
            }
            let above = self.open_folder(&at).map_err(failed)?;
            let next = at.join(&component);
            let link = match here(above.as_fd(), &component).map_err(failed)? {
                Here::Folder => None,
                Here::File => return Err(failed(Errno::NOTDIR)),
                Here::Mark => {
                    opaque_folder(above.as_fd(), &component).map_err(failed)?;
                    self.folders.push((next.clone(), Attributes::implied()));
                    None
                }
                Here::Link => {
                    let target = read_link(above.as_fd(), &component).map_err(failed)?;
                    // An archive that writes through its own link to an absolute path is after somebody's files.
                    if target.is_absolute() {
                        return Err(escape());
                    }
                    Some(target)
                }
                Here::Nothing => match below::find(&self.lower, &next) {
                    Some(Found::Link(target)) => Some(target),
                    found => {
                        mkdirat(&above, &component, Mode::from_raw_mode(0o755)).map_err(failed)?;
                        let attributes = match found {
                            Some(Found::Folder(stat)) => Attributes::of(&stat),
                            _ => Attributes::implied(),
                        };
                        self.folders.push((next.clone(), attributes));
                        None
                    }
                },
            };
            let Some(target) = link else {
                at = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(failed(Errno::LOOP));
            }
            if target.is_absolute() {
                at.clear();
            }
            for part in target.components().rev() {
                match part {
                    Component::Normal(part) => rest.push_front(part.to_owned()),
                    Component::ParentDir => rest.push_front("..".into()),
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
        }
        Ok((self.open_folder(&at).map_err(failed)?, at))
    }

    /// A folder of this layer, no part of whose path is a link.
    fn open_folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        below::open_folder(self.root.as_fd(), path)
    }

    fn take_room(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.room = self.room.checked_sub(bytes).ok_or(UnpackError::TooBig(self.limit))?;
        Ok(())
    }

    fn whiteout(
        &self,
        name: &Path,
        parent_path: &Path,
        parent: BorrowedFd<'_>,
        hidden: &[u8],
    ) -> Result<Applied, UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        if hidden == b".wh..opq" {
            let parent_path = if parent_path.as_os_str().is_empty() { Path::new(".") } else { parent_path };
            let fd = openat2(
                &self.root,
                parent_path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                BENEATH,
            )
            .map_err(failed)?;
            fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty()).map_err(failed)?;
            return Ok(Applied::Made);
        }
        // Bookkeeping of aufs that old images still carry.
        if hidden.starts_with(b".wh.") {
            return Ok(Applied::Made);
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(UnpackError::Escape { name: name.to_owned(), how: "a deletion mark" });
        }
        let hidden = OsStr::from_bytes(hidden);
        // It hides what the layers below have; what this layer has stays (image-spec, layer.md).
        match here(parent, hidden).map_err(failed)? {
            Here::Nothing => {
                mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed)?;
            }
            Here::Folder => mark_opaque(parent, hidden).map_err(failed)?,
            Here::Mark | Here::Link | Here::File => {}
        }
        Ok(Applied::Made)
    }

    fn hard_link(
        &mut self,
        name: &Path,
        target: &Path,
        parent: BorrowedFd<'_>,
        leaf: &OsStr,
    ) -> Result<(), UnpackError> {
        let missing = || UnpackError::HardLink { name: name.to_owned(), target: target.to_owned() };
        let failed = |errno: Errno| UnpackError::Entry { name: name.to_owned(), source: errno.into() };
        let clean = components(target, name)
            .map_err(|_| UnpackError::Escape { name: name.to_owned(), how: "a hard link with \"..\"" })?;
        let target_leaf = clean.file_name().ok_or_else(missing)?;
        let (folder, path) =
            self.parent(clean.parent().unwrap_or(Path::new("")), name).map_err(|error| match error {
                UnpackError::Escape { name, .. } => {
                    UnpackError::Escape { name, how: "a hard link through a symbolic link" }
                }
                UnpackError::Entry { .. } => missing(),
                other => other,
            })?;
        if here(folder.as_fd(), target_leaf).map_err(failed)? == Here::Nothing {
            self.copy_up(&path.join(target_leaf), folder.as_fd(), target_leaf, name)?;
        }
        // Without AT_SYMLINK_FOLLOW the link is made to the name itself, wherever a symbolic link of that name points.
        linkat(&folder, target_leaf, parent, leaf, AtFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::PERM => missing(),
            errno => failed(errno),
        })
    }

    /// Copies a file of the layers below, as overlayfs does when a hard link to it is made.
    fn copy_up(&mut self, path: &Path, to: BorrowedFd<'_>, leaf: &OsStr, of: &Path) -> Result<(), UnpackError> {
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        // When there is none the link fails, with its own words.
        let Some(Found::File(from, stat)) = below::find(&self.lower, path) else { return Ok(()) };
        self.take_room(u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(to, leaf, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let (mut from, mut file) = (std::fs::File::from(from), std::fs::File::from(fd));
        io::copy(&mut from, &mut file).map_err(|source| UnpackError::Entry { name: of.to_owned(), source })?;
        let attributes = Attributes::of(&stat).with_xattrs_of(from.as_fd()).map_err(failed)?;
        attributes.set(file.as_fd()).map_err(failed)
    }

    /// Sets the folders' own attributes, deepest first, so that setting one does not touch the time of another.
    fn finish(mut self) -> Result<(), UnpackError> {
        let folders = std::mem::take(&mut self.folders);
        // When a folder is described after it was implied, the description is the later one and must win.
        let mut last = std::collections::BTreeMap::new();
        for (path, attributes) in folders {
            last.insert(path, attributes);
        }
        for (path, attributes) in last.into_iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match openat2(&self.root, &path, flags, Mode::empty(), BENEATH | ResolveFlags::NO_SYMLINKS) {
                Ok(fd) => fd,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(UnpackError::Entry { name: path, source: errno.into() }),
            };
            attributes.set(fd.as_fd()).map_err(|errno| UnpackError::Entry { name: path, source: errno.into() })?;
        }
        Ok(())
    }
}

/// What a layer has under a name.
#[derive(PartialEq, Eq)]
enum Here {
    Nothing,
    Folder,
    Link,
    /// A deletion, in overlayfs' form.
    Mark,
    /// Anything else.
    File,
}

fn here(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<Here, Errno> {
    match statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Here::Folder,
            FileType::Symlink => Here::Link,
            FileType::CharacterDevice if stat.st_rdev == 0 => Here::Mark,
            _ => Here::File,
        }),
        Err(Errno::NOENT) => Ok(Here::Nothing),
        Err(errno) => Err(errno),
    }
}

pub(super) fn read_link(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<PathBuf, Errno> {
    Ok(PathBuf::from(OsString::from_vec(readlinkat(parent, leaf, Vec::new())?.into_bytes())))
}

/// Puts a folder that hides what the layers below have in the place of a deletion.
fn opaque_folder(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    unlinkat(parent, leaf, AtFlags::empty())?;
    mkdirat(parent, leaf, Mode::from_raw_mode(0o700))?;
    mark_opaque(parent, leaf)
}

fn mark_opaque(parent: BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fsetxattr(openat(parent, leaf, flags, Mode::empty())?, OPAQUE, b"y", XattrFlags::empty())
}

/// Copies a sparse file without writing its holes.
fn copy_with_holes(from: &mut impl Read, to: &mut std::fs::File) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match from.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        let data = block.get(..filled).unwrap_or_default();
        if data.iter().any(|byte| *byte != 0) {
            to.seek(io::SeekFrom::Start(length))?;
            to.write_all(data)?;
        }
        length += u64::try_from(filled).unwrap_or(0);
        if filled < block.len() {
            return to.set_len(length);
        }
    }
}

/// Removes a folder and what is in it, by descriptors, without following links.
pub(crate) fn remove_folder(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    let listing = rustix::fs::Dir::read_from(&fd)?;
    for entry in listing {
        let entry = entry?;
        let leaf = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if leaf == "." || leaf == ".." {
            continue;
        }
        match unlinkat(&fd, &leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(fd.as_fd(), &leaf)?,
            Err(errno) => return Err(errno),
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes a folder of ours that holds a stranger's files.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    let parent =
        match rustix::fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
    match remove_folder(parent.as_fd(), name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
