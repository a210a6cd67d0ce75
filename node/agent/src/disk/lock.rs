//! The lock on a disk: either one instance uses it, or a deletion.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::sync::Notify;

use super::store::{DiskError, file_error};

/// Name of the file that is locked, in the disk's folder.
pub(super) const FILE: &str = "lock";

/// A lock that is held until this value is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    released: Arc<Notify>,
}

impl Lock {
    /// Takes the lock of the disk in `folder`, which belongs to `workspace`; `released` is notified when it is released.
    ///
    /// # Errors
    /// [`DiskError::Locked`] when somebody has it; the file cannot be made or locked.
    pub(super) fn take(folder: &Path, workspace: &str, released: &Arc<Notify>) -> Result<Self, DiskError> {
        let path = folder.join(FILE);
        let file = File::create(&path).map_err(file_error(&path, "opened"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => DiskError::Locked(workspace.to_owned()),
            errno => file_error(&path, "locked")(errno.into()),
        })?;
        Ok(Self { file, released: Arc::clone(released) })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child between fork and exec has the file too, and would still hold the lock when the waiters look.
        if let Err(errno) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            tracing::error!(%errno, "a disk's lock cannot be let go");
        }
        self.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_for_a_lock_hears_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let released = Arc::default();
        let lock = Lock::take(dir.path(), "w1", &released).unwrap();
        let heard = released.notified();
        assert!(matches!(Lock::take(dir.path(), "w1", &released), Err(DiskError::Locked(id)) if id == "w1"));
        let mut heard = std::pin::pin!(heard);
        assert!(heard.as_mut().now_or_never().is_none(), "a lock that was refused is no release");
        // As a child has it that was just forked.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(heard.now_or_never().is_some());
        assert!(Lock::take(dir.path(), "w1", &released).is_ok());
        drop(inherited);
    }
}
