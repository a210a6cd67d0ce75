//! The node agent's folders on the machine (those of `docs/architecture.md`), made with the permissions that they need.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The folders below `BERTH_HOME` that belong to the node agent.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// A folder of ours cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be made: the node agent needs to own BERTH_HOME (is it on a read-only or full file system?)", path.display())]
pub struct HomeError {
    /// Which.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Home {
    /// Names the folders; makes nothing.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the folders, readable by root alone: layers hold setuid programs, disks hold everything.
    ///
    /// # Errors
    /// Names the first folder that cannot be made.
    pub fn create(&self) -> Result<(), HomeError> {
        // Others, such as the database's user, may pass through BERTH_HOME itself; they may not enter what is below it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.root)
            .map_err(|source| HomeError { path: self.root.clone(), source })?;
        for path in [
            self.root.join("node"),
            self.images(),
            self.disks(),
            self.root.join("run"),
            self.instances(),
            self.network(),
            self.hull_root(),
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| HomeError { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// `BERTH_HOME`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image store: an OCI layout and the unpacked layers.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("node/images")
    }

    /// The workspaces' disks.
    #[must_use]
    pub fn disks(&self) -> PathBuf {
        self.root.join("node/disks")
    }

    /// The instances' bundles.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.root.join("run/instances")
    }

    /// The bundle of one instance.
    #[must_use]
    pub fn instance(&self, id: &str) -> PathBuf {
        self.instances().join(id)
    }

    /// Network namespaces, each pinned at a file.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.root.join("run/network")
    }

    /// hull's state.
    #[must_use]
    pub fn hull_root(&self) -> PathBuf {
        self.root.join("run/hull")
    }

    /// Locked for as long as an agent runs: each of two agents on one home would take the other's workspaces for leftovers.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("node/agent.lock")
    }
}
