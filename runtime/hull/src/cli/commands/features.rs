//! `hull features`: every line is true of this binary and of the kernel that it runs on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::parse::Parsed;
use super::super::{Global, SPEC_VERSION, print_json};
use crate::cgroup::layout::Layout;
use crate::error::Result;
use crate::process::launch::KEEP_GROUPS;
use crate::process::wasm::config::Config;
use crate::process::{caps, labels, landlock, wasm};
use crate::rootfs::options;
use crate::seccomp;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<&'static str>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Vec<&'static str>,
    operators: &'static [&'static str],
    archs: Vec<&'static str>,
    known_flags: Vec<&'static str>,
    supported_flags: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: &'static [&'static str],
    flags: &'static [&'static str],
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// Actions with the kernel's value.
const ACTIONS: &[(&str, u32)] = &[
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_TRAP", 0x0003_0000),
];

const FLAGS: &[(&str, u32)] = &[
    ("SECCOMP_FILTER_FLAG_LOG", hull_sys::seccomp::FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", hull_sys::seccomp::FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", hull_sys::seccomp::FLAG_TSYNC),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        hull_sys::seccomp::FLAG_WAIT_KILLABLE_RECV | hull_sys::seccomp::FLAG_NEW_LISTENER,
    ),
];

const NAMESPACES: &[(&str, &str)] = &[
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

pub(in super::super) fn run(global: &Global, _: &Parsed) -> Result<i32> {
    let layout = Layout::detect().unwrap_or_default();
    let there = |path: &str| rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok();
    let supported: Vec<&str> =
        FLAGS.iter().filter(|(_, f)| hull_sys::seccomp::flag_available(*f)).map(|(n, _)| *n).collect();
    let features = Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mount_options: options::known_names().collect(),
        linux: Linux {
            namespaces: NAMESPACES
                .iter()
                .filter(|(_, file)| there(&format!("/proc/self/ns/{file}")))
                .map(|(n, _)| *n)
                .collect(),
            capabilities: caps::names(caps::known_by_kernel()).collect(),
            cgroup: Cgroup {
                v1: !layout.v1.is_empty(),
                v2: layout.v2.is_some(),
                systemd: there("/run/systemd/system"),
                systemd_user: there("/run/systemd/system") && layout.unified(),
                rdma: layout.v1.iter().any(|h| h.controllers.iter().any(|c| c == "rdma"))
                    || has_controller(&layout, "rdma"),
            },
            seccomp: Seccomp {
                enabled: seccomp::Arch::native().is_some(),
                actions: ACTIONS
                    .iter()
                    .filter(|(_, value)| hull_sys::seccomp::action_available(*value))
                    .map(|(n, _)| *n)
                    .collect(),
                operators: &[
                    "SCMP_CMP_EQ",
                    "SCMP_CMP_GE",
                    "SCMP_CMP_GT",
                    "SCMP_CMP_LE",
                    "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                archs: seccomp::Arch::native()
                    .map_or(&[][..], seccomp::Arch::family)
                    .iter()
                    .map(|a| a.name())
                    .collect(),
                known_flags: FLAGS.iter().map(|(n, _)| *n).collect(),
                supported_flags: supported,
            },
            apparmor: Enabled { enabled: labels::apparmor_enabled() },
            selinux: Enabled { enabled: labels::selinux_enabled() },
            intel_rdt: IntelRdt {
                enabled: there("/sys/fs/resctrl/schemata"),
                schemata: there("/sys/fs/resctrl/schemata"),
                monitoring: there("/sys/fs/resctrl/mon_groups"),
            },
            memory_policy: MemoryPolicy {
                modes: &[
                    "MPOL_BIND",
                    "MPOL_DEFAULT",
                    "MPOL_INTERLEAVE",
                    "MPOL_LOCAL",
                    "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY",
                    "MPOL_WEIGHTED_INTERLEAVE",
                ],
                flags: &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
            net_devices: Enabled { enabled: true },
        },
        annotations: annotations(&Config::load(global.wasm_config.as_deref())?),
        potentially_unsafe_config_annotations: &["org.systemd.property.", wasm::HANDLER, wasm::VARIANT, KEEP_GROUPS],
    };
    print_json(&features)
}

fn has_controller(layout: &Layout, name: &str) -> bool {
    layout.v2.as_ref().is_some_and(|mount| {
        crate::files::read_text(&format!("{mount}/cgroup.controllers"), 4096)
            .is_ok_and(|t| t.split_whitespace().any(|c| c == name))
    })
}

fn annotations(config: &Config) -> BTreeMap<&'static str, String> {
    let mut out = BTreeMap::new();
    out.insert("dev.hull.version", super::super::VERSION.to_owned());
    out.insert("dev.hull.landlock.annotation", landlock::ANNOTATION.to_owned());
    out.insert("dev.hull.landlock.abi", hull_sys::landlock::abi().unwrap_or(0).to_string());
    // Depends on the installed program; without it, containers that need it are refused.
    out.insert("dev.hull.wasm.enabled", config.program().is_ok().to_string());
    out.insert("dev.hull.wasm.program", config.program().unwrap_or_default());
    // Whether the runtime can ask CRIU; whether CRIU can do it on this kernel is what `criu check` says.
    out.insert("org.opencontainers.runc.checkpoint.enabled", super::checkpoint::criu_installed().to_string());
    out
}
