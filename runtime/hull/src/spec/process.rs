//! `process`: what runs, as whom, with which rights.

use serde::{Deserialize, Serialize};

/// The `process` object (config.md#process), also what `exec --process` reads.
///
/// ```
/// use hull::spec::{Process, User};
///
/// let process = Process {
///     args: vec!["/bin/sh".into(), "-c".into(), "echo $GREETING".into()],
///     env: vec!["PATH=/usr/bin:/bin".into(), "GREETING=hello".into()],
///     cwd: "/".into(),
///     user: User { uid: 1000, gid: 1000, ..User::default() },
///     no_new_privileges: true,
///     ..Process::default()
/// };
/// // Without capability sets it has none, and `no_new_privileges` keeps setuid programs from giving it any.
/// assert_eq!(process.capabilities, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Size of that terminal.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Ids.
    #[serde(deserialize_with = "super::object_or_default")]
    pub user: User,
    /// Program and arguments.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Windows only: refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Environment.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Capability sets; absent means none of the five.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// Score adjustment for the out-of-memory killer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// CPU scheduler of the process.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// SELinux label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// I/O priority.
    #[serde(rename = "ioPriority")]
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPU affinity of processes started by `exec`.
    #[serde(rename = "execCPUAffinity")]
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Rows and columns of a terminal.
///
/// ```
/// use hull::spec::{ConsoleSize, Process};
///
/// let size = ConsoleSize { height: 25, width: 80 };
/// let shell = Process { terminal: true, console_size: Some(size), ..Process::default() };
/// assert_eq!(serde_json::to_value(&shell)?["consoleSize"]["width"], 80);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// Ids of the process.
///
/// ```
/// use hull::spec::User;
///
/// // Numbers alone: names are never looked up in the container's files.
/// let user = User { uid: 1000, gid: 1000, umask: Some(0o027), additional_gids: vec![44], ..User::default() };
/// assert_eq!(serde_json::to_value(&user)?["umask"], 23);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// File mode creation mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    /// Windows only: refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// The five capability sets, each a list of `CAP_…` names.
///
/// ```
/// use hull::spec::Capabilities;
///
/// // Root inside may bind low ports and nothing else. An empty inheritable set keeps it from passing capabilities on.
/// let only = vec!["CAP_NET_BIND_SERVICE".to_owned()];
/// let capabilities = Capabilities {
///     bounding: only.clone(),
///     effective: only.clone(),
///     permitted: only,
///     ..Capabilities::default()
/// };
/// assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Upper limit over execve.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    /// In force.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    /// Kept over execve for files that ask for it.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    /// What effective may be raised to.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// Kept over execve of ordinary files.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// One resource limit.
///
/// ```
/// use hull::spec::Rlimit;
///
/// let files = Rlimit { r#type: "RLIMIT_NOFILE".into(), soft: 1024, hard: 4096 };
/// // The kernel's "no limit".
/// let core = Rlimit { r#type: "RLIMIT_CORE".into(), soft: u64::MAX, hard: u64::MAX };
/// assert!(files.soft < core.soft);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rlimit {
    /// `RLIMIT_…` name.
    pub r#type: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}

/// `sched_setattr` values.
///
/// ```
/// use hull::spec::Scheduler;
///
/// let background = Scheduler { policy: "SCHED_BATCH".into(), nice: Some(19), ..Scheduler::default() };
/// assert_eq!(serde_json::to_string(&background)?, r#"{"policy":"SCHED_BATCH","nice":19}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduler {
    /// Policy, `SCHED_…`.
    pub policy: String,
    /// Nice value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// Static priority of real-time policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// `SCHED_FLAG_…` names.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Nanoseconds of run time for `SCHED_DEADLINE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<u64>,
    /// Nanoseconds of deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Nanoseconds of period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

/// `ioprio_set` values.
///
/// ```
/// use hull::spec::IoPriority;
///
/// // Best effort, and of that the last.
/// let priority = IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 7 };
/// assert_eq!(serde_json::to_value(&priority)?["class"], "IOPRIO_CLASS_BE");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_…`.
    pub class: String,
    /// Priority within the class.
    pub priority: i32,
}

/// CPU lists for `exec`.
///
/// ```
/// use hull::spec::{ExecCpuAffinity, Process};
///
/// // Programs that are run in the container later use the first CPU until they are in its cgroup, then two others.
/// let affinity = ExecCpuAffinity { initial: Some("0".into()), r#final: Some("2-3".into()) };
/// let process = Process { exec_cpu_affinity: Some(affinity), ..Process::default() };
/// assert_eq!(serde_json::to_value(&process)?["execCPUAffinity"]["final"], "2-3");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecCpuAffinity {
    /// Before the process is moved to the container's cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// After.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#final: Option<String>,
}
