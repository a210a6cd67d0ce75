use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

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
