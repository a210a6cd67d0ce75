//! config.md "Valid values": runtimes MUST generate an error when invalid or unsupported values are encountered. And what they MUST ignore.
//!
//! A row is the property's JSON pointer and its value.

use anyhow::{Context as _, Result};

use crate::bundle::Bundle;
use crate::context::Context;
use crate::suite::{Test, case};

pub(crate) const TESTS: &[Test] = &[
    case(
        "version-zero",
        "ociVersion MUST be in SemVer v2.0.0 format: no leading zeros",
        refused,
        r#"/ociVersion "01.0.0""#,
    ),
    case(
        "version-stage",
        "ociVersion MUST be in SemVer v2.0.0 format: a stage has a name",
        refused,
        r#"/ociVersion "1.0.0-""#,
    ),
    case(
        "mount-without-destination",
        "mounts[].destination is REQUIRED",
        refused,
        r#"/mounts [{"type": "tmpfs", "source": "tmpfs"}]"#,
    ),
    case(
        "mount-half-mapped",
        "mounts[].uidMappings MUST be specified along with gidMappings",
        refused,
        r#"/mounts [{"destination": "/mnt", "source": "/etc", "options": ["bind", "idmap"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]"#,
    ),
    case(
        "mount-idmap-without-mappings",
        "idmap: without mappings and without a user namespace, an error MUST be returned",
        refused,
        r#"/mounts [{"destination": "/mnt", "source": "/etc", "options": ["bind", "idmap"]}]"#,
    ),
    case(
        "rlimit-without-hard",
        "rlimits[].hard is REQUIRED",
        refused,
        r#"/process/rlimits [{"type": "RLIMIT_CORE", "soft": 0}]"#,
    ),
    case(
        "hook-timeout-negative",
        "hooks: if set, timeout MUST be greater than zero",
        refused,
        r#"/hooks {"poststop": [{"path": "/bin/true", "timeout": -1}]}"#,
    ),
    case(
        "annotation-without-key",
        "annotations: keys MUST NOT be an empty string",
        refused,
        r#"/annotations {"": "x"}"#,
    ),
    case("annotation-number", "annotations: values MUST be strings", refused, r#"/annotations {"a": 1}"#),
    case(
        "device-rule-type",
        "resources.devices[].type: a, c or b",
        refused,
        r#"/linux/resources/devices [{"allow": true, "type": "p", "access": "rwm"}]"#,
    ),
    case(
        "device-rule-access",
        "resources.devices[].access: a composition of r, w and m",
        refused,
        r#"/linux/resources/devices [{"allow": true, "type": "c", "access": "q"}]"#,
    ),
    case(
        "swappiness",
        "memory.swappiness: the values are from 0 to 100",
        refused,
        r#"/linux/resources/memory {"swappiness": 101}"#,
    ),
    case(
        "rdma-nothing",
        "rdma: you MUST specify at least one of hcaHandles or hcaObjects",
        refused,
        r#"/linux/resources/rdma {"mlx5_1": {}}"#,
    ),
    case(
        "weight-nothing",
        "blockIO.weightDevice: you MUST specify at least one of weight or leafWeight",
        refused,
        r#"/linux/resources/blockIO {"weightDevice": [{"major": 8, "minor": 0}]}"#,
    ),
    case(
        "unified-path",
        "unified: each key refers to a file in the cgroup",
        refused,
        r#"/linux/resources/unified {"../cgroup.procs": "1"}"#,
    ),
    case(
        "rdt-bandwidth",
        "intelRdt.memBwSchema MUST start with MB:",
        refused,
        r#"/linux/intelRdt {"closID": "/", "memBwSchema": "L3:0=f"}"#,
    ),
    case(
        "rdt-lines",
        "intelRdt.schemata: each element is one line",
        refused,
        r#"/linux/intelRdt {"closID": "/", "schemata": ["L3:0=f\nMB:0=10"]}"#,
    ),
    case(
        "memory-policy-default",
        "memoryPolicy: MPOL_DEFAULT requires that there are no nodes",
        refused,
        r#"/linux/memoryPolicy {"mode": "MPOL_DEFAULT", "nodes": "0"}"#,
    ),
    case(
        "memory-policy-bind",
        "memoryPolicy: MPOL_BIND requires at least one node",
        refused,
        r#"/linux/memoryPolicy {"mode": "MPOL_BIND"}"#,
    ),
    case("seccomp-default-action", "seccomp.defaultAction is REQUIRED", refused, r#"/linux/seccomp {"syscalls": []}"#),
    case(
        "seccomp-default-errno",
        "seccomp.defaultErrnoRet: when the action does not support an errno, the runtime MUST print an error and fail",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5}"#,
    ),
    case(
        "seccomp-names",
        "seccomp.syscalls[].names MUST contain at least one entry",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}"#,
    ),
    case(
        "seccomp-operator",
        "seccomp.syscalls[].args[].op is REQUIRED",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1}]}]}"#,
    ),
    case(
        "seccomp-index",
        "seccomp.syscalls[].args[].index: there are six arguments",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
    ),
    case(
        "seccomp-architecture",
        "seccomp.architectures: a name that is not in the list",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_WHATEVER"]}"#,
    ),
    case(
        "seccomp-flag",
        "seccomp.flags: a name that is not in the list",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WHATEVER"]}"#,
    ),
    case(
        "seccomp-metadata",
        "seccomp.listenerMetadata MUST NOT be set if listenerPath is not set",
        refused,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}"#,
    ),
    case("masked-root", "maskedPaths: the root is masked, or an error", refused, r#"/linux/maskedPaths ["/"]"#),
    case(
        "seccomp-listener-unused",
        "seccomp.listenerPath: if the SCMP_ACT_NOTIFY action is not used this value is ignored",
        accepted,
        r#"/linux/seccomp {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nonexistent"}"#,
    ),
    case(
        "console-size-unused",
        "consoleSize: MUST be ignored if terminal is false or unset",
        accepted,
        r#"/process/consoleSize {"height": 100000, "width": 80}"#,
    ),
    case(
        "annotation-unknown",
        "annotations: runtimes MUST handle unknown annotation keys like any other unknown property",
        accepted,
        r#"/annotations {"org.opencontainers.unknown": ""}"#,
    ),
    case(
        "version-build",
        "ociVersion in SemVer v2.0.0 format with stage and build",
        accepted,
        r#"/ociVersion "1.0.2-rc.1+build-7""#,
    ),
];

fn with<'a>(context: &'a Context, row: &str) -> Result<Bundle<'a>> {
    let (pointer, value) = row.split_once(' ').context("a row is a pointer and a value")?;
    let mut bundle = context.bundle()?;
    bundle.set(pointer, serde_json::from_str(value)?);
    Ok(bundle)
}

fn refused(context: &Context, row: &str) -> Result<()> {
    with(context, row)?.refused().map(drop)
}

fn accepted(context: &Context, row: &str) -> Result<()> {
    with(context, row)?.run_script("true").map(drop)
}
