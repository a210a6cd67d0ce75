//! The workspaces' disks on this node.
//!
//! A disk is a folder with a sparse image, which stays mounted for as long as the machine runs, so that a start finds it mounted. A few blank
//! ones per size are made and mounted ahead of time; a new workspace's disk is one of them, renamed. The log of the workspace's last instance
//! is kept there too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_sandbox::monitor::{LOG_FILE, OLD_LOG_FILE};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::filesystem::{self, FileSystemError};
use super::lock::{self, Lock};
use super::record::{DISK_JSON, DISK_JSON_NEW, DiskRecord};
use crate::instance::{Quiet, START_LOG_FILE};

/// Names of blank disks begin with this; no workspace id does.
const BLANK: &str = ".blank-";
/// Names of disks being deleted begin with this.
const DOOMED: &str = ".doomed-";

/// Names of the folders with logs, in a disk's, begin with this.
const LOG: &str = "log-";

/// Ids are UUIDs; anything that could be a path is none.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The disks cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system in it.
    #[error(transparent)]
    FileSystem(#[from] FileSystemError),
    /// A file of ours.
    #[error("the disk's {} cannot be {action}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// In use.
    #[error("the disk of workspace {0} is in use by another of its instances: stop that one first")]
    Locked(String),
    /// The name is not one.
    #[error("{0:?} is not a workspace id")]
    Name(String),
    /// The record cannot be read.
    #[error("the disk's {} is damaged: its content is untouched; write it anew as {{\"size_bytes\":…}}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A thread died.
    #[error("work on the disk was interrupted")]
    Broken,
}

/// The node's disks.
#[derive(Debug, Clone)]
pub struct DiskStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    counter: AtomicU64,
    /// Mounted blanks by size.
    blanks: Mutex<BTreeMap<u64, Vec<PathBuf>>>,
    /// How many blanks of which size there should be.
    wanted: Mutex<BTreeMap<u64, usize>>,
    refill: Notify,
    /// A lock was let go.
    released: Arc<Notify>,
}

/// A disk that the holder of this value may use, until it is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    _lock: Lock,
    /// What is known of it.
    pub record: DiskRecord,
    /// It was made just now.
    pub fresh: bool,
}

impl Disk {
    /// Where its file system is mounted; holds `upper` and `work`.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// Changes the record, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut DiskRecord)) -> Result<(), DiskError> {
        let mut record = self.record.clone();
        change(&mut record);
        if record != self.record {
            record.write(&self.folder, true)?;
            self.record = record;
        }
        Ok(())
    }

    /// Syncs everything: after this a power cut loses nothing.
    ///
    /// # Errors
    /// When the host's disk fails.
    pub fn sync(&self) -> Result<(), DiskError> {
        Ok(filesystem::sync(&self.mount_point())?)
    }

    /// Whether the kernel stopped writing to it after an error of the host's disk.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        filesystem::is_read_only(&self.mount_point())
    }

    /// Major and minor number of the loop device, for limits on its traffic.
    #[must_use]
    pub fn device(&self) -> Option<(u32, u32)> {
        let stat = rustix::fs::stat(self.mount_point()).ok()?;
        Some((rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
    }
}

pub(super) fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.to_owned();
    move |source| DiskError::File { path, action, source }
}

impl DiskStore {
    /// Opens the folder of disks: takes blanks that are still mounted over, removes those that are not, and finishes deletions.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(root: PathBuf) -> Result<Self, DiskError> {
        let inner = Inner {
            root: root.clone(),
            counter: AtomicU64::new(0),
            blanks: Mutex::default(),
            wanted: Mutex::default(),
            refill: Notify::new(),
            released: Arc::default(),
        };
        let entries = std::fs::read_dir(&root).map_err(file_error(&root, "listed"))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(BLANK) {
                let record = DiskRecord::read(&path).ok();
                let mounted = filesystem::mounted(&path.join("disk.img"), &path.join("mnt")).unwrap_or(false);
                match record {
                    Some(record) if mounted => {
                        let mut blanks = inner.blanks.lock().unwrap_or_else(PoisonError::into_inner);
                        blanks.entry(record.size_bytes).or_default().push(path);
                    }
                    _ => erase_if_possible(&path),
                }
            } else if name.starts_with(DOOMED) {
                erase_if_possible(&path);
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    fn folder(&self, workspace: &str) -> Result<PathBuf, DiskError> {
        if !is_plain(workspace) {
            return Err(DiskError::Name(workspace.chars().take(64).collect()));
        }
        Ok(self.inner.root.join(workspace))
    }

    /// Whether the node holds a disk of this workspace.
    ///
    /// # Errors
    /// When the id is none.
    pub fn exists(&self, workspace: &str) -> Result<bool, DiskError> {
        Ok(self.folder(workspace)?.join("disk.img").exists())
    }

    /// What is known of a disk, without using it.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn record(&self, workspace: &str) -> Result<Option<DiskRecord>, DiskError> {
        let folder = self.folder(workspace)?;
        if folder.join("disk.img").exists() { DiskRecord::read(&folder).map(Some) } else { Ok(None) }
    }

