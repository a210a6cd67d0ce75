//! Tar streams in and out.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use berth_supervisor_protocol::{CopyIn, CopyOut, ErrorCode, Event, Reply};
use tar::{Archive, Builder, Entry, EntryType, Header};

use super::wire::Wire;
use super::{Problem, Stage};

/// Unpacks what the host sends.
pub(super) fn unpack(wire: &mut Wire, request: &CopyIn) -> Result<(), Stage> {
    let path = PathBuf::from(&request.path);
    let base = path.canonicalize().map_err(|error| Stage::Reply(Problem::io("entering", &path, &error)))?;
    if !base.is_dir() {
        let message = format!("{} is not a directory", path.display());
        return Err(Stage::Reply(Problem::new(ErrorCode::BadRequest, message)));
    }
    wire.json(&Reply::Ready)?;
    match unpack_into(&base, request, &mut *wire) {
        Ok(()) => {
            // Tar pads its end; the host's end of file comes after the padding.
            io::copy(wire, &mut io::sink())?;
            Ok(wire.json(&Event::Done)?)
        }
        Err(problem) => Err(Stage::Event(problem)),
    }
}

fn unpack_into(base: &Path, request: &CopyIn, stream: impl Read) -> Result<(), Problem> {
    let broken =
        |error: io::Error| Problem::new(ErrorCode::BadRequest, format!("the tar stream cannot be read: {error}"));
    let mut archive = Archive::new(stream);
    // A directory's time and permissions are set last: adding entries would change the time, and may need other permissions.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        entry.set_preserve_permissions(true);
        entry.set_preserve_mtime(true);
        let Some(target) = target(base, request, &entry.path().map_err(broken)?)? else { continue };
        if entry.header().entry_type() == EntryType::Directory && target != base {
            make_directory(&target)?;
            directories.push((target, entry.header().mode().unwrap_or(0o755), owner(&entry, request)));
            continue;
        }
        unpack_entry(&mut entry, base, request, &target)?;
    }
    for (path, mode, owner) in directories.into_iter().rev() {
        let failed = |error: io::Error| Problem::io("setting up", &path, &error);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777)).map_err(failed)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The path that an entry is written to; `None` for the root itself. An error if it is not below `base`.
fn target(base: &Path, request: &CopyIn, name: &Path) -> Result<Option<PathBuf>, Problem> {
    let climbs = || {
        let message = format!("the tar stream holds {}, which leaves {}", name.display(), base.display());
        Problem::new(ErrorCode::BadRequest, message)
    };
    let mut relative = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => relative.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(climbs()),
        }
    }
    if let Some(first) = &request.rename_to {
        if first.is_empty() || first.contains('/') || first == "." || first == ".." {
            return Err(Problem::new(ErrorCode::BadRequest, format!("{first:?} cannot be a file's name")));
        }
        let rest: PathBuf = relative.components().skip(1).collect();
        relative = if rest.as_os_str().is_empty() { PathBuf::from(first) } else { Path::new(first).join(rest) };
    }
    let (Some(parent), true) = (relative.parent(), relative.file_name().is_some()) else { return Ok(None) };
    // Symbolic links among the parents, from this stream or from before, are followed only within the directory.
    let parent = base.join(parent);
    std::fs::create_dir_all(&parent).map_err(|error| Problem::io("making", &parent, &error))?;
    let parent = parent.canonicalize().map_err(|error| Problem::io("entering", &parent, &error))?;
    if !parent.starts_with(base) {
        return Err(climbs());
    }
    Ok(relative.file_name().map(|name| parent.join(name)))
}

fn make_directory(path: &Path) -> Result<(), Problem> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Problem::io("making", path, &error)),
        Ok(()) => Ok(()),
    }
}

fn owner<R: Read>(entry: &Entry<'_, R>, request: &CopyIn) -> Option<(u32, u32)> {
    let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok());
    if !request.keep_owner {
        return None;
    }
    Some((id(entry.header().uid())?, id(entry.header().gid())?))
}

