//! Containers from other programs, also ones with many threads or an async runtime.
//!
//! Every operation runs the `hull` program: a copy of a threaded process could dead-lock on a lock that another thread
//! held, so none is ever made. No state is kept in the process: no working directory, no signal handler, no environment
//! changes. Standard streams are given as descriptors. All calls block for as long as the runtime works; in async code
//! run them on a blocking thread and wait for the end by [`Running::pidfd`].

#[macro_use]
mod streams;
mod builder;
mod exec;
mod session;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::Deserialize;

use crate::container::exit;
use crate::error::{Code, Context, Error, Result, errno_of};
use crate::files;
use crate::spec::{Process, Resources, Spec};
use crate::time::Deadline;

pub use builder::ContainerBuilder;
pub use exec::{Exec, Executing};
pub use session::{ExecSession, SessionExec, SessionProcess};

/// Changes what a container runs before it is created: another workload is another program as `process.args`, started
/// by the runtime in the fresh process, never in a copy of the embedding one.
///
/// ```
/// use hull::{Executor, Result, spec::Spec};
///
/// struct Emulator;
///
/// impl Executor for Emulator {
///     fn takes(&self, spec: &Spec) -> bool {
///         spec.annotations.contains_key("com.example.emulate")
///     }
///
///     fn prepare(&self, spec: &mut Spec) -> Result<()> {
///         if let Some(process) = &mut spec.process {
///             process.args.insert(0, "/opt/emulator".into());
///         }
///         Ok(())
///     }
/// }
///
/// let mut spec: Spec = serde_json::from_str(
///     r#"{"process": {"args": ["/bin/app"], "cwd": "/"}, "annotations": {"com.example.emulate": "arm64"}}"#,
/// ).unwrap();
/// assert!(Emulator.takes(&spec));
/// Emulator.prepare(&mut spec)?;
/// assert_eq!(spec.process.unwrap().args, ["/opt/emulator", "/bin/app"]);
/// # Ok::<(), hull::Error>(())
/// ```
pub trait Executor {
    /// Whether this executor takes the container; by its annotations, for example.
    ///
    /// ```
    /// # struct Wasm;
    /// # impl hull::Executor for Wasm {
    /// fn takes(&self, spec: &hull::spec::Spec) -> bool {
    ///     let program = spec.process.as_ref().and_then(|process| process.args.first());
    ///     program.is_some_and(|program| program.ends_with(".wasm"))
    /// }
    /// # fn prepare(&self, _: &mut hull::spec::Spec) -> hull::Result<()> { Ok(()) }
    /// # }
    /// ```
    fn takes(&self, spec: &Spec) -> bool;

    /// Changes the configuration: program, mounts, environment.
    ///
    /// # Errors
    /// What keeps the workload from being run; the container is then not created.
    ///
    /// ```
    /// # use hull::{Code, Error, spec::Spec};
    /// # struct Wasm;
    /// # impl hull::Executor for Wasm {
    /// # fn takes(&self, _: &Spec) -> bool { true }
    /// fn prepare(&self, spec: &mut Spec) -> hull::Result<()> {
    ///     let Some(process) = &mut spec.process else {
    ///         return Err(Error::new(Code::ConfigInvalid, "process").says("a module needs a process"));
    ///     };
    ///     process.args.insert(0, "/opt/engine".into());
    ///     Ok(())
    /// }
    /// # }
    /// ```
    fn prepare(&self, spec: &mut Spec) -> Result<()>;
}

/// An installed runtime and where it keeps its records.
///
/// ```no_run
/// use hull::{Runtime, spec::Spec};
///
/// let runtime = Runtime::new("/usr/bin/hull").root("/run/my-program/hull");
/// let container = runtime.create("web", "/srv/bundles/web").spec(Spec::default()).create()?;
/// let running = container.start()?;
/// assert!(running.wait()?.is_some_and(|status| status == 0));
/// container.delete(false)?;
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
    root: Option<PathBuf>,
    systemd: bool,
}

