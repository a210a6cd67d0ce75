//! Whether an image has room for what every workspace is given. Such an image starts nowhere, however often it is tried.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;

use super::config::{GIT_CONFIG, INIT};

const FOLDERS: [&str; 5] = ["/proc", "/sys", "/dev", "/.berth/bin", "/.berth/run"];
const FILES: [&str; 5] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", INIT, GIT_CONFIG];

/// Something is in the way.
#[derive(Debug, thiserror::Error)]
#[error("the image cannot be used: its {path} is {found}, where every workspace has {wanted}: choose another image")]
pub struct InTheWay {
    path: &'static str,
    found: &'static str,
    wanted: &'static str,
}

/// Looks at a root file system before anything is mounted in it. Links are followed as inside; what is missing will be made.
///
/// # Errors
/// The first thing that is in the way.
pub fn check(root: &Path) -> Result<(), InTheWay> {
    let Ok(root) = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        // The runtime says what is wrong with it.
        return Ok(());
    };
    let wanted = |paths: [&'static str; 5], wanted| paths.map(|path| (path, wanted));
    for (path, wanted) in wanted(FOLDERS, "a folder").into_iter().chain(wanted(FILES, "a file")) {
        if let Some(found) = kind(root.as_fd(), path).filter(|found| *found != wanted) {
            return Err(InTheWay { path, found, wanted });
        }
    }
    Ok(())
}

fn kind(root: BorrowedFd<'_>, path: &str) -> Option<&'static str> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).and_then(fstat) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Some("a folder"),
        Ok(_) => Some("a file"),
        Err(Errno::NOTDIR) => Some("below a file"),
        Err(Errno::LOOP) => Some("a circle of links"),
        Err(Errno::NOENT) if leads_to_kernel(root, path) => Some("behind a link into the kernel's files"),
        Err(_) => None,
    }
}

/// Most links on one path, as in the kernel.
const MOST_LINKS: usize = 40;

/// Whether links lead a path below `/proc` or `/sys`. Nothing is there yet, and what will be there leads anywhere: the runtime refuses to
/// mount over it.
fn leads_to_kernel(root: BorrowedFd<'_>, path: &str) -> bool {
    let parts = |path: &Path| path.iter().map(OsStr::to_owned).collect::<Vec<OsString>>();
    let mut todo = VecDeque::from(parts(Path::new(path)));
    let mut place = PathBuf::new();
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == "/" {
            place.clear();
        } else if part == ".." {
            place.pop();
        } else {
            place.push(&part);
        }
        let Ok(target) = readlinkat(root, &place, Vec::new()) else { continue };
        links += 1;
        if links > MOST_LINKS {
            return false;
        }
        place.pop();
        for part in parts(Path::new(OsStr::from_bytes(target.as_bytes()))).into_iter().rev() {
            todo.push_front(part);
        }
    }
    links > 0 && ["proc", "sys"].iter().any(|kernel| place.starts_with(kernel))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    type Make = fn(&Path);

    #[test]
    fn what_is_in_the_way_is_named() {
        let cases: [(Make, Option<&str>); 11] = [
            (|_| {}, None),
            (|root| symlink("/usr/etc", root.join("etc")).unwrap(), None),
            (
                |root| std::fs::create_dir_all(root.join("etc/resolv.conf")).unwrap(),
                Some("/etc/resolv.conf is a folder"),
            ),
            (|root| std::fs::write(root.join("proc"), "x").unwrap(), Some("/proc is a file, where")),
            (|root| std::fs::write(root.join(".berth"), "x").unwrap(), Some("/.berth/bin is below a file")),
            (|root| symlink("etc", root.join("etc")).unwrap(), Some("/etc/hosts is a circle of links")),
            // The host's /etc is no business of an image.
            (|root| symlink("../../../../../../etc", root.join("dev")).unwrap(), None),
            (|root| symlink("/dev/pts", root.join("etc")).unwrap(), None),
            // What is there once /proc is mounted is anything.
            (
                |root| symlink("/proc/1/root", root.join("etc")).unwrap(),
                Some("/etc/hosts is behind a link into the kernel's files, where"),
            ),
            (
                |root| {
                    symlink("../a/b", root.join("dev")).unwrap();
                    std::fs::create_dir(root.join("a")).unwrap();
                    symlink("../proc/self/cwd/x", root.join("a/b")).unwrap();
                },
                Some("/dev is behind a link into the kernel's files"),
            ),
            (|root| symlink("/process", root.join("etc")).unwrap(), None),
        ];
        for (number, (make, expected)) in cases.into_iter().enumerate() {
            let root = tempfile::tempdir().unwrap();
            make(root.path());
            let found = check(root.path()).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(found, None, "case {number}"),
                Some(part) => {
                    assert!(found.as_ref().is_some_and(|text| text.contains(part)), "case {number}: {found:?}")
                }
            }
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hosts"), "x").unwrap();
        assert!(check(root.path()).is_ok());
    }
}