fn unpack_entry<R: Read>(
    entry: &mut Entry<'_, R>,
    base: &Path,
    request: &CopyIn,
    target: &Path,
) -> Result<(), Problem> {
    let failed = |error: io::Error| Problem::io("unpacking", target, &error);
    match entry.header().entry_type() {
        // They must name something of the same stream, under its new name.
        EntryType::Link => {
            let name = entry.link_name().map_err(failed)?.unwrap_or_default().into_owned();
            let Some(source) = self::target(base, request, &name)? else { return Ok(()) };
            let _ = std::fs::remove_file(target);
            return std::fs::hard_link(&source, target).map_err(failed);
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Symlink => {}
        EntryType::Directory => return Ok(()),
        // Device files cannot be made in a workspace, pipes have no content.
        _ => return Ok(()),
    }
    // An existing file is replaced, not written through (it may be a link to elsewhere, or a running program).
    match std::fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => {
            let message = format!("{} is a directory, it is not replaced by a file", target.display());
            return Err(Problem::new(ErrorCode::Conflict, message));
        }
        Ok(_) => std::fs::remove_file(target).map_err(failed)?,
        Err(_) => {}
    }
    entry.unpack(target).map_err(failed)?;
    if let Some((uid, gid)) = owner(entry, request) {
        std::os::unix::fs::lchown(target, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok(())
}

/// Longest content of a file that says it has none.
const MAX_UNSIZED: u64 = 4 << 20;

/// Files that could not be packed: the rest goes out all the same.
#[derive(Default)]
struct Left {
    count: u64,
    first: Option<Problem>,
}

impl Left {
    fn add(&mut self, problem: Problem) {
        self.count += 1;
        self.first.get_or_insert(problem);
    }
}

/// Packs a file or directory for the host.
pub(super) fn pack(wire: &mut Wire, request: &CopyOut) -> Result<(), Stage> {
    let path = PathBuf::from(&request.path);
    let failed = |error: io::Error| Stage::Reply(Problem::io("reading", &path, &error));
    let metadata =
        if request.follow { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) }.map_err(failed)?;
    let source = if request.follow || metadata.is_dir() { path.canonicalize().map_err(failed)? } else { path.clone() };
    let name = path.file_name().or_else(|| source.file_name()).map_or_else(|| OsString::from("root"), OsString::from);
    if metadata.is_file() {
        // Refused now, in the reply, and not after an empty stream.
        File::open(&source).map_err(failed)?;
    }
    wire.json(&Reply::Ready)?;
    let mut left = Left::default();
    let mut builder = Builder::new(&mut *wire);
    add(&mut builder, &source, Path::new(&name), &metadata, &mut left)?;
    builder.finish()?;
    drop(builder);
    wire.end()?;
    match left.first {
        None => Ok(wire.json(&Event::Done)?),
        Some(Problem { code, message }) => {
            let message = format!("{} of the files could not be read, the first: {message}", left.count);
            Err(Stage::Event(Problem { code, message }))
        }
    }
}

/// Adds one file, and its content if it is a directory. Errors of the stream end it, errors of single files are collected in `left`.
fn add(
    builder: &mut Builder<&mut Wire>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    left: &mut Left,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    let file_type = metadata.file_type();
    if file_type.is_symlink() {
        return match std::fs::read_link(path) {
            Ok(to) => {
                header.set_size(0);
                builder.append_link(&mut header, name, to)
            }
            Err(error) => {
                left.add(Problem::io("reading", path, &error));
                Ok(())
            }
        };
    }
    if file_type.is_file() {
        let added = match metadata.size() {
            0 => read_unsized(path).map(|content| {
                header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
                builder.append_data(&mut header, name, content.as_slice())
            }),
            size => File::open(path).map(|file| {
                header.set_size(size);
                builder.append_data(&mut header, name, Exactly { file, left: size })
            }),
        };
        return added.unwrap_or_else(|error| {
            left.add(Problem::io("reading", path, &error));
            Ok(())
        });
    }
    header.set_size(0);
    if !file_type.is_dir() {
        // Pipes, sockets and devices have no content. All go out as pipes, the one kind of them that anybody can unpack: the receiver sees
        // that something was there, and can name it.
        header.set_entry_type(EntryType::Fifo);
        return builder.append_data(&mut header, name, io::empty());
    }
    builder.append_data(&mut header, name, io::empty())?;
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            left.add(Problem::io("reading", path, &error));
            return Ok(());
        }
    };
    for entry in entries {
        let found = entry.and_then(|entry| Ok((entry.path(), entry.file_name(), entry.metadata()?)));
        match found {
            Ok((path, file, metadata)) => add(builder, &path, &name.join(file), &metadata, left)?,
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => left.add(Problem::io("reading", path, &error)),
        }
    }
    Ok(())
}

/// The content of a file that says it has none: that is so of most, but those of `/proc` are made when they are read. Some of them wait for
/// something to happen, which is not waited for.
fn read_unsized(path: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let mut content = Vec::new();
    file.take(MAX_UNSIZED + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_UNSIZED {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it does not say how long it is, and has no end"));
    }
    Ok(content)
}

/// Exactly as many bytes as the header said, even if the file has grown, shrunk or become unreadable since.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = match self.file.read(buffer) {
            Ok(count) if count > 0 => count,
            _ => {
                buffer.fill(0);
                want
            }
        };
        self.left -= u64::try_from(count).unwrap_or(self.left);
        Ok(count)
    }
}
