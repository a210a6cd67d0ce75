//! A blob in the making.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::layout::LayoutError;
use super::reference::Digest;

/// Counted and hashed as it is written; dropped unkept, it is gone.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    path: PathBuf,
    file: File,
    hash: sha2::Sha256,
    bytes: u64,
}

impl BlobWriter {
    pub(super) fn begin(path: PathBuf) -> Result<Self, LayoutError> {
        let file =
            File::create(&path).map_err(|source| LayoutError::File { path: path.clone(), action: "made", source })?;
        Ok(Self { path, file, hash: sha2::Sha256::new(), bytes: 0 })
    }

    /// Moves it to its place, if it is what its descriptor says.
    pub(super) fn finish(self, place: &Path, wanted: &Digest, size: Option<u64>) -> Result<(), LayoutError> {
        if let Some(wanted) = size
            && wanted != self.bytes
        {
            return Err(LayoutError::Size { wanted, found: self.bytes });
        }
        let found = self.digest();
        if found != *wanted {
            return Err(LayoutError::Digest { wanted: *wanted, found });
        }
        self.file.sync_all().and_then(|()| std::fs::rename(&self.path, place)).map_err(|source| LayoutError::File {
            path: place.to_owned(),
            action: "written",
            source,
        })
    }

    /// Bytes so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest so far.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += u64::try_from(count).unwrap_or(u64::MAX);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a rename there is nothing at the path any more.
        let _ = std::fs::remove_file(&self.path);
    }
}
