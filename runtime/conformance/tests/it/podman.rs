//! Podman, which has no daemon, with hull as its runtime: as root, by systemd, and as an ordinary user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::support::{CGROUP, Folder, Said, hull, missing, no_criu, no_systemd, said, skip, unified, wait_until};

/// Who makes the cgroups.
#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Cgroupfs,
    Systemd,
}

/// The ordinary user of the virtual machine.
const USER: &str = "hull-test";

/// A Podman with folders of its own and the image `box`.
struct Podman {
    user: Option<u32>,
    driver: Driver,
    folder: Folder,
}

impl Podman {
    /// `Err` holds the reason to skip.
    fn new(driver: Driver, user: Option<u32>) -> Result<Result<Podman, String>> {
        if let Some(reason) = missing(&["podman", "conmon"]) {
            return Ok(Err(reason));
        }
        let hull = match hull() {
            Ok(hull) => hull,
            Err(reason) => return Ok(Err(reason)),
        };
        let folder = Folder::new("podman")?;
        let rootfs = folder.rootfs()?;
        let image = folder.image(&rootfs, "localhost/box:latest", r#"["sh"]"#)?;
        let program = folder.join("hull");
        fs::copy(hull, &program)?;
        // Podman's own default limits are above what a machine without CAP_SYS_RESOURCE may set.
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\nlog_driver = \"k8s-file\"\n[engine]\nruntime = \"hull\"\nevents_logger = \"file\"\ncgroup_manager = \"{}\"\n[engine.runtimes]\nhull = [{:?}]\n",
            if driver == Driver::Systemd { "systemd" } else { "cgroupfs" },
            program
        );
        fs::write(folder.join("containers.conf"), config)?;
        if let Some(user) = user {
            said(Command::new("chown").args(["-hR", &format!("{user}:{user}")]).arg(folder.join("")))?.ok()?;
        }
        let podman = Podman { user, driver, folder };
        let info = podman.call(&["info", "--format", "{{.Host.OCIRuntime.Path}}"])?;
        if info.code != 0 {
            return Ok(Err(format!("podman does not work here: {}", info.stderr)));
        }
        ensure!(info.stdout.trim() == program.to_string_lossy(), "podman uses {}", info.stdout);
        podman.call(&["load", "--input", &image.to_string_lossy()])?.ok()?;
        Ok(Ok(podman))
    }

    fn call(&self, args: &[&str]) -> Result<Said> {
        let [root, runroot, tmp] = ["root", "runroot", "tmp"].map(|name| self.folder.text(name));
        let mut command = Command::new("timeout");
        command.arg("120");
        if let Some(user) = self.user {
            let id = user.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", "-i"]);
            command.args([
                "PATH=/usr/bin:/bin:/usr/sbin:/sbin",
                &format!("USER={USER}"),
                &format!("HOME=/home/{USER}"),
            ]);
            command.arg(format!("XDG_RUNTIME_DIR=/run/user/{user}"));
            command.arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{user}/bus"));
        } else {
            command.arg("env");
        }
        command.arg(format!("CONTAINERS_CONF={}", self.folder.text("containers.conf")));
        command.args(["podman", "--root", &root, "--runroot", &runroot, "--tmpdir", &tmp, "--storage-driver", "vfs"]);
        said(command.args(args).current_dir(self.folder.join("")))
    }

    fn run(&self, options: &[&str], program: &[&str]) -> Result<Said> {
        let mut args = vec!["run", "--network", "none"];
        if self.driver == Driver::Cgroupfs && self.user.is_none() {
            args.extend_from_slice(&["--cgroup-parent", CGROUP]);
        }
        args.extend_from_slice(options);
        args.push("localhost/box");
        args.extend_from_slice(program);
        self.call(&args)
    }

    fn status(&self, name: &str) -> Result<String> {
        self.call(&["inspect", "--format", "{{.State.Status}}", name])?.ok()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["pod", "rm", "--all", "--force", "--time", "0"]);
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
        // conmon's, which Podman leaves.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = fs::remove_dir(hierarchy.join(CGROUP.trim_start_matches('/')).join("conmon"));
        }
    }
}

