//! Runs a command that stops before each of its system calls, so that something can be done at exactly that moment.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;

use anyhow::{Context as _, Result, bail};
use hull_sys::ptrace::{self, Event, FOLLOW_NEW, KILL_ON_EXIT, REPORT_EXEC, Resume};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, Output, patience};

const SIGTRAP: i32 = 5;
const SIGSTOP: i32 = 19;

/// Runs `command` to its end. Whenever it or a process that it made stands before a system call that takes paths, `before` is told them.
pub(crate) fn run(command: &mut Command, before: &mut dyn FnMut(&[String]) -> Result<()>) -> Result<Output> {
    ptrace::trace_from_exec(command);
    command::run_by(command, None, |child| follow(child, before))
}

fn follow(child: &mut Child, before: &mut dyn FnMut(&[String]) -> Result<()>) -> Result<ExitStatus> {
    let root = i32::try_from(child.id())?;
    let (done, over) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = over.recv_timeout(patience()) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            kill(root);
        }
        late
    });
    let status = until_end(root, before);
    drop(done);
    if watch.join().unwrap_or(true) {
        bail!("still running after {} s, followed from call to call", patience().as_secs());
    }
    status
}

fn kill(pid: i32) {
    // One that is gone meanwhile needs no signal.
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

/// A process that was killed meanwhile cannot go on.
fn unless_gone<T>(result: Result<T, Errno>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn until_end(root: i32, before: &mut dyn FnMut(&[String]) -> Result<()>) -> Result<ExitStatus> {
    let mut followed = BTreeSet::new();
    let mut status = None;
    let mut outcome = Ok(());
    // Also after the command's own end: whoever is left must not stay stopped.
    while let Some((pid, event)) = ptrace::wait()? {
        let new = followed.insert(pid);
        let signal = match event {
            Event::Exited(code) | Event::Killed(code) => {
                followed.remove(&pid);
                if pid == root {
                    let killed = matches!(event, Event::Killed(_));
                    status = Some(ExitStatus::from_raw(if killed { code } else { code << 8 }));
                    followed.iter().copied().for_each(kill);
                }
                continue;
            }
            Event::Syscall => {
                if let Some(Some(call)) = unless_gone(ptrace::entered_syscall(pid))? {
                    let paths = paths(pid, &call.args);
                    if outcome.is_ok() && !paths.is_empty() {
                        outcome = before(&paths);
                    }
                }
                0
            }
            Event::Signal(SIGTRAP) if new && pid == root => {
                unless_gone(ptrace::set_options(pid, FOLLOW_NEW | REPORT_EXEC | KILL_ON_EXIT))?;
                0
            }
            // Its first moment.
            Event::Signal(SIGSTOP) if new => 0,
            Event::Signal(signal) => signal,
            Event::Exec | Event::New | Event::Stop => 0,
        };
        unless_gone(ptrace::resume(pid, Resume::Syscall, signal))?;
    }
    outcome?;
    status.context("the command is lost")
}

/// Those of a call's arguments that look like paths in the process' memory.
fn paths(pid: i32, args: &[u64; 6]) -> Vec<String> {
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return Vec::new() };
    let path = |address: &u64| {
        let mut bytes = vec![0; 4096];
        // Cut off where the next page is not mapped.
        let read = memory.read_at(&mut bytes, *address).ok()?;
        let text = bytes.get(..read)?.split(|byte| *byte == 0).next()?;
        let text = std::str::from_utf8(text).ok()?;
        (!text.is_empty() && !text.contains(['"', '\n'])).then(|| text.to_owned())
    };
    args.iter().filter(|address| **address > 4096).filter_map(path).collect()
}
