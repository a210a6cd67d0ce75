//! All commands and flags: what the parser, the help, the man pages and the completions are made from.

use super::parse::{Flag, Parsed, list, switch, value};
use super::{Global, commands as c};
use crate::error::Result;

/// One command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Arguments as help shows them.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
    /// Fewest and most arguments.
    pub(crate) args: (usize, usize),
    /// Whether what follows the first argument belongs to another program.
    pub(crate) trailing: bool,
    /// Whether the first argument is a container id (for completion).
    pub(crate) takes_id: bool,
    pub(crate) run: fn(&Global, &Parsed) -> Result<i32>,
}

/// Flags before the command.
pub(crate) const GLOBAL: &[Flag] = &[
    value("root", &[], "DIR", "directory of the runtime's records (default /run/hull, or $XDG_RUNTIME_DIR/hull)"),
    value("log", &[], "FILE", "write the log to this file instead of standard error"),
    value("log-format", &[], "text|json", "form of the log (default text)"),
    value("log-level", &[], "LEVEL", "error, warn, info or debug (default warn)"),
    switch("debug", &[], "log what helps to find faults"),
    switch("systemd-cgroup", &[], "let systemd make cgroups; cgroupsPath is then slice:prefix:name"),
    value("cgroup-manager", &[], "NAME", "cgroupfs, systemd or disabled"),
    value("rootless", &[], "true|false|auto", "taken for compatibility; what is possible is found out"),
    value("criu", &[], "PATH", "taken for compatibility; criu is found in the fixed system paths"),
    value("wasm-config", &[], "FILE", "how WebAssembly programs are run (default /etc/hull/wasm.json)"),
    value("timeline", &[], "FILE", "write the phases of the command with nanoseconds to this file, as JSON lines"),
    switch("help", &["h"], "show help"),
    switch("version", &["v"], "show the version"),
];

const NO_PIVOT: Flag = switch("no-pivot", &[], "change the root without pivot_root, for roots on a ramfs");
const NO_KEYRING: Flag = switch("no-new-keyring", &[], "make no session keyring; the container has its creator's");
const PRESERVE: Flag = value("preserve-fds", &[], "N", "pass descriptors 3 to 2+N on to the program");
const BUNDLE: Flag = value("bundle", &["b"], "PATH", "bundle directory (default .)");
const CONFIG: Flag = value("config", &[], "FILE", "configuration to use instead of the bundle's config.json");
const CONSOLE: Flag = value("console-socket", &[], "PATH", "unix socket that gets the terminal's master");
const PID_FILE: Flag = value("pid-file", &[], "FILE", "write the process id to this file");
const PIDFD: Flag = value("pidfd-socket", &[], "PATH", "unix socket that gets a pidfd of the process");
const DETACH: Flag = switch("detach", &["d"], "do not stay in the foreground");
const SUBREAPER: Flag = switch("no-subreaper", &[], "taken for compatibility");

const WORK_PATH: Flag = value("work-path", &[], "DIR", "where CRIU's own files go");
const TCP_ESTABLISHED: Flag = switch("tcp-established", &[], "allow open TCP connections");
const TCP_CLOSE: Flag = switch("tcp-close", &[], "close TCP connections");
const EXT_UNIX_SK: Flag = switch("ext-unix-sk", &[], "allow unix sockets connected outside");
const SHELL_JOB: Flag = switch("shell-job", &[], "allow a terminal of the outside");
const LAZY_PAGES: Flag = switch("lazy-pages", &[], "restore memory when it is asked for");
const FILE_LOCKS: Flag = switch("file-locks", &[], "handle file locks");
const MANAGE_CGROUPS: Flag = value("manage-cgroups-mode", &[], "MODE", "soft, full, strict or ignore");
const EMPTY_NS: Flag = list("empty-ns", &[], "NAMESPACE", "make a namespace without what was in it (network)");
const AUTO_DEDUP: Flag = switch("auto-dedup", &[], "drop memory pages that a later image has");

