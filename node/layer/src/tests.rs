#![expect(clippy::disallowed_methods, reason = "what was unpacked is looked at from outside")]

use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use self::archives::{header, raw};
use super::*;

mod archives;

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes the name as it is: the builder's own setters refuse the names we want to try.
    fn entry(mut self, name: &str, kind: tar::EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, 0o4755, "", content)
    }

    fn folder(self, name: &str) -> Self {
        self.entry(name, tar::EntryType::Directory, 0o1777, "", b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(name, tar::EntryType::Symlink, 0o777, to, b"")
    }

    fn hard_link(self, name: &str, to: &str) -> Self {
        self.entry(name, tar::EntryType::Link, 0o644, to, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn unpack(self, into: &Path) -> Result<Unpacked, UnpackError> {
        unpack(Cursor::new(self.bytes()), into, &[], Limits::default())
    }
}

#[test]
fn files_links_owners_and_modes_come_out_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new()
        .folder("./tmp/")
        .file("bin/sudo", b"program")
        .hard_link("bin/sudoedit", "bin/sudo")
        .symlink("lib", "usr/lib")
        .folder("usr/lib")
        .file("lib/x", b"through a link of the layer itself")
        .entry("dev/null", tar::EntryType::Char, 0o666, "", b"")
        .entry("run/pipe", tar::EntryType::Fifo, 0o600, "", b"");
    let result = archive.unpack(dir.path()).unwrap();
    assert_eq!(result.devices_skipped, 1);
    let sudo = std::fs::metadata(dir.path().join("bin/sudo")).unwrap();
    assert_eq!((sudo.mode() & 0o7777, sudo.uid(), sudo.mtime(), sudo.nlink()), (0o4755, 1000, 1_000_000, 2));
    let tmp = std::fs::metadata(dir.path().join("tmp")).unwrap();
    assert_eq!((tmp.permissions().mode() & 0o7777, tmp.mtime()), (0o1777, 1_000_000));
    assert_eq!(std::fs::read(dir.path().join("usr/lib/x")).unwrap(), b"through a link of the layer itself");
    assert!(std::fs::metadata(dir.path().join("run/pipe")).unwrap().file_type().is_fifo());
    assert!(!dir.path().join("dev/null").exists());
}

#[test]
fn deletions_become_overlay_marks() {
    let dir = tempfile::tempdir().unwrap();
    let below = tempfile::tempdir().unwrap();
    std::fs::create_dir(below.path().join("var")).unwrap();
    std::fs::create_dir(below.path().join("etc")).unwrap();
    std::fs::write(below.path().join("etc/motd"), b"").unwrap();
    std::fs::set_permissions(below.path().join("var"), std::fs::Permissions::from_mode(0o2710)).unwrap();
    let bytes =
        Archive::new().file("etc/.wh.motd", b"").file("var/.wh..wh..opq", b"").file(".wh..wh.aufs", b"").bytes();
    unpack(Cursor::new(bytes), dir.path(), &[below.path().to_owned()], Limits::default()).unwrap();
    let mark = std::fs::symlink_metadata(dir.path().join("etc/motd")).unwrap();
    assert!(mark.file_type().is_char_device());
    assert_eq!(mark.rdev(), 0);
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(dir.path().join("var"), "user.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    // Nobody described /var: it looks as in the layer below.
    assert_eq!(std::fs::metadata(dir.path().join("var")).unwrap().mode() & 0o7777, 0o2710);
    assert!(!dir.path().join(".wh..wh.aufs").exists());
}

#[test]
fn nothing_climbs_out() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), b"alive").unwrap();
    let out = outside.path().to_str().unwrap().to_owned();
    let cases: Vec<(&str, Archive)> = vec![
        ("dots", Archive::new().file("../canary", b"dead")),
        ("dots inside", Archive::new().folder("a").file("a/../../canary", b"dead")),
        ("absolute symlink", Archive::new().symlink("a", &out).file("a/canary", b"dead")),
        ("relative symlink", Archive::new().symlink("a", "../../../../../../../tmp").file("a/canary", b"dead")),
        ("folder through a symlink", Archive::new().symlink("a", &out).folder("a/sub").file("a/sub/x", b"dead")),
        ("hard link by dots", Archive::new().hard_link("b", "../canary")),
        ("hard link by symlink", Archive::new().symlink("a", &out).hard_link("b", "a/canary")),
        ("whiteout of dots", Archive::new().file("a/.wh...", b"")),
        ("whiteout through a symlink", Archive::new().symlink("a", &out).file("a/.wh.canary", b"")),
    ];
    for (what, archive) in cases {
        let dir = tempfile::tempdir_in(outside.path()).unwrap();
        let error = archive.unpack(dir.path()).unwrap_err();
        assert!(matches!(error, UnpackError::Escape { .. }), "{what}: {error}");
        assert_eq!(std::fs::read(outside.path().join("canary")).unwrap(), b"alive", "{what}");
    }
}

