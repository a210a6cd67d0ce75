//! containerd's shim with hull as its runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::support::{Daemon, Folder, Said, cgroup_left, client, hull, missing, skip};

/// A containerd.
struct Containerd {
    socket: String,
    hull: String,
    rootfs: PathBuf,
    _daemon: Daemon,
    _folder: Folder,
}

/// containerd's namespace, which becomes the parent of the cgroups.
const NAMESPACE: &str = "berth-test";

impl Containerd {
    fn start(hull: &Path) -> Result<Containerd> {
        let folder = Folder::new("containerd")?;
        let (config, socket) = (folder.text("config.toml"), folder.text("containerd.sock"));
        std::fs::write(
            &config,
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
                folder.text("root"),
                folder.text("state")
            ),
        )?;
        let answers = || client("ctr", ["--address", &socket, "version"]).is_ok_and(|said| said.code == 0);
        let daemon =
            Daemon::start(Command::new("containerd").args(["--config", &config]), folder.join("log"), answers)?;
        let hull = hull.to_string_lossy().into_owned();
        Ok(Containerd { socket, hull, rootfs: folder.rootfs()?, _daemon: daemon, _folder: folder })
    }

    fn call(&self, args: &[&str]) -> Result<Said> {
        client("ctr", ["--address", &self.socket, "--namespace", NAMESPACE].iter().chain(args))
    }

    fn run(&self, options: &[&str], id: &str, program: &[&str]) -> Result<Said> {
        let rootfs = self.rootfs.to_string_lossy().into_owned();
        let mut args = vec!["run", "--runc-binary", &self.hull];
        args.extend_from_slice(options);
        args.extend_from_slice(&["--rootfs", &rootfs, id]);
        args.extend_from_slice(program);
        self.call(&args)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let left = self.call(&["containers", "list", "--quiet"]).map(|said| said.stdout).unwrap_or_default();
        for id in left.split_whitespace() {
            let _ = self.call(&["tasks", "delete", "--force", id]);
            let _ = self.call(&["containers", "delete", id]);
        }
    }
}

#[test]
fn containers_of_containerd() -> Result<()> {
    if let Some(reason) = missing(&["containerd", "ctr", "containerd-shim-runc-v2"]) {
        skip!("{reason}");
    }
    let hull = match hull() {
        Ok(hull) => hull,
        Err(reason) => skip!("{reason}"),
    };
    let containerd = match Containerd::start(&hull) {
        Ok(containerd) => containerd,
        Err(reason) => skip!("containerd: {reason:#}"),
    };
    ensure!(containerd.run(&["--rm"], "one", &["echo", "works"])?.ok()? == "works");
    ensure!(containerd.run(&["--rm"], "two", &["sh", "-c", "exit 7"])?.code == 7, "the exit status is lost");
    containerd.run(&["--detach"], "lives", &["sleep", "1000"])?.ok()?;
    ensure!(cgroup_left("lives"), "the container is not below {NAMESPACE}");
    let exec = |id: &str, words: &[&str]| {
        let mut args = vec!["tasks", "exec", "--exec-id", id, "lives"];
        args.extend_from_slice(words);
        containerd.call(&args)
    };
    ensure!(exec("a", &["echo", "inside"])?.ok()? == "inside");
    ensure!(exec("b", &["sh", "-c", "exit 5"])?.code == 5);
    containerd.call(&["tasks", "pause", "lives"])?.ok()?;
    ensure!(containerd.call(&["tasks", "list"])?.ok()?.contains("PAUSED"));
    containerd.call(&["tasks", "resume", "lives"])?.ok()?;
    ensure!(containerd.call(&["tasks", "metrics", "lives"])?.ok()?.contains("memory"));
    ensure!(containerd.call(&["tasks", "ps", "lives"])?.ok()?.lines().count() == 2);
    // Kills, waits and deletes.
    ensure!(containerd.call(&["tasks", "delete", "--force", "lives"])?.code <= 137);
    containerd.call(&["containers", "delete", "lives"])?.ok()?;
    ensure!(!cgroup_left("lives"), "the container's cgroup is left");
    Ok(())
}
