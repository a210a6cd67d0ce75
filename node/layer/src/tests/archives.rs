//! How archives are read: the forms of tar, sparse files, compression, and what no archive may be.

use super::*;

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
pub(super) fn header(name: &str, kind: u8, size: u64) -> tar::Header {
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

pub(super) fn raw(parts: &[(tar::Header, &[u8])]) -> Vec<u8> {
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
