//! A runtime, or a container, that is killed at any moment: before each system call of each command in turn. After each
//! kill `delete --force` must succeed, say what it did, and leave nothing behind.
//!
//! An ordinary run takes every 13th system call; `HULL_KILL_EVERY=1` takes all of them (some minutes).

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hull_sys::ptrace::Event;
use serde_json::{Value, json};

use crate::support::{CGROUP, Folder, hull, missing, skip};
use crate::tracer::{Victim, kill_before};

/// In the environment of every process of a container and of its runtime: none may be left with it.
const MARK: &str = "HULL_TEST_CONTAINER";

/// Where systemd keeps the scopes.
const SLICE: &str = "hulltest.slice";

/// Which container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Namespaces as engines ask for them.
    Plain,
    /// With a user and a time namespace (made by a process in between) and hooks.
    Stage,
    /// Without a cgroup.
    NoCgroup,
    /// In a scope of systemd's.
    Systemd,
}

/// What the container is when the command comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Before {
    Nothing,
    Created,
    Running,
}

struct Place {
    folder: Folder,
    hull: PathBuf,
    id: String,
    shape: Shape,
}

impl Place {
    fn new(hull: PathBuf, name: &str, shape: Shape) -> Result<Place> {
        let folder = Folder::new("killed")?;
        let rootfs = folder.rootfs()?;
        let id = format!("killed-{name}-{}", std::process::id());
        if shape == Shape::Stage {
            own(&rootfs, 100_000)?;
        }
        fs::write(folder.join("config.json"), config(&id, shape).to_string())?;
        Ok(Place { folder, hull, id, shape })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.hull);
        command.env(MARK, &self.id).current_dir(self.folder.join("."));
        command.args(["--log", "log.json", "--log-format", "json", "--log-level", "info", "--root"]);
        command.arg(self.folder.join("state"));
        match self.shape {
            Shape::NoCgroup => {
                command.args(["--cgroup-manager", "disabled"]);
            }
            Shape::Systemd => {
                command.arg("--systemd-cgroup");
            }
            Shape::Plain | Shape::Stage => {}
        }
        command.args(args.iter().map(|arg| if *arg == "ID" { self.id.as_str() } else { arg }));
        command
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let mut command = self.command(args);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{args:?}: {status}: {}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log.json")).unwrap_or_default()
    }

    fn prepare(&self, before: Before) -> Result<()> {
        if before >= Before::Created {
            self.run(&["create", "ID"])?;
        }
        if before >= Before::Running {
            self.run(&["start", "ID"])?;
        }
        Ok(())
    }

    fn pid(&self) -> Result<i32> {
        let output = self.command(&["state", "ID"]).output()?;
        let state: Value = serde_json::from_slice(&output.stdout)?;
        Ok(i32::try_from(state["pid"].as_i64().context("no pid")?)?)
    }

    /// Deletes what is left, which must be said, and looks for what still is.
    fn delete(&self) -> Result<()> {
        let _ = fs::remove_file(self.folder.join("log.json"));
        let there = self.folder.join("state").join(&self.id).exists();
        let cgroups = self.cgroups();
        self.run(&["delete", "--force", "ID"])?;
        let said = self.log();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told =
            lines.filter_map(|line| line["msg"].as_str().map(str::to_owned)).find(|line| line.contains(&self.id));
        let told = told.with_context(|| format!("delete says nothing: {said:?}"))?;
        let wanted = if there { "removed records" } else { "nothing to delete" };
        ensure!(told.contains(wanted), "{told}");
        // A unit ends by itself with its last process; the journal may not have its path yet.
        let must_be_told = told.contains("killed processes") && !told.contains("its creation was interrupted");
        for cgroup in cgroups.into_iter().filter(|_| self.shape != Shape::Systemd || must_be_told) {
            ensure!(told.contains(&*cgroup.to_string_lossy()), "{} is not in: {told}", cgroup.display());
        }
        // A process that was killed takes a moment to end.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left behind: {left:?}");
            std::thread::yield_now();
        }
    }

    fn unit(&self) -> String {
        format!("killed-{}.scope", self.id)
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        if self.shape == Shape::Systemd {
            let scope = Path::new("/sys/fs/cgroup").join(SLICE).join(self.unit());
            return [scope].into_iter().filter(|path| path.exists()).collect();
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let below = CGROUP.trim_start_matches('/');
        let folders = hierarchies.map(|entry| entry.path().join(below).join(&self.id));
        folders.chain([Path::new("/sys/fs/cgroup").join(below).join(&self.id)]).filter(|path| path.exists()).collect()
    }

    /// Everything that could be left of a container: records, cgroups, mounts, processes (with them namespaces, sockets
    /// and keyrings), files beside the bundle and in /run.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self.cgroups().iter().map(|path| path.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let folder = self.folder.text("");
        left.extend(mounts.lines().filter(|l| l.contains(&folder) || l.contains(&self.id)).map(str::to_owned));
        left.extend(processes(&self.id));
        if self.shape == Shape::Systemd {
            let mut units = Command::new("systemctl");
            units.args(["list-units", "--all", "--plain", "--no-legend"]).arg(self.unit());
            left.extend(units.output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()));
            left.retain(|line| !line.is_empty());
        }
        let state = self.folder.join("state");
        // Compiled seccomp profiles are no container's; that one which is cut off is not believed, every later start shows.
        let cache = state.join(".seccomp");
        files(&state, 3, &mut |path| {
            if !path.starts_with(&cache) {
                left.push(path.display().to_string());
            }
        });
        files(&self.folder.join("."), 0, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !["config.json", "rootfs", "log.json", "state", "pid"].contains(&name.as_str()) {
                left.push(path.display().to_string());
            }
        });
        files(Path::new("/run"), 3, &mut |path| {
            if path.to_string_lossy().contains(&self.id) {
                left.push(path.display().to_string());
            }
        });
        left
    }
}

