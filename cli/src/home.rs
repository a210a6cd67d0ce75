//! `BERTH_HOME`: where a server keeps everything.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What the path of a unix socket may have: `sun_path` of `sockaddr_un`, less its end.
const SOCKET_PATH_BYTES: usize = 107;
/// The longest of those below a home. Workspaces' sockets are reached by their folder.
const LONGEST_SOCKET: &str = "/run/postgres/.s.PGSQL.5432";

/// In [`Home::run`]: locked by the running server, whose pid it holds; written when the server began.
pub(crate) const LOCK: &str = "server.lock";
/// In [`Home::run`]: what a server is at that does not serve yet.
pub(crate) const STARTING: &str = "starting";

/// The folders of an installation.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// `--home` or `BERTH_HOME`; else `/var/lib/berth` for root and the user's data folder for others.
    pub(crate) fn find(chosen: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(chosen) = chosen {
            return std::path::absolute(chosen).map(Self).context("BERTH_HOME");
        }
        if rustix::process::getuid().is_root() {
            return Ok(Self(PathBuf::from("/var/lib/berth")));
        }
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
        data.map(|data| Self(data.join("berth")))
            .context("neither BERTH_HOME nor HOME is set: say where with --home DIR")
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Sockets, pid file, and whatever else does not survive a reboot.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The API's unix socket, mode 0600.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// Locked by the running server, whose pid it holds.
    pub(crate) fn lock(&self) -> PathBuf {
        self.run().join(LOCK)
    }

    /// What the server is at while it starts; gone when it serves.
    pub(crate) fn starting(&self) -> PathBuf {
        self.run().join(STARTING)
    }

    /// Log of a detached server.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    /// The private hosts that the running server allows, a line each.
    pub(crate) fn private_hosts(&self) -> PathBuf {
        self.run().join("private-hosts")
    }

    /// Where the server's Kubernetes API listens, or listened last.
    pub(crate) fn kubernetes_address(&self) -> PathBuf {
        self.run().join("kubernetes")
    }

    /// Keys and certificates, mode 0700.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The configuration file, when there is one.
    pub(crate) fn config(&self) -> Option<PathBuf> {
        [self.0.join("berth.toml"), PathBuf::from("/etc/berth/berth.toml")].into_iter().find(|path| path.is_file())
    }

    /// Makes the folders; only the owner may enter the secret ones.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let (length, most) = (self.0.as_os_str().len(), SOCKET_PATH_BYTES - LONGEST_SOCKET.len());
        if length > most {
            bail!(
                "{} is too long a path for the sockets in it ({length} bytes, {most} at most): choose a shorter one with --home or BERTH_HOME",
                self.0.display()
            );
        }
        for (folder, mode) in [(self.0.clone(), 0o755), (self.run(), 0o755), (self.keys(), 0o700)] {
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(&folder).with_context(|| {
                format!("cannot create {}: run as root, or choose a folder with --home", folder.display())
            })?;
        }
        self.open_the_way()
    }

    /// Postgres and workspaces run as users of their own and need to pass through root's home, which may be a private folder made beforehand
    /// (`mktemp -d`). What is secret in it has its own mode.
    fn open_the_way(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let metadata = std::fs::metadata(&self.0).with_context(|| format!("cannot look at {}", self.0.display()))?;
        let mode = metadata.mode() & 0o7777;
        if rustix::process::geteuid().is_root() && metadata.uid() == 0 && mode & 0o011 != 0o011 {
            std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(mode | 0o011))
                .with_context(|| format!("cannot let Postgres's user through {}", self.0.display()))?;
        }
        Ok(())
    }
}
