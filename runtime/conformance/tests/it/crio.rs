//! hull as CRI-O uses it: conmon with CRI-O's arguments, and the commands that CRI-O runs itself, with its reading of what
//! they say (cri-o `internal/oci/runtime_oci.go`). CRI-O itself is in no distribution that tests run on.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{CGROUP, Folder, Said, cgroup_left, hull, missing, said, skip, unified, wait_until};

/// A container with CRI-O's folders.
struct Crio {
    folder: Folder,
    program: PathBuf,
    id: String,
    process: Value,
}

impl Crio {
    /// `Err` holds the reason to skip.
    fn new(name: &str, script: &str) -> Result<Result<Crio, String>> {
        if let Some(reason) = missing(&["conmon"]) {
            return Ok(Err(reason));
        }
        let hull = match hull() {
            Ok(hull) => hull,
            Err(reason) => return Ok(Err(reason)),
        };
        let folder = Folder::new("crio")?;
        let rootfs = folder.rootfs()?;
        let program = folder.join("hull");
        fs::copy(hull, &program)?;
        for part in ["bundle", "exits", "persist", "attach"] {
            fs::create_dir(folder.join(part))?;
        }
        let id = format!("crio-{name}-{}", std::process::id());
        let process = json!({
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]}, "args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
        });
        let namespaces = ["pid", "mount", "network", "ipc", "uts"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2-dev", "process": process, "root": {"path": rootfs}, "hostname": "pod",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            ],
            "annotations": {"io.container.manager": "cri-o", "org.systemd.property.CollectMode": "'inactive-or-failed'"},
            "linux": {
                "cgroupsPath": format!("{CGROUP}/{id}"),
                "namespaces": namespaces,
                "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 64}}
            }
        });
        fs::write(folder.join("bundle/config.json"), config.to_string())?;
        // The byte after which conmon goes on.
        fs::write(folder.join("go"), [0])?;
        Ok(Ok(Crio { folder, program, id, process }))
    }

    /// Runs conmon; what it reports to CRI-O.
    fn conmon(&self, args: &[&str]) -> Result<Value> {
        let report = self.folder.join("report");
        let text = |name| self.folder.text(name);
        let status = Command::new("timeout")
            .args(["60", "sh", "-c", r#"exec "$@" 3>"$REPORT" 4<"$GO""#, "sh", "conmon"])
            .args(["-c", &self.id, "-n", "k8s_name", "-r", &self.program.to_string_lossy(), "--log-level", "info"])
            .args(["--socket-dir-path", &text("attach"), "--runtime-arg", &format!("--root={}", text("records"))])
            .args(args)
            .env("REPORT", &report)
            .env("GO", text("go"))
            .envs([("_OCI_SYNCPIPE", "3"), ("_OCI_STARTPIPE", "4")])
            .current_dir(self.folder.join("bundle"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success() || report.metadata()?.len() > 0, "conmon ended with {status}");
        // It has gone to the background, except when it waits for an exec.
        wait_until("conmon's report", || Ok(fs::read_to_string(&report)?.ends_with('\n')))?;
        let text = fs::read_to_string(report)?;
        serde_json::from_str(&text).with_context(|| format!("conmon reported {text:?}"))
    }

    fn create(&self) -> Result<Value> {
        let text = |name| self.folder.text(name);
        self.conmon(&[
            "-b",
            &text("bundle"),
            "-u",
            &self.id,
            "--exit-dir",
            &text("exits"),
            "--persist-dir",
            &text("persist"),
            "-l",
            &text("log"),
            "--log-size-max",
            "-1",
            "--syslog",
            "-P",
            &text("conmon-pidfile"),
            "-p",
            &text("pidfile"),
        ])
    }

    /// `ExecSync` of the Kubernetes interface: the report, and the log that has the output.
    fn exec_sync(&self, args: &[&str], timeout: Option<&str>) -> Result<(Value, String)> {
        let mut process = self.process.clone();
        process["args"] = json!(args);
        fs::write(self.folder.join("process"), process.to_string())?;
        let text = |name| self.folder.text(name);
        let (process, log, pidfile) = (text("process"), text("exec-log"), text("exec-pidfile"));
        fs::write(&log, "")?;
        let mut args = vec!["-e", "--sync", "-l", &log, "-p", &pidfile, "--exec-process-spec", &process];
        args.extend(timeout.map(|seconds| ["-T", seconds]).into_iter().flatten());
        Ok((self.conmon(&args)?, fs::read_to_string(&log)?))
    }

    /// A command of CRI-O's own. Its environment is empty.
    fn call(&self, args: &[&str]) -> Result<Said> {
        said(self.command(args).stdin(Stdio::null()))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().arg("--root").arg(self.folder.join("records")).args(args).arg(&self.id);
        command
    }

    /// The answer of `state`, with the types that CRI-O's own structure has for these names.
    fn state(&self) -> Result<(String, i64)> {
        let state: Value = serde_json::from_str(&self.call(&["state"])?.ok()?)?;
        ensure!(state["id"] == self.id && state["bundle"].is_string() && state["annotations"].is_object(), "{state}");
        ensure!(state["created"].as_str().is_some_and(|time| time.ends_with('Z')), "no time of RFC 3339: {state}");
        for taken in ["started", "finished", "exitCode", "oomKilled", "error", "initPid", "initStartTime", "stopSignal"]
        {
            ensure!(state.get(taken).is_none(), "{taken} is CRI-O's: {state}");
        }
        Ok((state["status"].as_str().context("no status")?.to_owned(), state["pid"].as_i64().context("no pid")?))
    }

    fn exit_status(&self) -> Result<String> {
        let file = self.folder.join("exits").join(&self.id);
        wait_until("the exit file", || Ok(fs::read_to_string(&file).is_ok_and(|text| !text.is_empty())))?;
        Ok(fs::read_to_string(file)?)
    }
}

impl Drop for Crio {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "--force"]);
    }
}

