//! The OCI configuration of a workspace's container: a pure function of what the workspace is given.

use std::collections::BTreeMap;

use hull::spec::{
    Capabilities, Linux, Mount, Namespace, NamespaceType, Process, Resources, Rlimit, Root, Spec, User,
    resources::{BlockIo, Cpu, DeviceRule, Memory, Pids, ThrottleDevice},
};
use serde::{Deserialize, Serialize};

use super::seccomp;

/// Where berth-init is inside.
pub const INIT: &str = "/.berth/bin/berth-init";
/// What each start brings of git's configuration; it includes the image's own.
pub const GIT_CONFIG: &str = "/.berth/gitconfig";
/// Git's system-wide configuration inside, which berth-init makes on the disk; it includes [`GIT_CONFIG`].
const SYSTEM_GIT_CONFIG: &str = "/.berth/system.gitconfig";
/// Cgroup of all workspaces of a BERTH_HOME.
#[must_use]
pub fn cgroup(home: &std::path::Path) -> String {
    match crate::network::slot::tag(home) {
        0 => "/berth".to_owned(),
        tag => format!("/berth-{tag:04x}"),
    }
}

/// What a workspace may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Memory limit in bytes; there is no swap on top of it.
    pub memory_bytes: i64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes per second of disk traffic, each direction. On cgroup v1: reads and direct writes only.
    #[serde(default)]
    pub io_bytes_per_second: Option<u64>,
    /// No program gains rights by being executed: sudo does not work.
    #[serde(default)]
    pub no_new_privileges: bool,
}

/// All that the configuration depends on.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// Id of the instance: names the cgroup.
    pub instance: &'a str,
    /// Cgroup that its own goes into.
    pub cgroup: &'a str,
    /// Host name inside.
    pub hostname: &'a str,
    /// Bundle, absolute: its files are bound into the container.
    pub bundle: &'a str,
    /// berth-init on the host.
    pub init: &'a str,
    /// User namespace, by path.
    pub user_namespace: &'a str,
    /// Network namespace, by path.
    pub network_namespace: &'a str,
    /// The image's environment, `NAME=value`.
    pub image_env: &'a [String],
    /// The image's user; empty is root.
    pub user: &'a str,
    /// Environment of every process.
    pub env: &'a BTreeMap<String, String>,
    /// Default working directory.
    pub cwd: &'a str,
    /// Limits.
    pub limits: &'a Limits,
    /// Open files that a process may ask for, whoever started us; at most what we may give.
    pub open_files: u64,
    /// How dear the kernel holds this process when memory runs out (`oom_score_adj`); what protects us must not protect workspaces.
    pub own_oom_score: i32,
    /// The disk's device, for `limits.io_bytes_per_second`.
    pub disk_device: Option<(u32, u32)>,
}

/// Open files that a process may have before it asks for more: above it, programs that use `select` break.
const SOFT_OPEN_FILES: u64 = 1024;
/// Open files that a process may ask for: what a login on Debian has, and not so many that programs that close them all take seconds.
pub const HARD_OPEN_FILES: u64 = 512 * 1024;

/// Capabilities inside, enough for package managers and sudo. They count for nothing on the host, since they are of the workspace's own user
/// namespace.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        r#type: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn namespace(kind: NamespaceType, path: Option<&str>) -> Namespace {
    Namespace { r#type: kind, path: path.map(str::to_owned) }
}