const CREATE: &[Flag] = &[BUNDLE, CONFIG, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE];
const RUN: &[Flag] = &[
    BUNDLE,
    CONFIG,
    CONSOLE,
    PIDFD,
    PID_FILE,
    NO_PIVOT,
    NO_KEYRING,
    PRESERVE,
    DETACH,
    SUBREAPER,
    switch("keep", &[], "do not delete the container when its process ends; with --detach, keep its exit status"),
];
const EXEC: &[Flag] = &[
    CONSOLE,
    PIDFD,
    PID_FILE,
    PRESERVE,
    DETACH,
    SUBREAPER,
    value("process", &["p"], "FILE", "process.json to run"),
    value("cwd", &[], "DIR", "working directory"),
    list("env", &["e"], "NAME=VALUE", "set an environment variable"),
    switch("tty", &["t"], "allocate a terminal"),
    value("user", &["u"], "UID[:GID]", "user and group id"),
    list("additional-gids", &["g"], "GID", "supplementary group id"),
    value("process-label", &[], "LABEL", "SELinux label"),
    value("apparmor", &[], "PROFILE", "AppArmor profile"),
    switch("no-new-privs", &[], "set no_new_privs"),
    list("cap", &["c"], "CAPABILITY", "add a capability"),
    list("cgroup", &[], "[CONTROLLER:]PATH", "run in a sub-cgroup of the container"),
    switch("ignore-paused", &[], "start in a paused container too"),
    switch("session", &[], "stay, and start a process for each request on the socket that is standard input"),
];
const UPDATE: &[Flag] = &[
    value("resources", &["r"], "FILE", "read linux.resources from a file, - for standard input"),
    value("blkio-weight", &[], "N", "block I/O weight, 10 to 1000"),
    value("cpu-period", &[], "US", "CPU period in microseconds"),
    value("cpu-quota", &[], "US", "CPU time a period"),
    value("cpu-burst", &[], "US", "CPU time that may be saved up"),
    value("cpu-share", &["cpu-shares"], "N", "CPU weight (version 1 scale)"),
    value("cpu-rt-period", &[], "US", "real-time period"),
    value("cpu-rt-runtime", &[], "US", "real-time time a period"),
    value("cpuset-cpus", &[], "LIST", "CPUs"),
    value("cpuset-mems", &[], "LIST", "memory nodes"),
    value("cpu-idle", &[], "0|1", "whether the group is idle class"),
    value("memory", &[], "BYTES", "memory limit"),
    value("memory-reservation", &[], "BYTES", "soft memory limit"),
    value("memory-swap", &[], "BYTES", "limit of memory and swap together; -1 for none"),
    value("kernel-memory", &[], "BYTES", "ignored with a warning: the kernel has no such limit any more"),
    value("kernel-memory-tcp", &[], "BYTES", "TCP buffer limit (version 1)"),
    value("pids-limit", &[], "N", "number of tasks"),
    value("l3-cache-schema", &[], "TEXT", "resctrl cache schema"),
    value("mem-bw-schema", &[], "TEXT", "resctrl bandwidth schema"),
];
const CHECKPOINT: &[Flag] = &[
    value("image-path", &[], "DIR", "where the image goes (default checkpoint)"),
    WORK_PATH,
    value("parent-path", &[], "DIR", "image this one adds to"),
    switch("leave-running", &[], "let the container run on"),
    TCP_ESTABLISHED,
    switch("tcp-skip-in-flight", &[], "skip TCP connections in the making"),
    TCP_CLOSE,
    switch("link-remap", &[], "allow files that were unlinked"),
    EXT_UNIX_SK,
    SHELL_JOB,
    LAZY_PAGES,
    value("status-fd", &[], "N", "descriptor that gets a byte when lazy pages can be served"),
    value("page-server", &[], "ADDRESS:PORT", "send memory to a page server"),
    FILE_LOCKS,
    switch("pre-dump", &[], "save memory only, the container runs on"),
    MANAGE_CGROUPS,
    EMPTY_NS,
    AUTO_DEDUP,
];
const RESTORE: &[Flag] = &[
    BUNDLE,
    CONSOLE,
    PID_FILE,
    NO_PIVOT,
    DETACH,
    SUBREAPER,
    value("image-path", &[], "DIR", "where the image is (default checkpoint)"),
    WORK_PATH,
    TCP_ESTABLISHED,
    TCP_CLOSE,
    EXT_UNIX_SK,
    SHELL_JOB,
    FILE_LOCKS,
    LAZY_PAGES,
    MANAGE_CGROUPS,
    EMPTY_NS,
    AUTO_DEDUP,
    value("lsm-profile", &[], "PROFILE", "AppArmor profile or SELinux label to restore with"),
    value("lsm-mount-context", &[], "CONTEXT", "SELinux context of the mounts"),
];

