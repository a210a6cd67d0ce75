//! A server in a home of its own, and the `berth` program as a user calls it.

mod held;
mod ran;
mod remains;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_node::image::base;
use berth_node::image::layout::{Layout, Limits};
use serde_json::Value;

pub use held::{serve_held, serve_router};
pub use ran::Ran;
pub use remains::Remains;

/// The folder with `berth`: what was just built, or the one that `BERTH_TEST_BIN` names, as users get it.
pub fn bin() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_berth"));
    std::env::var_os("BERTH_TEST_BIN").map_or_else(|| built.parent().unwrap().to_owned(), PathBuf::from)
}

/// hull or berth-init: beside `berth`, or of a release build.
pub fn beside(name: &str) -> Option<PathBuf> {
    [bin().join(name), bin().with_file_name("release").join(name)].into_iter().find(|path| path.is_file())
}

/// `berth` with nothing of the user's own environment that could lead it elsewhere.
pub fn berth(home: &Path, args: &[&str]) -> Command {
    let mut command = with_home(Command::new(bin().join("berth")), home);
    command.args(args);
    command
}

fn with_home(mut command: Command, home: &Path) -> Command {
    command.env("BERTH_HOME", home).env("HOME", home.join("user")).env("NO_COLOR", "1");
    for name in ["BERTH_SERVER", "BERTH_TOKEN", "BERTH_CA_CERT", "BERTH_ALLOW_PRIVATE_HOSTS", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command
}

/// Puts the base image into a home.
pub fn base_image(home: &Path) {
    berth_testkit::base_image(home, |shared| {
        let layout = Layout::join(shared.join("node/images"), Limits::default())?;
        layout.image(base::ensure(&layout, &|text| eprintln!("{text}"))?, &|_| {})?;
        Ok(())
    })
    .unwrap();
}

/// A workspace class for the configuration, as small as a test needs.
pub fn class(name: &str, memory_mib: u64, disk_mib: u64) -> String {
    format!(
        "[[ws_manager.classes]]\nname = \"{name}\"\ndisplay_name = \"{name}\"\ncpu_millis = 1000\nmemory_bytes = {}\n\
         disk_bytes = {}\npids = 256\nno_new_privileges = false\ncredits_per_hour = \"1\"\n",
        memory_mib << 20,
        disk_mib << 20,
    )
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for `done`, which is asked again and again for at most a minute.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A server with its home; both are gone when it is dropped.
pub struct Server {
    home: tempfile::TempDir,
    /// Hosts that `BERTH_ALLOW_PRIVATE_HOSTS` names.
    allowed: String,
    /// Arguments of `berth server`.
    args: Vec<String>,
    /// Where its programs are, when not where those of all tests are.
    programs: Option<PathBuf>,
}

impl Server {
    /// A home with the base image and these lines in `berth.toml`'s `[node]` section and after it; a server that may call `hosts`. None, with
    /// the reason printed, where workspaces cannot run.
    pub fn start(node: &str, sections: &str, hosts: &[SocketAddr]) -> Option<Self> {
        let this = Self::prepare(tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap(), hosts)?;
        this.configure(node, sections);
        this.up();
        Some(this)
    }

    /// A home without a server.
    pub fn prepare(home: tempfile::TempDir, hosts: &[SocketAddr]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        if beside("hull").is_none() || beside("berth-init").is_none() {
            eprintln!("skipped: build hull and berth-init first (cargo build -p hull -p berth-init)");
            return None;
        }
        let allowed = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        base_image(home.path());
        Some(Self { home, allowed, args: Vec::new(), programs: None })
    }

    /// Writes `berth.toml`.
    pub fn configure(&self, node: &str, sections: &str) {
        let (hull, init) = (self.program("hull"), self.program("berth-init"));
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\n[kubernetes]\nlisten = \"127.0.0.1:{}\"\n[node]\nhull = {hull:?}\nberth_init = {init:?}\n{node}\n{sections}",
            free_port(),
            free_port()
        );
        std::fs::write(self.path().join("berth.toml"), text).unwrap();
    }

    /// More arguments for `berth server --detach`.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// From now on `berth`, hull and berth-init of this folder; the next [`configure`](Self::configure) names them.
    pub fn set_programs(&mut self, folder: &Path) {
        self.programs = Some(folder.to_owned());
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.as_ref().map_or_else(|| beside(name).unwrap(), |folder| folder.join(name))
    }

    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// Starts the server in the background.
    pub fn up(&self) {
        let mut args = vec!["server", "--detach"];
        args.extend(self.args.iter().map(String::as_str));
        let ran = self.run(&args);
        assert_eq!(ran.status, 0, "{ran}");
    }

    /// The server's pid.
    pub fn pid(&self) -> i32 {
        let pid = self.json(&["server", "status"])["pid"].as_i64().unwrap();
        i32::try_from(pid).unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        kill(self.pid());
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.environment(Command::new(self.programs.clone().unwrap_or_else(bin).join("berth")));
        command.args(args);
        command
    }

    /// A command that finds this server.
    pub fn environment(&self, command: Command) -> Command {
        let mut command = with_home(command, self.path());
        command.env("BERTH_ALLOW_PRIVATE_HOSTS", &self.allowed);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Runs a command with this on its standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        Ran::with_input(&mut self.command(args), input)
    }

    /// What a command that must succeed wrote.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status, 0, "berth {args:?}: {ran}");
        ran.stdout
    }

    /// The JSON of a command that must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[&["--output", "json"], args].concat());
        assert_eq!(ran.status, 0, "berth {args:?}: {ran}");
        ran.json()
    }

    /// What a command that must end with `status` complains of; the same with `--output json`, where the complaint is JSON.
    pub fn fails(&self, args: &[&str], status: i32) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status, status, "berth {args:?}: {ran}");
        let told = ran.stderr.strip_prefix("berth: ").map(str::to_owned);
        let with_json = self.run(&[&["--output", "json"], args].concat());
        assert_eq!(with_json.status, status, "berth --output json {args:?}: {with_json}");
        let error = with_json.error();
        assert_eq!(error["exit_status"], status, "{error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        told.unwrap_or(ran.stderr)
    }

    /// A workspace, once it is in this phase.
    pub fn wait_phase(&self, workspace: &str, phase: &str) -> Value {
        wait_for(&format!("{workspace} to be {phase}"), || {
            let ran = self.run(&["--output", "json", "show", workspace]);
            (ran.status == 0).then(|| ran.json()).filter(|value| value["phase"] == phase)
        })
    }

    /// The first process of a running workspace, as the host sees it.
    pub fn first_process(&self, workspace: &str) -> i32 {
        let instance = self.json(&["show", workspace])["instance_id"].as_str().unwrap().to_owned();
        let file = self.path().join("run/instances").join(instance).join("monitor.json");
        let info: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        i32::try_from(info["container_pid"].as_i64().unwrap()).unwrap()
    }

    /// Nothing of this home is left in the kernel, which takes a moment to take a file system down.
    pub fn assert_nothing_left(&self) {
        self.assert_disks_left(0);
    }

    /// Only the disks of so many stopped workspaces are: a disk stays mounted for as long as the machine runs.
    pub fn assert_disks_left(&self, disks: usize) {
        let mut left = Remains::of(self.path());
        let begun = Instant::now();
        while !left.are_disks(disks) && begun.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(100));
            left = Remains::of(self.path());
        }
        assert!(left.are_disks(disks), "left over: {left:?}");
    }

    /// Deletes every workspace; nothing of them is left.
    pub fn clear(&self) {
        for workspace in self.json(&["list"]).as_array().unwrap() {
            self.ok(&["delete", workspace["id"].as_str().unwrap()]);
        }
        self.assert_nothing_left();
    }

    /// Ends a test that went well: workspaces deleted, server stopped, nothing left on the machine.
    pub fn close(self) {
        self.clear();
        self.ok(&["server", "stop"]);
        self.assert_nothing_left();
        assert_eq!(Remains::processes(self.path()), Vec::<i32>::new(), "after the server's end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path().join("server.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the server's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            if let Some(list) = Some(self.run(&["--output", "json", "list"])).filter(|ran| ran.status == 0) {
                for workspace in list.json().as_array().into_iter().flatten() {
                    self.run(&["delete", workspace["id"].as_str().unwrap_or_default()]);
                }
            }
        }
        // Ends the server, and with it Postgres; what runs in workspaces that could not be deleted is ended too.
        let _ = self.command(&["server", "stop"]).stdin(Stdio::null()).output();
        Remains::end(self.path());
    }
}

/// `kill -9`, and waits until it is gone.
pub fn kill(pid: i32) {
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    wait_for("the end of a killed process", || {
        // Collected by its parent, too: Postgres takes a zombie for a living server.
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}
