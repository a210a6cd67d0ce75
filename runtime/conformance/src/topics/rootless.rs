//! Containers of an ordinary user: by subordinate ids, by one id alone, with a delegated cgroup and without any.
//!
//! The user is `hull-test` where there is one, who may have subordinate ids and a session of systemd; otherwise one
//! without a name and any rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::{Output, patience, run};
use crate::context::{Cgroups, Context};
use crate::suite::{Test, skip, test};

/// Those with which containers can be made inside of one.
const CAPABILITIES_OF_AN_OUTER_CONTAINER: [&str; 18] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_ADMIN",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

pub(crate) const TESTS: &[Test] = &[
    test("spec-runs", "the configuration that spec --rootless writes runs, without any cgroup of its own", spec_runs),
    test("one-id", "without subordinate ids, the user's own id is root inside", one_id),
    test("setgroups-denied", "with one id, setgroups is denied inside (user_namespaces(7))", setgroups_denied),
    test("subordinate-ids", "newuidmap and newgidmap map the user's subordinate ids", subordinate_ids),
    test("foreign-ids", "ids that are not the user's are an error that names the helper or the map", foreign_ids),
    test(
        "lifecycle",
        "create, start, exec, kill and delete without rights; the records are below XDG_RUNTIME_DIR",
        lifecycle,
    ),
    test("limits-refused", "limits without a cgroup that could hold them are an error, not ignored", limits_refused),
    test("delegated", "in a delegated cgroup the limits apply", delegated),
    test("user-manager", "the user's systemd makes the scope (--systemd-cgroup)", user_manager),
    test(
        "inside-namespace",
        "root of a user namespace makes containers, also such that have none of their own",
        inside_namespace,
    ),
    test("nested", "a container inside a container of a user namespace", nested),
];

const NAME: &str = "hull-test";

/// An ordinary user and their bundle.
struct User<'a> {
    context: &'a Context,
    uid: u32,
    /// First subordinate id, if there are any.
    subordinate: Option<u32>,
    folder: PathBuf,
    id: String,
    config: Value,
}

fn field(file: &str, name: &str, index: usize) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(index)?.parse().ok()
}

impl<'a> User<'a> {
    fn new(context: &'a Context) -> Result<User<'a>> {
        if fs::read_to_string("/proc/sys/user/max_user_namespaces")?.trim() == "0" {
            return Err(skip("user namespaces are turned off"));
        }
        // 65534 would be everybody's who is not mapped.
        let uid = field("/etc/passwd", NAME, 2).unwrap_or(64_321);
        let bundle = context.bundle()?;
        let folder = context.work.join(format!("user-{}", context.unique()));
        fs::create_dir(&folder)?;
        fs::rename(bundle.rootfs(), folder.join("rootfs"))?;
        let mut user = User {
            context,
            uid,
            subordinate: field("/etc/subuid", NAME, 1),
            id: format!("{}-user", bundle.id),
            folder,
            config: Value::Null,
        };
        fs::create_dir(user.folder.join("run"))?;
        run(Command::new("chown").args(["-hR", &format!("{uid}:{uid}")]).arg(&user.folder), None)?.ok()?;
        user.run(&["spec", "--rootless"])?.ok()?;
        user.config = serde_json::from_slice(&fs::read(user.folder.join("config.json"))?)?;
        user.config["process"]["terminal"] = json!(false);
        user.config["root"]["readonly"] = json!(false);
        Ok(user)
    }

    /// The user's runtime directory: the session's, or one of the test's.
    fn runtime_dir(&self) -> PathBuf {
        let session = PathBuf::from(format!("/run/user/{}", self.uid));
        if session.is_dir() { session } else { self.folder.join("run") }
    }

    /// A command of the user's, in the bundle, with their environment alone.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        let id = self.uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin:/usr/sbin"]);
        command.arg(format!("XDG_RUNTIME_DIR={}", self.runtime_dir().display()));
        command.arg(program).current_dir(&self.folder);
        command
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        run(self.command(&self.context.runtime).args(args), None)
    }

    fn save(&self) -> Result<()> {
        Ok(fs::write(self.folder.join("config.json"), self.config.to_string())?)
    }

    /// Runs a script in a container.
    fn script(&mut self, text: &str) -> Result<Output> {
        self.config["process"]["args"] = json!(["sh", "-c", text]);
        self.save()?;
        self.run(&["run", &self.id])
    }

