//! The bundles: one busybox, several configurations.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::default_config::{CGROUP, default_config};

/// How a container differs from what `runc spec` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Default,
    NoNetwork,
    User,
    Seccomp,
    /// The default, with systemd to make the cgroup.
    Systemd,
}

/// Docker's profile as containerd writes it into config.json.
const PROFILE: &str = include_str!("../../../hull/src/seccomp/tests/moby-default.json");

/// Where the bundles are.
#[derive(Debug)]
pub(crate) struct Bundles {
    work: PathBuf,
}

impl Bundles {
    /// Makes the two root file systems.
    pub(crate) fn new(work: &Path, busybox: &Path) -> Result<Bundles> {
        for name in ["rootfs", "rootfs-user"] {
            let rootfs = work.join(name);
            for folder in ["bin", "dev", "proc", "sys", "tmp"] {
                fs::create_dir_all(rootfs.join(folder))?;
            }
            let program = rootfs.join("bin/busybox");
            fs::copy(busybox, &program).with_context(|| format!("no static busybox at {}", busybox.display()))?;
            for applet in ["true", "sleep"] {
                fs::hard_link(&program, rootfs.join("bin").join(applet))?;
            }
        }
        let status = Command::new("chown").args(["-hR", "100000:100000"]).arg(work.join("rootfs-user")).status()?;
        ensure!(status.success(), "chown failed");
        Ok(Bundles { work: work.to_owned() })
    }

    /// The root file system of a kind of container.
    pub(crate) fn rootfs(&self, kind: Kind) -> String {
        let name = if kind == Kind::User { "rootfs-user" } else { "rootfs" };
        self.work.join(name).to_string_lossy().into_owned()
    }

    /// Writes a bundle and gives its path.
    pub(crate) fn write(&self, id: &str, kind: Kind, args: &[&str]) -> Result<String> {
        let folder = self.work.join("bundles").join(id);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.json"), serde_json::to_vec(&self.config(id, kind, args)?)?)?;
        Ok(folder.to_string_lossy().into_owned())
    }

    fn config(&self, id: &str, kind: Kind, args: &[&str]) -> Result<Value> {
        let mut config = default_config(id);
        config["process"]["args"] = json!(args);
        config["process"]["env"] = json!(["PATH=/bin", "TERM=xterm"]);
        config["root"]["path"] = json!(self.rootfs(kind));
        let names = ["pid", "ipc", "uts", "mount", "cgroup", "network", "user"];
        let namespaces: Vec<Value> = names
            .iter()
            .filter(|name| (**name != "network" || kind != Kind::NoNetwork) && (**name != "user" || kind == Kind::User))
            .map(|name| json!({"type": name}))
            .collect();
        config["linux"]["namespaces"] = json!(namespaces);
        if kind == Kind::Systemd {
            config["linux"]["cgroupsPath"] = json!(format!("system.slice:hull-bench:{id}"));
        }
        if kind == Kind::User {
            let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = mapping.clone();
            config["linux"]["gidMappings"] = mapping;
        }
        if kind == Kind::Seccomp {
            config["linux"]["seccomp"] = serde_json::from_str(PROFILE).context("the profile")?;
        }
        Ok(config)
    }
}

/// Names of the version 1 hierarchies that have controllers: what every runtime makes a folder in.
fn hierarchies() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let named = text.lines().filter_map(|line| line.split(':').nth(1));
    Ok(named.filter(|name| !name.is_empty() && !name.starts_with("name=")).map(str::to_owned).collect())
}

/// The cgroup folders of a container, one a hierarchy, their parents made.
pub(crate) fn cgroups(id: &str) -> Result<Vec<String>> {
    let mount = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<PathBuf> = if mount.join("cgroup.controllers").exists() {
        vec![mount.to_owned()]
    } else {
        let mut folders: Vec<PathBuf> = hierarchies()?.iter().map(|name| mount.join(name)).collect();
        folders.retain(|folder| folder.join("cgroup.procs").exists());
        folders.sort();
        folders
    };
    let mut out = Vec::new();
    for hierarchy in hierarchies {
        let parent = hierarchy.join(CGROUP.trim_start_matches('/'));
        fs::create_dir_all(&parent)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // A new cpuset is empty, and nothing can be in an empty one.
            if let Ok(value) = fs::read_to_string(hierarchy.join(file))
                && hierarchy != mount
                && fs::read_to_string(parent.join(file)).is_ok_and(|now| now.trim().is_empty())
            {
                fs::write(parent.join(file), value)?;
            }
        }
        out.push(parent.join(id).to_string_lossy().into_owned());
    }
    Ok(out)
}
