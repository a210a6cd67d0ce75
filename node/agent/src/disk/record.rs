//! What the node remembers of a disk: `disk.json`, beside its image.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::{DiskError, file_error};

pub(super) const DISK_JSON: &str = "disk.json";
/// The record while it is written.
pub(super) const DISK_JSON_NEW: &str = ".disk.json.new";

/// What the node remembers of a disk, beside its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Size of the file system.
    pub size_bytes: u64,
    /// Digest of the image its layers are mounted over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The checkout was made. From here on the content is the user's.
    #[serde(default)]
    pub initialized: bool,
}

impl DiskRecord {
    /// Writes it atomically; a durable one also survives a power cut.
    pub(super) fn write(&self, folder: &Path, durable: bool) -> Result<(), DiskError> {
        let path = folder.join(DISK_JSON);
        let temporary = folder.join(DISK_JSON_NEW);
        let write = || {
            let mut file = File::create(&temporary)?;
            serde_json::to_writer(&mut file, self)?;
            if durable {
                file.sync_all()?;
            }
            std::fs::rename(&temporary, &path)?;
            if durable { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(file_error(&path, "written"))
    }

    pub(super) fn read(folder: &Path) -> Result<Self, DiskError> {
        let path = folder.join(DISK_JSON);
        let bytes = std::fs::read(&path).map_err(file_error(&path, "read"))?;
        serde_json::from_slice(&bytes).map_err(|source| DiskError::Record { path, source })
    }
}