const MANY: usize = usize::MAX;

const fn command(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    args: (usize, usize),
    run: fn(&Global, &Parsed) -> Result<i32>,
) -> Command {
    Command { name, usage, about, flags, args, trailing: false, takes_id: true, run }
}

const fn plain(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    args: (usize, usize),
    run: fn(&Global, &Parsed) -> Result<i32>,
) -> Command {
    Command { takes_id: false, ..command(name, usage, about, flags, args, run) }
}

/// All commands.
pub(crate) const COMMANDS: &[Command] = &[
    plain("checkpoint", "ID", "save a running container by CRIU", CHECKPOINT, (1, 1), c::checkpoint::checkpoint),
    plain("completion", "bash|zsh|fish", "print the completion script of a shell", &[], (1, 1), c::completion::run),
    plain("create", "ID...", "create containers that wait for start", CREATE, (1, MANY), c::create::run),
    command(
        "delete",
        "ID...",
        "delete containers",
        &[
            switch("force", &["f"], "kill it first; one that does not exist is fine"),
            switch("regex", &["r"], "take the arguments as patterns with * and ?"),
        ],
        (1, MANY),
        c::delete::run,
    ),
    command(
        "events",
        "ID",
        "print statistics and out-of-memory events",
        &[
            value("interval", &[], "TIME", "time between statistics (default 5s)"),
            switch("stats", &[], "print statistics once"),
        ],
        (1, 1),
        c::events::run,
    ),
    Command {
        name: "exec",
        usage: "ID COMMAND [ARG...]  |  exec -p process.json ID",
        about: "run a further process in a container",
        flags: EXEC,
        args: (1, MANY),
        trailing: true,
        takes_id: true,
        run: c::exec::run,
    },
    command(
        "explain",
        "ID|BUNDLE",
        "say what a container may and may not do, and why",
        &[
            value("path", &[], "PATH", "explain this path"),
            value("syscall", &[], "NAME", "explain this system call"),
            value("cap", &[], "CAPABILITY", "explain this capability"),
        ],
        (1, 1),
        c::explain::run,
    ),
    plain("features", "", "print what this runtime can do, as JSON", &[], (0, 0), c::features::run),
    plain("info", "", "print facts about the runtime and the machine", &[], (0, 0), c::info::run),
    command(
        "kill",
        "ID [SIGNAL]",
        "send a signal (default SIGTERM)",
        &[switch("all", &["a"], "to all processes of the container")],
        (1, 2),
        c::kill::run,
    ),
    plain(
        "list",
        "",
        "list containers",
        &[value("format", &["f"], "table|json", "form of the output"), switch("quiet", &["q"], "ids only")],
        (0, 0),
        c::list::run,
    ),
    plain(
        "man",
        "[COMMAND]",
        "print a man page",
        &[value(
            "output",
            &["o"],
            "DIR",
            "write all pages and completions below this directory, as /usr/share has them",
        )],
        (0, 1),
        c::man::run,
    ),
    command("pause", "ID", "stop all processes of a container for a while", &[], (1, 1), c::pause::pause),
    Command {
        name: "ps",
        usage: "ID [PS OPTIONS]",
        about: "list the processes of a container",
        flags: &[value("format", &["f"], "table|json", "form of the output")],
        args: (1, MANY),
        trailing: true,
        takes_id: true,
        run: c::ps::run,
    },
    plain("restore", "ID", "restore a container that was saved", RESTORE, (1, 1), c::checkpoint::restore),
    command("resume", "ID", "let a paused container run on", &[], (1, 1), c::pause::resume),
    plain("run", "ID", "create and start a container", RUN, (1, 1), c::run::run),
    plain(
        "spec",
        "",
        "write an example config.json",
        &[
            value("bundle", &["b"], "PATH", "where it goes (default .)"),
            switch("rootless", &[], "for a user without rights"),
        ],
        (0, 0),
        c::spec::run,
    ),
    command("start", "ID...", "start created containers", &[], (1, MANY), c::start::run),
    command("state", "ID", "print a container's state as JSON", &[], (1, 1), c::state::run),
    command("update", "ID", "change the limits of a running container", UPDATE, (1, 1), c::update::run),
    plain("version", "", "print the version", &[], (0, 0), c::info::version),
    command("wait", "ID", "wait until a container ends, and print its exit status", &[], (1, 1), c::wait::run),
];
