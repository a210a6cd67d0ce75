//! Disks: one sparse ext4 image a workspace, on a loop device of its own.

mod filesystem;
mod lock;
mod record;
mod store;

pub use filesystem::FileSystemError;
pub use record::DiskRecord;
pub use store::{Disk, DiskError, DiskStore};