    /// Maps the subordinate ids behind the user's own.
    fn map(&mut self, first: u32, size: u32) {
        let maps = json!([
            {"containerID": 0, "hostID": self.uid, "size": 1},
            {"containerID": 1, "hostID": first, "size": size}
        ]);
        self.config["linux"]["uidMappings"] = maps.clone();
        self.config["linux"]["gidMappings"] = maps;
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force", &self.id]);
        crate::cleanup::bundle(&self.folder);
    }
}

fn spec_runs(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    let said = user.script("echo $(id -u) $(cat /proc/1/comm)")?.ok()?;
    ensure!(said.text() == "0 sh", "{:?}", said.text());
    Ok(())
}

fn one_id(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    let said = user.script("touch /made && cat /proc/self/uid_map")?.ok()?;
    let map: Vec<&str> = said.text().split_whitespace().collect();
    ensure!(map == ["0", &user.uid.to_string(), "1"], "{map:?}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(user.folder.join("rootfs/made"))?);
    ensure!(owner == user.uid, "what its root makes belongs to {owner}");
    Ok(())
}

fn setgroups_denied(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    let said = user.script("cat /proc/self/setgroups")?.ok()?;
    ensure!(said.text() == "deny", "{:?}", said.text());
    Ok(())
}

fn subordinate_ids(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    let Some(first) = user.subordinate else { return Err(skip(format!("no user {NAME} with subordinate ids"))) };
    if !Path::new("/usr/bin/newuidmap").exists() {
        return Err(skip("newuidmap is not installed"));
    }
    user.map(first, 65_536);
    for set in ["bounding", "effective", "permitted"] {
        user.config["process"]["capabilities"][set].as_array_mut().context("no list")?.push(json!("CAP_CHOWN"));
    }
    let said = user.script("touch /made && chown 1000:1000 /made && stat -c %u:%g /made")?.ok()?;
    ensure!(said.text() == "1000:1000", "{:?}", said.text());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(user.folder.join("rootfs/made"))?);
    ensure!(owner == first + 999, "outside it is {owner}'s");
    Ok(())
}

fn foreign_ids(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    user.map(3_000_000, 65_536);
    let output = user.script("true")?;
    ensure!(!output.success(), "it has ids that nobody gave it");
    ensure!(
        output.stderr.contains("uidmap") || output.stderr.contains("gidmap") || output.stderr.contains("_map"),
        "{}",
        output.stderr
    );
    Ok(())
}

