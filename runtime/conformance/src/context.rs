//! What every test gets: the runtime under test, and a place to work in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::cleanup::is_cgroup;
use crate::command::run;
use crate::suite::skip;

/// Which cgroup hierarchies this machine offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cgroups {
    /// One unified hierarchy at `/sys/fs/cgroup`.
    V2,
    /// A hierarchy for each controller, perhaps with an empty unified one beside them.
    V1,
}

/// The runtime and the work folder.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runtime: PathBuf,
    /// Global options put before every command.
    pub(crate) options: Vec<String>,
    pub(crate) work: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) cgroups: Cgroups,
    pub(crate) version: String,
    counter: AtomicU32,
}

/// Where Debian's busybox-static and its kin put the program.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];

impl Context {
    pub(crate) fn new(
        runtime: &Path,
        options: Vec<String>,
        busybox: Option<PathBuf>,
        work: PathBuf,
    ) -> Result<Context> {
        let busybox = match busybox {
            Some(path) => path,
            None => BUSYBOX
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .context("no static busybox; install the package busybox-static or name one with --busybox")?,
        };
        check_static(&busybox)?;
        let version = run(Command::new(runtime).arg("--version"), None)?.ok()?;
        let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { Cgroups::V2 } else { Cgroups::V1 };
        Ok(Context {
            runtime: runtime.to_owned(),
            options,
            work,
            busybox,
            cgroups,
            version: version.stdout.lines().next().unwrap_or_default().to_owned(),
            counter: AtomicU32::new(0),
        })
    }

    /// A number that no other test of this run has.
    pub(crate) fn unique(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A bundle with a busybox root file system and the configuration that `runc spec` would write.
    pub(crate) fn bundle(&self) -> Result<Bundle<'_>> {
        Bundle::new(self)
    }

    /// The runtime with its global options and a state folder of this run.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.work.join("state")).args(&self.options);
        command
    }

    /// The same below strace, whose `options` say what is recorded in the file `trace`.
    pub(crate) fn traced(&self, options: &[&str], trace: &Path) -> Result<Command> {
        if !["/usr/bin/strace", "/bin/strace"].iter().any(|path| Path::new(path).exists()) {
            return Err(skip("strace is not installed"));
        }
        let runtime = self.command();
        let mut command = Command::new("strace");
        command.arg("-f").args(options).arg("-o").arg(trace).arg(runtime.get_program()).args(runtime.get_args());
        Ok(command)
    }

    /// Skips a test that takes the second CPU, on a machine that has one.
    pub(crate) fn several_cpus(&self) -> Result<()> {
        if fs::read_to_string("/sys/devices/system/cpu/online")?.trim() == "0" {
            return Err(skip("one CPU only"));
        }
        Ok(())
    }

    /// Skips where a version 1 hierarchy for the controller is not mounted, or the kernel has none for version 2.
    pub(crate) fn needs(&self, controller: &str) -> Result<()> {
        let there = match self.cgroups {
            // Others leave plain folders of these names.
            Cgroups::V1 => is_cgroup(&Path::new("/sys/fs/cgroup").join(controller)),
            Cgroups::V2 => {
                let name = if controller == "blkio" { "io" } else { controller };
                fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.split_whitespace().any(|one| one == name)
            }
        };
        if there { Ok(()) } else { Err(skip(format!("no cgroup controller {controller}"))) }
    }

    /// Whether containers are placed by systemd, which moves them away from `cgroupsPath`.
    pub(crate) fn systemd(&self) -> bool {
        self.options.iter().any(|option| option == "--systemd-cgroup")
    }

    /// Whether the name on the version line is this one.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.version.starts_with(name)
    }
}

fn check_static(busybox: &Path) -> Result<()> {
    let program = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    if program.windows(10).any(|window| window == b"/ld-linux-" || window == b"/ld-musl-x") {
        bail!("{} is not static; install the package busybox-static", busybox.display());
    }
    Ok(())
}
