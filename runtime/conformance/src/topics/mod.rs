//! One file a topic.

mod apparmor;
mod capabilities;
mod cgroup2;
mod cgroup_view;
mod cgroups;
mod checkpoint;
mod cli;
mod console;
mod devices;
mod escapes;
mod exec;
mod features;
mod flags;
mod hooks;
mod idmap;
mod lifecycle;
mod linux;
mod mount_options;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod reported;
mod rlimits;
mod rootless;
mod seccomp;
mod sysctl;
mod systemd;
mod time;
mod user;
mod values;
mod wasm;

use crate::suite::Topic;

/// In the order of the specification; the escapes last.
pub(crate) const ALL: &[Topic] = &[
    Topic { name: "lifecycle", tests: lifecycle::TESTS },
    Topic { name: "mounts", tests: mounts::TESTS },
    Topic { name: "mount-options", tests: mount_options::TESTS },
    Topic { name: "process", tests: process::TESTS },
    Topic { name: "user", tests: user::TESTS },
    Topic { name: "capabilities", tests: capabilities::TESTS },
    Topic { name: "apparmor", tests: apparmor::TESTS },
    Topic { name: "rlimits", tests: rlimits::TESTS },
    Topic { name: "hooks", tests: hooks::TESTS },
    Topic { name: "namespaces", tests: namespaces::TESTS },
    Topic { name: "idmap", tests: idmap::TESTS },
    Topic { name: "time", tests: time::TESTS },
    Topic { name: "devices", tests: devices::TESTS },
    Topic { name: "cgroups", tests: cgroups::TESTS },
    Topic { name: "cgroup2", tests: cgroup2::TESTS },
    Topic { name: "cgroup-view", tests: cgroup_view::TESTS },
    Topic { name: "systemd", tests: systemd::TESTS },
    Topic { name: "sysctl", tests: sysctl::TESTS },
    Topic { name: "seccomp", tests: seccomp::TESTS },
    Topic { name: "paths", tests: paths::TESTS },
    Topic { name: "linux", tests: linux::TESTS },
    Topic { name: "values", tests: values::TESTS },
    Topic { name: "console", tests: console::TESTS },
    Topic { name: "exec", tests: exec::TESTS },
    Topic { name: "features", tests: features::TESTS },
    Topic { name: "cli", tests: cli::TESTS },
    Topic { name: "flags", tests: flags::TESTS },
    Topic { name: "wasm", tests: wasm::TESTS },
    Topic { name: "checkpoint", tests: checkpoint::TESTS },
    Topic { name: "reported", tests: reported::TESTS },
    Topic { name: "rootless", tests: rootless::TESTS },
    Topic { name: "escapes", tests: escapes::TESTS },
];
