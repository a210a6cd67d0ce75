//! A bundle with a module, and what `hull` makes of it.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// A program: what the variable says, or what `make` made.
fn program(variable: &str, name: &str) -> PathBuf {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/release").join(name);
    std::env::var_os(variable).map_or(made, PathBuf::from)
}

fn hull() -> PathBuf {
    program("HULL", "hull")
}

/// The program under test.
pub fn hull_wasm() -> PathBuf {
    program("HULL_WASM", "hull-wasm")
}

/// Whether this machine can run the tests; says why if it cannot.
pub fn ready() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "containers with cgroups need root"
    } else if !hull().exists() || !hull_wasm().exists() {
        "no hull or hull-wasm: run `make build wasm`, or set HULL and HULL_WASM"
    } else if !Path::new("/bin/busybox").exists() {
        "no static busybox: install busybox-static"
    } else if Command::new("clang").arg("--version").stdout(Stdio::null()).status().is_err() {
        "no compiler for WebAssembly: install clang, lld, wasi-libc and libclang-rt-dev-wasm32"
    } else {
        return true;
    };
    println!("skipped: {missing}");
    false
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status; 128 more than the signal if there was one.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A container of one module, `/app.wasm`.
#[derive(Debug)]
pub struct Bundle {
    folder: tempfile::TempDir,
    /// Id of the container.
    pub id: String,
    /// `config.json`.
    pub config: Value,
    /// What the administrator configured.
    pub administrator: Value,
}

impl Bundle {
    /// A bundle whose process is the module with these arguments, annotated as WebAssembly.
    pub fn new(module: &[u8], args: &[&str]) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let id = format!("hull-wasm-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "data", "fixed"] {
            std::fs::create_dir_all(folder.path().join("rootfs").join(name)).unwrap();
        }
        let status = Command::new(hull()).arg("spec").arg("--bundle").arg(folder.path()).status().unwrap();
        assert!(status.success());
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        config["annotations"] = json!({"run.oci.handler": "wasm"});
        let administrator = json!({"program": hull_wasm(), "cache": folder.path().join("cache")});
        let mut bundle = Self { folder, id, config, administrator };
        bundle.process("/app.wasm", args);
        bundle.module(module);
        bundle
    }

    /// Sets the program and its arguments.
    pub fn process(&mut self, program: &str, args: &[&str]) {
        let all: Vec<&str> = std::iter::once(program).chain(args.iter().copied()).collect();
        self.config["process"]["args"] = json!(all);
    }

    /// Replaces the module.
    pub fn module(&self, module: &[u8]) {
        std::fs::write(self.rootfs("app.wasm"), module).unwrap();
    }

    /// Puts a shell into the container.
    pub fn busybox(&self) {
        std::fs::copy("/bin/busybox", self.rootfs("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", self.rootfs("bin/sh")).unwrap();
    }

    /// A path in the bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the root file system.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.path("rootfs").join(name)
    }

    /// Files of the cache.
    pub fn cached(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("cache")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Adds a bind mount.
    pub fn bind(&mut self, source: &Path, destination: &str, mode: &str) {
        let mount = json!({"destination": destination, "source": source, "type": "bind", "options": ["bind", mode]});
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// The runtime with its global flags, after writing the configuration.
    pub fn hull(&self) -> Command {
        std::fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        std::fs::write(self.path("wasm.json"), self.administrator.to_string()).unwrap();
        let mut command = Command::new(hull());
        command.arg("--root").arg(self.path("state")).arg("--wasm-config").arg(self.path("wasm.json"));
        command.arg("--timeline").arg(self.path("timeline"));
        command
    }

    /// `hull run`, prepared.
    pub fn run_command(&self) -> Command {
        let mut command = self.hull();
        command.arg("run").arg("--bundle").arg(self.folder.path()).arg(&self.id);
        command
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Output {
        finish(self.run_command().stdin(Stdio::null()))
    }

    /// Runs it with a text on standard input.
    pub fn run_with(&self, input: &str) -> Output {
        let mut command = self.run_command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        of(output)
    }

    /// Whether the runtime's record of its phases has one of this name.
    pub fn phase(&self, name: &str) -> bool {
        let timeline = std::fs::read_to_string(self.path("timeline")).unwrap_or_default();
        timeline.contains(&format!("\"{name}\""))
    }

    /// Runs it and expects a text.
    pub fn prints(&self, expected: &str) {
        let output = self.run();
        assert_eq!((output.code, output.stdout.as_str()), (0, expected), "{output:?}");
    }

    /// Expects the runtime to refuse the container with this text.
    pub fn refused(&self, text: &str) {
        let output = self.run();
        assert_eq!(output.code, 1, "{output:?}");
        // The log writes quotes with a backslash.
        assert!(output.stderr.replace('\\', "").contains(text), "{output:?}");
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Output {
    of(command.output().unwrap())
}

fn of(output: std::process::Output) -> Output {
    Output {
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let mut command = Command::new(hull());
        command.arg("--root").arg(self.path("state")).args(["delete", "--force", &self.id]);
        let _ = command.stderr(Stdio::null()).status();
    }
}
