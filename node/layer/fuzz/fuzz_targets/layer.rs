//! Unpacking of layers: whatever comes in, no panic, nothing outside of the layer's folder, and the folder can be removed again.
//! Run with `make fuzz FUZZ=node/layer/fuzz TARGET=layer`.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use berth_layer::{Limits, decompress, remove, unpack};
use libfuzzer_sys::fuzz_target;

/// In memory, where there is such a place: a layer is made and removed thousands of times a second.
static PLACE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let place = place.expect("a folder");
    std::fs::write(place.path().join("canary"), b"alive").expect("a file");
    let below = place.path().join("below");
    std::fs::create_dir_all(below.join("a/b")).expect("a folder");
    std::fs::write(below.join("a/f"), b"below").expect("a file");
    std::os::unix::fs::symlink("../../canary", below.join("up")).expect("a link");
    std::os::unix::fs::symlink(place.path(), below.join("out")).expect("a link");
    place
});

/// Without a right checksum the reader goes no further than the header, and chance finds none.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512).filter(|block| block.get(257..262) == Some(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let place = PLACE.path();
    let (layer, lower): (PathBuf, _) = (place.join("layer"), [place.join("below")]);
    std::fs::create_dir(&layer).expect("a folder");
    let archive = std::io::Cursor::new(with_checksums(bytes.to_vec()));
    if let Ok(archive) = decompress(archive) {
        let _ = unpack(archive, &layer, &lower, Limits { bytes: 1 << 20, entries: 100 });
    }
    remove::tree(&layer).expect("a layer that can be removed");
    let mut names: Vec<_> = std::fs::read_dir(place).expect("a folder").map(|e| e.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(names, ["below", "canary"]);
    assert_eq!(std::fs::read(place.join("canary")).expect("a file"), b"alive");
    assert_eq!(std::fs::read_dir(&lower[0]).expect("a folder").count(), 3);
});
