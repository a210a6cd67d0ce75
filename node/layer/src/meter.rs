//! What stands between a blob and the archive in it.

use std::io::{self, Read};

use sha2::Digest as _;

/// Counts and hashes what passes, and ends with an error above the limit.
pub(crate) struct Meter<R> {
    inner: R,
    hash: sha2::Sha256,
    bytes: u64,
    limit: u64,
}

impl<R> Meter<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, hash: sha2::Sha256::new(), bytes: 0, limit }
    }

    /// The digest of what passed, and its bytes.
    pub(crate) fn finish(self) -> ([u8; 32], u64) {
        (self.hash.finalize().into(), self.bytes)
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += u64::try_from(count).unwrap_or(u64::MAX);
        if self.bytes > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "over the layer's limit"));
        }
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Decompresses by the content's first bytes (gzip, zstd, or plain): media types found in practice are often wrong.
///
/// # Errors
/// When the beginning cannot be read.
pub fn decompress(file: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = io::BufReader::with_capacity(256 * 1024, file);
    let head = io::BufRead::fill_buf(&mut reader)?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        // A frame of zstd, or one to be skipped, with which tools that compress in parallel begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(reader)?)
        }
        _ => Box::new(reader),
    })
}
