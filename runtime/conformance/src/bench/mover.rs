//! A process that is moved to its own cgroup, so that every runtime finds the kernel prepared for moves.
//!
//! systemd moves a container's process into its cgroup. The first such move takes a lock of the kernel over all processes, and waits
//! until every processor has been seen outside of its readers (an RCU grace period, some 10 ms); for about as long after it, others
//! need not wait. Of runtimes that are measured in turn, one would pay that for the next.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context as _, Result};

use crate::bundles;
use crate::workload::id;

/// The process and its cgroups.
#[derive(Debug)]
pub(crate) struct Mover {
    process: Child,
    folders: Vec<PathBuf>,
}

impl Mover {
    pub(crate) fn start() -> Result<Mover> {
        let folders: Vec<PathBuf> = bundles::cgroups(&id("mover"))?.into_iter().map(PathBuf::from).collect();
        for folder in &folders {
            fs::create_dir_all(folder)?;
        }
        let process = Command::new("sleep").arg("infinity").spawn().context("cannot run sleep")?;
        Ok(Mover { process, folders })
    }

    /// Returns when the kernel is prepared. Of version 1, other files do without the lock.
    pub(crate) fn move_one(&self) -> Result<()> {
        for folder in self.folders.iter().filter(|folder| folder.join("cgroup.type").exists()) {
            let file = folder.join("cgroup.procs");
            fs::write(&file, self.process.id().to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}
