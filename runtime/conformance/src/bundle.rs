//! A bundle, the container made of it, and their removal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::command::{self, Output, run};
use crate::context::{Cgroups, Context};
use crate::default_config::default_config;

/// Applets that the tests use.
const APPLETS: &[&str] = &[
    "[",
    "awk",
    "base64",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "chrt",
    "cut",
    "date",
    "dd",
    "dmesg",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "ionice",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mountpoint",
    "mv",
    "nc",
    "od",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sysctl",
    "tail",
    "taskset",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "unshare",
    "usleep",
    "wc",
    "whoami",
    "xargs",
    "yes",
];

/// A bundle folder and the container of the same name, if there is one.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) context: &'a Context,
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) config: Value,
    /// Set when a test runs the bundle under other ids too.
    pub(crate) more_ids: Vec<String>,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(context: &'a Context) -> Result<Bundle<'a>> {
        let id = format!("hc-{}-{}", std::process::id(), context.unique());
        let path = context.work.join(&id);
        let rootfs = path.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "var"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        copy(&context.busybox, &rootfs.join("bin/busybox"))?;
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        let mut config = default_config(&id);
        if context.systemd() {
            config["linux"]["cgroupsPath"] = json!(format!("hc.slice:test:{id}"));
        }
        Ok(Bundle { context, id, path, config, more_ids: Vec::new() })
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Sets the value at a JSON pointer, making the objects on the way.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match place {
                Value::Array(list) => {
                    let index = key.parse::<usize>().unwrap_or(usize::MAX).min(list.len().saturating_sub(1));
                    &mut list[index]
                }
                other => {
                    if !other.is_object() {
                        *other = json!({});
                    }
                    &mut other[key]
                }
            };
        }
        *place = value;
        self
    }

    /// Removes the member at a JSON pointer.
    pub(crate) fn unset(&mut self, pointer: &str) -> &mut Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(object)) = self.config.pointer_mut(parent)
        {
            object.remove(key);
        }
        self
    }

    /// Appends to the list at a JSON pointer.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        match self.config.pointer_mut(pointer) {
            Some(Value::Array(list)) => list.push(value),
            _ => {
                self.set(pointer, json!([value]));
            }
        }
        self
    }

    /// Makes the process a shell script.
    pub(crate) fn script(&mut self, text: &str) -> &mut Self {
        self.set("/process/args", json!(["sh", "-c", text]))
    }

    /// Adds a mount.
    pub(crate) fn mount(&mut self, kind: &str, source: &str, destination: &str, options: &[&str]) -> &mut Self {
        self.push("/mounts", json!({"destination": destination, "type": kind, "source": source, "options": options}))
    }

    /// Takes the mount of a destination out.
    pub(crate) fn without_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
        self
    }

    /// Adds a namespace, or changes the one of this type.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Self {
        self.without_namespace(kind);
        let value = match path {
            None => json!({"type": kind}),
            Some(path) => json!({"type": kind, "path": path}),
        };
        self.push("/linux/namespaces", value)
    }

    /// Takes the namespace of a type out.
    pub(crate) fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// A user namespace that maps the container's ids to 100000 and up, with a root file system of these owners.
    pub(crate) fn user_namespace(&mut self) -> Result<&mut Self> {
        self.namespace("user", None);
        let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        self.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings);
        self.chown_rootfs(100_000)?;
        Ok(self)
    }

    pub(crate) fn chown_rootfs(&self, owner: u32) -> Result<()> {
        let owner = format!("{owner}:{owner}");
        run(Command::new("chown").arg("-hR").arg(owner).arg(self.rootfs()), None)?.ok()?;
        // The way there must be passable too.
        Ok(())
    }

    /// Puts an executable file into the root file system.
    pub(crate) fn program(&self, path: &str, content: &[u8]) -> Result<()> {
        let (made, path) = (self.path.join("program"), self.rootfs().join(path));
        fs::write(&made, content)?;
        copy(&made, &path)?;
        Ok(fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
    }

    /// Writes `config.json`.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.config)?;
        fs::write(self.path.join("config.json"), text).context("cannot write config.json")
    }

    /// The runtime with this bundle's folder as working directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.context.command();
        command.args(args).current_dir(&self.path);
        command
    }

    /// Runs the runtime with these arguments.
    pub(crate) fn runtime(&self, args: &[&str]) -> Result<Output> {
        run(&mut self.command(args), None)
    }

    fn bundle_path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// `run` in the foreground.
    pub(crate) fn run(&self) -> Result<Output> {
        self.save()?;
        self.runtime(&["run", "--bundle", &self.bundle_path(), &self.id])
    }

    /// `run`, which must succeed; its standard output.
    pub(crate) fn output(&self) -> Result<String> {
        Ok(self.run()?.ok()?.text().to_owned())
    }

    /// Runs a script; its standard output.
    pub(crate) fn run_script(&mut self, text: &str) -> Result<String> {
        self.script(text);
        self.output()
    }

    /// The configuration must be refused: neither `create` nor `start` may go through.
    pub(crate) fn refused(&self) -> Result<Output> {
        let create = self.create()?;
        if !create.success() {
            return Ok(create);
        }
        let start = self.start()?;
        ensure!(!start.success(), "the runtime accepted it: create and start succeeded");
        Ok(start)
    }

    pub(crate) fn create(&self) -> Result<Output> {
        self.save()?;
        self.runtime(&["create", "--bundle", &self.bundle_path(), &self.id])
    }

    pub(crate) fn start(&self) -> Result<Output> {
        self.runtime(&["start", &self.id])
    }

    /// Creates and starts a container that waits for its end.
    pub(crate) fn started(&mut self) -> Result<&mut Self> {
        self.script("trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done");
        self.created()?;
        self.start()?.ok().context("start")?;
        Ok(self)
    }

    /// Creates and starts a container whose standard streams are the null device, and not files of the suite.
    pub(crate) fn silent(&self) -> Result<()> {
        self.save()?;
        let mut command = self.command(&["create", "--bundle", &self.bundle_path(), &self.id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command::wait(&mut command.spawn()?, command::patience())?;
        ensure!(status.success(), "create: {status}");
        self.start()?.ok().context("start").map(drop)
    }

    /// Creates a container with whatever process is set.
    pub(crate) fn created(&self) -> Result<()> {
        self.create()?.ok().context("create").map(drop)
    }

    pub(crate) fn kill(&self, signal: &str) -> Result<Output> {
        self.runtime(&["kill", &self.id, signal])
    }

    pub(crate) fn delete(&self) -> Result<Output> {
        self.runtime(&["delete", &self.id])
    }

    /// `exec` of a shell script, with options before the id.
    pub(crate) fn exec(&self, options: &[&str], script: &str) -> Result<Output> {
        let mut args = vec!["exec"];
        args.extend_from_slice(options);
        args.extend_from_slice(&[&self.id, "sh", "-c", script]);
        self.runtime(&args)
    }

    /// The container's state.
    pub(crate) fn state(&self) -> Result<Value> {
        let output = self.runtime(&["state", &self.id])?.ok().context("state")?;
        serde_json::from_str(&output.stdout).with_context(|| format!("state printed {:?}", output.stdout))
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        let pid = self.state()?["pid"].as_u64().context("state has no pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// Polls the state until it is `status`. Each query costs a process, which is pause enough.
    pub(crate) fn wait_for(&self, status: &str) -> Result<()> {
        let deadline = Instant::now() + command::patience();
        loop {
            let state = self.state()?;
            if state["status"] == status {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "status is {} instead of {status}", state["status"]);
        }
    }

    /// Asks until a file has the content that `done` wants.
    pub(crate) fn wait_for_file(&self, path: &Path, done: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + command::patience();
        loop {
            let content = fs::read_to_string(path).unwrap_or_default();
            if done(&content) {
                return Ok(content);
            }
            ensure!(Instant::now() < deadline, "{} holds {content:?}", path.display());
            std::thread::yield_now();
        }
    }

    /// The folders of the container's cgroup, with the controllers of each on v1.
    pub(crate) fn cgroup(&self, controller: &str, pid: u32) -> Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            let path = path.trim_start_matches('/');
            match self.context.cgroups {
                Cgroups::V2 if controllers.is_empty() => return Ok(Path::new("/sys/fs/cgroup").join(path)),
                Cgroups::V1 if controllers.split(',').any(|one| one == controller) => {
                    return Ok(Path::new("/sys/fs/cgroup").join(controllers).join(path));
                }
                _ => {}
            }
        }
        bail!("no cgroup for {controller} in {text:?}")
    }

    /// The content of one cgroup file of the container's, by its name on v1 and on v2.
    pub(crate) fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> Result<String> {
        let folder = self.cgroup(controller, self.pid()?)?;
        let path = folder.join(if self.context.cgroups == Cgroups::V2 { v2 } else { v1 });
        Ok(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        // Whatever the test did, nothing of it may stay; what cannot be removed shows up in the next run.
        let ids: Vec<String> = self.more_ids.drain(..).chain([self.id.clone()]).collect();
        for id in ids {
            let delete = &mut self.context.command();
            delete.args(["delete", "--force", &id]).current_dir("/");
            let _ = command::run(delete, None);
            crate::cleanup::cgroups(&id);
        }
        crate::cleanup::bundle(&self.path);
    }
}

/// Copies a program by another process. A writable descriptor of ours would be inherited by whatever another test starts at that moment, and
/// a file that is open for writing cannot be executed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg(from).arg(to), None)?.ok().map(drop)
}
