//! Runs the OCI runtime for a container, and reads what the kernel says about the container's memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hull_sys::sandbox_process::{close_on_exec_from, fork, place_descriptor, reset_signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, pidfd_open,
    set_parent_process_death_signal, waitpid,
};

use super::report::Failure;
use super::{Spec, timeline};

/// Name of the runtime's log in the state directory.
const RUNTIME_LOG: &str = "runtime.log";
/// Name of the file that the runtime writes the container's pid to.
const PID_FILE: &str = "container.pid";

fn failure(step: &str, message: impl Into<String>) -> Failure {
    Failure { step: step.to_owned(), message: message.into() }
}

/// `create`: the container's first process exists afterwards and is this process's child (it is a subreaper).
pub(super) fn create(spec: &Spec, listener: &OwnedFd, output: BorrowedFd<'_>) -> Result<Pid, Failure> {
    let pid_file = spec.state_dir.join(PID_FILE);
    let _ = std::fs::remove_file(&pid_file);
    let mut command = runtime(spec);
    if spec.timeline {
        command.arg("--timeline").arg(spec.state_dir.join(timeline::FILE));
    }
    command.arg("create").arg("--bundle").arg(&spec.bundle).arg("--pid-file").arg(&pid_file);
    command.args(["--preserve-fds", "1"]).args(&spec.create_args).arg(&spec.container_id);
    run(spec, "create", command, Some(listener), output)?;
    let text = std::fs::read_to_string(&pid_file)
        .map_err(|error| failure("create", format!("it succeeded, but its pid file cannot be read: {error}")))?;
    text.trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| failure("create", format!("its pid file holds {text:?} instead of a pid")))
}

/// `start`: the container's program runs afterwards.
pub(super) fn start(spec: &Spec, output: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut command = runtime(spec);
    command.arg("start").arg(&spec.container_id);
    run(spec, "start", command, None, output)
}

/// `delete --force`, after a failed start. Best effort: the agent does the same again.
pub(super) fn delete(spec: &Spec, output: BorrowedFd<'_>) {
    let mut command = runtime(spec);
    command.args(["delete", "--force"]).arg(&spec.container_id);
    let _ = run(spec, "delete", command, None, output);
}

fn runtime(spec: &Spec) -> Command {
    let mut command = Command::new(&spec.runtime);
    command.args(&spec.runtime_args);
    command.arg("--log").arg(spec.state_dir.join(RUNTIME_LOG)).args(["--log-format", "json"]);
    command
}

/// Runs the runtime with the container's output as its own (that is how the container gets it) and waits for it.
fn run(
    spec: &Spec,
    step: &str,
    mut command: Command,
    listener: Option<&OwnedFd>,
    output: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let log_path = spec.state_dir.join(RUNTIME_LOG);
    let log_start = std::fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
    let null =
        File::open("/dev/null").map_err(|error| failure(step, format!("/dev/null cannot be opened: {error}")))?;
    let monitor = getpid();
    // Forked, not spawned by `Command`: the listening socket must be at exactly number 3.
    let pid = fork(|| {
        // A runtime that outlived its monitor would make a container that nobody knows of.
        let bound = set_parent_process_death_signal(Some(Signal::KILL));
        if bound.is_err() || getppid() != Some(monitor) {
            return 126;
        }
        let placed = reset_signals()
            .and_then(|()| close_on_exec_from(3))
            .and_then(|()| place_descriptor(output, 1))
            .and_then(|()| place_descriptor(output, 2))
            .and_then(|()| place_descriptor(null.as_fd(), 0))
            .and_then(|()| listener.map_or(Ok(()), |listener| place_descriptor(listener.as_fd(), 3)));
        if placed.is_err() {
            return 126;
        }
        let _error = command.exec();
        127
    })
    .map_err(|errno| failure(step, format!("a process cannot be forked: {errno}")))?;

    let status = wait(pid, Duration::from_millis(spec.runtime_timeout_ms))
        .map_err(|error| failure(step, format!("{} cannot be waited for: {error}", spec.runtime.display())))?;
    let Some(status) = status else {
        return Err(failure(
            step,
            format!("{} gave no answer in {} ms", spec.runtime.display(), spec.runtime_timeout_ms),
        ));
    };
    match status.exit_status() {
        Some(0) => Ok(()),
        Some(127) if !spec.runtime.exists() => Err(failure(step, format!("{} does not exist", spec.runtime.display()))),
        _ => Err(failure(step, last_error(&log_path, log_start).unwrap_or_else(|| describe(status)))),
    }
}

/// Waits for one child; kills it after `timeout` and then returns `None`.
fn wait(pid: Pid, timeout: Duration) -> io::Result<Option<WaitStatus>> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + timeout;
    let mut in_time = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                in_time = false;
                kill_process(pid, Signal::KILL)?;
                break;
            }
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let status = waitpid(Some(pid), WaitOptions::empty())?;
    Ok(status.filter(|_| in_time).map(|(_, status)| status))
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it ended with status {code} and logged no error"),
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        _ => "it ended in an unknown way".to_owned(),
    }
}

/// The message of the last error in the part of the runtime's JSON log that was written since `from`.
fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = String::new();
    file.take(256 * 1024).read_to_string(&mut text).ok()?;
    let parsed =
        text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|entry| {
            let level = entry.get("level").and_then(serde_json::Value::as_str).unwrap_or("error");
            let message = entry.get("msg").and_then(serde_json::Value::as_str)?;
            matches!(level, "error" | "fatal" | "panic").then(|| message.to_owned())
        });
    parsed.or_else(|| text.lines().next_back().map(str::to_owned)).map(|message| {
        let end = message.char_indices().map(|(index, _)| index).nth(2000).unwrap_or(message.len());
        message.get(..end).unwrap_or_default().to_owned()
    })
}

/// Where the kernel counts processes of a cgroup that were killed for memory.
#[derive(Debug, Default)]
pub(super) struct OomCounter {
    file: Option<PathBuf>,
}

impl OomCounter {
    /// Finds the counter of the cgroup that `pid` is in: `memory.events` on v2, `memory.oom_control` on v1.
    pub(super) fn of(pid: Pid) -> Self {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap_or_default();
        let v1 = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let file = match (v1, v2) {
            (Some(path), _) => {
                Some(Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')).join("memory.oom_control"))
            }
            (None, Some(path)) => {
                Some(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).join("memory.events"))
            }
            (None, None) => None,
        };
        Self { file: file.filter(|file| file.exists()) }
    }

    /// The number of processes that were killed; `None` if it cannot be known.
    pub(super) fn kills(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_found_after_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let old = "{\"level\":\"error\",\"msg\":\"old\"}\n";
        let new = "{\"level\":\"error\",\"msg\":\"no such file\",\"time\":\"x\"}\n{\"level\":\"warning\",\"msg\":\"later\"}\n";
        std::fs::write(&path, format!("{old}{new}")).unwrap();
        let from = u64::try_from(old.len()).unwrap();
        assert_eq!(last_error(&path, from).as_deref(), Some("no such file"));
        assert_eq!(last_error(&path, from + u64::try_from(new.len()).unwrap()), None);
    }
}