#[test]
fn a_file_replaces_a_symlink_instead_of_writing_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let canary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(canary.path(), b"alive").unwrap();
    Archive::new().symlink("a", canary.path().to_str().unwrap()).file("a", b"mine").unpack(dir.path()).unwrap();
    assert_eq!(std::fs::read(canary.path()).unwrap(), b"alive");
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"mine");
}

#[test]
fn a_hard_link_to_nothing_and_a_cut_archive_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Archive::new().hard_link("b", "etc/shadow").unpack(dir.path()).unwrap_err();
    assert!(matches!(error, UnpackError::HardLink { .. }), "{error}");
    let bytes = Archive::new().file("a", &[7; 4000]).bytes();
    let error = unpack(Cursor::new(&bytes[..2000]), dir.path(), &[], Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Archive(_)), "{error}");
}

#[test]
fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = Archive::new().file("a", &[7; 40_000]).file("b", b"").file("c", b"").bytes();
    let error = unpack(Cursor::new(&bytes), dir.path(), &[], Limits { bytes: 10_000, entries: 10 }).unwrap_err();
    assert!(matches!(error, UnpackError::TooBig(_)), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(Cursor::new(&bytes), dir.path(), &[], Limits { bytes: 1 << 20, entries: 2 }).unwrap_err();
    assert!(matches!(error, UnpackError::TooMany(_)), "{error}");
}

#[test]
fn overlay_marks_of_an_archive_are_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.user.overlay.opaque", &b"y"[..]),
            ("SCHILY.xattr.user.note", &b"kept"[..]),
        ])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    unpack(Cursor::new(bytes), dir.path(), &[], Limits::default()).unwrap();
    let mut value = [0; 8];
    assert!(rustix::fs::getxattr(dir.path().join("a"), "user.overlay.opaque", &mut value[..]).is_err());
    assert_eq!(rustix::fs::getxattr(dir.path().join("a"), "user.note", &mut value[..]).unwrap(), 4);
}

/// Unpacks each archive over those before it; the layers' folders, topmost first.
fn stack(layers: Vec<Archive>) -> Vec<tempfile::TempDir> {
    let mut dirs: Vec<tempfile::TempDir> = Vec::new();
    for layer in layers {
        let dir = tempfile::tempdir().unwrap();
        let below: Vec<PathBuf> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        unpack(Cursor::new(layer.bytes()), dir.path(), &below, Limits::default()).unwrap();
        dirs.insert(0, dir);
    }
    dirs
}

#[test]
fn files_go_through_the_links_of_the_layers_below() {
    let dirs = stack(vec![
        Archive::new().folder("usr/lib").symlink("lib", "usr/lib").symlink("etc", "/usr/etc").symlink("loop", "loop"),
        Archive::new().file("lib/x", b"x").folder("lib/sub").file("etc/conf", b"c").symlink("here", "lib"),
        // Through a link of the layer in between to a folder of the one below it.
        Archive::new().file("here/y", b"y").symlink("mine", "usr/lib").file("mine/z", b"z"),
        // Where the link was deleted there is a folder.
        Archive::new().file(".wh.lib", b""),
        Archive::new().file("lib/own", b"o"),
    ]);
    let read = |layer: usize, path: &str| std::fs::read(dirs[layer].path().join(path)).unwrap();
    assert_eq!(read(3, "usr/lib/x"), b"x");
    assert_eq!(read(3, "usr/etc/conf"), b"c");
    // A folder that an archive describes by way of a link has its own mode.
    assert_eq!(std::fs::metadata(dirs[3].path().join("usr/lib/sub")).unwrap().mode() & 0o7777, 0o1777);
    assert!(!dirs[3].path().join("lib").exists());
    assert_eq!((read(2, "usr/lib/y"), read(2, "usr/lib/z")), (b"y".to_vec(), b"z".to_vec()));
    assert_eq!(read(0, "lib/own"), b"o");
    assert!(std::fs::symlink_metadata(dirs[0].path().join("lib")).unwrap().is_dir());

    let circle = Archive::new().file("loop/x", b"").bytes();
    let below: Vec<PathBuf> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(Cursor::new(circle), dir.path(), &below, Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Entry { .. }), "{error}");
    let climbs = stack(vec![Archive::new().symlink("up", "../../../../tmp")]);
    let archive = Archive::new().file("up/x", b"").bytes();
    let error =
        unpack(Cursor::new(archive), dir.path(), &[climbs[0].path().to_owned()], Limits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Escape { .. }), "{error}");
}