fn lifecycle(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    user.config["process"]["args"] = json!(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done"]);
    user.save()?;
    let id = user.id.clone();
    user.run(&["create", &id])?.ok().context("create")?;
    let name = context.runtime.file_name().context("no name")?.to_string_lossy().into_owned();
    let records = user.runtime_dir().join(&name);
    ensure!(records.join(&id).exists(), "no records in {}", records.display());
    user.run(&["start", &id])?.ok().context("start")?;
    let said = user.run(&["exec", &id, "id", "-u"])?.ok().context("exec")?;
    ensure!(said.text() == "0", "{:?}", said.text());
    user.run(&["kill", &id, "TERM"])?.ok().context("kill")?;
    let deadline = Instant::now() + patience();
    loop {
        let state: Value = serde_json::from_str(&user.run(&["state", &id])?.ok()?.stdout)?;
        if state["status"] == "stopped" {
            break;
        }
        ensure!(Instant::now() < deadline, "{state}");
    }
    user.run(&["delete", &id])?.ok().context("delete")?;
    ensure!(!records.join(&id).exists(), "records are left");
    Ok(())
}

fn limits_refused(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    user.config["linux"]["resources"] = json!({"pids": {"limit": 20}});
    let output = user.script("true")?;
    ensure!(!output.success(), "the limit was ignored");
    ensure!(output.stderr.contains("cgroup"), "{}", output.stderr);
    Ok(())
}

/// The arguments of a command within the user's session, which has a manager of its own.
fn in_session(user: &User<'_>, scope: &[&str]) -> Result<Command> {
    if user.context.cgroups == Cgroups::V1 {
        return Err(skip("cgroups of version 1 are not delegated"));
    }
    if !Path::new(&format!("/run/user/{}/bus", user.uid)).exists() {
        return Err(skip(format!("{NAME} has no session of systemd (loginctl enable-linger)")));
    }
    let mut command = user.command(Path::new("systemd-run"));
    command.args(["--user", "--quiet"]).args(scope);
    Ok(command)
}

fn delegated(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    context.needs("memory")?;
    user.config["linux"]["resources"] = json!({"pids": {"limit": 33}, "memory": {"limit": 64 << 20}});
    user.config["process"]["args"] = json!(["sh", "-c", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max"]);
    user.save()?;
    // A group with processes cannot pass controllers on, so the runtime gets one of its own below the delegated one.
    let script = "own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup) && mkdir $own/runtime && echo 0 > $own/runtime/cgroup.procs && exec \"$0\" \"$@\"";
    let mut command = in_session(&user, &["--wait", "--pipe", "--property=Delegate=yes"])?;
    command
        .arg(format!("--working-directory={}", user.folder.display()))
        .args(["sh", "-c", script])
        .arg(&context.runtime);
    let said = run(command.args(["run", &user.id]), None)?.ok()?;
    ensure!(said.text() == "33\n67108864", "{:?}", said.text());
    Ok(())
}

fn user_manager(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    context.needs("pids")?;
    user.config["linux"]["resources"] = json!({"pids": {"limit": 33}});
    user.config["linux"]["cgroupsPath"] = json!(format!("user.slice:test:{}", user.id));
    user.config["linux"]["namespaces"].as_array_mut().context("no list")?.retain(|one| one["type"] != "cgroup");
    user.config["process"]["args"] = json!(["sh", "-c", "cat /proc/self/cgroup"]);
    user.save()?;
    let mut command = in_session(&user, &["--wait", "--pipe"])?;
    command.arg(format!("--working-directory={}", user.folder.display())).arg(&context.runtime);
    let said = run(command.args(["--systemd-cgroup", "run", &user.id]), None)?.ok()?;
    let wanted = format!("/user.slice/test-{}.scope", user.id);
    ensure!(said.text().contains(&wanted) && said.text().contains("/user@"), "{:?}", said.text());
    Ok(())
}

/// As below rootless Podman, which enters a user namespace itself; this one has one id, and no right to set groups.
fn inside_namespace(context: &Context) -> Result<()> {
    let mut user = User::new(context)?;
    let text = "echo gone >/dev/null && stat -c %t:%T /dev/null /dev/urandom";
    user.config["process"]["args"] = json!(["sh", "-c", text]);
    let ids = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    user.config["linux"]["uidMappings"] = ids.clone();
    user.config["linux"]["gidMappings"] = ids;
    let run_inside = |user: &User<'_>| {
        user.save()?;
        let mut command = user.command(Path::new("unshare"));
        command.args(["--user", "--map-root-user", "--mount"]).arg(&context.runtime).args(["run", &user.id]);
        let said = run(&mut command, None)?.ok()?;
        ensure!(said.text() == "1:3\n1:9", "{:?}", said.text());
        Ok(())
    };
    run_inside(&user).context("with a user namespace")?;
    let linux = &mut user.config["linux"];
    linux["namespaces"].as_array_mut().context("no namespaces")?.retain(|namespace| namespace["type"] != "user");
    linux["uidMappings"].take();
    linux["gidMappings"].take();
    run_inside(&user)
}

fn nested(context: &Context) -> Result<()> {
    let mut outer = context.bundle()?;
    outer.user_namespace()?;
    let all: Vec<String> = CAPABILITIES_OF_AN_OUTER_CONTAINER.map(|name| format!("CAP_{name}")).into();
    for set in ["bounding", "effective", "permitted"] {
        outer.set(&format!("/process/capabilities/{set}"), json!(all));
    }
    // A masked proc would keep the kernel from mounting a new one inside.
    outer.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    outer.set("/process/noNewPrivileges", json!(false));
    let inner = outer.rootfs().join("inner/rootfs");
    fs::create_dir_all(&inner)?;
    run(Command::new("cp").arg("-a").arg(outer.rootfs().join("bin")).arg(&inner), None)?.ok()?;
    fs::copy(&context.runtime, outer.rootfs().join("bin/runtime"))?;
    outer.chown_rootfs(100_000)?;
    let said = outer.run_script(
        "cd /inner && runtime --root /tmp/r spec --rootless && sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"echo\", \"inside\"/' config.json && runtime --root /tmp/r run in",
    );
    match said {
        Err(error) if format!("{error:#}").contains("not found") => {
            Err(skip("the runtime needs libraries that the container does not have"))
        }
        said => {
            let said = said?;
            ensure!(said == "inside", "{said:?}");
            Ok(())
        }
    }
}
