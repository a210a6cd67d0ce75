//! Compiled modules on the host, one file each, named by the module's digest and what it was compiled for.
//!
//! Runs outside the container, with hull's rights, and touches nothing of the container but the module's bytes: they are read once, hashed,
//! and given to a [`crate::worker`] that has no rights at all. The answer is a descriptor.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::artifact::{self, Digest};
use crate::worker::{self, WorkerError};
use crate::{engine, program::Kind};

/// Larger modules are compiled in their container, at its own cost.
const MODULE_LIMIT: u64 = 64 << 20;
/// Of all files together; the ones unused for longest go first.
const BUDGET: u64 = 512 << 20;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Why there is no compiled form. The container then compiles for itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cannot read the module: {0}")]
    Module(std::io::Error),
    #[error("the module is larger than {} MiB", MODULE_LIMIT >> 20)]
    TooLarge,
    #[error("not a WebAssembly module or component")]
    Format,
    #[error("cannot open the directory {}: {errno}", path.display())]
    Open { path: PathBuf, errno: Errno },
    #[error("{} belongs to user {owner} with mode {mode:o}; it must be ours and writable by nobody else", path.display())]
    Foreign { path: PathBuf, owner: u32, mode: u32 },
    #[error("cannot set up wasmtime: {0:#}")]
    Engine(wasmtime::Error),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("cannot write the compiled module: {0}")]
    Write(std::io::Error),
    #[error("cannot answer hull: {0}")]
    Answer(Errno),
}

/// Answers on standard output, a socket, with a descriptor of the compiled form of the module on standard input: `F`
/// if it was found, `C` if it was compiled now, `E` and a text if there is none.
pub(crate) fn serve(directory: &Path) -> Result<(), CacheError> {
    match compiled(directory) {
        Ok((found, file)) => answer(if found { b"F" } else { b"C" }, Some(&file)),
        Err(error) => {
            let mut text = b"E".to_vec();
            text.extend(error.to_string().into_bytes().into_iter().take(1000));
            answer(&text, None)
        }
    }
}

fn answer(bytes: &[u8], file: Option<&File>) -> Result<(), CacheError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = file.map(|file| [file.as_fd()]);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(CacheError::Answer(Errno::NOBUFS));
    }
    sendmsg(rustix::stdio::stdout(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(CacheError::Answer)
}

fn compiled(path: &Path) -> Result<(bool, File), CacheError> {
    let module = read_module()?;
    let kind = Kind::of(&module).ok_or(CacheError::Format)?;
    let directory = Directory::open(path)?;
    let engine = engine::new().map_err(CacheError::Engine)?;
    let digest = artifact::digest(&module);
    let name = name(&digest, engine::compatibility(&engine));
    if let Some(file) = directory.find(&name, &digest) {
        return Ok((true, file));
    }
    let image = worker::compile(&engine, kind, &module)?;
    let file = directory.put(&name, &artifact::seal(image, &digest)).map_err(CacheError::Write)?;
    directory.trim(BUDGET);
    Ok((false, file))
}

fn read_module() -> Result<Vec<u8>, CacheError> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MODULE_LIMIT + 1).read_to_end(&mut bytes).map_err(CacheError::Module)?;
    if bytes.len() as u64 > MODULE_LIMIT { Err(CacheError::TooLarge) } else { Ok(bytes) }
}

fn name(digest: &Digest, compatibility: u64) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}-{compatibility:016x}")
}

/// A directory that nobody else can write to.
struct Directory(OwnedFd);

impl Directory {
    /// Opens it; makes it if its parent exists.
    fn open(path: &Path) -> Result<Self, CacheError> {
        let failed = |errno| CacheError::Open { path: path.to_owned(), errno };
        match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&directory).map_err(failed)?;
        let mode = stat.st_mode & 0o7777;
        if stat.st_uid != rustix::process::geteuid().as_raw() || mode & GROUP_OR_OTHERS_WRITE != 0 {
            return Err(CacheError::Foreign { path: path.to_owned(), owner: stat.st_uid, mode });
        }
        Ok(Self(directory))
    }

    /// A file that is ours and complete; anything else means that it is made anew.
    fn find(&self, name: &str, module: &Digest) -> Option<File> {
        let file = self.open_file(name).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & GROUP_OR_OTHERS_WRITE == 0
            && FileType::from_raw_mode(stat.st_mode).is_file();
        let mut content = Vec::new();
        if !ours || (&file).read_to_end(&mut content).is_err() || !artifact::is_whole(&content, module) {
            return None;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // For `trim`; only the order of removal depends on it.
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Some(file)
    }

    fn open_file(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }

    /// Puts a whole file in place of whatever is there: a container may have the old one mapped.
    fn put(&self, name: &str, content: &[u8]) -> std::io::Result<File> {
        let temporary = format!(".{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        let done = File::from(file)
            .write_all(content)
            .and_then(|()| Ok(rustix::fs::renameat(&self.0, temporary.as_str(), &self.0, name)?));
        if let Err(error) = done {
            let _ = rustix::fs::unlinkat(&self.0, temporary.as_str(), AtFlags::empty());
            return Err(error);
        }
        Ok(self.open_file(name)?)
    }

    /// Removes the least recently used files until the rest fits. Removed files stay with the containers that have them open.
    fn trim(&self, budget: u64) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.0) else { return };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let stat = rustix::fs::statat(&self.0, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
                let size = u64::try_from(stat.st_size).ok()?;
                let used = (stat.st_mtime, stat.st_mtime_nsec);
                FileType::from_raw_mode(stat.st_mode).is_file().then(|| (used, size, entry.file_name().to_owned()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, name) in files {
            if total <= budget {
                return;
            }
            let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::empty());
            total = total.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fresh() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(&temporary.path().join("cache")).unwrap();
        (temporary, directory)
    }

    #[test]
    fn only_whole_files_of_ours_are_found() {
        let (temporary, directory) = fresh();
        let module = artifact::digest(b"module");
        let content = artifact::seal(b"image".to_vec(), &module);
        directory.put("name", &content).unwrap();
        assert!(directory.find("name", &module).is_some());
        assert!(directory.find("name", &artifact::digest(b"other")).is_none());

        let path = temporary.path().join("cache/name");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(directory.find("name", &module).is_none(), "writable by others");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, &content[..content.len() - 1]).unwrap();
        assert!(directory.find("name", &module).is_none(), "torn");

        let elsewhere = temporary.path().join("elsewhere");
        std::fs::write(&elsewhere, &content).unwrap();
        std::os::unix::fs::symlink(&elsewhere, temporary.path().join("cache/link")).unwrap();
        assert!(directory.find("link", &module).is_none(), "a symlink");
    }

    #[test]
    fn directories_that_others_write_to_are_refused() {
        let (temporary, _) = fresh();
        let path = temporary.path().join("cache");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        let Err(error) = Directory::open(&path) else { panic!("taken") };
        assert!(error.to_string().contains("writable by nobody else"), "{error}");
    }

    #[test]
    fn trimming_keeps_what_was_used_last() {
        let (temporary, directory) = fresh();
        for (age, name) in ["newest", "middle", "oldest"].iter().enumerate() {
            let file = directory.put(name, &[0; 100]).unwrap();
            let seconds = 1_000_000 - i64::try_from(age).unwrap();
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time }).unwrap();
        }
        directory.trim(250);
        let mut left: Vec<_> =
            std::fs::read_dir(temporary.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["middle", "newest"]);
    }
}