/// The configuration.
#[must_use]
pub fn spec(inputs: &Inputs<'_>) -> Spec {
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    let mut args = vec![INIT.to_owned(), "init".to_owned(), "--listen-fd".to_owned(), "3".to_owned()];
    if !inputs.user.is_empty() {
        args.extend(["--user".to_owned(), inputs.user.to_owned()]);
    }
    args.extend(["--cwd".to_owned(), inputs.cwd.to_owned()]);
    for (name, value) in inputs.env {
        args.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    let mut env: Vec<String> = inputs.image_env.to_vec();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    env.push(format!("GIT_CONFIG_SYSTEM={SYSTEM_GIT_CONFIG}"));
    let bound = |name: &str, at: &str| {
        mount(at, "bind", &format!("{}/{name}", inputs.bundle), &["bind", "ro", "nosuid", "nodev", "noexec"])
    };
    Spec {
        oci_version: "1.2.0".to_owned(),
        process: Some(Process {
            // PID 1 is root inside; what it starts is the image's user.
            user: User::default(),
            args,
            env,
            cwd: "/".to_owned(),
            capabilities: Some(Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..Capabilities::default()
            }),
            no_new_privileges: inputs.limits.no_new_privileges,
            rlimits: vec![Rlimit {
                r#type: "RLIMIT_NOFILE".to_owned(),
                hard: inputs.open_files,
                soft: inputs.open_files.min(SOFT_OPEN_FILES),
            }],
            oom_score_adj: (inputs.own_oom_score < 0).then_some(0),
            ..Process::default()
        }),
        root: Some(Root { path: "rootfs".to_owned(), readonly: false }),
        hostname: Some(inputs.hostname.to_owned()),
        mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &format!("size={}", inputs.limits.memory_bytes / 2)],
            ),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            mount(INIT, "bind", inputs.init, &["bind", "ro", "nosuid", "nodev"]),
            mount("/.berth/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "mode=755", "size=1m"]),
            bound("gitconfig", GIT_CONFIG),
            bound("hosts", "/etc/hosts"),
            bound("hostname", "/etc/hostname"),
            bound("resolv.conf", "/etc/resolv.conf"),
        ],
        linux: Some(Linux {
            namespaces: vec![
                namespace(NamespaceType::User, Some(inputs.user_namespace)),
                namespace(NamespaceType::Network, Some(inputs.network_namespace)),
                namespace(NamespaceType::Pid, None),
                namespace(NamespaceType::Mount, None),
                namespace(NamespaceType::Ipc, None),
                namespace(NamespaceType::Uts, None),
                namespace(NamespaceType::Cgroup, None),
            ],
            cgroups_path: Some(format!("{}/{}", inputs.cgroup, inputs.instance)),
            resources: Some(resources(inputs)),
            seccomp: Some(seccomp::profile()),
            masked_paths: MASKED.iter().map(|path| (*path).to_owned()).collect(),
            readonly_paths: READ_ONLY.iter().map(|path| (*path).to_owned()).collect(),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn resources(inputs: &Inputs<'_>) -> Resources {
    let limits = inputs.limits;
    let block_io = limits.io_bytes_per_second.zip(inputs.disk_device).map(|(rate, (major, minor))| {
        let device = vec![ThrottleDevice { major: major.into(), minor: minor.into(), rate }];
        BlockIo { throttle_read_bps_device: device.clone(), throttle_write_bps_device: device, ..BlockIo::default() }
    });
    Resources {
        devices: vec![DeviceRule { allow: false, access: Some("rwm".to_owned()), ..DeviceRule::default() }],
        memory: Some(Memory { limit: Some(limits.memory_bytes), swap: Some(limits.memory_bytes), ..Memory::default() }),
        cpu: Some(Cpu {
            // A tenth of a second; a thousandth of a core is a hundred microseconds of it.
            period: Some(100_000),
            quota: Some(i64::from(limits.cpu_millis) * 100),
            shares: Some((u64::from(limits.cpu_millis) * 1024 / 1000).max(2)),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: Some(limits.pids.into()) }),
        block_io,
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs<'a>(
        limits: &'a Limits,
        env: &'a BTreeMap<String, String>,
        image_env: &'a [String],
        user: &'a str,
    ) -> Inputs<'a> {
        Inputs {
            instance: "019ab0e2-7c1e-7d30-8f6b-3f9a1d0c5e77",
            cgroup: "/berth",
            hostname: "hello",
            bundle: "/var/lib/berth/run/instances/019ab0e2",
            init: "/var/lib/berth/bin/1/berth-init",
            user_namespace: "/proc/1/fd/9",
            network_namespace: "/var/lib/berth/run/network/3",
            image_env,
            user,
            env,
            cwd: "/workspace/hello",
            limits,
            open_files: HARD_OPEN_FILES,
            own_oom_score: 0,
            disk_device: Some((7, 3)),
        }
    }

    fn limits() -> Limits {
        Limits {
            cpu_millis: 1500,
            memory_bytes: 1 << 30,
            disk_bytes: 10 << 30,
            pids: 512,
            io_bytes_per_second: None,
            no_new_privileges: false,
        }
    }

    #[test]
    fn the_configuration_is_as_recorded() {
        let limits = Limits { io_bytes_per_second: Some(50_000_000), ..limits() };
        let env = BTreeMap::from([("BERTH_INSTANCE_ID".to_owned(), "x".to_owned())]);
        let mut spec = spec(&inputs(&limits, &env, &["PATH=/bin".to_owned()], "node"));
        // Recorded with its own test.
        spec.linux.as_mut().unwrap().seccomp = None;
        insta::assert_json_snapshot!(spec);
    }

    #[test]
    fn a_protected_server_does_not_protect_workspaces() {
        let (env, limits) = (BTreeMap::new(), limits());
        let score = |own_oom_score| {
            spec(&Inputs { own_oom_score, ..inputs(&limits, &env, &[], "") }).process.unwrap().oom_score_adj
        };
        // As with our systemd unit; otherwise nothing is changed, which not every host allows.
        assert_eq!((score(-900), score(0), score(200)), (Some(0), None, None));
    }

    #[test]
    fn a_class_can_forbid_new_privileges() {
        let env = BTreeMap::new();
        let strict = Limits { no_new_privileges: true, ..limits() };
        assert!(spec(&inputs(&strict, &env, &[], "")).process.unwrap().no_new_privileges);
        let plain = spec(&inputs(&limits(), &env, &[], "")).process.unwrap();
        assert!(!plain.no_new_privileges);
        assert!(plain.env.iter().any(|entry| entry.starts_with("PATH=/usr/local/sbin")));
        assert!(!plain.args.contains(&"--user".to_owned()));
        assert!(!CAPABILITIES.contains(&"CAP_SYS_ADMIN"));
    }
}
