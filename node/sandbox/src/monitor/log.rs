//! The container's output on disk: bounded, rotated, and never blocking the container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the file that output is appended to.
pub const LOG_FILE: &str = "output.log";
/// Name of the file it becomes when it is full.
pub const OLD_LOG_FILE: &str = "output.log.1";

/// An append-only file with one predecessor.
pub(crate) struct OutputLog {
    dir: PathBuf,
    file: File,
    len: u64,
    max_bytes: u64,
    lost_bytes: u64,
}

impl OutputLog {
    /// Opens the log in `dir`, keeping what is there.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = append(dir)?;
        let len = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), file, len, max_bytes, lost_bytes: 0 })
    }

    /// The file, for a child's standard error.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Appends. What cannot be written, because the disk is full, is counted and reported once there is room again: the container must not
    /// block.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.len.saturating_add(length(bytes)) > self.max_bytes {
            self.rotate();
        }
        if self.lost_bytes > 0 {
            let note = format!("\n[{} bytes of output were lost: the host's disk was full]\n", self.lost_bytes);
            if self.file.write_all(note.as_bytes()).is_ok() {
                self.len += length(note.as_bytes());
                self.lost_bytes = 0;
            }
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.len += length(bytes),
            Err(_) => self.lost_bytes += length(bytes),
        }
    }

    fn rotate(&mut self) {
        if std::fs::rename(self.dir.join(LOG_FILE), self.dir.join(OLD_LOG_FILE)).is_err() {
            // Better to start over than to grow without bound.
            if self.file.set_len(0).is_ok() {
                self.len = 0;
            }
            return;
        }
        if let Ok(file) = append(&self.dir) {
            self.file = file;
            self.len = 0;
        }
    }
}

fn append(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(dir.join(LOG_FILE))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_bound_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = OutputLog::open(dir.path(), 100).unwrap();
        for line in 0..100 {
            log.write(format!("line {line:04}\n").as_bytes());
        }
        let now = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
        let before = std::fs::read_to_string(dir.path().join(OLD_LOG_FILE)).unwrap();
        assert!(now.len() <= 100 && before.len() <= 100);
        assert!(now.ends_with("line 0099\n"));
        let first = now.lines().next().unwrap().trim_start_matches("line ").parse::<u32>().unwrap();
        assert!(before.ends_with(&format!("line {:04}\n", first - 1)));
    }
}