fn own(path: &Path, owner: u32) -> Result<()> {
    chown(path, Some(owner), Some(owner))?;
    for entry in fs::read_dir(path)?.flatten().filter(|entry| entry.path().is_dir()) {
        chown(entry.path(), Some(owner), Some(owner))?;
    }
    Ok(())
}

fn files(folder: &Path, depth: u32, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        each(&entry.path());
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), depth - 1, each);
        }
    }
}

/// Processes with the mark of a container.
fn processes(id: &str) -> Vec<String> {
    let mark = format!("{MARK}={id}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            format!("process {}: {}", entry.file_name().display(), String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn config(id: &str, shape: Shape) -> Value {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    if shape == Shape::Stage {
        namespaces.extend(["user", "time"]);
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let cgroup = match shape {
        Shape::Systemd => format!("{SLICE}:killed:{id}"),
        _ => format!("{CGROUP}/{id}"),
    };
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", "sleep 100 & wait"],
            "env": ["PATH=/bin", format!("{MARK}={id}")],
            "cwd": "/",
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "killed",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}
        }
    });
    if shape == Shape::Stage {
        let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = mappings.clone();
        config["linux"]["gidMappings"] = mappings;
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 5, "nanosecs": 0}});
        let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "true"]}]);
        config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststop": hook});
    }
    config
}

/// Kills the victim before every n-th system call of a command, until it makes no more.
fn at_every_call(name: &str, shape: Shape, before: Before, victim: Whose, args: &[&str]) -> Result<()> {
    let hull = match hull() {
        Ok(hull) => hull,
        Err(reason) => skip!("{reason}"),
    };
    if let Some(reason) = missing(&["busybox"]) {
        skip!("{reason}");
    }
    if shape == Shape::Systemd && !(systemd_runs() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()) {
        skip!("no systemd with cgroups of version 2 runs here");
    }
    let every: u32 = match std::env::var("HULL_KILL_EVERY") {
        Ok(number) => number.parse().context("HULL_KILL_EVERY")?,
        Err(_) => 13,
    };
    let place = Place::new(hull, name, shape)?;
    let mut moment = 1;
    let mut kills = 0;
    loop {
        place.prepare(before)?;
        let victim = match victim {
            Whose::Command => Victim::Command,
            Whose::Children => Victim::Children,
            Whose::Init => Victim::Other(place.pid()?),
        };
        let chase = kill_before(&mut place.command(args), victim, moment).with_context(|| at(moment, None))?;
        if chase.killed_before.is_none() {
            ensure!(chase.end == Event::Exited(0), "{args:?}, which nobody killed: {:?}: {}", chase.end, place.log());
        }
        place.delete().with_context(|| at(moment, chase.killed_before))?;
        if chase.killed_before.is_none() {
            eprintln!("{name}: {kills} of {} system calls", chase.calls);
            ensure!(kills > 0, "the victim made no system call");
            return Ok(());
        }
        kills += 1;
        moment += every;
    }
}

