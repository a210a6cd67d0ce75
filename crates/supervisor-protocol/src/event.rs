//! What `berth-init` answers and tells.

use serde::{Deserialize, Serialize};

use crate::{TtySize, UnitStatus};

/// The answer to a request: the first JSON frame that comes back for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`](crate::Request::Hello).
    Hello(Hello),
    /// To [`Request::Exec`](crate::Request::Exec): the program runs (its `execve` succeeded).
    Started {
        /// Inside the workspace.
        pid: u32,
        /// Bytes of standard input that may be on their way at once; [`Event::Window`] tells of room for more. A host that sends no more than
        /// that never waits for the command to read, so that its signals and its hanging up are noticed at once. Absent where nothing is
        /// told: on a terminal, and by older workspaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input_window: Option<u32>,
    },
    /// To [`Request::TerminalOpen`](crate::Request::TerminalOpen) and [`Request::TerminalAttach`](crate::Request::TerminalAttach).
    Terminal(TerminalInfo),
    /// To [`Request::TerminalList`](crate::Request::TerminalList).
    Terminals {
        /// Oldest first.
        terminals: Vec<TerminalInfo>,
    },
    /// To [`Request::Tunnel`](crate::Request::Tunnel): data frames may follow both ways.
    Connected {
        /// As of [`Reply::Started`], for the bytes that the port has not taken; absent from older workspaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input_window: Option<u32>,
    },
    /// To [`Request::PortsList`](crate::Request::PortsList) and [`Request::PortsWatch`](crate::Request::PortsWatch).
    Ports {
        /// By number.
        ports: Vec<ListeningPort>,
    },
    /// To [`Request::ReadFile`](crate::Request::ReadFile) and [`Request::Stat`](crate::Request::Stat).
    File(FileInfo),
    /// To requests that stream bytes: go on.
    Ready,
    /// To [`Request::UnitStart`](crate::Request::UnitStart) and [`Request::UnitStop`](crate::Request::UnitStop).
    Unit(UnitStatus),
    /// To [`Request::UnitList`](crate::Request::UnitList) and [`Request::UnitWatch`](crate::Request::UnitWatch).
    Units {
        /// By id.
        units: Vec<UnitStatus>,
    },
    /// To [`Request::Activity`](crate::Request::Activity) and [`Request::ActivityWatch`](crate::Request::ActivityWatch).
    Activity(Activity),
    /// To [`Request::GitStatus`](crate::Request::GitStatus).
    GitStatus(GitStatus),
    /// Done; there is nothing to tell.
    Done,
    /// It could not be done.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people: what, why, and what to do.
        message: String,
    },
}

/// JSON frames after the reply of a request that streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The command has ended, and so has its output. The last frame.
    Exited(ExitStatus),
    /// The command, or the port, has taken this much of its input: so much more may be sent.
    Window {
        /// Added to what may be on its way.
        bytes: u32,
    },
    /// Output of a terminal was skipped because this connection read too slowly.
    Lagged {
        /// How much.
        skipped_bytes: u64,
    },
    /// Another one attached changed the terminal's size.
    Resized(TtySize),
    /// The list changed.
    Ports {
        /// By number.
        ports: Vec<ListeningPort>,
    },
    /// A unit changed.
    Unit(UnitStatus),
    /// git in the workspace wants a credential. Answer with [`Control::CredentialReply`](crate::Control::CredentialReply) or
    /// [`Control::CredentialDeny`](crate::Control::CredentialDeny); git waits 20 seconds.
    CredentialRequest(CredentialRequest),
    /// The user did something.
    Activity(Activity),
    /// The transfer is complete. The last frame.
    Done,
    /// The transfer failed. The last frame.
    Failed {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood or is out of bounds.
    BadRequest,
    /// The terminal, unit, file, program, user or directory does not exist.
    NotFound,
    /// The user may not do that.
    PermissionDenied,
    /// Nothing listens on that port.
    ConnectionRefused,
    /// A limit of the workspace (processes, memory, disk, terminals, connections) is reached.
    LimitReached,
    /// Not in the present state.
    Conflict,
    /// Not in the given time.
    Timeout,
    /// Anything else.
    Failed,
}

/// Answer to [`Request::Hello`](crate::Request::Hello).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION) of `berth-init`.
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
    /// What it can do beyond version 1.
    #[serde(default)]
    pub features: Vec<String>,
    /// When and as whom it started.
    pub boot: BootInfo,
}

/// How the workspace came up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootInfo {
    /// Unix time in milliseconds by the workspace's clock.
    pub started_at_ms: u64,
    /// From the first instruction of `berth-init` to its first look at the socket.
    pub startup_us: u64,
    /// The default user as configured; root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The default working directory as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// `exit(code)`.
    Code(i32),
    /// Killed by a signal of this number.
    Signal(i32),
}

impl ExitStatus {
    /// As shells tell it: the code, or 128 plus the signal.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// A terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TerminalInfo {
    /// Made by `berth-init`.
    pub id: String,
    /// Of [`TerminalOpen::name`](crate::TerminalOpen::name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command.
    pub argv: Vec<String>,
    /// Of the command, inside the workspace.
    pub pid: u32,
    /// Present size.
    pub size: TtySize,
    /// Unix time in milliseconds by the workspace's clock.
    pub created_at_ms: u64,
    /// How many are attached now.
    pub attached: u32,
    /// Bytes of scrollback that a late joiner can get.
    pub scrollback_bytes: u64,
    /// Whether its command still runs.
    pub state: TerminalState,
}

/// State of a terminal's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalState {
    /// It runs.
    Running,
    /// It ended; the scrollback is still there.
    Exited(ExitStatus),
}

/// A TCP port that something in the workspace listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// Local addresses, for example `127.0.0.1`, `::`, `0.0.0.0`.
    pub addresses: Vec<String>,
    /// Who listens, where that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Its user id inside the workspace.
    pub uid: u32,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// With symbolic links resolved.
    pub path: String,
    /// What it is.
    pub file_type: FileType,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the workspace.
    pub uid: u32,
    /// Group inside the workspace.
    pub gid: u32,
    /// Unix time in milliseconds.
    pub modified_at_ms: u64,
    /// Whether less than the file will be sent.
    #[serde(default)]
    pub truncated: bool,
}

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link (to nothing: others are followed).
    Symlink,
    /// Pipe, socket or device.
    Other,
}

/// A question of the credential helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRequest {
    /// For the answer.
    pub id: u64,
    /// `https` or `http`.
    pub protocol: String,
    /// Host, with a port that is not the default.
    pub host: String,
    /// Path of the repository, where git sends it (`credential.useHttpPath`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// User name in the URL, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// What the user did last. For the inactivity timeout only: it is a stranger's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Last byte typed into a terminal or command; Unix time in milliseconds by the workspace's clock, zero: never.
    pub last_input_ms: u64,
    /// Last byte through a tunnel in either direction.
    pub last_tunnel_ms: u64,
    /// Connections attached to terminals or commands.
    pub attached: u32,
    /// Open tunnels.
    pub tunnels: u32,
}

/// State of a checkout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitStatus {
    /// Branch; `None` if the head is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit; nothing before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Commits that the upstream branch does not have.
    pub ahead: u32,
    /// Commits of the upstream branch that are not here.
    pub behind: u32,
    /// Changed or staged files.
    pub changed: u32,
    /// Files git does not know.
    pub untracked: u32,
    /// Files in conflict.
    pub conflicted: u32,
}