#[test]
fn a_hard_link_to_a_file_below_brings_the_file_along() {
    let dirs = stack(vec![
        Archive::new().file("bin/tool", b"program").file("gone", b"x").symlink("sbin", "bin"),
        Archive::new().hard_link("bin/alias", "sbin/tool").file(".wh.gone", b"").hard_link("xbin", "sbin"),
    ]);
    let link = std::fs::symlink_metadata(dirs[0].path().join("xbin")).unwrap();
    assert_eq!((link.is_symlink(), link.uid(), link.mtime(), link.nlink()), (true, 1000, 1_000_000, 2));
    let at = |name: &str| std::fs::metadata(dirs[0].path().join("bin").join(name)).unwrap();
    assert_eq!(at("tool").ino(), at("alias").ino());
    assert_eq!((at("alias").mode() & 0o7777, at("alias").uid(), at("alias").mtime()), (0o4755, 1000, 1_000_000));
    assert_eq!(std::fs::read(dirs[0].path().join("bin/alias")).unwrap(), b"program");

    let below: Vec<PathBuf> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
    let try_link = |to: &str, bytes: u64| {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new().hard_link("b", to).bytes();
        unpack(Cursor::new(archive), dir.path(), &below, Limits { bytes, entries: 10 }).unwrap_err()
    };
    let error = try_link("gone", 1 << 20);
    assert!(matches!(error, UnpackError::HardLink { .. }), "{error}");
    // Copies count, else a small layer could fill the disk with what is below it.
    let big = tempfile::tempdir().unwrap();
    std::fs::write(big.path().join("big"), vec![1; 20_000]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new().hard_link("b", "big").bytes();
    let limits = Limits { bytes: 10_000, entries: 10 };
    let error = unpack(Cursor::new(archive), dir.path(), &[big.path().to_owned()], limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooBig(10_000)), "{error}");
}