    /// The workspace's disk, mounted; a new one when it has none. Blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`DiskError`]; the content is never touched.
    pub fn take(&self, workspace: &str, size_bytes: u64) -> Result<Disk, DiskError> {
        let folder = self.folder(workspace)?;
        let image = folder.join("disk.img");
        let mut fresh = false;
        if !image.exists() {
            fresh = true;
            let blank = self.pop_blank(size_bytes);
            let made = match blank {
                Some(blank) => blank,
                None => self.make_blank(size_bytes)?,
            };
            std::fs::rename(&made, &folder).map_err(file_error(&folder, "made"))?;
            self.inner.refill.notify_one();
        }
        let lock = Lock::take(&folder, workspace, &self.inner.released)?;
        let record = DiskRecord::read(&folder)?;
        let at = folder.join("mnt");
        if filesystem::mounted(&image, &at)? {
            if filesystem::is_read_only(&at) {
                // Nothing runs from it (we hold the lock): check it, and mount it again.
                filesystem::unmount(&at)?;
            } else {
                return Ok(Disk { folder, _lock: lock, record, fresh });
            }
        }
        filesystem::check(&image)?;
        filesystem::mount(&image, &at)?;
        prepare(&at)?;
        Ok(Disk { folder, _lock: lock, record, fresh })
    }

    fn pop_blank(&self, size_bytes: u64) -> Option<PathBuf> {
        let mut blanks = self.inner.blanks.lock().unwrap_or_else(PoisonError::into_inner);
        blanks.get_mut(&size_bytes).and_then(Vec::pop)
    }

    fn make_blank(&self, size_bytes: u64) -> Result<PathBuf, DiskError> {
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        let folder = self.inner.root.join(format!("{BLANK}{}-{number}", std::process::id()));
        let made = Self::fill_blank(&folder, size_bytes);
        if made.is_err() {
            erase_if_possible(&folder);
        }
        made.map(|()| folder)
    }

