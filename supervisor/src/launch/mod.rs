//! Starts a process in the workspace. Everything that looks at the workspace's files (who the user is, whether the directory exists, where
//! the program is) happens in the forked child: a hanging or hostile file system then hangs the child, never PID 1.

mod child;
pub(crate) mod user;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use berth_supervisor_protocol::{ErrorCode, TtySize};
use hull_sys::sandbox_process::fork;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Rlimit};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use serde::{Deserialize, Serialize};

/// What to run.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// Program and arguments.
    Argv(Vec<String>),
    /// The user's login shell.
    LoginShell,
    /// A line for `bash`, else `sh`.
    Shell(String),
    /// Another role of this binary.
    Own(&'static str),
}

/// What a child gets as standard streams.
#[derive(Debug)]
pub(crate) enum Streams {
    /// A terminal.
    Terminal(TtySize),
    /// Pipes for output and errors, and for input when wanted.
    Pipes {
        /// Whether standard input is a pipe; `/dev/null` otherwise.
        stdin: bool,
    },
    /// One pipe for output and errors, no input.
    Merged,
    /// Nothing.
    Null,
    /// A pipe for input, and this as descriptor 3: for workers.
    Handover(OwnedFd),
}

/// A process to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: Program,
    /// Added to the workspace's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Must exist when given.
    pub(crate) cwd: Option<String>,
    /// The default when absent.
    pub(crate) user: Option<String>,
    pub(crate) term: Option<String>,
    pub(crate) streams: Streams,
}

/// Settings that hold for every child.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) user: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Their limit of open files, which is not PID 1's.
    pub(crate) open_files: Option<Rlimit>,
}

/// A forked child. It is the leader of a session and process group of its own.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// Ends without content when the program has been executed; otherwise holds the JSON of a [`LaunchError`].
    pub(crate) status: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The master side of the terminal.
    pub(crate) master: Option<OwnedFd>,
}

/// Why a program could not be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaunchError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl LaunchError {
    fn system(what: &str, errno: Errno) -> Self {
        let (code, hint) = match errno {
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => {
                (ErrorCode::LimitReached, ": the workspace's limit of processes, memory or files is reached, end some")
            }
            _ => (ErrorCode::Failed, ""),
        };
        Self { code, message: format!("{what} failed ({errno}){hint}") }
    }
}

/// The parent's and the child's ends of the streams.
#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    master: Option<OwnedFd>,
    child_in: Option<OwnedFd>,
    child_out: Option<OwnedFd>,
    child_err: Option<OwnedFd>,
    slave: Option<OwnedFd>,
    extra: Option<OwnedFd>,
}

impl Ends {
    fn make(streams: Streams) -> Result<Self, Errno> {
        let mut ends = Self::default();
        match streams {
            Streams::Terminal(size) => {
                let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
                grantpt(&master)?;
                unlockpt(&master)?;
                set_size(&master, size)?;
                understand_utf8(&master)?;
                // Not opened by its path: the workspace's /dev belongs to the workspace.
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                ends.slave = Some(ioctl_tiocgptpeer(&master, flags)?);
                ends.master = Some(nonblocking(master)?);
            }
            Streams::Pipes { stdin } => {
                if stdin {
                    ends.input()?;
                }
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (ends.stdout, ends.child_out) = (Some(nonblocking(read)?), Some(write));
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (ends.stderr, ends.child_err) = (Some(nonblocking(read)?), Some(write));
            }
            Streams::Merged => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                ends.stdout = Some(nonblocking(read)?);
                ends.child_err = Some(write.try_clone().map_err(|_| Errno::MFILE)?);
                ends.child_out = Some(write);
            }
            Streams::Null => {}
            Streams::Handover(fd) => {
                ends.input()?;
                ends.extra = Some(fd);
            }
        }
        Ok(ends)
    }

    fn input(&mut self) -> Result<(), Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (self.child_in, self.stdin) = (Some(read), Some(nonblocking(write)?));
        Ok(())
    }
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// Sets the size of a terminal by its master.
pub(crate) fn set_size(master: impl AsFd, size: TtySize) -> Result<(), Errno> {
    tcsetwinsize(master, Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Lets the terminal's line editing erase whole characters.
fn understand_utf8(master: &OwnedFd) -> Result<(), Errno> {
    let mut settings = tcgetattr(master)?;
    settings.input_modes |= InputModes::IUTF8;
    tcsetattr(master, OptionalActions::Now, &settings)
}

/// Starts a process. What goes wrong in the child arrives through [`Launched::status`].
pub(crate) fn launch(launch: Launch, defaults: &Defaults) -> Result<Launched, LaunchError> {
    let Launch { program, env, cwd, user, term, streams } = launch;
    let mut ends = Ends::make(streams).map_err(|errno| LaunchError::system("making its streams", errno))?;
    let (status, child_status) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| LaunchError::system("making a pipe", errno))?;
    let status = nonblocking(status).map_err(|errno| LaunchError::system("making a pipe", errno))?;
    let pid = fork(|| {
        let plan = child::Plan { program: &program, env: &env, cwd, user, term, defaults };
        child::run(&plan, &ends, &child_status)
    })
    .map_err(|errno| LaunchError::system("starting a process", errno))?;
    Ok(Launched {
        pid,
        status,
        stdin: ends.stdin.take(),
        stdout: ends.stdout.take(),
        stderr: ends.stderr.take(),
        master: ends.master.take(),
    })
}
