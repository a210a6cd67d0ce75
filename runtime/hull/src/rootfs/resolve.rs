//! The one place where paths of a container become descriptors.
//!
//! Every path that a configuration or an image can name is walked from a descriptor of the root by
//! `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`; the result is a descriptor, and nothing is resolved again from text.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How many symlinks a path may go through if its last parts are missing.
const MAX_LINKS: u32 = 40;

/// A container's root directory.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A handle (`O_PATH`) of what `path` names inside the root.
    pub(crate) fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_flags(path, OFlags::PATH)
    }

    /// The same for a path none of whose parts may be a symlink.
    pub(crate) fn open_no_symlinks(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.walk(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens with the flags given.
    pub(crate) fn open_flags(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.walk(path, flags, ResolveFlags::empty())
    }

    fn walk(&self, path: &str, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        // EAGAIN: something was renamed or mounted during a walk over "..".
        for _ in 0..128 {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory, making the parts that are missing.
    pub(crate) fn make_dirs(&self, path: &str, mode: Mode) -> Result<OwnedFd, Errno> {
        self.make_missing(clean(path), mode, &mut 0)
    }

    /// `links` counts the dangling links that were followed.
    fn make_missing(&self, mut path: String, mode: Mode, links: &mut u32) -> Result<OwnedFd, Errno> {
        loop {
            match self.open_flags(&path, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) if path != "/" => {}
                other => return other,
            }
            let (parent_path, name) = split(&path);
            let parent = self.make_missing(clean(parent_path), mode, links)?;
            match rustix::fs::mkdirat(&parent, name, mode) {
                // The new directory is opened through its pinned parent; a swap for a link in between fails here.
                Ok(()) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    return rustix::fs::openat(&parent, name, flags, Mode::empty());
                }
                // A dangling link: go on with what it names, still inside the root.
                Err(Errno::EXIST) if *links < MAX_LINKS => *links += 1,
                Err(Errno::EXIST) => return Err(Errno::LOOP),
                Err(e) => return Err(e),
            }
            path = splice(&parent, name, parent_path)?;
        }
    }

    /// Opens a file for use as a mount point, making it and its parents if missing.
    pub(crate) fn make_file(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut path = clean(path);
        for _ in 0..MAX_LINKS {
            match self.open(&path) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
            let (parent_path, name) = split(&path);
            let parent = self.make_dirs(parent_path, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => return Ok(fd),
                Err(Errno::EXIST) => path = splice(&parent, name, parent_path)?,
                Err(e) => return Err(e),
            }
        }
        Err(Errno::LOOP)
    }

    /// The pinned parent directory (made if missing) and the last name of a path.
    pub(crate) fn parent_of<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let path = path.trim_end_matches('/');
        let (parent, name) = split(path);
        if name.is_empty() || name == ".." || name == "." {
            return Err(Errno::INVAL);
        }
        Ok((self.make_dirs(parent, Mode::from_raw_mode(0o755))?, name))
    }
}

/// Parent path and last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The path that results when the link `name` in `dir` (which is `parent` inside the root) is followed.
fn splice(dir: &OwnedFd, name: &str, parent: &str) -> Result<String, Errno> {
    let target =
        rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|e| if e == Errno::INVAL { Errno::NOTDIR } else { e })?;
    let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
    let base = if target.starts_with('/') { "" } else { parent };
    Ok(clean(&format!("{base}/{target}")))
}

/// Whether a clean path is `at` or below it.
pub(crate) fn is_below(path: &str, at: &str) -> bool {
    let at = clean(at);
    at == "/" || path.strip_prefix(&at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path without empty parts, `.` and `..`, starting with a slash: what `filepath.Clean` makes of it.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let mut out = String::with_capacity(path.len().saturating_add(1));
    for part in parts {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// The file type bits and device number behind a handle.
pub(crate) fn device_of(fd: impl AsFd) -> Result<(rustix::fs::FileType, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((rustix::fs::FileType::from_raw_mode(stat.st_mode), stat.st_rdev))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempdir::Dir, Root) {
        let dir = tempdir::Dir::new();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, Root::new(fd))
    }

    mod tempdir {
        pub(super) struct Dir(std::path::PathBuf);

        impl Dir {
            pub(super) fn new() -> Self {
                static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
                let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let path = std::env::temp_dir().join(format!("hull-test-{}-{number}", std::process::id()));
                std::fs::create_dir(&path).unwrap();
                Self(path)
            }

            pub(super) fn path(&self) -> &std::path::Path {
                &self.0
            }
        }

        impl Drop for Dir {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }
    }

    #[test]
    fn links_never_leave_the_root() {
        let (dir, root) = root();
        std::os::unix::fs::symlink("/etc", dir.path().join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc", dir.path().join("rel")).unwrap();
        assert_eq!(root.open("/abs/passwd").unwrap_err(), Errno::NOENT);
        assert_eq!(root.open("/rel/passwd").unwrap_err(), Errno::NOENT);
        // Making what a dangling link names happens inside.
        root.make_dirs("/abs/x", Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.path().join("etc/x").is_dir());
        assert!(!std::path::Path::new("/etc/x").exists());
    }

    #[test]
    fn directories_behind_several_dangling_links_are_made_inside() {
        let (dir, root) = root();
        let mode = Mode::from_raw_mode(0o755);
        std::os::unix::fs::symlink("one", dir.path().join("first")).unwrap();
        std::os::unix::fs::symlink("/two/three", dir.path().join("one")).unwrap();
        let made = root.make_dirs("/first/p/q", mode).unwrap();
        let path = dir.path().join("two/three/p/q");
        assert!(path.is_dir());
        assert_eq!(
            rustix::fs::fstat(&made).unwrap().st_ino,
            std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap())
        );
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(root.make_dirs("/file/below", mode).unwrap_err(), Errno::NOTDIR);
        assert_eq!(root.make_dirs("/file", mode).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn files_behind_dangling_links_are_made_inside() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../run/systemd/resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        root.make_file("/etc/resolv.conf").unwrap();
        assert!(dir.path().join("run/systemd/resolv.conf").is_file());
    }

    #[test]
    fn link_loops_end() {
        let (dir, root) = root();
        std::os::unix::fs::symlink("b", dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(root.make_dirs("/a/c", Mode::from_raw_mode(0o755)).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn clean_is_lexical() {
        assert_eq!(clean("/a/./b/../c//d/"), "/a/c/d");
        assert_eq!(clean("../.."), "/");
    }
}
