//! The forked child, up to `execve`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use berth_supervisor_protocol::ErrorCode;
use hull_sys::sandbox_process::{close_on_exec_from, place_descriptor, reset_signals};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, ioctl_tiocsctty, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::user::{self, User};
use super::{Defaults, Ends, LaunchError, Program};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything the child decides by.
pub(super) struct Plan<'a> {
    pub(super) program: &'a Program,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) term: Option<String>,
    pub(super) defaults: &'a Defaults,
}

/// Runs in the child: executes the program, or reports why not and returns the exit status.
pub(super) fn run(plan: &Plan<'_>, ends: &Ends, status: &OwnedFd) -> i32 {
    let error = match become_program(plan, ends) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if let Ok(json) = serde_json::to_vec(&error) {
        // At most a few kilobytes into an empty pipe: one write takes them.
        let _ = rustix::io::write(status, &json);
    }
    127
}

fn become_program(plan: &Plan<'_>, ends: &Ends) -> Result<std::convert::Infallible, LaunchError> {
    let system = |what: &'static str| move |errno| LaunchError::system(what, errno);
    reset_signals().map_err(system("resetting signals"))?;
    setsid().map_err(system("making a session"))?;
    prefer_for_oom();

    let user = user::resolve(plan.user.as_deref().or(plan.defaults.user.as_deref()))
        .map_err(|error| LaunchError { code: ErrorCode::NotFound, message: error.to_string() })?;
    place_streams(ends, &user).map_err(system("setting up its streams"))?;
    // Kernels before 5.11 have no close_range; everything of ours is close-on-exec anyway.
    let _ = close_on_exec_from(if ends.extra.is_some() { 4 } else { 3 });
    if let Some(limit) = &plan.defaults.open_files {
        rustix::process::setrlimit(Resource::Nofile, *limit).map_err(system("limiting its open files"))?;
    }
    assume(&user)?;

    let home_or_root = || if Path::new(&user.home).is_dir() { user.home.clone() } else { "/".to_owned() };
    let cwd = match (&plan.cwd, &plan.defaults.cwd) {
        // As paths of files: absolute, or below the checkout.
        (Some(cwd), Some(base)) => Path::new(base).join(cwd).to_string_lossy().into_owned(),
        (Some(cwd), None) => cwd.clone(),
        (None, Some(cwd)) if Path::new(cwd).is_dir() => cwd.clone(),
        _ => home_or_root(),
    };
    rustix::process::chdir(cwd.as_str()).map_err(|errno| {
        let error = LaunchError::system("entering it", errno);
        let code = file_code(errno).unwrap_or(error.code);
        LaunchError { code, message: format!("the working directory {cwd} cannot be used: {errno}") }
    })?;

    let (program, arguments, arg0) = command_line(plan.program, &user);
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().envs(environment(plan, &user, &cwd));
    if let Some(arg0) = arg0 {
        command.arg0(arg0);
    }
    let error = command.exec();
    Err(not_executed(&program, &error))
}

fn not_executed(program: &str, error: &io::Error) -> LaunchError {
    let code = Errno::from_io_error(error).and_then(file_code).unwrap_or(ErrorCode::Failed);
    let message = match code {
        ErrorCode::NotFound => format!("{program} was not found in the workspace"),
        ErrorCode::PermissionDenied => format!("{program} may not be executed by this user"),
        _ => format!("{program} cannot be executed: {error}"),
    };
    LaunchError { code, message }
}

fn file_code(errno: Errno) -> Option<ErrorCode> {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Some(ErrorCode::NotFound),
        Errno::ACCESS | Errno::PERM => Some(ErrorCode::PermissionDenied),
        Errno::AGAIN | Errno::NOMEM => Some(ErrorCode::LimitReached),
        _ => None,
    }
}

/// When memory runs out, the kernel shall kill the user's processes before PID 1, without which the user could not get in again.
fn prefer_for_oom() {
    let path = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0);
    let _ = std::fs::write(path, now.saturating_add(100).clamp(0, 1000).to_string());
}

fn place_streams(ends: &Ends, user: &User) -> Result<(), Errno> {
    if let Some(slave) = &ends.slave {
        // As login does, so that `tty`, `mesg` and screen can open it.
        let _ = rustix::fs::fchown(slave, Some(user.uid), None);
        ioctl_tiocsctty(slave)?;
        for number in 0..3 {
            place_descriptor(slave.as_fd(), number)?;
        }
        return Ok(());
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // 3 first: none of the streams to be placed below may have the number 3. All of ours are above, because 0 to 3 are taken in PID 1.
    if let Some(extra) = &ends.extra {
        place_descriptor(extra.as_fd(), 3)?;
    }
    for (number, end) in [(0, &ends.child_in), (1, &ends.child_out), (2, &ends.child_err)] {
        place_descriptor(end.as_ref().unwrap_or(&null).as_fd(), number)?;
    }
    Ok(())
}

fn assume(user: &User) -> Result<(), LaunchError> {
    let same = rustix::process::getuid() == user.uid && rustix::process::getgid() == user.gid;
    if same && !user.uid.is_root() {
        return Ok(());
    }
    let denied = |errno| LaunchError {
        code: ErrorCode::PermissionDenied,
        message: format!("the process cannot become user {}: {errno}", user.name),
    };
    set_thread_groups(&user.groups).map_err(denied)?;
    set_thread_res_gid(user.gid, user.gid, user.gid).map_err(denied)?;
    set_thread_res_uid(user.uid, user.uid, user.uid).map_err(denied)
}

fn command_line(program: &Program, user: &User) -> (String, Vec<String>, Option<String>) {
    let exists = |path: &str| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let shell = || ["/bin/bash", "/usr/bin/bash"].into_iter().find(|path| exists(path)).unwrap_or("/bin/sh").to_owned();
    match program {
        Program::Argv(argv) => {
            let mut argv = argv.iter().cloned();
            (argv.next().unwrap_or_default(), argv.collect(), None)
        }
        Program::LoginShell => {
            let shell = if exists(&user.shell) { user.shell.clone() } else { shell() };
            let name = shell.rsplit('/').next().unwrap_or(&shell).to_owned();
            (shell, Vec::new(), Some(format!("-{name}")))
        }
        Program::Shell(line) => (shell(), vec!["-c".to_owned(), line.clone()], None),
        Program::Own(role) => ("/proc/self/exe".to_owned(), vec![(*role).to_owned()], Some("berth-init".to_owned())),
    }
}

/// The workspace's own environment, then the user's, then the configured one, then the request's.
fn environment(plan: &Plan<'_>, user: &User, cwd: &str) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    let mut set = |key: &str, value: &str| env.insert(key.into(), value.into());
    set("HOME", &user.home);
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    set("SHELL", &user.shell);
    set("PWD", cwd);
    if let Some(term) = &plan.term {
        set("TERM", term);
    }
    for (key, value) in plan.defaults.env.iter().chain(plan.env) {
        set(key, value);
    }
    env
}
