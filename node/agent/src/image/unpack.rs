//! Unpacks a layer into a folder of its own, in the form that overlayfs mounted with `userxattr` reads.
//!
//! A layer is an untrusted archive. Every name in it is walked from the folder's descriptor with `openat2(RESOLVE_BENEATH)`, so that a `..`,
//! an absolute symbolic link or a hard link cannot reach anything outside; such a name fails the whole layer. Owners stay as in the archive:
//! the folder is only ever mounted id-mapped. Deletions become what overlayfs expects, the 0:0 character device and `user.overlay.opaque`.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::Digest as _;

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
    #[error("the image's layer has the hard link {name:?} to {target:?}, which is not a file of that layer")]
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
}

#[derive(Clone)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

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
        let attributes = attributes(entry)?;
        let kind = entry.header().entry_type();
        let Some(leaf) = path.file_name().map(OsStr::to_owned) else {
            // The root folder itself.
            if kind.is_dir() {
                self.folders.push((PathBuf::from("."), attributes));
            }
            return Ok(Applied::Made);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.parent(&parent_path, name)?;

        if let Some(hidden) = leaf.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(name, &parent_path, parent.as_fd(), hidden);
        }
        if kind.is_dir() {
            match mkdirat(&parent, &leaf, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) if is_folder(parent.as_fd(), &leaf) => Ok(()),
                Err(Errno::EXIST) => {
                    unlinkat(&parent, &leaf, AtFlags::empty()).map_err(failed)?;
                    mkdirat(&parent, &leaf, Mode::from_raw_mode(0o700))
                }
                other => other,
            }
            .map_err(failed)?;
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
            self.hard_link(name, entry, parent.as_fd(), &leaf)?;
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().ok_or_else(|| failed(Errno::INVAL))?;
            symlinkat(OsStr::from_bytes(&target), &parent, &leaf).map_err(failed)?;
            chown_entry(parent.as_fd(), &leaf, &attributes).map_err(failed)?;
            utimensat(&parent, &leaf, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        } else if kind.is_fifo() {
            mknodat(&parent, &leaf, FileType::Fifo, Mode::from_raw_mode(attributes.mode), 0).map_err(failed)?;
            chown_entry(parent.as_fd(), &leaf, &attributes).map_err(failed)?;
        } else if kind.is_character_special() || kind.is_block_special() {
            return Ok(Applied::DeviceSkipped);
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(&parent, &leaf, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
            let mut file = std::fs::File::from(fd);
            io::copy(entry, &mut file).map_err(|source| match source.raw_os_error() {
                // Writing failed with an error number; reading a bad archive has none.
                Some(_) => UnpackError::Entry { name: name.to_owned(), source },
                None => UnpackError::Archive(source),
            })?;
            set_attributes(file.as_fd(), &attributes).map_err(failed)?;
        } else {
            return Err(UnpackError::Archive(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an entry of the unknown type {kind:?}"),
            )));
        }
        Ok(Applied::Made)
    }

    /// The folder that an entry goes into, with the folders on the way made where the archive leaves them out.
    fn parent(&mut self, path: &Path, of: &Path) -> Result<OwnedFd, UnpackError> {
        let escape = || UnpackError::Escape { name: of.to_owned(), how: "a symbolic link" };
        let failed = |errno: Errno| UnpackError::Entry { name: of.to_owned(), source: errno.into() };
        if path.as_os_str().is_empty() {
            return self.root.try_clone().map_err(|source| UnpackError::Entry { name: of.to_owned(), source });
        }
        match openat2(&self.root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH) {
            Ok(fd) => return Ok(fd),
            Err(Errno::XDEV | Errno::LOOP) => return Err(escape()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let mut so_far = PathBuf::new();
        for component in path.components() {
            let above = self.open_folder(&so_far).map_err(failed)?;
            so_far.push(component);
            match mkdirat(&above, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let attributes = self.below(&so_far);
                    self.folders.push((so_far.clone(), attributes));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        match self.open_folder(path) {
            Ok(fd) => Ok(fd),
            Err(Errno::XDEV | Errno::LOOP) => Err(escape()),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn open_folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
    }

    /// Owner and mode that the folder has in the layers below.
    fn below(&self, path: &Path) -> Attributes {
        self.lower
            .iter()
            .filter_map(|lower| {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                openat2(lower, path, flags, Mode::empty(), BENEATH | ResolveFlags::NO_SYMLINKS).ok()
            })
            .filter_map(|fd| rustix::fs::fstat(fd).ok())
            .map(|stat| Attributes {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: stat.st_mtime,
                xattrs: Vec::new(),
            })
            .next()
            .unwrap_or(Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() })
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
            fsetxattr(&fd, "user.overlay.opaque", b"y", XattrFlags::empty()).map_err(failed)?;
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
        match unlinkat(parent, hidden, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(parent, hidden).map_err(failed)?,
            Err(errno) => return Err(failed(errno)),
        }
        mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(failed)?;
        Ok(Applied::Made)
    }

    fn hard_link<R: Read>(
        &self,
        name: &Path,
        entry: &tar::Entry<'_, R>,
        parent: BorrowedFd<'_>,
        leaf: &OsStr,
    ) -> Result<(), UnpackError> {
        let target = entry.link_name_bytes().unwrap_or_default();
        let target = PathBuf::from(OsStr::from_bytes(&target));
        let missing = || UnpackError::HardLink { name: name.to_owned(), target: target.clone() };
        let clean = components(&target, name)
            .map_err(|_| UnpackError::Escape { name: name.to_owned(), how: "a hard link with \"..\"" })?;
        let target_leaf = clean.file_name().ok_or_else(missing)?;
        let folder = self.open_folder(clean.parent().unwrap_or(Path::new(""))).map_err(|errno| match errno {
            Errno::XDEV | Errno::LOOP => {
                UnpackError::Escape { name: name.to_owned(), how: "a hard link through a symbolic link" }
            }
            _ => missing(),
        })?;
        // Without AT_SYMLINK_FOLLOW the hard link is made to the name itself, wherever a symbolic link of that name points.
        linkat(&folder, target_leaf, parent, leaf, AtFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::PERM => missing(),
            errno => UnpackError::Entry { name: name.to_owned(), source: errno.into() },
        })
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
            set_attributes(fd.as_fd(), &attributes)
                .map_err(|errno| UnpackError::Entry { name: path, source: errno.into() })?;
        }
        Ok(())
    }
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Attributes, UnpackError> {
    let header = entry.header();
    let id = |id: io::Result<u64>| {
        u32::try_from(id.map_err(UnpackError::Archive)?).map_err(|_| bad("an owner above 32 bits"))
    };
    let mut attributes = Attributes {
        mode: header.mode().map_err(UnpackError::Archive)? & 0o7777,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mtime: i64::try_from(header.mtime().map_err(UnpackError::Archive)?).unwrap_or(0),
        xattrs: Vec::new(),
    };
    if let Some(extensions) = entry.pax_extensions().map_err(UnpackError::Archive)? {
        for extension in extensions {
            let extension = extension.map_err(UnpackError::Archive)?;
            let Ok(key) = extension.key() else { continue };
            let Some(name) = key.strip_prefix("SCHILY.xattr.") else { continue };
            // Overlayfs' own attributes are instructions to the kernel, not content; of the rest, those that a workspace can use are kept.
            if name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay.")) {
                attributes.xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(attributes)
}

fn bad(what: &'static str) -> UnpackError {
    UnpackError::Archive(io::Error::new(io::ErrorKind::InvalidData, what))
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner first: changing it clears the setuid bit and file capabilities.
fn set_attributes(fd: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
    fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
    fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // A file system without this kind of attribute; the file itself is whole.
            Err(Errno::NOTSUP | Errno::PERM) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    futimens(fd, &times(attributes.mtime))
}

fn chown_entry(parent: BorrowedFd<'_>, leaf: &OsStr, attributes: &Attributes) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    chownat(parent, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn is_folder(parent: BorrowedFd<'_>, leaf: &OsStr) -> bool {
    statat(parent, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
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
