//! `berth-init monitor`: the process itself. Standard input is the report socket to the agent, whose first message is the [`Spec`] with
//! the workspace's listening socket.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use hull_sys::sandbox_process::{close_inherited_from, ignore_signals, signal_descriptor};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, set_child_subreaper, setsid, wait};
use rustix::time::{ClockId, clock_gettime};

use super::container::{self, OomCounter};
use super::log::OutputLog;
use super::report::{Failure, Phase, Started};
use super::{EXIT_FILE, Exit, MONITOR_FILE, MonitorInfo, Outcome, Spec};
use crate::{Identity, message, persist};

/// Runs the role until the container has ended. Returns the exit status.
pub fn main() -> i32 {
    close_inherited_from(3);
    let agent = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(agent) => agent,
        Err(_) => return 2,
    };
    let (spec, fds) = match message::receive::<Spec>(&agent) {
        Ok(received) => received,
        Err(_) => return 2,
    };
    let Some(listener) = fds.into_iter().next() else { return 2 };
    match monitor(&spec, &agent, listener) {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody may be left to read it; `exit.json` has it too.
            let exit = Exit::new(Outcome::NotStarted(failure.clone()), false, now_ms());
            let _ = persist::write(&spec.state_dir, EXIT_FILE, &exit, true);
            let _ = message::send(&agent, &Phase::Failed(failure), &[]);
            1
        }
    }
}

fn failed(step: &str) -> impl Fn(Errno) -> Failure + '_ {
    move |errno| Failure { step: step.to_owned(), message: errno.to_string() }
}

/// Unix time in milliseconds.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let (seconds, millis) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec / 1_000_000));
    seconds.unwrap_or(0).saturating_mul(1000).saturating_add(millis.unwrap_or(0))
}

fn monitor(spec: &Spec, agent: &OwnedFd, listener: OwnedFd) -> Result<(), Failure> {
    // Detached from the agent: its terminal, its signals, its death.
    setsid().map_err(failed("make a session"))?;
    ignore_signals(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::PIPE]);
    rustix::process::chdir("/").map_err(failed("enter /"))?;
    // The runtime's child, the container, becomes ours when the runtime has ended.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("become a subreaper"))?;
    let signals = signal_descriptor(&[Signal::CHILD]).map_err(failed("watch for ended processes"))?;

    let me = Identity::of(std::process::id())
        .map_err(|error| Failure { step: "identify itself".to_owned(), message: error.to_string() })?;
    let mut info = MonitorInfo { monitor: me, container_id: spec.container_id.clone(), container_pid: None };
    persisted(spec, &info)?;
    let mut log = OutputLog::open(&spec.state_dir, spec.log_max_bytes).map_err(|error| Failure {
        step: "open output.log".to_owned(),
        message: format!("in {}: {error}", spec.state_dir.display()),
    })?;
    // stdout of the monitor is a file or /dev/null given by the agent: keep nothing of it.
    let _ = std::io::stdout().flush();

    let (output, output_end) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe for the output"))?;
    rustix::io::ioctl_fionbio(&output, true).map_err(failed("make a pipe for the output"))?;

    let begun = Instant::now();
    let container = container::create(spec, &listener, output_end.as_fd()).inspect_err(|_| {
        copy(&output, &mut log);
        container::delete(spec, log.file().as_fd());
    })?;
    let create_us = micros(begun);
    drop(listener);
    let container_pid = u32::try_from(container.as_raw_nonzero().get()).unwrap_or(0);
    info.container_pid = Some(container_pid);
    persisted(spec, &info)?;
    // An agent that has died in the meantime finds the container by `monitor.json`.
    let _ = message::send(agent, &Phase::Created { container_pid, elapsed_us: create_us }, &[]);
    let oom = OomCounter::of(container);

    let begun = Instant::now();
    container::start(spec, output_end.as_fd()).inspect_err(|_| {
        copy(&output, &mut log);
        container::delete(spec, log.file().as_fd());
    })?;
    let start_us = micros(begun);
    drop(output_end);
    let _ = message::send(agent, &Phase::Started(Started { container_pid, create_us, start_us }), &[]);
    leave(agent);

    let status = watch(container, &signals, &output, &mut log)?;
    let oom_killed = oom.kills().is_some_and(|kills| kills > 0);
    let outcome = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Outcome::Code(code),
        (None, Some(signal)) => Outcome::Signal(signal),
        (None, None) => Outcome::Unknown,
    };
    persist::write(&spec.state_dir, EXIT_FILE, &Exit::new(outcome, oom_killed, now_ms()), true).map_err(|error| {
        Failure { step: "write exit.json".to_owned(), message: format!("in {}: {error}", spec.state_dir.display()) }
    })
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn persisted(spec: &Spec, info: &MonitorInfo) -> Result<(), Failure> {
    // Not synced: it only matters within this boot, and a sync costs milliseconds of every start.
    persist::write(&spec.state_dir, MONITOR_FILE, info, false).map_err(|error| Failure {
        step: "write monitor.json".to_owned(),
        message: format!("in {}: {error}", spec.state_dir.display()),
    })
}

/// Gives up the agent's socket, under both its numbers: a long-lived monitor must not keep anything of the agent open.
fn leave(agent: &OwnedFd) {
    let _ = rustix::net::shutdown(agent, rustix::net::Shutdown::Both);
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(null);
    }
}

/// Copies output and reaps until the container has ended; then what is still in the pipe.
fn watch(container: Pid, signals: &OwnedFd, output: &OwnedFd, log: &mut OutputLog) -> Result<WaitStatus, Failure> {
    let mut open = true;
    loop {
        if let Some(status) = reap(container)? {
            copy(output, log);
            return Ok(status);
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(output, PollFlags::IN)];
        let watched = if open { fds.as_mut_slice() } else { fds.get_mut(..1).unwrap_or_default() };
        match poll(watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("wait for the container")(errno)),
        }
        if open {
            open = copy(output, log);
        }
        let mut drained = [0u8; 1280];
        // What is read does not matter: every child is checked above.
        let _ = rustix::io::read(signals, &mut drained);
    }
}

/// Reaps every ended child; gives the container's status when it is among them.
fn reap(container: Pid) -> Result<Option<WaitStatus>, Failure> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == container => found = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(found),
            Err(Errno::CHILD) if found.is_some() => return Ok(found),
            // The container is our child until we have reaped it: without children it was never ours.
            Err(errno) => return Err(failed("wait for the container")(errno)),
        }
    }
}

/// Moves what is in the pipe to the log; false at its end.
fn copy(output: impl AsFd, log: &mut OutputLog) -> bool {
    copy_borrowed(output.as_fd(), log)
}

fn copy_borrowed(output: BorrowedFd<'_>, log: &mut OutputLog) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    // Bounded, so that a container which never stops writing cannot keep its own end from being noticed.
    for _ in 0..64 {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            Ok(len) => log.write(buffer.get(..len).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}
