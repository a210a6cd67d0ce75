//! containerd with hull as its runtime: by `ctr`, and by the interface that Kubernetes uses, as a second runtime handler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::support::{
    Daemon, Folder, Said, cgroup_left, client, hull, missing, no_criu, no_systemd, said, skip, wait_until,
};

/// A containerd.
struct Containerd {
    socket: String,
    hull: String,
    rootfs: PathBuf,
    _daemon: Daemon,
    folder: Folder,
}

/// The image that is imported where one is needed.
const IMAGE: &str = "localhost/box:latest";

/// containerd's namespace, which becomes the parent of the cgroups.
const NAMESPACE: &str = "berth-test";

impl Containerd {
    /// With the Kubernetes interface's configuration, or without that interface.
    fn start(hull: &Path, kubernetes: Option<&str>) -> Result<Containerd> {
        let folder = Folder::new("containerd")?;
        let (config, socket) = (folder.text("config.toml"), folder.text("containerd.sock"));
        std::fs::write(
            &config,
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\n{}\n[grpc]\naddress = {socket:?}\n{}",
                folder.text("root"),
                folder.text("state"),
                if kubernetes.is_none() { "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]" } else { "" },
                kubernetes.unwrap_or_default()
            ),
        )?;
        let answers = || client("ctr", ["--address", &socket, "version"]).is_ok_and(|said| said.code == 0);
        let daemon =
            Daemon::start(Command::new("containerd").args(["--config", &config]), folder.join("log"), answers)?;
        let hull = hull.to_string_lossy().into_owned();
        Ok(Containerd { socket, hull, rootfs: folder.rootfs()?, _daemon: daemon, folder })
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

impl Containerd {
    /// Imports the root file system as an image with a command that stays.
    fn import(&self, namespace: &str) -> Result<()> {
        let image = self.folder.image(&self.rootfs, IMAGE, r#"["sleep","100000"]"#)?;
        let image = image.to_string_lossy().into_owned();
        let import =
            ["--address", &self.socket, "--namespace", namespace, "images", "import", "--snapshotter", "native"];
        client("ctr", import.into_iter().chain([image.as_str()]))?.ok().map(drop)
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
    let containerd = match Containerd::start(&hull, None) {
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

/// A containerd for a test, or its end with a reason.
macro_rules! containerd {
    ($kubernetes:expr) => {{
        if let Some(reason) = missing(&["containerd", "ctr", "containerd-shim-runc-v2"]) {
            skip!("{reason}");
        }
        let hull = match hull() {
            Ok(hull) => hull,
            Err(reason) => skip!("{reason}"),
        };
        let kubernetes: Option<String> = $kubernetes(&hull);
        match Containerd::start(&hull, kubernetes.as_deref()) {
            Ok(containerd) => containerd,
            Err(reason) => skip!("containerd: {reason:#}"),
        }
    }};
}

#[test]
fn containers_of_containerd_by_systemd() -> Result<()> {
    if let Some(reason) = no_systemd() {
        skip!("{reason}");
    }
    let containerd = containerd!(|_: &Path| None);
    let options =
        ["--detach", "--runc-systemd-cgroup", "--cgroup", "berthtest.slice:test:scoped", "--memory-limit", "67108864"];
    containerd.run(&options, "scoped", &["sleep", "1000"])?.ok()?;
    let unit = client("systemctl", ["show", "--value", "--property", "MemoryMax", "test-scoped.scope"])?.ok()?;
    ensure!(unit == "67108864", "MemoryMax is {unit}");
    ensure!(containerd.call(&["tasks", "exec", "--exec-id", "a", "scoped", "echo", "inside"])?.ok()? == "inside");
    ensure!(containerd.call(&["tasks", "delete", "--force", "scoped"])?.code <= 137);
    containerd.call(&["containers", "delete", "scoped"])?.ok()?;
    ensure!(!cgroup_left("scoped"), "the container's scope is left");
    Ok(())
}

#[test]
fn checkpoints_of_containerd() -> Result<()> {
    if let Some(reason) = no_criu() {
        skip!("{reason}");
    }
    const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; usleep 20000; done";
    let containerd = containerd!(|_: &Path| None);
    containerd.import(NAMESPACE)?;
    let hull = containerd.hull.clone();
    let run =
        ["run", "--detach", "--snapshotter", "native", "--runc-binary", &hull, IMAGE, "counts", "sh", "-c", COUNT];
    containerd.call(&run)?.ok()?;
    let mut execs = 0;
    let mut count = |id: &str| -> Result<u32> {
        execs += 1;
        let name = format!("count{execs}");
        let said = containerd.call(&["tasks", "exec", "--exec-id", &name, id, "cat", "/count"])?;
        Ok(said.stdout.trim().parse().unwrap_or(0))
    };
    wait_until("the count", || Ok(count("counts")? > 3))?;
    // Of the task alone, which runs on.
    let images = containerd.folder.text("images");
    containerd.call(&["tasks", "checkpoint", "--image-path", &images, "counts"])?.ok()?;
    ensure!(Path::new(&images).join("inventory.img").exists(), "no image in {images}");
    let before = count("counts")?;
    wait_until("the count", || Ok(count("counts")? > before))?;
    // Of the whole container, into another one.
    containerd.call(&["containers", "checkpoint", "--rw", "--image", "--task", "counts", "localhost/saved:1"])?.ok()?;
    let before = count("counts")?;
    ensure!(containerd.call(&["tasks", "delete", "--force", "counts"])?.code <= 137);
    containerd.call(&["containers", "delete", "counts"])?.ok()?;
    containerd.call(&["containers", "restore", "--rw", "--live", "moved", "localhost/saved:1"])?.ok()?;
    wait_until("the count", || Ok(count("moved")? > before))
}

/// The configuration of the Kubernetes interface with hull as a second runtime handler beside the usual one.
fn handler(hull: &Path, systemd: bool) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "[{cri}]\nsandbox_image = {IMAGE:?}\nrestrict_oom_score_adj = true\nstream_server_port = \"0\"\n\
         [{cri}.containerd]\nsnapshotter = \"native\"\ndefault_runtime_name = \"runc\"\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.runc.options]\nSystemdCgroup = {systemd}\n\
         [{cri}.containerd.runtimes.hull]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.hull.options]\nBinaryName = {hull:?}\nSystemdCgroup = {systemd}\n"
    )
}

#[test]
fn pods_of_kubernetes() -> Result<()> {
    kubernetes(false)
}

#[test]
fn pods_of_kubernetes_by_systemd() -> Result<()> {
    if let Some(reason) = no_systemd() {
        skip!("{reason}");
    }
    kubernetes(true)
}

fn kubernetes(systemd: bool) -> Result<()> {
    if let Some(reason) = missing(&["crictl", "runc"]) {
        skip!("{reason}");
    }
    let containerd = containerd!(|hull: &Path| Some(handler(hull, systemd)));
    containerd.import("k8s.io")?;
    let endpoint = format!("unix://{}", containerd.socket);
    let crictl = |args: &[&str]| -> Result<Said> {
        let own = ["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "--timeout", "60s"];
        client("crictl", own.iter().chain(args))
    };
    let logs = containerd.folder.text("logs");
    let parent = if systemd { "berthtest.slice" } else { "/berth-test" };
    // The node's network: this machine need not have any network plugins.
    let pod = format!(
        r#"{{"metadata":{{"name":"pod","uid":"u1","namespace":"default","attempt":1}},"log_directory":{logs:?},"linux":{{"cgroup_parent":{parent:?},"security_context":{{"namespace_options":{{"network":2}}}}}}}}"#
    );
    let container = format!(
        r#"{{"metadata":{{"name":"box"}},"image":{{"image":{IMAGE:?}}},"command":["sh","-c","echo to the log; sleep 1000"],"log_path":"box.log","linux":{{"resources":{{"memory_limit_in_bytes":67108864,"cpu_shares":512}},"security_context":{{"run_as_user":{{"value":1000}},"namespace_options":{{"network":2}}}}}}}}"#
    );
    let (pod_file, container_file) = (containerd.folder.text("pod.json"), containerd.folder.text("container.json"));
    std::fs::write(&pod_file, pod)?;
    std::fs::write(&container_file, container)?;
    let pod = crictl(&["runp", "--runtime", "hull", &pod_file])?.ok()?;
    let id = crictl(&["create", &pod, &container_file, &pod_file])?.ok()?;
    crictl(&["start", &id])?.ok()?;
    // The records are hull's: the other runtime would not know them.
    let state = said(std::process::Command::new(&containerd.hull).args([
        "--root",
        "/run/containerd/runc/k8s.io",
        "state",
        &id,
    ]))?;
    ensure!(state.ok()?.contains("running"));
    ensure!(crictl(&["exec", "--sync", &id, "id", "-u"])?.ok()? == "1000");
    ensure!(crictl(&["exec", "--sync", &id, "sh", "-c", "exit 5"])?.stderr.contains('5'), "the exit status is lost");
    wait_until("the log", || Ok(crictl(&["logs", &id])?.ok()?.contains("to the log")))?;
    let stats = crictl(&["stats", "--output", "json", "--id", &id])?.ok()?;
    ensure!(stats.contains("workingSetBytes"), "{stats}");
    crictl(&["update", "--memory", "100663296", &id])?.ok()?;
    let pid = crictl(&["inspect", "--output", "go-template", "--template", "{{.info.pid}}", &id])?.ok()?;
    ensure!(memory_limit(&pid)? == "100663296", "the limit is {} after the update", memory_limit(&pid)?);
    crictl(&["stop", "--timeout", "0", &id])?.ok()?;
    ensure!(crictl(&["ps", "--all", "--state", "exited", "--quiet"])?.ok()? == id);
    crictl(&["rm", &id])?.ok()?;
    // The usual runtime works on beside it.
    let text = std::fs::read_to_string(&pod_file)?.replace("\"u1\"", "\"u2\"").replace("\"pod\"", "\"other\"");
    std::fs::write(&pod_file, text)?;
    let other = crictl(&["runp", &pod_file])?.ok()?;
    for pod in [&pod, &other] {
        crictl(&["stopp", pod])?.ok()?;
        crictl(&["rmp", pod])?.ok()?;
    }
    ensure!(!cgroup_left(&id) && !cgroup_left(&pod), "a cgroup is left");
    Ok(())
}

/// The memory limit of a process' cgroup.
fn memory_limit(pid: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let file = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        match rest.split_once(':')? {
            ("memory", path) => Some(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")),
            ("", path) if crate::support::unified() => Some(format!("/sys/fs/cgroup{path}/memory.max")),
            _ => None,
        }
    });
    Ok(std::fs::read_to_string(file.context("no memory cgroup")?)?.trim().to_owned())
}
