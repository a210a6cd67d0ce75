//! Following the log of an instance: how it started, then its output, a file that grows and is cut in two when it gets long.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use berth_sandbox::monitor::{LOG_FILE, OLD_LOG_FILE};
use bytes::Bytes;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::instance::START_LOG_FILE;

/// Reads a log that grows and is rotated.
pub(super) struct Follower {
    folder: PathBuf,
    /// What comes before the newest file: the start, the older half of the output.
    before: VecDeque<File>,
    /// The start was sent, or there was nothing to send.
    started: bool,
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
        let open = |name: &str| File::open(folder.join(name)).ok();
        let (start, old, mut file) = (open(START_LOG_FILE), open(OLD_LOG_FILE), open(LOG_FILE));
        let started = start.is_some();
        let mut before: VecDeque<File> = start.into_iter().chain(old).collect();
        let mut tail = tail;
        for file in file.iter_mut().chain(before.iter_mut().rev()) {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(tail)))?;
            tail = tail.saturating_sub(length);
        }
        Ok(Self { folder, before, started, file, watch })
    }

    /// The next bytes; empty at the end of what there is so far.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; PIECE];
        if !self.started
            && let Ok(start) = File::open(self.folder.join(START_LOG_FILE))
        {
            self.before.push_back(start);
            self.started = true;
        }
        while let Some(file) = self.before.front_mut() {
            let count = file.read(&mut buffer)?;
            if count > 0 {
                buffer.truncate(count);
                return Ok(Some(buffer.into()));
            }
            self.before.pop_front();
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
        // What exactly happened does not matter: the file is read again.
        let mut events = [0; 4096];
        while rustix::io::read(self.watch.get_ref(), &mut events[..]).is_ok_and(|count| count > 0) {}
        guard.clear_ready();
        Ok(())
    }
}
