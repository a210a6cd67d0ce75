//! What the node records about an instance, so that the next agent can go on where this one was killed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use berth_sandbox::monitor::Exit;
use berth_workspace_crd::{Checkout, GitIdentity};
use serde::{Deserialize, Serialize};

use crate::container::Limits;
use crate::network::{Opening, Slot};

/// What shall run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRequest {
    /// The instance: a UUID.
    pub instance_id: String,
    /// Its workspace, whose disk it runs from.
    pub workspace_id: String,
    /// Who owns it.
    pub owner_id: String,
    /// The attempt; with the instance it names the pod.
    pub attempt: u32,
    /// Host name inside.
    pub hostname: String,
    /// Image asked for; `None`: that of devcontainer.json, else the base image.
    #[serde(default)]
    pub image: Option<String>,
    /// The content of a new disk.
    pub checkout: Checkout,
    /// Who commits.
    #[serde(default)]
    pub git: GitIdentity,
    /// Environment of every process.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Private `host:port` that are opened.
    #[serde(default)]
    pub allow_private_hosts: Vec<String>,
    /// Limits.
    pub limits: Limits,
}

/// The file `instance.json` in an instance's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What shall run.
    pub request: StartRequest,
    /// Boot in which it was made.
    pub boot_id: String,
    /// Its number.
    pub slot: Slot,
    /// What is opened for it.
    #[serde(default)]
    pub openings: Vec<Opening>,
    /// Digest of its image, once that is known.
    #[serde(default)]
    pub image: Option<String>,
    /// Its image's user.
    #[serde(default)]
    pub user: String,
    /// It was ready once.
    #[serde(default)]
    pub ready: bool,
    /// How it ended, once everything of it is gone and the disk is safe.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// The end of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How its container ended.
    pub exit: Exit,
    /// The machine was restarted while it ran.
    #[serde(default)]
    pub node_restarted: bool,
    /// Why the disk could not be synced or released.
    #[serde(default)]
    pub disk_error: Option<String>,
}

/// Name of the file.
const FILE: &str = "instance.json";

impl Record {
    /// Reads it; `None` if there is none, or one that was never completely written.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it atomically. Not synced: after a power cut every instance is over anyway, and its disk holds the rest.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let temporary: PathBuf = folder.join(".instance.json.new");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, folder.join(FILE))
    }
}

/// The present boot.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