macro_rules! crio {
    ($name:literal, $script:expr) => {
        match Crio::new($name, $script)? {
            Ok(crio) => crio,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn a_container_of_crio() -> Result<()> {
    let crio = crio!("lives", "trap '' TERM; echo to the log; while :; do sleep 0.1; done");
    let pid = crio.create()?["pid"].as_i64();
    ensure!(pid.is_some_and(|pid| pid > 0) && crio.state()? == ("created".to_owned(), pid.unwrap_or(0)));
    crio.call(&["start"])?.ok()?;
    wait_until("the log", || Ok(fs::read_to_string(crio.folder.join("log"))?.contains("stdout F to the log")))?;
    let (report, log) = crio.exec_sync(&["sh", "-c", "echo out; echo err >&2; exit 3"], None)?;
    ensure!(report == json!({"exit_code": 3}) && log.contains("stdout F out") && log.contains("stderr F err"), "{log}");
    let (report, _) = crio.exec_sync(&["no-such-program"], None)?;
    ensure!(report["exit_code"] == -1, "{report}");
    ensure!(
        report["message"].as_str().is_some_and(|text| text.contains("executable file not found in $PATH")),
        "{report}"
    );
    let (report, _) = crio.exec_sync(&["sleep", "1000"], Some("1"))?;
    ensure!(report == json!({"exit_code": -1, "message": "command timed out"}), "{report}");
    ensure!(crio.call(&["pause"])?.code == 0 && crio.state()?.0 == "paused" && crio.call(&["resume"])?.code == 0);
    // Deaf to SIGTERM: CRI-O repeats SIGKILL until the process is gone.
    for signal in ["15", "KILL"] {
        said(crio.command(&["kill"]).arg(signal))?.ok()?;
    }
    ensure!(crio.exit_status()? == "137");
    ensure!(crio.state()? == ("stopped".to_owned(), 0));
    let late = said(crio.command(&["kill"]).arg("KILL"))?;
    ensure!(late.code == 1 && late.stderr.contains("container not running"), "{late:?}");
    crio.call(&["delete", "--force"])?.ok()?;
    crio.call(&["delete", "--force"])?.ok()?;
    ensure!(crio.call(&["state"])?.code == 1 && !cgroup_left(&crio.id));
    Ok(())
}

#[test]
fn limits_by_crio() -> Result<()> {
    let crio = crio!("limited", "sleep 1000");
    crio.create()?;
    crio.call(&["start"])?.ok()?;
    let resources = json!({
        "memory": {"limit": 96 << 20, "swap": 96 << 20}, "cpu": {"quota": 20_000, "period": 50_000}, "pids": {"limit": 33},
        "devices": [{"allow": false, "access": "rwm"}], "hugepageLimits": []
    });
    let file = crio.folder.join("resources");
    fs::write(&file, resources.to_string())?;
    let updated = crio.command(&["update", "--resources", "-"]).stdin(fs::File::open(file)?).output()?;
    ensure!(updated.status.success(), "{}", String::from_utf8_lossy(&updated.stderr));
    let below = |hierarchy: &str, file: &str| {
        let hierarchy = if unified() { "" } else { hierarchy };
        Ok::<_, anyhow::Error>(
            fs::read_to_string(format!("/sys/fs/cgroup/{hierarchy}{CGROUP}/{}/{file}", crio.id))?.trim().to_owned(),
        )
    };
    let memory = if unified() { "memory.max" } else { "memory.limit_in_bytes" };
    ensure!(below("memory", memory)? == (96 << 20).to_string() && below("pids", "pids.max")? == "33");
    let (_, log) = crio.exec_sync(&["sh", "-c", "echo >/dev/null && echo devices as before"], None)?;
    ensure!(log.contains("devices as before"), "{log}");
    Ok(())
}

#[test]
fn out_of_memory_as_crio_sees_it() -> Result<()> {
    let crio = crio!("hungry", "cat /dev/zero | grep x");
    crio.create()?;
    crio.call(&["start"])?.ok()?;
    crio.exit_status()?;
    // conmon watches the cgroup that it reads from the process.
    wait_until("conmon's word", || {
        Ok(crio.folder.join("bundle/oom").exists() && crio.folder.join("persist/oom").exists())
    })
}

#[test]
fn a_create_that_fails_as_crio_reads_it() -> Result<()> {
    let crio = crio!("fails", "true");
    let config = crio.folder.join("bundle/config.json");
    let mut changed: Value = serde_json::from_str(&fs::read_to_string(&config)?)?;
    changed["process"]["args"] = json!(["/no/such/program"]);
    fs::write(&config, changed.to_string())?;
    let report = crio.create()?;
    let message = report["message"].as_str().unwrap_or_default();
    ensure!(report["pid"] == -1 && message.contains("/no/such/program: no such file or directory"), "{report}");
    ensure!(crio.call(&["state"])?.code == 1 && !cgroup_left(&crio.id));
    crio.call(&["delete", "--force"])?.ok().map(drop)
}
