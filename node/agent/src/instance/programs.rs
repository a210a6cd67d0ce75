//! Copies of hull and berth-init that running workspaces use: an upgrade of Berth leaves them alone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::image::Digest;

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The OCI runtime.
    pub hull: PathBuf,
    /// PID 1, rootfs helper and monitor.
    pub berth_init: PathBuf,
}

/// A program is missing.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Not found.
    #[error("{name} is not at {}: build it with `make build`, or name it with `node.{setting}`", path.display())]
    Missing {
        /// Which.
        name: &'static str,
        /// Its setting.
        setting: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be copied.
    #[error("{} cannot be written", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Programs {
    /// Copies the programs into `<home>/bin/<version>/`, where the version is derived from their content. Existing copies are used.
    ///
    /// # Errors
    /// When one is missing or cannot be copied.
    pub fn install(home: &Path, hull: Option<&Path>, berth_init: Option<&Path>) -> Result<Self, ProgramError> {
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
        let read = |name: &'static str, setting: &'static str, path: Option<&Path>| {
            let path = path.map_or_else(|| beside.join(name), Path::to_owned);
            std::fs::read(&path).map_err(|source| ProgramError::Missing { name, setting, path, source })
        };
        let hull = read("hull", "hull", hull)?;
        let init = read("berth-init", "berth_init", berth_init)?;
        let version: String = Digest::of(&[Digest::of(&hull).hex(), Digest::of(&init).hex()].concat().into_bytes())
            .hex()
            .chars()
            .take(16)
            .collect();
        let folder = home.join("bin").join(version);
        let copy = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            let write = || {
                if path.exists() {
                    return Ok(());
                }
                std::fs::create_dir_all(&folder)?;
                let temporary = folder.join(format!(".{name}.{}", std::process::id()));
                std::fs::write(&temporary, content)?;
                std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(|source| ProgramError::Copy { path: path.clone(), source }).map(|()| path.clone())
        };
        Ok(Self { hull: copy("hull", &hull)?, berth_init: copy("berth-init", &init)? })
    }

    /// Removes the copies of other versions. Only for when nothing runs: a monitor ends its container with the runtime that started it.
    pub(crate) fn remove_others(&self) {
        let Some((ours, all)) = self.hull.parent().and_then(|ours| Some((ours, ours.parent()?))) else { return };
        for entry in std::fs::read_dir(all).into_iter().flatten().flatten().filter(|entry| entry.path() != ours) {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "programs of another version stay");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_version_stays() {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        let install = |content: &str| {
            std::fs::write(&source, content).unwrap();
            Programs::install(home.path(), Some(&source), Some(&source)).unwrap()
        };
        let (old, new) = (install("old"), install("new"));
        assert_ne!(old, new);
        assert_eq!(install("old"), old, "what is there is taken");
        new.remove_others();
        assert!(new.hull.exists() && new.berth_init.exists() && !old.hull.exists());
    }
}
