//! The root of `config.json`: root file system, mounts, hooks, annotations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::linux::Linux;
use super::process::Process;

/// A whole `config.json` (config.md).
///
/// ```
/// use hull::spec::{Process, Root, Spec};
///
/// let spec = Spec {
///     oci_version: "1.3.0".into(),
///     root: Some(Root { path: "rootfs".into(), readonly: true }),
///     process: Some(Process { args: vec!["/bin/web".into()], cwd: "/".into(), ..Process::default() }),
///     ..Spec::default()
/// };
/// // What is not set is not written.
/// let json = serde_json::to_value(&spec)?;
/// assert_eq!(json["root"]["path"], "rootfs");
/// assert!(json.get("mounts").is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification the bundle follows.
    pub oci_version: String,
    /// What to run; optional until `start`.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name inside a new UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name inside a new UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in the order they are made.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs run at points of the life cycle.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free-form metadata.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The Linux part.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Another platform's part: present means refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<serde_json::Value>,
    /// Another platform's part: present means refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solaris: Option<serde_json::Value>,
    /// Another platform's part: present means refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<serde_json::Value>,
    /// Another platform's part: present means refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zos: Option<serde_json::Value>,
    /// Another platform's part: present means refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freebsd: Option<serde_json::Value>,
}

/// The container's root file system.
///
/// ```
/// use hull::spec::Root;
///
/// // Relative to the bundle.
/// let root: Root = serde_json::from_str(r#"{"path": "rootfs"}"#)?;
/// assert_eq!(root, Root { path: "rootfs".into(), readonly: false });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    /// Path, absolute or relative to the bundle.
    pub path: String,
    /// Whether the root is read-only inside.
    pub readonly: bool,
}

/// One mount.
///
/// ```
/// use hull::spec::Mount;
///
/// let data = Mount {
///     destination: "/data".into(),
///     source: Some("/srv/data".into()),
///     // `rbind` makes it a bind mount; with `bind` the mounts below the source are left out.
///     options: vec!["rbind".into(), "ro".into(), "nosuid".into()],
///     ..Mount::default()
/// };
/// let scratch = Mount {
///     destination: "/tmp".into(),
///     r#type: Some("tmpfs".into()),
///     source: Some("tmpfs".into()),
///     options: vec!["size=64m".into(), "mode=1777".into()],
///     ..Mount::default()
/// };
/// assert_eq!(data.r#type, None);
/// # let _ = scratch;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where it goes inside the container.
    pub destination: String,
    /// File system type, or `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Device name, path, or source directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Options as `mount(8)` writes them.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User ids to map on this mount.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids to map on this mount.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// One line of a uid or gid map.
///
/// ```
/// use hull::spec::IdMapping;
///
/// // Root inside is the host's user 100000, and so on for 65536 ids.
/// let map = IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
/// assert_eq!(serde_json::to_string(&map)?, r#"{"containerID":0,"hostID":100000,"size":65536}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many ids.
    pub size: u32,
}

/// Hooks of all kinds, each list in its order.
///
/// ```
/// use hull::spec::{Hook, Hooks};
///
/// let hooks = Hooks {
///     create_runtime: vec![Hook { path: "/usr/libexec/make-network".into(), ..Hook::default() }],
///     poststop: vec![Hook { path: "/usr/libexec/remove-network".into(), ..Hook::default() }],
///     ..Hooks::default()
/// };
/// assert!(hooks.poststart.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Before pivot, in the runtime's namespace (deprecated by the specification).
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// After the namespaces exist, in the runtime's namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// After the mounts, before pivot, in the container's namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// Before the user's process, in the container's namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// After the user's process started, in the runtime's namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// After the container is deleted, in the runtime's namespace.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One hook.
///
/// ```
/// use hull::spec::Hook;
///
/// // It gets the container's state as JSON on its standard input.
/// let hook = Hook {
///     path: "/usr/libexec/make-network".into(),
///     args: vec!["make-network".into(), "--bridge=br0".into()],
///     env: vec!["PATH=/usr/sbin:/usr/bin".into()],
///     timeout: Some(10),
/// };
/// assert_eq!(serde_json::to_value(&hook)?["timeout"], 10);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: String,
    /// Arguments, the first being the program's name.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The whole environment (nothing is inherited).
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds until the hook is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
