//! Beside GNU tar.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use berth_layer::{Limits, unpack};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use super::can_compare;
use super::random::{Marks, Random, archive};
use super::tree::{FolderTimes, describe};

fn extract(archive: &[u8], into: &Path) -> Output {
    let mut tar = Command::new("tar")
        .args(["--extract", "--file=-", "--same-permissions", "--same-owner", "--numeric-owner"])
        .args(["--xattrs", "--xattrs-include=*", "--directory"])
        .arg(into)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = tar.stdin.take().unwrap().write_all(archive);
    tar.wait_with_output().unwrap()
}

/// What every format can hold.
fn plain(folder: &Path) {
    let file = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).unwrap();
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    std::fs::create_dir_all(folder.join("empty/folder")).unwrap();
    file("bin/su", b"setuid");
    file("bin/blocks", &[1; 1024]);
    file("bin/odd", &[2; 1025]);
    file("nothing", b"");
    std::fs::hard_link(folder.join("bin/su"), folder.join("bin/sudo")).unwrap();
    std::os::unix::fs::symlink("bin/su", folder.join("link")).unwrap();
    std::fs::hard_link(folder.join("link"), folder.join("link to the link")).unwrap();
    Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap();
    let mode = |name: &str, mode: u32| {
        rustix::fs::chmodat(CWD, folder.join(name), mode.into(), AtFlags::empty()).unwrap();
    };
    std::os::unix::fs::chown(folder.join("bin/su"), Some(7), Some(8)).unwrap();
    for (name, bits) in [("bin/su", 0o6755), ("empty", 0o1777), ("pipe", 0o622), ("empty/folder", 0)] {
        mode(name, bits);
    }
}

/// What only newer formats can.
fn rich(folder: &Path) {
    let write = |name: &OsStr| std::fs::write(folder.join(name), name.as_bytes()).unwrap();
    let long = "long".repeat(40);
    let deep = folder.join(&long).join(&long);
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join(&long), b"deep").unwrap();
    std::fs::hard_link(deep.join(&long), folder.join("to the deep")).unwrap();
    std::os::unix::fs::symlink(format!("{long}/{long}/{long}"), folder.join("long link")).unwrap();
    for name in [&b"two\nlines"[..], b"no \xff\xfe utf-8", b"12 path=x", b"equals=", "ümläut".as_bytes(), b"-dash"] {
        write(OsStr::from_bytes(name));
    }
    write(OsStr::new("owned"));
    std::os::unix::fs::chown(folder.join("owned"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    for (name, tv_sec, tv_nsec) in [("before", -1_000_000, 250_000_000), ("after", 5_000_000_000, 1), ("zero", 0, 0)] {
        write(OsStr::new(name));
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, folder.join(name), &times, AtFlags::empty()).unwrap();
    }
}

fn with_xattrs(folder: &Path) {
    let set = |file: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(folder.join(file), name, value, XattrFlags::empty()).unwrap();
    };
    set("bin/odd", "user.note", b"two\nlines\0and \xff");
    set("empty", "user.folder", b"x");
    // Capabilities 1 and 3: their bits are a newline.
    set("bin/blocks", "security.capability", &[1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// Its name, what makes files that it can hold, and how GNU tar is told to write it.
type Format = (&'static str, &'static [fn(&Path)], &'static [&'static str]);

#[test]
fn archives_of_every_format_come_out_as_gnu_tar_has_them() {
    if !can_compare("tar") {
        return;
    }
    let formats: [Format; 6] = [
        ("v7", &[plain_without_pipe], &["--format=v7"]),
        ("ustar", &[plain], &["--format=ustar"]),
        ("oldgnu", &[plain, rich], &["--format=oldgnu"]),
        ("gnu", &[plain, rich], &["--format=gnu"]),
        ("posix", &[plain, rich, with_xattrs], &["--format=posix", "--xattrs"]),
        ("posix, times in seconds", &[plain, rich], &["--format=posix", "--pax-option=delete=atime,delete=ctime"]),
    ];
    for (what, makers, arguments) in formats {
        let source = tempfile::tempdir().unwrap();
        makers.iter().for_each(|make| make(source.path()));
        let mut tar = Command::new("tar");
        tar.args(["--create", "--file=-"]).args(arguments).arg("--directory").arg(source.path()).arg(".");
        let archive = tar.output().unwrap();
        assert!(archive.status.success(), "{what}: {}", String::from_utf8_lossy(&archive.stderr));
        compare(&archive.stdout, what);
    }
}

fn plain_without_pipe(folder: &Path) {
    plain(folder);
    std::fs::remove_file(folder.join("pipe")).unwrap();
}

fn compare(archive: &[u8], what: &str) {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = extract(archive, theirs.path());
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    unpack(archive, ours.path(), &[], Limits::default()).unwrap();
    let (ours, theirs) = (describe(ours.path(), FolderTimes::Compared), describe(theirs.path(), FolderTimes::Compared));
    assert_eq!(ours, theirs, "{what}");
}

/// Entries that come twice, folders that become files and back, links that meet.
#[test]
fn archives_made_by_chance_come_out_as_gnu_tar_has_them() {
    if !can_compare("tar") {
        return;
    }
    let mut compared = 0;
    for seed in 0..500 {
        let (listing, archive) = archive(&mut Random::new(seed), Marks::None);
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // What it refuses in part we refuse whole, or, a link to a folder that is yet to come, can do.
        if !extract(&archive, theirs.path()).status.success() {
            continue;
        }
        unpack(&archive[..], ours.path(), &[], Limits::default()).unwrap_or_else(|error| {
            panic!("seed {seed}: {error}: {listing:#?}");
        });
        let (ours, theirs) =
            (describe(ours.path(), FolderTimes::Ignored), describe(theirs.path(), FolderTimes::Ignored));
        assert_eq!(ours, theirs, "seed {seed}: {listing:#?}");
        compared += 1;
    }
    assert!(compared > 150, "{compared}");
}
