//! One file a topic.

mod capabilities;
mod cgroups;
mod cli;
mod console;
mod devices;
mod escapes;
mod exec;
mod features;
mod hooks;
mod idmap;
mod lifecycle;
mod linux;
mod mount_options;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod rlimits;
mod seccomp;
mod sysctl;
mod time;
mod user;

use crate::suite::Topic;

/// In the order of the specification; the escapes last.
pub(crate) const ALL: &[Topic] = &[
    Topic { name: "lifecycle", tests: lifecycle::TESTS },
    Topic { name: "mounts", tests: mounts::TESTS },
    Topic { name: "mount-options", tests: mount_options::TESTS },
    Topic { name: "process", tests: process::TESTS },
    Topic { name: "user", tests: user::TESTS },
    Topic { name: "capabilities", tests: capabilities::TESTS },
    Topic { name: "rlimits", tests: rlimits::TESTS },
    Topic { name: "hooks", tests: hooks::TESTS },
    Topic { name: "namespaces", tests: namespaces::TESTS },
    Topic { name: "idmap", tests: idmap::TESTS },
    Topic { name: "time", tests: time::TESTS },
    Topic { name: "devices", tests: devices::TESTS },
    Topic { name: "cgroups", tests: cgroups::TESTS },
    Topic { name: "sysctl", tests: sysctl::TESTS },
    Topic { name: "seccomp", tests: seccomp::TESTS },
    Topic { name: "paths", tests: paths::TESTS },
    Topic { name: "linux", tests: linux::TESTS },
    Topic { name: "console", tests: console::TESTS },
    Topic { name: "exec", tests: exec::TESTS },
    Topic { name: "features", tests: features::TESTS },
    Topic { name: "cli", tests: cli::TESTS },
    Topic { name: "escapes", tests: escapes::TESTS },
];
