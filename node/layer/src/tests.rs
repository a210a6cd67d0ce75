#![expect(clippy::disallowed_methods, reason = "what was unpacked is looked at from outside")]

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

/// A file with holes at both ends and between, its archive in one of GNU tar's four forms.
fn sparse(form: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let source = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(source.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    for extent in 0..60_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 5000], (extent + 1) << 18).unwrap();
    }
    let mut tar = std::process::Command::new("tar");
    tar.args(["--create", "--sparse", "--directory"]).arg(source.path()).args(form).arg("sparse");
    (tar.output().unwrap().stdout, std::fs::read(source.path().join("sparse")).unwrap())
}

const SPARSE_FORMS: [&[&str]; 4] = [
    &["--format=gnu"],
    &["--format=posix", "--sparse-version=0.0"],
    &["--format=posix", "--sparse-version=0.1"],
    &["--format=posix", "--sparse-version=1.0"],
];

#[test]
fn a_sparse_file_stays_sparse_and_counts_whole() {
    for form in SPARSE_FORMS {
        let (archive, content) = sparse(form);
        assert!(archive.len() < 2 << 20);
        let dir = tempfile::tempdir().unwrap();
        unpack(Cursor::new(&archive), dir.path(), &[], Limits::default()).unwrap();
        let metadata = std::fs::metadata(dir.path().join("sparse")).unwrap();
        assert!(metadata.len() == 64 << 20 && metadata.blocks() * 512 < 2 << 20, "{} blocks", metadata.blocks());
        assert!(std::fs::read(dir.path().join("sparse")).unwrap() == content, "{form:?}");

        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 32 << 20, entries: 10 };
        let error = unpack(Cursor::new(&archive), dir.path(), &[], limits).unwrap_err();
        assert!(matches!(error, UnpackError::TooBig(_)), "{error}");
    }
}

