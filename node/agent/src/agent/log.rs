//! Following the output of an instance: a file that grows, and is cut in two when it is long.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use berth_sandbox::monitor::{LOG_FILE, OLD_LOG_FILE};
use bytes::Bytes;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Reads a log that grows and is rotated.
pub(super) struct Follower {
    folder: PathBuf,
    /// What is left of the older half.
    old: Option<File>,
    file: Option<File>,
    watch: AsyncFd<OwnedFd>,
}

const PIECE: usize = 64 * 1024;

impl Follower {
    pub(super) fn open(folder: PathBuf, tail: u64) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        // Watched before it is read, so that nothing in between is missed.
        inotify::add_watch(
            &watch,
            &folder,
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
        )?;
        let watch = crate::instance::readiness(watch)?;
        let mut file = File::open(folder.join(LOG_FILE)).ok();
        let mut old = File::open(folder.join(OLD_LOG_FILE)).ok();
        let length = |file: &Option<File>| {
            file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len())
        };
        let (newer, older) = (length(&file), length(&old));
        if let Some(file) = &mut file {
            file.seek(SeekFrom::Start(newer.saturating_sub(tail)))?;
        }
        let rest = tail.saturating_sub(newer);
        if let Some(old) = &mut old {
            old.seek(SeekFrom::Start(older.saturating_sub(rest)))?;
        }
        Ok(Self { folder, old, file, watch })
    }

    /// What comes next; nothing at the end of what there is.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; PIECE];
        if let Some(old) = &mut self.old {
            let count = old.read(&mut buffer)?;
            if count > 0 {
                buffer.truncate(count);
                return Ok(Some(buffer.into()));
            }
            self.old = None;
        }
        let path = self.folder.join(LOG_FILE);
        if self.file.is_none() {
            self.file = File::open(&path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        let count = file.read(&mut buffer)?;
        if count > 0 {
            buffer.truncate(count);
            return Ok(Some(buffer.into()));
        }
        // At the end: was it rotated under us?
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::metadata(&path))
            && !same(&ours, &there)
        {
            self.file = Some(File::open(&path)?);
            return self.next_piece();
        }
        Ok(None)
    }

    /// Waits for more.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut guard = self.watch.readable().await?;
        // What happened does not matter: the file is read again.
        let mut events = [0; 4096];
        while rustix::io::read(self.watch.get_ref(), &mut events[..]).is_ok_and(|count| count > 0) {}
        guard.clear_ready();
        Ok(())
    }
}
