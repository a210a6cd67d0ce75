//! What the host asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Secret, UnitSpec};

/// The first JSON frame of a connection (and, after a request that does not stream, each next one).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Who is there? The answer, [`Reply::Hello`](crate::Reply::Hello), means that the workspace is ready.
    Hello,
    /// Run a command.
    Exec(Exec),
    /// Make a terminal that lives on when the connection ends.
    TerminalOpen(TerminalOpen),
    /// Join a terminal. Several may be joined to one; all may write.
    TerminalAttach {
        /// The terminal.
        id: String,
        /// How many of the last bytes of its output to replay first. What is kept is at most 256 KiB.
        #[serde(default)]
        scrollback_bytes: u64,
    },
    /// All terminals.
    TerminalList,
    /// Hang a terminal up: SIGHUP and SIGTERM to its processes, SIGKILL after some seconds, and forget its scrollback.
    TerminalClose {
        /// The terminal.
        id: String,
    },
    /// Set a terminal's size without being attached.
    TerminalResize {
        /// The terminal.
        id: String,
        /// The new size.
        #[serde(flatten)]
        size: TtySize,
    },
    /// Connect to a port on the workspace's loopback interface (127.0.0.1, then ::1).
    Tunnel {
        /// The TCP port.
        port: u16,
    },
    /// The listening TCP ports now.
    PortsList,
    /// The listening TCP ports now, and the whole list again whenever it changes.
    PortsWatch,
    /// Read a file.
    ReadFile {
        /// Absolute path, or relative to the default working directory.
        path: String,
        /// Longer files are cut here ([`FileInfo::truncated`](crate::FileInfo::truncated) is set).
        max_bytes: u64,
        /// As whom; the default user when absent. See [`Exec::user`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Write a file, atomically (a new file takes the name when everything has arrived).
    WriteFile(WriteFile),
    /// What is at a path.
    Stat {
        /// Absolute path, or relative to the default working directory.
        path: String,
        /// As whom; the default user when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Unpack a tar stream.
    CopyIn(CopyIn),
    /// Pack files as a tar stream.
    CopyOut(CopyOut),
    /// Start a task or service. Nothing happens when a unit of this id already runs with an equal specification.
    UnitStart(UnitSpec),
    /// Stop a task or service; answered at once, [`Request::UnitWatch`] tells when it is done. Nothing happens when it does not run.
    UnitStop {
        /// The unit.
        id: String,
    },
    /// All units.
    UnitList,
    /// All units, then each change of one.
    UnitWatch,
    /// Output of a unit's commands (the last 1 MiB is kept).
    UnitLogs {
        /// The unit.
        id: String,
        /// Go on with what comes, until the run ends.
        #[serde(default)]
        follow: bool,
        /// Start at most this many bytes before the end; from the oldest kept byte when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tail_bytes: Option<u64>,
    },
    /// This connection answers the credential helper's questions from now on. The newest such connection is asked.
    CredentialsServe,
    /// When the user last did something.
    Activity,
    /// The same, then again when it changes.
    ActivityWatch {
        /// No two events are closer than this. At least 1,000.
        min_interval_ms: u64,
    },
    /// Branch, commit and counts of changes of a checkout, by the workspace's own git, as the default user.
    GitStatus {
        /// The checkout.
        path: String,
    },
    /// End the workspace: stop commands of services, SIGTERM to all, SIGHUP to shells and to who does not follow, SIGKILL after the
    /// grace period. Answered at once; the connection ends with the workspace.
    Shutdown {
        /// How long processes have to end by themselves.
        grace_ms: u64,
    },
}

/// A command to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments. The program is looked up in `PATH` of the resulting environment when it has no slash.
    pub argv: Vec<String>,
    /// Added to, and winning over, the workspace's environment and the user's `HOME`, `USER`, `LOGNAME`, `SHELL`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the workspace's default (then the user's home, then `/`) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`, by the workspace's own `/etc/passwd` and `/etc/group`; its default user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Run on a terminal of this size: stdout and stderr are one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySize>,
    /// `TERM` on a terminal; `xterm-256color` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// Whether stdin frames will come. Without, standard input is `/dev/null` (or a terminal nobody types on).
    #[serde(default)]
    pub stdin: bool,
    /// Leave the command running when the connection ends. Otherwise it gets SIGHUP and SIGTERM, and SIGKILL ten seconds later.
    #[serde(default)]
    pub keep_on_disconnect: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

impl Default for TtySize {
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}

/// A terminal to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TerminalOpen {
    /// The command; the user's login shell when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// As in [`Exec::env`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// As in [`Exec::cwd`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// As in [`Exec::user`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its size.
    #[serde(default)]
    pub size: TtySize,
    /// `TERM`; `xterm-256color` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// A title for lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Go on as with [`Request::TerminalAttach`] on this connection.
    #[serde(default)]
    pub attach: bool,
    /// Hang up when the last one attached has gone.
    #[serde(default)]
    pub close_on_detach: bool,
}

/// A file to write; its content follows in stdin frames.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WriteFile {
    /// Absolute path, or relative to the default working directory.
    pub path: String,
    /// Permission bits of the file, `0o644` when absent (an existing file keeps its own then).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Make missing parent directories.
    #[serde(default)]
    pub create_dirs: bool,
    /// As whom; the default user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A tar stream to unpack; it follows in stdin frames. Entries cannot climb out of `path`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CopyIn {
    /// Existing directory to unpack in, or, with `rename_to`, the parent of the new name.
    pub path: String,
    /// Rename the first path component of every entry to this: `cp file ws:/dir/other` in one stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename_to: Option<String>,
    /// Keep the numeric owners of the stream (useful as root only); else everything belongs to the user.
    #[serde(default)]
    pub keep_owner: bool,
    /// As whom; the default user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A file or directory to pack.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CopyOut {
    /// The file or directory. Entries are named from its last component.
    pub path: String,
    /// Pack what a symbolic link at `path` points to.
    #[serde(default)]
    pub follow: bool,
    /// As whom; the default user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// JSON frames from the host after a request that streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control {
    /// The terminal's size changed.
    Resize(TtySize),
    /// Send a signal: to the foreground process group of a terminal, to the process group of a command without one.
    Signal {
        /// Which.
        signal: SignalName,
    },
    /// The answer to [`Event::CredentialRequest`](crate::Event::CredentialRequest).
    CredentialReply {
        /// Of the question.
        id: u64,
        /// User name for the host.
        username: String,
        /// Password or token for the host.
        password: Secret,
    },
    /// There is no credential for that question.
    CredentialDeny {
        /// Of the question.
        id: u64,
        /// Why, for the user: git shows it.
        reason: String,
    },
}

/// Signals that may be sent to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// SIGHUP.
    Hup,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
    /// SIGTSTP.
    Tstp,
    /// SIGCONT.
    Cont,
}