/// A header as it is, without the builder's help.
fn header(name: &str, kind: u8, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn raw(parts: &[(tar::Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in parts {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

/// The archive's files and their content; folders end with a slash.
fn files(bytes: &[u8]) -> Result<Vec<(String, String)>, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    unpack(Cursor::new(bytes), dir.path(), &[], Limits::default())?;
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                (name + "/", String::new())
            } else if kind.is_file() {
                (name, String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned())
            } else {
                (name, String::new())
            }
        })
        .collect();
    files.sort();
    Ok(files)
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
    format!("{length} {key}={value}\n").into_bytes()
}

/// Who looks through an archive before it is unpacked must see what is unpacked. Go's reader, which tools for images have, decides.
#[test]
fn what_readers_could_understand_differently_is_understood_as_go_does() {
    let pax =
        |records: &[(&str, &str)]| -> Vec<u8> { records.iter().flat_map(|(key, value)| record(key, value)).collect() };
    let x = |content: &[u8]| header("x", b'x', content.len() as u64);
    let inner = raw(&[(header("smuggled", b'0', 0), b"")]);

    // The size of the extended header counts, so that what looks like an entry is content, and the other way round.
    let size = pax(&[("size", "5")]);
    let bytes = raw(&[(x(&size), &size), (header("a", b'0', 0), b"hello"), (header("b", b'0', 2), b"me")]);
    assert_eq!(files(&bytes).unwrap(), [("a".into(), "hello".into()), ("b".into(), "me".into())]);
    // Links, folders and pipes have no content, whatever they say; some tools write the size of the file there.
    for kind in [b'1', b'2', b'5', b'6'] {
        let mut link = header("l", kind, 512);
        link.as_mut_bytes()[157] = b'a';
        link.set_cksum();
        let bytes = raw(&[(header("a", b'0', 2), b"me"), (link, b""), (header("b", b'0', 0), b"")]);
        let names: Vec<_> =
            files(&bytes.clone()).map(|files| files.into_iter().map(|(name, _)| name).collect()).unwrap();
        let (folder, file): (Vec<_>, Vec<_>) = (vec!["a", "b", "l/"], vec!["a", "b", "l"]);
        assert_eq!(names, if kind == b'5' { folder } else { file });
    }
    // The last of two records, the last of two names, and nothing taken back by an empty one.
    for (records, name) in [
        (&[("path", "first"), ("path", "last")][..], "last"),
        (&[("path", "first"), ("path", "")][..], "plain"),
        (&[("path", "line\nbreak"), ("SCHILY.xattr.user.x", "a\nb")][..], "line\nbreak"),
    ] {
        let records = pax(records);
        let bytes = raw(&[(x(&records), &records), (header("plain", b'0', 0), b"")]);
        assert_eq!(files(&bytes).unwrap(), [(name.into(), String::new())]);
    }
    let bytes =
        raw(&[(header("L", b'L', 5), b"long\0"), (header("L", b'L', 7), b"longer\0"), (header("plain", b'0', 0), b"")]);
    assert_eq!(files(&bytes).unwrap(), [("longer".into(), String::new())]);
    // A global header describes nothing.
    let global = pax(&[("path", "everywhere"), ("comment", "of git archive")]);
    let bytes = raw(&[(header("g", b'g', global.len() as u64), &global), (header("plain", b'0', 0), b"")]);
    assert_eq!(files(&bytes).unwrap(), [("plain".into(), String::new())]);
    // A folder of before there was a letter for it.
    assert_eq!(files(&raw(&[(header("old/", 0, 0), b"")])).unwrap(), [("old/".into(), String::new())]);
    // What follows the end is digested and not unpacked; a block of zeros alone is no end.
    let mut after = raw(&[(header("plain", b'0', 0), b"")]);
    after.extend_from_slice(&inner);
    assert_eq!(files(&after).unwrap(), [("plain".into(), String::new())]);
    let mut lone = raw(&[(header("plain", b'0', 0), b"")]);
    lone.truncate(1024);
    lone.extend_from_slice(&inner);
    assert!(matches!(files(&lone), Err(UnpackError::Archive(_))));
}

#[test]
fn an_archive_that_cannot_be_right_is_refused() {
    let pax = |content: &[u8]| raw(&[(header("x", b'x', content.len() as u64), content), (header("a", b'0', 0), b"")]);
    let sparse = |map: &str, size: &str, content: &[u8]| {
        let records = [record("GNU.sparse.map", map), record("GNU.sparse.size", size)].concat();
        let x = header("x", b'x', records.len() as u64);
        raw(&[(x, &records[..]), (header("a", b'0', content.len() as u64), content)])
    };
    let mut wrong_sum = header("a", b'0', 0);
    wrong_sum.as_mut_bytes()[0] = b'b';
    let mut size = header("a", b'0', 0);
    size.as_mut_bytes()[124..136].copy_from_slice(&[0xff; 12]);
    size.set_cksum();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("checksum", raw(&[(wrong_sum, b"")])),
        ("size below zero", raw(&[(size, b"")])),
        ("record longer than all of them", pax(b"99 path=a\n")),
        ("record without an end", pax(b"8 path=a")),
        ("record without a key", pax(b"5 =a\n")),
        ("name with a NUL", pax(&record("path", "a\0b"))),
        ("owner beyond 32 bits", pax(&record("uid", "4294967296"))),
        ("owner that is none", pax(&record("gid", "4294967295"))),
        ("time that is none", pax(&record("mtime", "soon"))),
        ("size that is none", pax(&record("size", "-1"))),
        ("name for nothing", raw(&[(header("L", b'L', 2), b"a\0")])),
        ("sparse: overlapping", sparse("0,2,1,1", "9", b"abc")),
        ("sparse: beyond the end", sparse("8,2", "9", b"ab")),
        ("sparse: beyond all numbers", sparse("18446744073709551615,2", "9", b"ab")),
        ("sparse: half a pair", sparse("0,2,5", "9", b"ab")),
        ("sparse: less than is there", sparse("0,1", "9", b"ab")),
        ("sparse: more than is there", sparse("0,4", "9", b"ab")),
    ];
    for (what, bytes) in cases {
        let found = files(&bytes);
        assert!(matches!(found, Err(UnpackError::Archive(_))), "{what}: {found:?}");
    }
    let found = files(&raw(&[(header("v", b'V', 0), b"")]));
    assert!(matches!(found, Err(UnpackError::Unknown { type_flag: b'V', .. })), "{found:?}");
}

