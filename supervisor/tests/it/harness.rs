//! A `berth-init` as process 1 of a pid namespace of its own, and a client for it.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_supervisor_protocol::client::{Client, ClientError, Incoming};
use berth_supervisor_protocol::{ErrorCode, Event, Exec, ExitStatus, Kind, Reply, Request};

/// The program under test: the one that was just built, or `BERTH_TEST_INIT`, for the static one.
pub(crate) fn berth_init() -> String {
    std::env::var("BERTH_TEST_INIT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_berth-init").to_owned())
}

/// Says why a test does nothing, and whether it shall.
pub(crate) fn skip_unless_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: this test needs to be root");
    }
    !root
}

/// Open files that what a supervisor starts may have at first.
pub(crate) const SOFT_OPEN_FILES: u64 = 512;

/// A supervisor in its own pid and mount namespace, on the host's files.
pub(crate) struct Supervisor {
    dir: tempfile::TempDir,
    child: Child,
}

impl Supervisor {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run_dir = dir.path().join("run");
        let listener = UnixListener::bind(dir.path().join("supervisor.sock")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
        // The listening socket comes as standard input, the only way in without unsafe code here.
        command
            .arg(format!("ulimit -Sn {SOFT_OPEN_FILES}; exec 3<&0 0</dev/null; exec \"$@\""))
            .arg("sh")
            .arg(berth_init());
        command.args(["init", "--listen-fd", "3", "--run-dir"]).arg(run_dir).args(options);
        let child = command.stdin(Stdio::from(OwnedFd::from(listener))).env("LC_ALL", "C").spawn().unwrap();
        let supervisor = Self { dir, child };
        assert!(matches!(supervisor.client().request(&Request::Hello).unwrap(), Reply::Hello(_)));
        supervisor
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("supervisor.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    pub(crate) fn client(&self) -> Client<UnixStream> {
        Client::new(self.stream())
    }

    /// Pid of process 1, on the host.
    pub(crate) fn pid(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        std::fs::read_to_string(path).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// A field of `/proc/<pid>/status` of process 1, in KiB.
    pub(crate) fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn reply(&self, request: &Request) -> Reply {
        self.client().request(request).unwrap()
    }

    pub(crate) fn refusal(&self, request: &Request) -> (ErrorCode, String) {
        match self.client().request(request) {
            Err(ClientError::Refused { code, message }) => (code, message),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, exec: Exec) -> Output {
        let mut client = self.client();
        assert!(matches!(client.request(&Request::Exec(exec)).unwrap(), Reply::Started { .. }));
        collect(&mut client)
    }

    pub(crate) fn sh(&self, line: &str) -> Output {
        self.run(sh(line))
    }

    /// Waits for the supervisor's own end.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sh -c line`.
pub(crate) fn sh(line: &str) -> Exec {
    Exec { argv: ["sh", "-c", line].map(str::to_owned).to_vec(), ..Exec::default() }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: ExitStatus,
}

impl Output {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap().trim_end()
    }
}

/// Reads until the command has ended.
pub(crate) fn collect(client: &mut Client<UnixStream>) -> Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Bytes(Kind::Stdout, bytes)) => stdout.extend(bytes),
            Some(Incoming::Bytes(Kind::Stderr, bytes)) => stderr.extend(bytes),
            Some(Incoming::Event(Event::Exited(status))) => return Output { stdout, stderr, status },
            Some(Incoming::Event(Event::Resized(_) | Event::Window { .. })) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// Reads output until it contains `wanted`.
pub(crate) fn read_until(client: &mut Client<UnixStream>, wanted: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Bytes(Kind::Stdout, bytes)) => seen.extend(bytes),
            Some(Incoming::Event(Event::Resized(_) | Event::Lagged { .. })) => {}
            other => panic!("{other:?} before {wanted:?} came; so far: {}", String::from_utf8_lossy(&seen)),
        }
        let text = String::from_utf8_lossy(&seen);
        if text.contains(wanted) {
            return text.into_owned();
        }
    }
}

/// Asks again until it is so; fails after half a minute. Between two questions it waits on a pipe nobody writes to.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let (read, _write) = rustix::pipe::pipe().unwrap();
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _ =
            rustix::event::poll(&mut [rustix::event::PollFd::new(&read, rustix::event::PollFlags::IN)], Some(&pause));
    }
}
