//! Disks: one sparse ext4 image a workspace, on a loop device of its own.

mod filesystem;
mod store;

pub use filesystem::FileSystemError;
pub use store::{Disk, DiskError, DiskRecord, DiskStore};