impl Runtime {
    /// The runtime of that program file.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// assert!(runtime.list()?.is_empty());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), root: None, systemd: false }
    }

    /// Where the records are; without it, where the program puts them.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull").root("/run/my-program/hull");
    /// # Ok::<(), hull::Error>(())
    /// ```
    #[must_use]
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// Lets systemd make the cgroups.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull").systemd(true);
    /// # Ok::<(), hull::Error>(())
    /// ```
    #[must_use]
    pub fn systemd(mut self, on: bool) -> Self {
        self.systemd = on;
        self
    }

    /// Begins a container from a bundle directory.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let container = runtime.create("web", "/srv/bundles/web").create()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn create(&self, id: impl Into<String>, bundle: impl Into<PathBuf>) -> ContainerBuilder {
        ContainerBuilder::new(self.clone(), id.into(), bundle.into())
    }

    /// A handle of a container that exists, or will.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("{}", runtime.container("web").state()?.status);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn container(&self, id: impl Into<String>) -> Container {
        Container { runtime: self.clone(), id: id.into() }
    }

    /// All containers.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// for state in runtime.list()? {
    ///     println!("{} {}", state.id, state.status);
    /// }
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn list(&self) -> Result<Vec<ContainerState>> {
        match self.call(&["list", "--format", "json"]) {
            Ok(output) => parse(&output),
            // Nothing was ever created below this root.
            Err(e) if self.root.is_some() && e.code() == Code::StateFile && e.errno() == Some(Errno::NOENT) => {
                Ok(Vec::new())
            }
            Err(e) => Err(e),
        }
    }

    /// The command with its global flags, logging to a memory file.
    fn command(&self) -> Result<(Command, OwnedFd)> {
        let log = rustix::fs::memfd_create("hull-log", MemfdFlags::CLOEXEC).context(Code::Internal, "log")?;
        let mut command = Command::new(&self.program);
        // Another process opens it through this path; the descriptor itself is not inherited.
        let path = format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd());
        command.args(["--log-format", "json", "--log", &path]);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        Ok((command, log))
    }

    fn call(&self, args: &[&str]) -> Result<Vec<u8>> {
        let (mut command, log) = self.command()?;
        command.args(args).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().map_err(|e| self.not_started(&e))?;
        if output.status.success() { Ok(output.stdout) } else { Err(logged(&log, output.status)) }
    }

    fn not_started(&self, error: &std::io::Error) -> Error {
        Error::of_io(Code::Exec, self.program.display().to_string(), error)
    }
}

/// The null device, for a stream that was not given.
fn null() -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).context(Code::Descriptors, "/dev/null")
}

/// What the program printed, as a value.
fn parse<T: serde::de::DeserializeOwned>(output: &[u8]) -> Result<T> {
    serde_json::from_slice(output)
        .map_err(|e| Error::new(Code::Internal, "output").says(format!("output of hull: {e}")))
}

/// One line of the JSON log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogLine {
    level: String,
    msg: String,
    code: String,
    object: String,
    errno: Option<i32>,
    hint: String,
}

/// The error that a failed command logged, as a value.
fn logged(log: &OwnedFd, status: ExitStatus) -> Error {
    logged_error(log).unwrap_or_else(|| {
        Error::new(Code::Internal, "hull").says(format!("the runtime ended with {status} and said nothing"))
    })
}

/// The last error of a log, which may hold warnings too.
fn logged_error(log: &OwnedFd) -> Option<Error> {
    let _ = rustix::fs::seek(log, rustix::fs::SeekFrom::Start(0));
    let bytes = files::read_all(log, 1 << 20).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().rev().filter_map(|l| serde_json::from_str::<LogLine>(l).ok());
    let line = lines.find(|l| l.level == "error")?;
    Some(match Code::parse(&line.code) {
        Some(code) => Error::from_log(code, line.object, line.errno.and_then(errno_of), line.hint, &line.msg),
        None => Error::new(Code::Internal, line.code).says(line.msg),
    })
}

/// What the runtime says about a container.
///
/// ```
/// use hull::ContainerState;
///
/// // As `hull state` prints it.
/// let state: ContainerState = serde_json::from_str(r#"{"id": "web", "status": "stopped", "exitStatus": 3}"#)?;
/// assert_eq!((state.status.as_str(), state.exit_status), ("stopped", Some(3)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// The id.
    pub id: String,
    /// `creating`, `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Process id, 0 when stopped.
    pub pid: i32,
    /// Start time of the process in clock ticks after boot.
    pub pid_start_time: Option<u64>,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// When it was created (RFC 3339).
    pub created: String,
    /// Exit status, once known.
    pub exit_status: Option<i32>,
}

/// A container.
///
/// ```no_run
/// use hull::{Code, Runtime};
///
/// // Made by this process, another one, or an engine: the records are shared.
/// let container = Runtime::new("/usr/bin/hull").container("web");
/// match container.state() {
///     Ok(state) if state.status == "running" => container.signal(15)?,
///     Ok(_) => container.delete(false)?,
///     Err(error) if error.code() == Code::NotFound => println!("there is no {}", container.id()),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Container {
    runtime: Runtime,
    id: String,
}

impl Container {
    /// The id.
    ///
    /// ```no_run
    /// assert_eq!(hull::Runtime::new("/usr/bin/hull").container("web").id(), "web");
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its state now.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let state = runtime.container("web").state()?;
    /// assert_eq!(state.status, "running");
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn state(&self) -> Result<ContainerState> {
        let output = self.runtime.call(&["state", &self.id])?;
        parse(&output)
    }