/// sd_booted(3).
fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn at(moment: u32, call: Option<u64>) -> String {
    let call = call.map_or_else(String::new, |number| format!(" (number {number})"));
    format!("killed before call {moment}{call}")
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The runtime.
    Command,
    /// What it makes: the container's process, an in-between one, a hook, the process of an exec.
    Children,
    /// The container's first process, which was there before.
    Init,
}

#[test]
fn runtime_in_create() -> Result<()> {
    at_every_call("create", Shape::Plain, Before::Nothing, Whose::Command, &["create", "--pid-file", "pid", "ID"])
}

#[test]
fn runtime_in_create_with_user_namespace_and_hooks() -> Result<()> {
    at_every_call("create-stage", Shape::Stage, Before::Nothing, Whose::Command, &["create", "ID"])
}

#[test]
fn runtime_in_create_without_cgroup() -> Result<()> {
    at_every_call("create-free", Shape::NoCgroup, Before::Nothing, Whose::Command, &["create", "ID"])
}

#[test]
fn runtime_in_create_by_systemd() -> Result<()> {
    at_every_call("create-systemd", Shape::Systemd, Before::Nothing, Whose::Command, &["create", "ID"])
}

#[test]
fn container_in_create_by_systemd() -> Result<()> {
    at_every_call("init-create-systemd", Shape::Systemd, Before::Nothing, Whose::Children, &["create", "ID"])
}

#[test]
fn runtime_in_run_by_systemd() -> Result<()> {
    at_every_call("run-systemd", Shape::Systemd, Before::Nothing, Whose::Command, &["run", "--detach", "ID"])
}

#[test]
fn container_in_run_by_systemd() -> Result<()> {
    at_every_call("init-run-systemd", Shape::Systemd, Before::Nothing, Whose::Children, &["run", "--detach", "ID"])
}

#[test]
fn runtime_in_exec_by_systemd() -> Result<()> {
    at_every_call("exec-systemd", Shape::Systemd, Before::Running, Whose::Command, &["exec", "ID", "true"])
}

#[test]
fn runtime_in_forced_delete_by_systemd() -> Result<()> {
    let args = &["delete", "--force", "ID"];
    at_every_call("delete-systemd", Shape::Systemd, Before::Running, Whose::Command, args)
}

#[test]
fn runtime_in_start() -> Result<()> {
    at_every_call("start", Shape::Plain, Before::Created, Whose::Command, &["start", "ID"])
}

#[test]
fn runtime_in_exec() -> Result<()> {
    let args = &["exec", "--pid-file", "pid", "ID", "true"];
    at_every_call("exec", Shape::Plain, Before::Running, Whose::Command, args)
}

#[test]
fn runtime_in_pause() -> Result<()> {
    at_every_call("pause", Shape::Plain, Before::Running, Whose::Command, &["pause", "ID"])
}

#[test]
fn runtime_in_kill() -> Result<()> {
    at_every_call("kill", Shape::Plain, Before::Running, Whose::Command, &["kill", "ID", "KILL"])
}

#[test]
fn runtime_in_delete_of_a_created_container() -> Result<()> {
    at_every_call("delete", Shape::Plain, Before::Created, Whose::Command, &["delete", "ID"])
}

#[test]
fn runtime_in_forced_delete_of_a_running_container() -> Result<()> {
    at_every_call("delete-force", Shape::Stage, Before::Running, Whose::Command, &["delete", "--force", "ID"])
}

#[test]
fn runtime_in_run() -> Result<()> {
    at_every_call("run", Shape::Plain, Before::Nothing, Whose::Command, &["run", "--detach", "ID"])
}

#[test]
fn container_in_create() -> Result<()> {
    at_every_call("init-create", Shape::Plain, Before::Nothing, Whose::Children, &["create", "ID"])
}

#[test]
fn container_in_create_with_user_namespace_and_hooks() -> Result<()> {
    at_every_call("init-create-stage", Shape::Stage, Before::Nothing, Whose::Children, &["create", "ID"])
}

#[test]
fn container_in_start() -> Result<()> {
    at_every_call("init-start", Shape::Plain, Before::Created, Whose::Init, &["start", "ID"])
}

#[test]
fn container_in_run() -> Result<()> {
    at_every_call("init-run", Shape::Plain, Before::Nothing, Whose::Children, &["run", "--detach", "ID"])
}

#[test]
fn process_in_exec() -> Result<()> {
    at_every_call("init-exec", Shape::Plain, Before::Running, Whose::Children, &["exec", "ID", "true"])
}
