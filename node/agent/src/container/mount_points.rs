//! Whether an image has room for what every workspace is given. Such an image starts nowhere, however often it is tried.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
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
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    type Make = fn(&Path);

    #[test]
    fn what_is_in_the_way_is_named() {
        let cases: [(Make, Option<&str>); 8] = [
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
