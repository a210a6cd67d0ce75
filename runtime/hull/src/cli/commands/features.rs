//! `hull features`: what this program supports, whether or not the machine has it, as the specification demands. The
//! exception, also the specification's, are `supportedFlags` of seccomp. `hull info` tells what the machine has.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::parse::Parsed;
use super::super::{Global, SPEC_VERSION, print_json};
use crate::error::Result;
use crate::process::launch::KEEP_GROUPS;
use crate::process::wasm::config::Config;
use crate::process::{caps, landlock, wasm};
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
    namespaces: &'static [&'static str],
    capabilities: &'static [&'static str],
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
    actions: &'static [&'static str],
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

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
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

pub(in super::super) fn run(global: &Global, _: &Parsed) -> Result<i32> {
    let supported: Vec<&str> =
        FLAGS.iter().filter(|(_, f)| hull_sys::seccomp::flag_available(*f)).map(|(n, _)| *n).collect();
    let features = Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mount_options: options::known_names().collect(),
        linux: Linux {
            namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            capabilities: caps::NAMES,
            cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: Seccomp {
                enabled: seccomp::Arch::native().is_some(),
                actions: ACTIONS,
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
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
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