/// What describes an entry is held in memory: a few kilobytes of gzip must not become gigabytes there.
#[test]
fn descriptions_are_bounded() {
    let endless = |kind: u8| {
        let size = 8 << 30;
        Cursor::new(header("x", kind, size).as_bytes().to_vec()).chain(io::repeat(b'1').take(size))
    };
    for kind in *b"xgLK" {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(endless(kind), dir.path(), &[], Limits::default()).unwrap_err();
        assert!(matches!(&error, UnpackError::Archive(why) if why.to_string().contains("1 MiB")), "{error:?}");
    }
    // A list of extents that never ends, in the header's form and in the content's.
    let mut old = tar::Header::new_gnu();
    old.set_path("a").unwrap();
    old.set_entry_type(tar::EntryType::GNUSparse);
    old.as_mut_bytes()[482] = 1;
    old.set_mode(0o644);
    old.set_uid(0);
    old.set_gid(0);
    old.set_mtime(0);
    old.set_size(0);
    old.set_cksum();
    let records =
        [record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "1")].concat();
    let mut new = raw(&[(header("x", b'x', records.len() as u64), &records)]);
    new.truncate(1024);
    new.extend_from_slice(header("a", b'0', 8 << 30).as_bytes());
    for beginning in [old.as_bytes().to_vec(), new] {
        let dir = tempfile::tempdir().unwrap();
        let archive = Cursor::new(beginning).chain(io::repeat(b'1').take(8 << 30));
        let error = unpack(archive, dir.path(), &[], Limits::default()).unwrap_err();
        assert!(matches!(&error, UnpackError::Archive(why) if why.to_string().contains("extents")), "{error:?}");
    }
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

#[test]
fn compressed_archives_are_whole_or_refused() {
    use std::io::Write as _;
    let archive = Archive::new().file("a", &[7; 100_000]).bytes();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (first, second) = archive.split_at(40_000);
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"note", &zstd(&archive)].concat();
    for whole in [
        archive.clone(),
        gzip(&archive),
        [gzip(first), gzip(second)].concat(),
        zstd(&archive),
        [zstd(first), zstd(second)].concat(),
        skippable,
    ] {
        let unpacked = |bytes: Vec<u8>| {
            let dir = tempfile::tempdir().unwrap();
            unpack(decompress(Cursor::new(bytes)).unwrap(), dir.path(), &[], Limits::default())
        };
        let expected = unpacked(archive.clone()).unwrap();
        assert_eq!(unpacked(whole.clone()).unwrap(), expected);
        if whole == archive {
            continue;
        }
        for length in [whole.len() - 1, whole.len() / 2, 20] {
            let error = unpacked(whole[..length].to_vec()).unwrap_err();
            assert!(matches!(error, UnpackError::Archive(_)), "{error}");
        }
        let error = unpacked([&whole[..], b"garbage"].concat()).unwrap_err();
        assert!(matches!(error, UnpackError::Archive(_)), "{error}");
    }
    // Three megabytes in three kilobytes.
    let bomb = gzip(&raw(&[(header("bomb", b'0', 3 << 20), &vec![0; 3 << 20])]));
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1 << 20, entries: 10 };
    let error = unpack(decompress(Cursor::new(bomb)).unwrap(), dir.path(), &[], limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooBig(_)), "{error}");
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