    fn fill_blank(folder: &Path, size_bytes: u64) -> Result<(), DiskError> {
        let at = folder.join("mnt");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&at).map_err(file_error(&at, "made"))?;
        let image = folder.join("disk.img");
        filesystem::make(&image, size_bytes)?;
        filesystem::mount(&image, &at)?;
        prepare(&at)?;
        DiskRecord { size_bytes, ..DiskRecord::default() }.write(folder, false)
    }

    /// Says how many blanks of each size there should be; [`Self::keep_blanks`] makes them.
    pub fn want_blanks(&self, sizes: &BTreeSet<u64>, each: usize) {
        let mut wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = sizes.iter().map(|size| (*size, each)).collect();
        self.inner.refill.notify_one();
    }

    fn next_missing(&self) -> Option<u64> {
        let wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let blanks = self.inner.blanks.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().find(|(size, count)| blanks.get(size).map_or(0, Vec::len) < **count).map(|(size, _)| *size)
    }

    /// Makes blanks as they are used up, between starts, for as long as it is polled.
    pub(crate) async fn keep_blanks(&self, mut quiet: Quiet) {
        loop {
            // Looked at after the wait: who empties the pool meanwhile is right.
            while let Some(size) = quiet.then(|| self.next_missing()).await {
                let store = self.clone();
                match tokio::task::spawn_blocking(move || store.make_blank(size)).await {
                    Ok(Ok(path)) => {
                        let mut blanks = self.inner.blanks.lock().unwrap_or_else(PoisonError::into_inner);
                        blanks.entry(size).or_default().push(path);
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(error = berth_http::problem::chain(&error), "no blank disk can be made ahead");
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.inner.refill.notified().await;
        }
    }

    /// Deletes a workspace's disk with all its content. Nothing happens when there is none.
    ///
    /// # Errors
    /// [`DiskError::Locked`] while an instance runs from it.
    pub fn delete(&self, workspace: &str) -> Result<(), DiskError> {
        let folder = self.folder(workspace)?;
        if !folder.exists() {
            return Ok(());
        }
        let _lock = Lock::take(&folder, workspace, &self.inner.released)?;
        // Renamed first: a crash in between leaves no partial disk under the workspace's name.
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        let doomed = self.inner.root.join(format!("{DOOMED}{}-{number}", std::process::id()));
        std::fs::rename(&folder, &doomed).map_err(file_error(&folder, "renamed"))?;
        erase(&doomed)
    }

    /// Keeps the log in the folder of an instance that ended, in place of an older instance's. A workspace without a disk has none.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub(crate) fn keep_log(&self, workspace: &str, instance: &str, from: &Path) -> Result<(), DiskError> {
        let folder = self.folder(workspace)?;
        if !folder.is_dir() || !is_plain(instance) {
            return Ok(());
        }
        remove_logs(&folder)?;
        let kept = folder.join(format!("{LOG}{instance}"));
        std::fs::create_dir(&kept).map_err(file_error(&kept, "created"))?;
        for name in [START_LOG_FILE, OLD_LOG_FILE, LOG_FILE] {
            match std::fs::rename(from.join(name), kept.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error(&kept.join(name), "written")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The folder with the log of an instance that ended last of its workspace.
    pub(crate) fn kept_log(&self, instance: &str) -> Option<PathBuf> {
        if !is_plain(instance) {
            return None;
        }
        let name = format!("{LOG}{instance}");
        let disks = std::fs::read_dir(&self.inner.root).ok()?;
        disks.flatten().map(|disk| disk.path().join(&name)).find(|folder| folder.is_dir())
    }

    /// Completes when somebody releases a disk, of this workspace or another. Counts from the call, not from the first poll: a caller who
    /// asks for it and then finds a disk locked misses nothing.
    pub fn released(&self) -> Notified<'_> {
        self.inner.released.notified()
    }

    /// Gives the space of files that were deleted back to the host, where the disk is mounted; also while an instance runs from it. Blocks for
    /// a second where there were many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn trim(&self, workspace: &str) -> Result<(), DiskError> {
        let folder = self.folder(workspace)?;
        let at = folder.join("mnt");
        if filesystem::mounted(&folder.join("disk.img"), &at)? { Ok(filesystem::trim(&at)?) } else { Ok(()) }
    }

    /// Every workspace with a disk here, with its record and the bytes it costs the host.
    #[must_use]
    pub fn list(&self) -> Vec<(String, DiskRecord, u64)> {
        let entries = std::fs::read_dir(&self.inner.root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') {
                    return None;
                }
                let used = std::fs::metadata(entry.path().join("disk.img")).ok()?.blocks() * 512;
                Some((name, DiskRecord::read(&entry.path()).ok()?, used))
            })
            .collect()
    }

    /// Free bytes of the host's file system that the disks lie on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(&self.inner.root)
            .map_err(|errno| file_error(&self.inner.root, "looked at")(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Unmounts every disk and removes the blank ones: for tests and for taking a node out of service. Disks of running workspaces stay
    /// mounted.
    ///
    /// # Errors
    /// When one cannot be unmounted.
    pub fn close(&self) -> Result<(), DiskError> {
        self.want_blanks(&BTreeSet::new(), 0);
        let blanks = std::mem::take(&mut *self.inner.blanks.lock().unwrap_or_else(PoisonError::into_inner));
        for path in blanks.into_values().flatten() {
            erase(&path)?;
        }
        for (workspace, _, _) in self.list() {
            let folder = self.folder(&workspace)?;
            match Lock::take(&folder, &workspace, &self.inner.released) {
                Ok(_lock) => filesystem::unmount(&folder.join("mnt"))?,
                Err(DiskError::Locked(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The two folders that overlayfs needs; owned by the container's root, who is 0 on the disk.
fn prepare(at: &Path) -> Result<(), DiskError> {
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = at.join(name);
        match std::fs::DirBuilder::new().mode(mode).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error(&path, "made")(error)),
        }
    }
    Ok(())
}

fn remove_logs(folder: &Path) -> Result<(), DiskError> {
    for entry in std::fs::read_dir(folder).map_err(file_error(folder, "listed"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(LOG) {
            std::fs::remove_dir_all(entry.path()).map_err(file_error(&entry.path(), "removed"))?;
        }
    }
    Ok(())
}

/// As [`erase`], where nothing depends on success: what is left is removed at the next start.
fn erase_if_possible(folder: &Path) {
    if let Err(error) = erase(folder) {
        let error = berth_http::problem::chain(&error);
        tracing::warn!(path = %folder.display(), error, "what is left of a disk stays for now");
    }
}

/// Removes a disk's folder: the image first unmounted, then its few files.
fn erase(folder: &Path) -> Result<(), DiskError> {
    filesystem::unmount(&folder.join("mnt"))?;
    remove_logs(folder)?;
    for name in ["disk.img", DISK_JSON, DISK_JSON_NEW, lock::FILE] {
        match std::fs::remove_file(folder.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(&folder.join(name), "removed")(error)),
        }
    }
    for path in [folder.join("mnt"), folder.to_owned()] {
        match std::fs::remove_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(&path, "removed")(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
