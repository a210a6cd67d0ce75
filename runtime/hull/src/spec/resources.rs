//! `linux.resources`: limits, also what `update` reads.
//!
//! ```
//! use hull::spec::Resources;
//!
//! let limits: Resources = serde_json::from_str(r#"{"memory": {"limit": 67108864}, "pids": {"limit": 50}}"#)?;
//! assert_eq!(limits.memory.unwrap().limit, Some(64 << 20));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The `resources` object (config-linux.md#control-groups).
///
/// ```
/// use hull::spec::Resources;
/// use hull::spec::resources::{Cpu, Memory, Pids};
///
/// // Half a gibibyte without swap, one and a half CPUs, two hundred tasks.
/// let limits = Resources {
///     memory: Some(Memory { limit: Some(512 << 20), swap: Some(512 << 20), ..Memory::default() }),
///     cpu: Some(Cpu { quota: Some(150_000), period: Some(100_000), ..Cpu::default() }),
///     pids: Some(Pids { limit: Some(200) }),
///     ..Resources::default()
/// };
/// // What is left out is not limited; in an update, it stays as it is.
/// assert_eq!(limits.block_io, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Device access rules, in order.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRule>,
    /// Memory.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// CPU.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Block devices.
    #[serde(rename = "blockIO")]
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Network classes (v1).
    #[serde(deserialize_with = "super::object", skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// RDMA devices by name.
    #[serde(deserialize_with = "super::named_objects", skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, Rdma>,
    /// Cgroup v2 files and their contents.
    #[serde(deserialize_with = "super::null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

/// One device access rule.
///
/// ```
/// use hull::spec::resources::DeviceRule;
///
/// // The later rule counts. Without any, a container may use the devices that every container has.
/// let nothing = DeviceRule { allow: false, access: Some("rwm".into()), ..DeviceRule::default() };
/// let fuse = DeviceRule {
///     allow: true,
///     r#type: Some("c".into()),
///     major: Some(10),
///     minor: Some(229),
///     access: Some("rw".into()),
/// };
/// assert_eq!(serde_json::to_value([nothing, fuse])?[1]["minor"], 229);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRule {
    /// Whether it allows.
    pub allow: bool,
    /// `a`, `c` or `b`; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Major number; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Minor number; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Letters of `rwm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// Memory limits, bytes.
///
/// ```
/// use hull::spec::resources::Memory;
///
/// // `swap` counts memory and swap together: this lets the container swap out a gibibyte.
/// let memory = Memory { limit: Some(1 << 30), swap: Some(2 << 30), ..Memory::default() };
/// assert_eq!(memory.swap.unwrap() - memory.limit.unwrap(), 1 << 30);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Hard limit; -1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Soft limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Memory plus swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// Kernel memory (gone from the kernel).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    /// Kernel TCP memory (v1).
    #[serde(rename = "kernelTCP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    /// Tendency to swap, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    /// Disables the out-of-memory killer (v1).
    #[serde(rename = "disableOOMKiller")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
    /// Hierarchical accounting (v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below the present use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

/// CPU limits.
///
/// ```
/// use hull::spec::resources::Cpu;
///
/// // At most two CPUs' time, on the first four; twice the usual share where others want them too.
/// let cpu = Cpu {
///     quota: Some(200_000),
///     period: Some(100_000),
///     shares: Some(2048),
///     cpus: Some("0-3".into()),
///     ..Cpu::default()
/// };
/// assert_eq!(cpu.quota.unwrap() / 100_000, 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Relative weight (v1 scale).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Microseconds per period; negative is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Period, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    /// Real-time microseconds per period (v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    /// Real-time period (v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    /// CPU list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Memory node list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
    /// 1 makes the group idle class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// Task limit.
///
/// ```
/// use hull::spec::resources::Pids;
///
/// // Threads count too.
/// let pids = Pids { limit: Some(100) };
/// assert_eq!(serde_json::to_string(&pids)?, r#"{"limit":100}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pids {
    /// Number of tasks; -1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// Block device limits.
///
/// ```
/// use hull::spec::resources::{BlockIo, ThrottleDevice};
///
/// // Ten mebibytes a second to the disk 8:0.
/// let disk = ThrottleDevice { major: 8, minor: 0, rate: 10 << 20 };
/// let limits = BlockIo { throttle_write_bps_device: vec![disk], ..BlockIo::default() };
/// assert_eq!(serde_json::to_value(&limits)?["throttleWriteBpsDevice"][0]["rate"], 10_485_760);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// Weight, 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Weight against child groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    /// Weights by device.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<WeightDevice>,
    /// Read bytes a second.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Written bytes a second.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// Weight of one block device.
///
/// ```
/// use hull::spec::resources::{BlockIo, WeightDevice};
///
/// let disk = WeightDevice { major: 8, minor: 0, weight: Some(50), leaf_weight: None };
/// let limits = BlockIo { weight: Some(500), weight_device: vec![disk], ..BlockIo::default() };
/// assert!(limits.weight_device[0].weight < limits.weight);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Weight against child groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

/// Rate of one block device.
///
/// ```
/// use hull::spec::resources::{BlockIo, ThrottleDevice};
///
/// // A hundred reads a second, of whatever size.
/// let disk = ThrottleDevice { major: 259, minor: 0, rate: 100 };
/// let limits = BlockIo { throttle_read_iops_device: vec![disk], ..BlockIo::default() };
/// assert_eq!(serde_json::to_value(&limits)?["throttleReadIOPSDevice"][0]["major"], 259);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ThrottleDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// Huge page limit of one size.
///
/// ```
/// use hull::spec::resources::HugepageLimit;
///
/// // Eight pages of two mebibytes.
/// let limit = HugepageLimit { page_size: "2MB".into(), limit: 8 * (2 << 20) };
/// assert_eq!(serde_json::to_value(&limit)?["pageSize"], "2MB");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// Such as `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Network classes (v1).
///
/// ```
/// use hull::spec::resources::{InterfacePriority, Network};
///
/// // Packets of the container have class 10:1.
/// let network = Network { class_id: Some(0x10_0001), priorities: Vec::<InterfacePriority>::new() };
/// assert_eq!(serde_json::to_string(&network)?, r#"{"classID":1048577}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Class id of net_cls.
    #[serde(rename = "classID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    /// Priorities of net_prio.
    #[serde(deserialize_with = "super::objects", skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<InterfacePriority>,
}

/// Priority of one interface.
///
/// ```
/// use hull::spec::resources::{InterfacePriority, Network};
///
/// let first = InterfacePriority { name: "eth0".into(), priority: 7 };
/// let network = Network { priorities: vec![first], ..Network::default() };
/// assert_eq!(serde_json::to_value(&network)?["priorities"][0]["name"], "eth0");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterfacePriority {
    /// Interface.
    pub name: String,
    /// Priority.
    pub priority: u32,
}

/// RDMA limits of one device.
///
/// ```
/// use hull::spec::Resources;
/// use hull::spec::resources::Rdma;
///
/// let limit = Rdma { hca_handles: Some(2), hca_objects: Some(2000) };
/// let limits = Resources { rdma: [("mlx5_0".to_owned(), limit)].into(), ..Resources::default() };
/// assert_eq!(serde_json::to_value(&limits)?["rdma"]["mlx5_0"]["hcaHandles"], 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// Handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    /// Objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}
