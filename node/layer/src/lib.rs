//! Unpacks a layer of an image into a folder of its own, in the form that overlayfs mounted with `userxattr` reads.
//!
//! A layer is an untrusted archive. Every name in it is walked from the folder's descriptor with `openat2(RESOLVE_BENEATH)`, so that a `..`,
//! an absolute symbolic link or a hard link cannot reach anything outside; such a name fails the whole layer. Owners stay as in the archive:
//! the folder is only ever mounted id-mapped. Deletions become what overlayfs expects, the 0:0 character device and `user.overlay.opaque`.

pub mod archive;
mod attributes;
mod below;
mod layer;
mod link;
mod mark;
mod meter;
pub mod remove;
mod walk;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use archive::Archive;
use layer::{Applied, Layer};
use meter::Meter;
pub use meter::decompress;

/// Bounds of what one layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the archive, uncompressed.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000 }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// sha256 of the uncompressed archive.
    pub diff_id: [u8; 32],
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Device nodes that were left out, and hard links to them: they would not work in a workspace.
    pub devices_skipped: u64,
}

/// The layer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A name leads out of the layer.
    #[error(
        "the image's layer has the entry {name:?}, which leads out of the image through {how}: the image is broken or hostile"
    )]
    Escape {
        /// The entry.
        name: PathBuf,
        /// By what means.
        how: &'static str,
    },
    /// A hard link to nothing.
    #[error(
        "the image's layer has the hard link {name:?} to {target:?}, which is no file of that layer or of those below"
    )]
    HardLink {
        /// The entry.
        name: PathBuf,
        /// What it should be.
        target: PathBuf,
    },
    /// More bytes than [`Limits::bytes`].
    #[error("the image's layer holds more than {0} bytes: raise `node.max_layer_bytes` if it is meant to be that big")]
    TooBig(u64),
    /// More files than [`Limits::entries`].
    #[error("the image's layer holds more than {0} files: use an image with fewer in a layer")]
    TooMany(u64),
    /// Not a tar archive, cut short, or not decompressible.
    #[error("the image's layer is not a whole tar archive")]
    Archive(#[source] io::Error),
    /// An entry that no file system has.
    #[error("the image's layer has the entry {name:?} of the unknown type {:?}", char::from(*.type_flag))]
    Unknown {
        /// The entry.
        name: PathBuf,
        /// Its letter in the archive.
        type_flag: u8,
    },
    /// The kernel refused to make an entry.
    #[error("the image's layer cannot be unpacked at {name:?}")]
    Entry {
        /// The entry.
        name: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a tar stream into the empty folder `into`. `lower` are the folders of the layers below, topmost first: a folder that the archive
/// implies but does not describe takes its owner and mode from there.
///
/// # Errors
/// See [`UnpackError`]; what was unpacked until then stays in `into`, for the caller to remove.
pub fn unpack(archive: impl Read, into: &Path, lower: &[PathBuf], limits: Limits) -> Result<Unpacked, UnpackError> {
    let mut meter = Meter::new(archive, limits.bytes);
    let mut layer = Layer::open(into, lower, limits.bytes)?;
    let over = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => UnpackError::TooBig(limits.bytes),
        _ => UnpackError::Archive(error),
    };
    let mut archive = Archive::new(&mut meter);
    let (mut entries, mut devices_skipped) = (0, 0);
    while let Some(entry) = archive.next_entry().map_err(over)? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::TooMany(limits.entries));
        }
        match layer.apply(&entry, &mut archive) {
            Ok(Applied::Made) => {}
            Ok(Applied::DeviceSkipped) => devices_skipped += 1,
            Err(UnpackError::Archive(source)) => return Err(over(source)),
            Err(error) => return Err(error),
        }
    }
    layer.finish()?;
    // What follows the archive's end belongs to the digest.
    io::copy(&mut meter, &mut io::sink()).map_err(over)?;
    let (diff_id, bytes) = meter.finish();
    Ok(Unpacked { diff_id, bytes, entries, devices_skipped })
}

#[cfg(test)]
mod tests;
