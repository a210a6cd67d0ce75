//! One file: read, write, look at.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_supervisor_protocol::{ErrorCode, Event, FileInfo, FileType, Reply, WriteFile};

use super::wire::Wire;
use super::{Problem, Stage};

/// What the host may know of a file.
fn info(path: &Path, metadata: &Metadata) -> FileInfo {
    let file_type = metadata.file_type();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    FileInfo {
        path: path.to_string_lossy().into_owned(),
        file_type: if file_type.is_file() {
            FileType::File
        } else if file_type.is_dir() {
            FileType::Directory
        } else if file_type.is_symlink() {
            FileType::Symlink
        } else {
            FileType::Other
        },
        size_bytes: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_at_ms: u64::try_from(metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000)
            .unwrap_or(0),
        truncated: false,
    }
}

pub(super) fn stat(wire: &mut Wire, path: &Path) -> Result<(), Stage> {
    let metadata = std::fs::metadata(path)
        .or_else(|_| std::fs::symlink_metadata(path))
        .map_err(|error| Stage::Reply(Problem::io("looking at", path, &error)))?;
    Ok(wire.json(&Reply::File(info(path, &metadata)))?)
}

pub(super) fn read(wire: &mut Wire, path: &Path, max_bytes: u64) -> Result<(), Stage> {
    let failed = |error: io::Error| Stage::Reply(Problem::io("reading", path, &error));
    // A pipe without a writer must not hold this process for ever.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(Stage::Reply(Problem::new(ErrorCode::BadRequest, format!("{} is {what}", path.display()))));
    }
    let truncated = metadata.len() > max_bytes;
    wire.json(&Reply::File(FileInfo { truncated, ..info(path, &metadata) }))?;
    send(wire, file, path, max_bytes)?;
    Ok(wire.end()?)
}

fn send(wire: &mut Wire, file: File, path: &Path, max_bytes: u64) -> Result<(), Stage> {
    let mut file = file.take(max_bytes);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => wire.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stage::Event(Problem::io("reading", path, &error))),
        }
    }
}

/// A file under a temporary name that goes away unless it is renamed.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn write(wire: &mut Wire, request: &WriteFile) -> Result<(), Stage> {
    let path = PathBuf::from(&request.path);
    let reply = |error: io::Error| Stage::Reply(Problem::io("writing", &path, &error));
    let event = |error: io::Error| Stage::Event(Problem::io("writing", &path, &error));
    // Through a symbolic link to the file it names, which then stays a link.
    let target = path.canonicalize().unwrap_or_else(|_| path.clone());
    let present = std::fs::metadata(&target).ok();
    if present.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        let message = format!("{} exists and is not a regular file", path.display());
        return Err(Stage::Reply(Problem::new(ErrorCode::BadRequest, message)));
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Stage::Reply(Problem::new(ErrorCode::BadRequest, format!("{} names no file", path.display()))));
    };
    if request.create_dirs {
        std::fs::create_dir_all(parent).map_err(reply)?;
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".berth-{}", std::process::id()));
    let mut temporary = Temporary { path: parent.join(hidden), kept: false };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.path).map_err(reply)?;
    let mode = request.mode.map(|mode| mode & 0o7777).or_else(|| present.map(|metadata| metadata.mode() & 0o7777));
    file.set_permissions(std::fs::Permissions::from_mode(mode.unwrap_or(0o644))).map_err(reply)?;
    wire.json(&Reply::Ready)?;

    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = wire.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        file.write_all(buffer.get(..count).unwrap_or_default()).map_err(event)?;
    }
    file.sync_all().map_err(event)?;
    std::fs::rename(&temporary.path, &target).map_err(event)?;
    temporary.kept = true;
    Ok(wire.json(&Event::Done)?)
}