#[test]
fn a_deletion_hides_only_the_layers_below() {
    for order in [true, false] {
        let archive = Archive::new();
        let archive = match order {
            true => archive.file(".wh.d", b"").folder("d").file("d/new", b"n"),
            false => archive.folder("d").file("d/new", b"n").file(".wh.d", b""),
        };
        let dirs = stack(vec![Archive::new().file("d/old", b"o"), archive]);
        assert_eq!(std::fs::read(dirs[0].path().join("d/new")).unwrap(), b"n");
        let mut value = [0; 4];
        let length = rustix::fs::getxattr(dirs[0].path().join("d"), "user.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y", "{order}");
        assert_eq!(std::fs::metadata(dirs[0].path().join("d")).unwrap().mode() & 0o7777, 0o1777);
    }
    // Also where the folder is only implied.
    let dirs = stack(vec![Archive::new().file("d/old", b"o"), Archive::new().file(".wh.d", b"").file("d/new", b"n")]);
    let mut value = [0; 4];
    assert_eq!(rustix::fs::getxattr(dirs[0].path().join("d"), "user.overlay.opaque", &mut value[..]).unwrap(), 1);
    assert_eq!(std::fs::metadata(dirs[0].path().join("d")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn pipes_have_their_mode_and_time() {
    let dir = tempfile::tempdir().unwrap();
    Archive::new().entry("pipe", tar::EntryType::Fifo, 0o666, "", b"").unpack(dir.path()).unwrap();
    let pipe = std::fs::metadata(dir.path().join("pipe")).unwrap();
    assert_eq!((pipe.mode() & 0o7777, pipe.mtime(), pipe.uid()), (0o666, 1_000_000, 1000));
}

#[test]
fn hard_links_to_what_is_no_file() {
    // To a deletion: a second mark would delete what has the link's name below.
    let dir = tempfile::tempdir().unwrap();
    let error = Archive::new().file(".wh.gone", b"").hard_link("kept", "gone").unpack(dir.path()).unwrap_err();
    assert!(matches!(error, UnpackError::HardLink { .. }), "{error}");
    assert!(std::fs::symlink_metadata(dir.path().join("kept")).is_err());
    // To itself, as some archives have it.
    let dir = tempfile::tempdir().unwrap();
    Archive::new().file("a", b"content").hard_link("a", "./a").unpack(dir.path()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"content");
    // To a device that was left out.
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new().entry("dev/null", tar::EntryType::Char, 0o666, "", b"");
    let unpacked =
        archive.hard_link("dev/nil", "dev/null").hard_link("dev/none", "dev/nil").unpack(dir.path()).unwrap();
    assert_eq!(unpacked.devices_skipped, 3);
    assert_eq!(std::fs::read_dir(dir.path().join("dev")).unwrap().count(), 0);
    // To a folder.
    let dir = tempfile::tempdir().unwrap();
    let error = Archive::new().folder("d").hard_link("e", "d").unpack(dir.path()).unwrap_err();
    assert!(matches!(error, UnpackError::HardLink { .. }), "{error}");
}

#[test]
fn deep_folders_are_replaced_and_removed_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let deep = vec!["d"; 200].join("/");
    let mut name = tar::Header::new_gnu();
    name.set_path("x").unwrap();
    name.set_entry_type(tar::EntryType::GNULongName);
    name.set_size(deep.len() as u64);
    name.set_cksum();
    let folder = header("x", b'5', 0);
    let bytes = raw(&[(name, deep.as_bytes()), (folder, b""), (header("d", b'0', 0), b"")]);
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(64), ..ours };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    unpack(Cursor::new(&bytes), dir.path(), &[], Limits::default()).unwrap();
    assert!(std::fs::metadata(dir.path().join("d")).unwrap().is_file());
    let bytes = &bytes[..bytes.len() - 1024 - 512];
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("layer");
    std::fs::create_dir(&place).unwrap();
    unpack(Cursor::new(bytes), &place, &[], Limits::default()).unwrap();
    remove::tree(&place).unwrap();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, ours).unwrap();
    assert!(std::fs::symlink_metadata(&place).is_err());
}

/// Overlayfs lists such marks as names that cannot be looked at.
#[test]
fn deletions_of_what_is_not_there_leave_no_name() {
    let names = |layer: &tempfile::TempDir, folder: &str| {
        let names = std::fs::read_dir(layer.path().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let dirs = stack(vec![
        Archive::new().folder("d").file("d/old", b"").folder("e").entry("e/p", tar::EntryType::Fifo, 0o600, "", b""),
        Archive::new()
            .folder("d")
            .file("d/.wh.old", b"")
            .file("d/.wh.never", b"")
            .folder("new")
            .file("new/.wh.never", b"")
            .file("e/.wh.p", b""),
        Archive::new().folder("d").file("d/.wh.old", b"").folder("e").file("e/.wh.p", b"").file("e/.wh..wh..opq", b""),
    ]);
    assert_eq!((names(&dirs[1], "d"), names(&dirs[1], "e")), (vec!["old".to_owned()], vec!["p".to_owned()]));
    assert!(names(&dirs[1], "new").is_empty());
    assert!(names(&dirs[0], "d").is_empty() && names(&dirs[0], "e").is_empty());
}

#[test]
fn a_folder_that_replaces_a_file_hides_what_that_hid() {
    let dirs = stack(vec![
        Archive::new().file("d/old", b"o"),
        Archive::new().file("d", b"file").folder("d").file("d/new", b"n"),
    ]);
    let mut value = [0; 4];
    assert_eq!(rustix::fs::getxattr(dirs[0].path().join("d"), "user.overlay.opaque", &mut value[..]).unwrap(), 1);
}