    /// Lets the process run its program.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let running = runtime.container("web").start()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn start(&self) -> Result<Running> {
        // The handle is opened first: the program may end at once.
        let running = self.running()?;
        self.runtime.call(&["start", &self.id])?;
        Ok(running)
    }

    /// A handle of the process.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("process {}", runtime.container("web").running()?.pid());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn running(&self) -> Result<Running> {
        let state = self.state()?;
        let gone = || Error::new(Code::WrongState, self.id.as_str()).says("container not running");
        let pid = Pid::from_raw(state.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        // Still the same process after opening; otherwise the number was reused.
        let same = crate::container::store::process_stat(state.pid).map(|s| s.0) == state.pid_start_time;
        let start_time = state.pid_start_time.filter(|_| same).ok_or_else(gone)?;
        Ok(Running { pid: state.pid, start_time, pidfd })
    }

    /// Sends a signal to its first process.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// runtime.container("web").signal(15)?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.runtime.call(&["kill", &self.id, &signal.to_string()]).map(drop)
    }

    /// Stops all processes for a while.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let container = runtime.container("web");
    /// container.pause()?;
    /// container.resume()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pause(&self) -> Result<()> {
        self.runtime.call(&["pause", &self.id]).map(drop)
    }

    /// Lets them run on.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// runtime.container("web").resume()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn resume(&self) -> Result<()> {
        self.runtime.call(&["resume", &self.id]).map(drop)
    }

    /// Changes limits.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// use hull::spec::resources::{Pids, Resources};
    /// let limits = Resources { pids: Some(Pids { limit: Some(100) }), ..Resources::default() };
    /// runtime.container("web").update(&limits)?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn update(&self, resources: &Resources) -> Result<()> {
        let file = rustix::fs::memfd_create("resources", MemfdFlags::CLOEXEC).context(Code::Internal, "resources")?;
        let bytes =
            serde_json::to_vec(resources).map_err(|e| Error::new(Code::Internal, "resources").says(e.to_string()))?;
        files::write_all(&file, &bytes).context(Code::Internal, "resources")?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.runtime.call(&["update", "--resources", &path, &self.id]).map(drop)
    }

    /// Statistics as `hull events --stats` prints them.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("{}", runtime.container("web").stats()?["data"]["pids"]);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn stats(&self) -> Result<serde_json::Value> {
        let output = self.runtime.call(&["events", "--stats", &self.id])?;
        parse(&output)
    }

    /// Ids of all its processes, as the host has them.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("{} processes", runtime.container("web").processes()?.len());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn processes(&self) -> Result<Vec<i32>> {
        let output = self.runtime.call(&["ps", "--format", "json", &self.id])?;
        parse(&output)
    }

    /// Begins a further process.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let process = hull::spec::Process { args: vec!["/bin/date".into()], cwd: "/".into(), ..Default::default() };
    /// assert_eq!(runtime.container("web").exec(process).spawn()?.wait()?, 0);
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn exec(&self, process: Process) -> Exec {
        Exec::new(self.clone(), process)
    }

    /// Opens a session for programs that are run in it again and again.
    ///
    /// # Errors
    /// [`Code::WrongState`] when it does not run.
    ///
    /// ```no_run
    /// let session = hull::Runtime::new("/usr/bin/hull").container("web").exec_session()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn exec_session(&self) -> Result<ExecSession> {
        ExecSession::open(self)
    }

    /// Deletes it; with `force`, kills it first, and one that does not exist is fine.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// runtime.container("web").delete(true)?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn delete(&self, force: bool) -> Result<()> {
        let args: &[&str] = if force { &["delete", "--force", &self.id] } else { &["delete", &self.id] };
        self.runtime.call(args).map(drop)
    }
}

/// A container's running process.
///
/// ```no_run
/// let container = hull::Runtime::new("/usr/bin/hull").container("web");
/// let running = container.start()?;
/// println!("process {} runs", running.pid());
/// // The handle stays that process' even when its number is given to another.
/// match running.wait()? {
///     Some(status) => println!("it ended with {status}"),
///     None => println!("it ended, and somebody else has the status"),
/// }
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct Running {
    pid: i32,
    start_time: u64,
    pidfd: OwnedFd,
}

impl Running {
    /// Its id.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// println!("process {}", runtime.container("web").running()?.pid());
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the process ends: what async code waits for.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// let running = runtime.container("web").running()?;
    /// let ended = poll(&mut [PollFd::new(&running.pidfd(), PollFlags::IN)], None).is_ok();
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end; gives the exit code, or 128 plus the signal. The parent's right to the status is left alone: it
    /// is the caller if that is a subreaper. `None` where another is the parent and the kernel is before 6.15, or the parent
    /// does not take the status for ten seconds.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// if let Some(status) = runtime.container("web").running()?.wait()? {
    ///     println!("ended with {status}");
    /// }
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn wait(&self) -> Result<Option<i32>> {
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
            }
        }
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(status)) = waitid(WaitId::PidFd(self.pidfd.as_fd()), look) {
            return Ok(status.exit_status().or_else(|| status.terminating_signal().map(|s| s.saturating_add(128))));
        }
        // It stays a zombie until its parent takes the status; from then on the kernel also gives the status to others (POLLHUP). Some inits
        // look for orphans only now and then.
        if let Some(status) = exit::of_zombie(self.pid, self.start_time) {
            return Ok(Some(status));
        }
        let deadline = Deadline::after_ms(10_000);
        while let Ok(info) = hull_sys::pidfd::info(self.pidfd.as_fd()) {
            if let Some(code) = info.exit_code {
                return Ok(Some(exit::shell_status(code)));
            }
            let Some(left) = deadline.left() else { break };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::HUP)], Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Error::os(Code::Internal, "poll", e)),
            }
        }
        Ok(None)
    }
}
