//! dockerd with hull as its runtime.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::support::{CGROUP, Daemon, Folder, Said, cgroup_left, client, hull, missing, no_systemd, skip};

/// Who makes the cgroups.
#[derive(Clone, Copy)]
enum Driver {
    Cgroupfs,
    Systemd,
}

/// A dockerd and the image `box`.
struct Docker {
    host: String,
    _daemon: Daemon,
    _folder: Folder,
}

impl Docker {
    fn start(hull: &Path, driver: Driver) -> Result<Docker> {
        let folder = Folder::new("docker")?;
        let host = format!("unix://{}", folder.text("docker.sock"));
        let mut command = Command::new("dockerd");
        command.args(["--host", &host, "--data-root", &folder.text("data"), "--exec-root", &folder.text("exec")]);
        command.args(["--pidfile", &folder.text("pid"), "--config-file", &folder.text("none.json")]);
        command.args(["--add-runtime", &format!("hull={}", hull.display()), "--default-runtime", "hull"]);
        command.args(["--bridge", "none", "--iptables=false", "--storage-driver", "vfs"]);
        match driver {
            Driver::Cgroupfs => {
                command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", CGROUP]);
            }
            Driver::Systemd => {
                command.args(["--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "berthtest.slice"]);
            }
        }
        std::fs::write(folder.join("none.json"), "{}")?;
        let answers = || client("docker", ["--host", &host, "info"]).is_ok_and(|said| said.code == 0);
        let daemon = Daemon::start(&mut command, folder.join("log"), answers)?;
        let rootfs = folder.rootfs()?;
        let mut tar = Command::new("tar").arg("-C").arg(rootfs).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
        let import = Command::new("docker")
            .args(["--host", &host, "import", "-", "box"])
            .stdin(tar.stdout.take().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .status()?;
        tar.wait()?;
        ensure!(import.success(), "docker import failed");
        Ok(Docker { host, _daemon: daemon, _folder: folder })
    }

    fn call(&self, args: &[&str]) -> Result<Said> {
        client("docker", ["--host", &self.host].iter().chain(args))
    }

    fn run(&self, options: &[&str], script: &str) -> Result<Said> {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend_from_slice(options);
        args.extend_from_slice(&["box", "sh", "-c", script]);
        self.call(&args)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let left = self.call(&["ps", "--all", "--quiet"]).map(|said| said.stdout).unwrap_or_default();
        for id in left.split_whitespace() {
            let _ = self.call(&["rm", "--force", id]);
        }
    }
}

#[test]
fn containers_of_docker() -> Result<()> {
    containers(Driver::Cgroupfs)
}

#[test]
fn containers_of_docker_by_systemd() -> Result<()> {
    if let Some(reason) = no_systemd() {
        skip!("{reason}");
    }
    containers(Driver::Systemd)
}

fn containers(driver: Driver) -> Result<()> {
    if let Some(reason) = missing(&["docker", "dockerd", "containerd"]) {
        skip!("{reason}");
    }
    let hull = match hull() {
        Ok(hull) => hull,
        Err(reason) => skip!("{reason}"),
    };
    let docker = match Docker::start(&hull, driver) {
        Ok(docker) => docker,
        Err(reason) => skip!("dockerd: {reason:#}"),
    };
    ensure!(docker.call(&["info", "--format", "{{.DefaultRuntime}}"])?.ok()? == "hull");
    runs(&docker)?;
    lives(&docker)
}

fn runs(docker: &Docker) -> Result<()> {
    ensure!(docker.run(&[], "echo works")?.ok()? == "works");
    ensure!(docker.run(&[], "exit 3")?.code == 3, "the exit status is lost");
    // Engines read these from the runtime's words.
    let missing = docker.call(&["run", "--rm", "--network", "none", "box", "/no/such/program"])?;
    ensure!(missing.code == 127, "a missing program is {}: {}", missing.code, missing.stderr);
    let denied = docker.call(&["run", "--rm", "--network", "none", "box", "/etc/passwd"])?;
    ensure!(denied.code == 126, "a file that is no program is {}: {}", denied.code, denied.stderr);
    let said =
        docker.run(&["--user", "1000:1000", "--cap-drop", "ALL"], "id -u; grep CapEff /proc/self/status")?.ok()?;
    ensure!(said.starts_with("1000\n") && said.ends_with("0000000000000000"), "{said}");
    let said = docker.run(&["--read-only", "--tmpfs", "/tmp"], "touch /x 2>&1; touch /tmp/x && echo tmp")?.ok()?;
    ensure!(said.contains("Read-only file system") && said.ends_with("tmp"), "{said}");
    // The default profile is on.
    ensure!(docker.run(&[], "grep '^Seccomp:' /proc/self/status")?.ok()?.ends_with('2'));
    let said = docker.run(&["--tty"], "tty")?.ok()?;
    ensure!(said.starts_with("/dev/pts/") || said == "/dev/console", "{said}");
    Ok(())
}

fn lives(docker: &Docker) -> Result<()> {
    let limits = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let mut args = vec!["run", "--detach", "--name", "lives", "--network", "none"];
    args.extend_from_slice(&limits);
    args.extend_from_slice(&["box", "sleep", "1000"]);
    let id = docker.call(&args)?.ok()?;
    ensure!(cgroup_left(&id), "the container has no cgroup");
    ensure!(docker.call(&["exec", "lives", "echo", "inside"])?.ok()? == "inside");
    ensure!(docker.call(&["exec", "--user", "7:7", "lives", "id", "-u"])?.ok()? == "7");
    ensure!(docker.call(&["exec", "lives", "sh", "-c", "exit 5"])?.code == 5);
    docker.call(&["pause", "lives"])?.ok()?;
    let status = docker.call(&["inspect", "--format", "{{.State.Status}}", "lives"])?.ok()?;
    ensure!(status == "paused", "{status}");
    docker.call(&["unpause", "lives"])?.ok()?;
    let stats = docker.call(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "lives"])?.ok()?;
    ensure!(stats.contains("64MiB"), "{stats}");
    docker.call(&["update", "--memory", "96m", "--memory-swap", "96m", "lives"])?.ok()?;
    let stats = docker.call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "lives"])?.ok()?;
    ensure!(stats.contains("96MiB"), "after the update {stats}");
    ensure!(docker.call(&["top", "lives"])?.ok()?.contains("sleep 1000"));
    docker.call(&["restart", "--time", "0", "lives"])?.ok()?;
    ensure!(docker.call(&["exec", "lives", "echo", "again"])?.ok()? == "again");
    docker.call(&["kill", "lives"])?.ok()?;
    ensure!(docker.call(&["wait", "lives"])?.ok()? == "137");
    docker.call(&["rm", "lives"])?.ok()?;
    ensure!(!cgroup_left(&id), "the container's cgroup is left");
    Ok(())
}