/// The Podman of a test, or its end with a reason.
macro_rules! podman {
    ($driver:expr, $user:expr) => {
        match Podman::new($driver, $user)? {
            Ok(podman) => podman,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn containers_of_podman() -> Result<()> {
    let podman = podman!(Driver::Cgroupfs, None);
    containers(&podman)
}

#[test]
fn containers_of_podman_by_systemd() -> Result<()> {
    if let Some(reason) = no_systemd() {
        skip!("{reason}");
    }
    let podman = podman!(Driver::Systemd, None);
    containers(&podman)?;
    pods(&podman)
}

#[test]
fn pods_of_podman() -> Result<()> {
    let podman = podman!(Driver::Cgroupfs, None);
    pods(&podman)
}

#[test]
fn containers_of_an_ordinary_user() -> Result<()> {
    if let Some(reason) = no_systemd() {
        skip!("{reason}");
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let Some(line) = passwd.lines().find(|line| line.starts_with(&format!("{USER}:"))) else {
        skip!("there is no user {USER}");
    };
    let user: u32 = line.split(':').nth(2).context("no id")?.parse()?;
    if !Path::new(&format!("/run/user/{user}/bus")).exists() {
        skip!("{USER} has no session of systemd");
    }
    let podman = podman!(Driver::Systemd, Some(user));
    containers(&podman)?;
    let said = podman.run(&["--rm"], &["cat", "/proc/self/uid_map"])?.ok()?;
    ensure!(said.lines().count() == 2, "not the user's subordinate ids: {said}");
    let said = podman.run(&["--rm", "--memory", "64m"], &["cat", "/sys/fs/cgroup/memory.max"])?.ok()?;
    ensure!(said == "67108864", "the limit is {said}");
    pods(&podman)
}

fn containers(podman: &Podman) -> Result<()> {
    ensure!(podman.run(&["--rm"], &["echo", "works"])?.ok()? == "works");
    ensure!(podman.run(&["--rm"], &["sh", "-c", "exit 3"])?.code == 3, "the exit status is lost");
    ensure!(podman.run(&["--rm"], &["/no/such/program"])?.code == 127, "a missing program has another status");
    ensure!(podman.run(&["--rm"], &["/etc/passwd"])?.code == 126, "a file that is no program has another status");
    ensure!(podman.run(&["--rm", "--user", "1000:1000"], &["id", "-u"])?.ok()? == "1000");
    let terminal = podman.run(&["--rm", "--tty"], &["tty"])?.ok()?;
    ensure!(terminal.starts_with("/dev/pts/") || terminal == "/dev/console", "{terminal}");
    podman
        .run(&["--detach", "--name", "lives", "--memory", "64m"], &["sh", "-c", "echo to the log; sleep 1000"])?
        .ok()?;
    wait_until("the log", || Ok(podman.call(&["logs", "lives"])?.ok()? == "to the log"))?;
    ensure!(podman.call(&["exec", "lives", "echo", "inside"])?.ok()? == "inside");
    ensure!(podman.call(&["exec", "lives", "sh", "-c", "exit 5"])?.code == 5);
    ensure!(podman.call(&["exec", "--tty", "lives", "tty"])?.ok()?.starts_with("/dev/pts/"));
    ensure!(podman.call(&["top", "lives", "args"])?.ok()?.contains("sleep 1000"));
    podman.call(&["pause", "lives"])?.ok()?;
    ensure!(podman.status("lives")? == "paused");
    podman.call(&["unpause", "lives"])?.ok()?;
    if unified() {
        let stats = podman.call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "lives"])?.ok()?;
        ensure!(stats.contains("67.11MB"), "{stats}");
    }
    podman.call(&["kill", "lives"])?.ok()?;
    ensure!(podman.call(&["wait", "lives"])?.ok()? == "137");
    podman.call(&["rm", "lives"])?.ok()?;
    healthcheck(podman)
}

fn healthcheck(podman: &Podman) -> Result<()> {
    let health = ["--health-cmd", "test -e /healthy", "--health-interval", "disable", "--health-retries", "1"];
    let mut options = vec!["--detach", "--name", "checked"];
    options.extend_from_slice(&health);
    podman.run(&options, &["sleep", "1000"])?.ok()?;
    ensure!(podman.call(&["healthcheck", "run", "checked"])?.code == 1, "it is healthy already");
    podman.call(&["exec", "checked", "touch", "/healthy"])?.ok()?;
    podman.call(&["healthcheck", "run", "checked"])?.ok()?;
    let health = podman.call(&["inspect", "--format", "{{.State.Health.Status}}", "checked"])?.ok()?;
    ensure!(health == "healthy", "{health}");
    podman.call(&["rm", "--force", "--time", "0", "checked"])?.ok().map(drop)
}

/// Two containers of a pod share what its first one holds.
fn pods(podman: &Podman) -> Result<()> {
    let mut create =
        vec!["pod", "create", "--name", "pod", "--share", "ipc,uts,net", "--network", "none", "--hostname", "podhost"];
    if podman.driver == Driver::Cgroupfs && podman.user.is_none() {
        create.extend_from_slice(&["--cgroup-parent", CGROUP]);
    }
    create.extend_from_slice(&["--infra-image", "localhost/box", "--infra-command", "sleep 1000"]);
    podman.call(&create)?.ok()?;
    podman.call(&["run", "--detach", "--pod", "pod", "--name", "member", "localhost/box", "sleep", "1000"])?.ok()?;
    let other =
        podman.call(&["run", "--rm", "--pod", "pod", "localhost/box", "cat", "/proc/sys/kernel/hostname"])?.ok()?;
    ensure!(other == "podhost", "{other}");
    let net = |name: &str| podman.call(&["inspect", "--format", "{{.State.Pid}}", name])?.ok();
    let first = fs::read_link(format!("/proc/{}/ns/net", net("member")?))?;
    let infra = podman.call(&["pod", "inspect", "--format", "{{.InfraContainerID}}", "pod"])?.ok()?;
    ensure!(first == fs::read_link(format!("/proc/{}/ns/net", net(&infra)?))?, "the pod's members have two networks");
    podman.call(&["pod", "pause", "pod"])?.ok()?;
    podman.call(&["pod", "unpause", "pod"])?.ok()?;
    podman.call(&["pod", "stop", "--time", "0", "pod"])?.ok()?;
    podman.call(&["pod", "start", "pod"])?.ok()?;
    ensure!(podman.call(&["exec", "member", "echo", "again"])?.ok()? == "again");
    podman.call(&["pod", "rm", "--force", "--time", "0", "pod"])?.ok().map(drop)
}

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; usleep 20000; done";

fn count(podman: &Podman, name: &str) -> Result<u32> {
    let said = podman.call(&["exec", name, "cat", "/count"])?;
    Ok(said.stdout.trim().parse().unwrap_or(0))
}

fn goes_on(podman: &Podman, name: &str, from: u32) -> Result<()> {
    wait_until("the count", || Ok(count(podman, name)? > from))
}

#[test]
fn checkpoints_of_podman() -> Result<()> {
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    let podman = podman!(Driver::Cgroupfs, None);
    checkpoints(&podman)
}

#[test]
fn checkpoints_of_podman_by_systemd() -> Result<()> {
    if let Some(reason) = no_systemd().map(str::to_owned).or_else(no_criu) {
        skip!("{reason}");
    }
    let podman = podman!(Driver::Systemd, None);
    checkpoints(&podman)
}

fn checkpoints(podman: &Podman) -> Result<()> {
    podman.run(&["--detach", "--name", "counts"], &["sh", "-c", COUNT])?.ok()?;
    goes_on(podman, "counts", 3)?;
    podman.call(&["container", "checkpoint", "--file-locks", "--tcp-established", "counts"])?.ok()?;
    ensure!(podman.status("counts")? == "exited");
    podman.call(&["container", "restore", "--file-locks", "--tcp-established", "counts"])?.ok()?;
    goes_on(podman, "counts", 3)?;
    podman.call(&["container", "checkpoint", "--leave-running", "counts"])?.ok()?;
    ensure!(podman.status("counts")? == "running");
    let archive = podman.folder.text("counts.tar");
    let before = count(podman, "counts")?;
    podman.call(&["container", "checkpoint", "--export", &archive, "counts"])?.ok()?;
    podman.call(&["rm", "counts"])?.ok()?;
    podman.call(&["container", "restore", "--import", &archive, "--name", "moved"])?.ok()?;
    goes_on(podman, "moved", before)?;
    podman.call(&["rm", "--force", "--time", "0", "moved"])?.ok()?;
    // With a terminal.
    podman.run(&["--detach", "--tty", "--name", "terminal"], &["sh", "-c", COUNT])?.ok()?;
    goes_on(podman, "terminal", 3)?;
    podman.call(&["container", "checkpoint", "terminal"])?.ok()?;
    podman.call(&["container", "restore", "terminal"])?.ok()?;
    goes_on(podman, "terminal", 3)?;
    podman.call(&["rm", "--force", "--time", "0", "terminal"])?.ok().map(drop)
}
