//! Running hooks.
//!
//! A hook gets its configured environment and nothing else, and the state on its standard input. Its working directory is
//! the bundle, for `createContainer` the root file system, and for `startContainer` the container's root. What it writes
//! becomes part of the error when it fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Code, Context, Error, Result};
use crate::log;
use crate::spec::Hook;
use crate::time::Deadline;

/// How much of a hook's output is kept for the error.
const OUTPUT_KEPT: usize = 2000;

/// Runs hooks in their order; stops at the first that fails.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &[u8], cwd: Option<&str>, default_env: &[String]) -> Result<()> {
    let mut numbered = hooks.iter().enumerate();
    numbered.try_for_each(|(index, hook)| run_one(&name(kind, index, hook), hook, state, cwd, default_env))
}

/// Runs all hooks in their order, even after failures, and logs each failure as a warning.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &[u8], cwd: Option<&str>) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(&name(kind, index, hook), hook, state, cwd, &[]) {
            log::warn(&error.to_string());
        }
    }
}

fn name(kind: &str, index: usize, hook: &Hook) -> String {
    format!("{kind} hook #{index}: {}", hook.path)
}

/// Checks the specification's requirements on a hook.
pub(crate) fn check(kind: &str, hooks: &[Hook]) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        let invalid = |field: &str, what: &str| {
            Err(Error::invalid(format!("hooks.{kind}[{index}].{field}"), format!("hooks.{kind} {}: {what}", hook.path)))
        };
        if !hook.path.starts_with('/') {
            return invalid("path", "the path must be absolute");
        }
        if hook.timeout.is_some_and(|t| t <= 0) {
            return invalid("timeout", "the timeout must be above zero");
        }
        if hook.env.iter().any(|v| v.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
            return invalid("env", "a variable of its environment is not NAME=value");
        }
    }
    Ok(())
}

fn run_one(name: &str, hook: &Hook, state: &[u8], cwd: Option<&str>, default_env: &[String]) -> Result<()> {
    let fail = |what: String| Error::new(Code::Hook, hook.path.as_str()).says(format!("{name}: {what}"));
    let io = |what: &str, e: &std::io::Error| fail(format!("{what}: {e}"));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(
        Code::Hook,
        &hook.path,
        &format!("{name}: pipe"),
    )?;
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    command.env_clear();
    let environment = if hook.env.is_empty() { default_env } else { &hook.env };
    for variable in environment {
        if let Some((key, value)) = variable.split_once('=') {
            command.env(key, value);
        }
    }
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let second = writer.try_clone().map_err(|e| io("pipe", &e))?;
    command.stdin(Stdio::piped()).stdout(Stdio::from(writer)).stderr(Stdio::from(second));
    let mut child = command.spawn().map_err(|e| io("cannot be started", &e))?;
    // The command also holds the pipe's writing end: until it is dropped, the end of the output would never come.
    drop(command);
    let input = child.stdin.take().map(|stdin| (OwnedFd::from(stdin), state));
    let deadline = hook.timeout.and_then(|t| u32::try_from(t).ok()).map(|t| Deadline::after_ms(t.saturating_mul(1000)));
    let mut output = Vec::new();
    let finished = handle_of(&child)
        .and_then(|pidfd| follow(reader.as_fd(), pidfd.as_ref().map(AsFd::as_fd), deadline, input, &mut output));
    if finished != Ok(true) {
        let _ = child.kill();
        let _ = child.wait();
    }
    if !finished.doing(Code::Hook, &hook.path, name)? {
        return Err(fail(format!("timed out after {} seconds", hook.timeout.unwrap_or(0))));
    }
    let status = child.wait().map_err(|e| io("cannot be waited for", &e))?;
    if status.success() {
        return Ok(());
    }
    let kept = output.get(output.len().saturating_sub(OUTPUT_KEPT)..).unwrap_or(&[]);
    let text = String::from_utf8_lossy(kept);
    let text = text.trim();
    Err(fail(if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }))
}

/// A handle of the process. Without one, by a filter older than the call, the end of its output has to show its own.
fn handle_of(child: &Child) -> Result<Option<OwnedFd>, Errno> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes the input and reads the output until the process ends; false if the deadline came first.
fn follow(
    reader: BorrowedFd<'_>,
    pidfd: Option<BorrowedFd<'_>>,
    deadline: Option<Deadline>,
    mut input: Option<(OwnedFd, &[u8])>,
    output: &mut Vec<u8>,
) -> Result<bool, Errno> {
    rustix::io::ioctl_fionbio(reader, true)?;
    if let Some((writer, _)) = &input {
        // A hook need not read its input, and a large input would not fit the pipe.
        rustix::io::ioctl_fionbio(writer, true)?;
    }
    let mut open = true;
    loop {
        let timeout = match deadline {
            Some(deadline) => match deadline.left() {
                Some(left) => Some(left),
                None => return Ok(false),
            },
            None => None,
        };
        let mut fds: Vec<PollFd<'_>> = pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        if open {
            fds.push(PollFd::new(&reader, PollFlags::IN));
        }
        if let Some((writer, _)) = &input {
            fds.push(PollFd::new(writer, PollFlags::OUT));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        let ended = pidfd.is_some() && fds.first().is_some_and(|f| !f.revents().is_empty());
        drop(fds);
        input = input.and_then(write_some);
        let mut chunk = [0u8; 4096];
        loop {
            match rustix::io::read(reader, &mut chunk) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(n) => {
                    output.extend_from_slice(chunk.get(..n).unwrap_or(&[]));
                    if output.len() > OUTPUT_KEPT.saturating_mul(16) {
                        output.drain(..output.len().saturating_sub(OUTPUT_KEPT));
                    }
                }
                Err(_) => break,
            }
        }
        if ended || (pidfd.is_none() && !open) {
            return Ok(true);
        }
    }
}

/// Writes what fits now; returns the rest, or `None` if all is written or nobody reads it.
fn write_some((writer, rest): (OwnedFd, &[u8])) -> Option<(OwnedFd, &[u8])> {
    let rest = match rustix::io::write(&writer, rest) {
        Ok(written) => rest.get(written..)?,
        Err(Errno::INTR | Errno::AGAIN) => rest,
        Err(_) => return None,
    };
    (!rest.is_empty()).then_some((writer, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: i64) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, timeout: Some(timeout), ..Hook::default() }
    }

    #[test]
    fn a_state_larger_than_a_pipe_is_read_whole_or_not_at_all() {
        let state = vec![b'x'; 1 << 20];
        run("test", &[shell("exec test $(/bin/cat | /usr/bin/wc -c) = 1048576", 60)], &state, None, &[]).unwrap();
        run("test", &[shell("exit 0", 60)], &state, None, &[]).unwrap();
        let error = run("test", &[shell("exec /bin/sleep 1000", 1)], &state, None, &[]).unwrap_err();
        assert!(error.to_string().contains("timed out after 1 seconds"), "{error}");
    }
}
