//! `linux`: namespaces, devices, masks and the rest of config-linux.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::IdMapping;
use super::resources::Resources;
use super::seccomp::Seccomp;

/// The `linux` object.
///
/// ```
/// use hull::spec::{Linux, Namespace, NamespaceType};
///
/// let linux = Linux {
///     namespaces: [NamespaceType::Mount, NamespaceType::Pid, NamespaceType::Network]
///         .map(|r#type| Namespace { r#type, path: None })
///         .to_vec(),
///     cgroups_path: Some("/my-program/web".into()),
///     masked_paths: vec!["/proc/kcore".into(), "/proc/keys".into()],
///     readonly_paths: vec!["/proc/sys".into()],
///     sysctl: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
///     ..Linux::default()
/// };
/// assert_eq!(serde_json::to_value(&linux)?["cgroupsPath"], "/my-program/web");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// User ids of a new user namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters set inside.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the cgroup goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// Namespaces made or joined.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// Device nodes made besides the default ones.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Host network devices moved into the container.
    #[serde(deserialize_with = "super::named_objects", skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// System call filter.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// Propagation of the root mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<String>,
    /// Paths that read as empty.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<String>,
    /// SELinux context of the mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// Resource director technology.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA policy.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Clock offsets of a new time namespace.
    #[serde(deserialize_with = "super::named_objects", skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// One namespace.
///
/// ```
/// use hull::spec::{Namespace, NamespaceType};
///
/// let new = Namespace { r#type: NamespaceType::Pid, path: None };
/// let joined = Namespace { r#type: NamespaceType::Network, path: Some("/run/netns/pod".into()) };
/// assert_eq!(serde_json::to_string(&[new, joined])?, r#"[{"type":"pid"},{"type":"network","path":"/run/netns/pod"}]"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// Which kind.
    pub r#type: NamespaceType,
    /// Existing namespace to join; absent means a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Kinds of namespaces.
///
/// ```
/// use hull::spec::NamespaceType;
///
/// assert_eq!(serde_json::from_str::<NamespaceType>(r#""uts""#)?, NamespaceType::Uts);
/// // What hull does not know is an error, and not another namespace than the one that was meant.
/// assert!(serde_json::from_str::<NamespaceType>(r#""net""#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceType {
    /// Process ids.
    #[default]
    Pid,
    /// Network stack.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Users and groups.
    User,
    /// Cgroup root.
    Cgroup,
    /// Clocks.
    Time,
}

/// One device node.
///
/// ```
/// use hull::spec::Device;
///
/// // The container may use it if a rule of `linux.resources.devices` lets it.
/// let fuse = Device {
///     path: "/dev/fuse".into(),
///     r#type: "c".into(),
///     major: 10,
///     minor: 229,
///     file_mode: Some(0o666),
///     ..Device::default()
/// };
/// assert_eq!(serde_json::to_value(&fuse)?["fileMode"], 438);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Path inside the container.
    pub path: String,
    /// `c`, `b`, `u` or `p`.
    pub r#type: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device that moves into the container.
///
/// ```
/// use hull::spec::{Linux, NetDevice};
///
/// // The host's `eth1` is the container's `eth0`.
/// let device = NetDevice { name: Some("eth0".into()) };
/// let linux = Linux { net_devices: [("eth1".to_owned(), device)].into(), ..Linux::default() };
/// assert_eq!(serde_json::to_string(&linux)?, r#"{"netDevices":{"eth1":{"name":"eth0"}}}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetDevice {
    /// Its name inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `linux.intelRdt`.
///
/// ```
/// use hull::spec::IntelRdt;
///
/// // Four ways of the third-level cache of both sockets.
/// let rdt = IntelRdt { schemata: vec!["L3:0=f;1=f".into()], enable_monitoring: Some(true), ..IntelRdt::default() };
/// // Without a class, the container gets one of its own.
/// assert_eq!(rdt.clos_id, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// Class of service.
    #[serde(rename = "closID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clos_id: Option<String>,
    /// Lines of the schemata file.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// L3 cache schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// Memory bandwidth schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Whether a monitoring group is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_monitoring: Option<bool>,
    /// Older form of `enableMonitoring`.
    #[serde(rename = "enableCMT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_cmt: Option<bool>,
    /// Older form of `enableMonitoring`.
    #[serde(rename = "enableMBM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_mbm: Option<bool>,
}

/// `linux.memoryPolicy`.
///
/// ```
/// use hull::spec::MemoryPolicy;
///
/// let policy = MemoryPolicy { mode: "MPOL_BIND".into(), nodes: Some("0-1".into()), ..MemoryPolicy::default() };
/// assert!(policy.flags.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryPolicy {
    /// `MPOL_…`.
    pub mode: String,
    /// Node list such as `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// `MPOL_F_…` names.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// `linux.personality`.
///
/// ```
/// use hull::spec::Personality;
///
/// // `uname` inside tells of a 32-bit machine.
/// let personality = Personality { domain: "LINUX32".into(), ..Personality::default() };
/// assert!(personality.flags.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// Further flags: none is defined.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Offset of one clock.
///
/// ```
/// use hull::spec::{Linux, Namespace, NamespaceType, TimeOffset};
///
/// // The container finds that its machine was booted a day earlier.
/// let linux = Linux {
///     namespaces: vec![Namespace { r#type: NamespaceType::Time, path: None }],
///     time_offsets: [("boottime".to_owned(), TimeOffset { secs: 86_400, nanosecs: 0 })].into(),
///     ..Linux::default()
/// };
/// assert_eq!(serde_json::to_value(&linux)?["timeOffsets"]["boottime"]["secs"], 86_400);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}
