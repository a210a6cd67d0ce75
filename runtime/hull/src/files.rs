//! Reading and writing small files by descriptor; numbers parsed strictly.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Reads a whole small file below `dir`, at most `limit` bytes.
pub(crate) fn read_at(dir: impl AsFd, path: &str, limit: usize) -> Result<Vec<u8>, Errno> {
    let fd = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    read_all(&fd, limit)
}

/// Reads until the end, at most `limit` bytes.
pub(crate) fn read_all(fd: &OwnedFd, limit: usize) -> Result<Vec<u8>, Errno> {
    // One page holds most files of the kernel, and most configurations.
    let mut out = Vec::with_capacity(4096);
    loop {
        if out.len() == out.capacity() {
            out.reserve(out.len());
        }
        match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut out)) {
            Ok(0) => return Ok(out),
            Ok(_) if out.len() > limit => return Err(Errno::FBIG),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads a text file.
pub(crate) fn read_text_at(dir: impl AsFd, path: &str, limit: usize) -> Result<String, Errno> {
    let bytes = read_at(dir, path, limit)?;
    String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
}

/// Reads a text file of the host by absolute path.
pub(crate) fn read_text(path: &str, limit: usize) -> Result<String, Errno> {
    read_text_at(rustix::fs::CWD, path, limit)
}

/// Writes to an existing file below `dir` in one call, as kernel files want it.
pub(crate) fn write_at(dir: impl AsFd, path: &str, text: &[u8]) -> Result<(), Errno> {
    let fd = rustix::fs::openat(dir, path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    write_once(&fd, text)
}

/// One write of the whole text; a short write is an error.
pub(crate) fn write_once(fd: &OwnedFd, text: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::write(fd, text) {
            Ok(n) if n == text.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes everything, in as many calls as it takes.
pub(crate) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes or replaces a file below `dir` so that readers see the old or the new contents, never a part.
pub(crate) fn replace_at(dir: impl AsFd, name: &str, bytes: &[u8], mode: Mode) -> Result<(), Errno> {
    let dir = dir.as_fd();
    let temporary = format!(".{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, temporary.as_str(), flags, mode)?;
    write_all(&fd, bytes)?;
    rustix::fs::renameat(dir, temporary.as_str(), dir, name)
}

/// Makes or replaces a file below `dir` for others to read. It has no name until it is complete, so that a killed process leaves nothing; on
/// file systems without nameless files it has a temporary name.
pub(crate) fn publish_at(dir: impl AsFd, name: &str, bytes: &[u8], mode: Mode) -> Result<(), Errno> {
    let dir = dir.as_fd();
    let fd = match rustix::fs::openat(dir, ".", OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, mode) {
        Ok(fd) => fd,
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => return replace_at(dir, name, bytes, mode),
        Err(e) => return Err(e),
    };
    write_all(&fd, bytes)?;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let publish = || rustix::fs::linkat(rustix::fs::CWD, link.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW);
    match publish() {
        Err(Errno::EXIST) => rustix::fs::unlinkat(dir, name, AtFlags::empty()).and_then(|()| publish()),
        other => other,
    }
    .or_else(|_| replace_at(dir, name, bytes, mode))
}

/// Moves a descriptor to a high number, so that it cannot be taken for one that the caller passed by number.
pub(crate) fn move_high(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 200)
}

/// Whether a name exists below `dir` (symlinks are not followed).
pub(crate) fn exists_at(dir: impl AsFd, name: &str) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A decimal number without sign, blanks or trailing text.
pub(crate) fn parse_unsigned<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A decimal number, possibly with a fraction, times a factor; any fraction of the result is dropped.
pub(crate) fn parse_decimal(text: &str, factor: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { parse_unsigned::<i64>(text) };
    let tenths = 10i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let rest = digits(fraction)?.checked_mul(factor)?.checked_div(tenths)?;
    digits(whole)?.checked_mul(factor)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_strictly() {
        assert_eq!(parse_unsigned::<u32>("1"), Some(1));
        assert_eq!(parse_unsigned::<u32>("01"), Some(1));
        assert_eq!(parse_unsigned::<u32>("4294967295"), Some(u32::MAX));
        for bad in ["", " 1", "1x", "4294967296", "-1", "+1", "1 "] {
            assert_eq!(parse_unsigned::<u32>(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fractions_count() {
        assert_eq!(parse_decimal("1.25", 1 << 30), Some(5 << 28));
        assert_eq!((parse_decimal(".5", 3), parse_decimal("2.", 3)), (Some(1), Some(6)));
        for bad in ["", ".", "1.2.3", "-1", "1e3", "9999999999999999999", "0.9999999999999999999"] {
            assert_eq!(parse_decimal(bad, 1), None, "{bad:?}");
        }
    }
}
