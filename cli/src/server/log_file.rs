//! The log of a server in the background, kept short while it runs: standard error is its file.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// A log longer than this is put aside.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// How often a running server looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the log at `path` short, for ever; does nothing when standard error goes elsewhere.
pub(super) async fn keep_short(path: &Path) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        match put_aside(path, &io::stderr(), MAX_LOG_BYTES) {
            Ok(None) => {}
            Ok(Some(new)) => {
                if let Err(error) = rustix::stdio::dup2_stderr(new) {
                    tracing::warn!(%error, "the server's log cannot be begun anew");
                }
            }
            Err(error) => tracing::warn!(%error, log = %path.display(), "the server's log cannot be put aside"),
        }
    }
}

/// Renames the log to `….log.1` when `writer` writes to it and it is longer than `most` bytes; returns the new one.
fn put_aside(path: &Path, writer: &impl AsFd, most: u64) -> io::Result<Option<File>> {
    let written = File::from(writer.as_fd().try_clone_to_owned()?).metadata()?;
    let same = |named: Metadata| (named.dev(), named.ino()) == (written.dev(), written.ino());
    if written.len() <= most || !std::fs::metadata(path).is_ok_and(same) {
        return Ok(None);
    }
    std::fs::rename(path, path.with_extension("log.1"))?;
    OpenOptions::new().create(true).append(true).open(path).map(Some)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_what_is_no_log_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let open = || OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut log = open();
        log.write_all(b"0123456789").unwrap();
        assert!(put_aside(&path, &log, 10).unwrap().is_none());
        let mut elsewhere = File::create(folder.path().join("other")).unwrap();
        elsewhere.write_all(b"0123456789").unwrap();
        assert!(put_aside(&path, &elsewhere, 9).unwrap().is_none());
        log = put_aside(&path, &log, 9).unwrap().unwrap();
        log.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read(folder.path().join("server.log.1")).unwrap(), b"0123456789");
        std::fs::remove_file(&path).unwrap();
        assert!(put_aside(&path, &log, 0).unwrap().is_none());
    }
}
